"""A run taken away as ONNX gives the same vectors, without diptych."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from tokenizers import Tokenizer
from torch import nn

from diptych import export
from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import PairEncoder
from diptych.predictor import load
from tests.models.systems import SPEC, Case
from tests.train.toys import Guess

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ["a large red circle", "", "ein Wörtchen 一个红色的圆 <pad> ...", "far too long " * 30]


@pytest.fixture(scope="module")
def exported(run_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taken") / "away"
    return export.export_onnx(run_folder, folder)


def test_vectors_of_texts_are_those_of_the_predictor(exported, run_folder):
    backend = Tokenizer.from_file(str(exported.folder / "tokenizer.json"))
    encoded = backend.encode_batch(TEXTS)
    session = onnxruntime.InferenceSession(exported.folder / "text.onnx")
    tokens = np.array([one.ids for one in encoded])
    mask = np.array([one.attention_mask for one in encoded], bool)
    (vectors,) = session.run(None, {"tokens": tokens, "mask": mask})
    assert tokens.shape[1] == exported.facts["text"]["context"]
    np.testing.assert_allclose(vectors, load(run_folder).embed_text(TEXTS), atol=1e-4)
    assert exported.text < 1e-4


@pytest.mark.parametrize("count", [1, 2, 7])
def test_vectors_of_any_number_of_pictures_are_those_of_the_predictor(exported, run_folder, count):
    side = exported.facts["image"]["size"]
    pictures = np.random.default_rng(count).integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    session = onnxruntime.InferenceSession(exported.folder / "image.onnx")
    (vectors,) = session.run(None, {"image": pictures})
    np.testing.assert_allclose(vectors, load(run_folder).embed_image(list(pictures)), atol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


def test_the_facts_say_how_to_use_it(exported, run_folder):
    facts = json.loads((exported.folder / "encoders.json").read_text())
    assert facts == exported.facts
    assert facts["vectors"]["dim"] == load(run_folder).embed_text("a").shape[1]
    assert (facts["image"]["size"], facts["image"]["crop"]) == (64, "squash")
    assert max(facts["difference_to_torch"].values()) <= export.LARGEST
    assert {path.name for path in exported.folder.iterdir()} == {
        "image.onnx",
        "text.onnx",
        "tokenizer.json",
        "encoders.json",
    }


def test_the_example_needs_no_diptych_and_agrees_with_the_predictor(exported, run_folder, table):
    paths = [str(table.parent / "photos" / f"{number:03}.png") for number in (3, 1, 2)]
    code = (ROOT / "examples" / "onnx_without_diptych.py").read_text()
    guard = "import sys; sys.modules |= dict.fromkeys(('diptych', 'torch', 'transformers'))\n"
    done = subprocess.run(
        [sys.executable, "-c", guard + code, str(exported.folder), "a large red circle", *paths],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    found = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    cosines = load(run_folder).similarity(paths, "a large red circle")[:, 0]
    order = np.argsort(-cosines)
    assert [path for _, path in found] == [paths[place] for place in order]
    np.testing.assert_allclose([float(cosine) for cosine, _ in found], cosines[order], atol=2e-3)


def test_the_command_says_what_it_wrote(cli, run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_write", lambda side, path, examples, wanted: 1e-7)
    status, out, _ = cli("export", run_folder, "--onnx", tmp_path / "made" / "here")
    assert status == 0
    assert "torch +- 1.0e-07" in out
    assert (tmp_path / "made" / "here" / "tokenizer.json").is_file()


class Odd(nn.Module):
    """A graph that is exported as something else than what it is."""

    def __init__(self, error: float) -> None:
        super().__init__()
        self.error = error

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.float() + (self.error if torch.compiler.is_compiling() else 0.0)


@pytest.mark.parametrize(("error", "refused"), [(0.0, False), (5e-5, False), (2e-4, True), (float("nan"), True)])
def test_what_differs_too_much_is_refused_and_not_kept(error, refused, tmp_path):
    graph, path = Odd(error), tmp_path / "image.onnx"
    given = [(torch.zeros(count, 3),) for count in (2, 1)]
    side = export._Side("image", graph, {"image": {0: "batch"}})
    wanted = [graph(*each) for each in given]
    if not refused:
        assert export._write(side, path, given, wanted) == pytest.approx(error, rel=1e-3)
        return
    with pytest.raises(UserError, match=r"image encoder differs from torch by .*allowed is 1e-04"):
        export._write(side, path, given, wanted)
    assert not path.exists()


class Unsayable(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(image).real


def test_layers_without_a_form_in_onnx_are_one_line(tmp_path):
    given = [(torch.eye(3).expand(2, 3, 3),)]
    with pytest.raises(UserError, match="the image encoder has no form in ONNX: ") as caught:
        export._write(export._Side("image", Unsayable(), {"image": {0: "batch"}}), tmp_path / "x", given, [given[0][0]])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_mistakes_are_one_line(cli, run_folder, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    status, _, err = cli("export", run_folder, "--onnx", tmp_path / "file")
    assert (status, err.count("\n")) == (2, 1)
    assert "cannot write" in err
    assert "no run" in cli("export", tmp_path / "nowhere", "--onnx", tmp_path / "out")[2]
    find = export.importlib.util.find_spec
    monkeypatch.setattr(export.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name))
    assert "pip install 'diptych[onnx]'" in cli("export", run_folder, "--onnx", tmp_path / "out")[2]


def test_a_system_without_vectors_for_both_says_so(run_folder, tmp_path, monkeypatch):
    from dataclasses import replace

    real = export.load_run
    monkeypatch.setattr(export, "load_run", lambda run: replace(real(run), system="words", model=Guess()))
    with pytest.raises(UserError, match=r"words has no vectors of pictures and texts in one space"):
        export.export_onnx(run_folder, tmp_path / "out")


SETTINGS = [
    ("clip", {"image_encoder": "resnet", "image_width": 8, "image_blocks": (1, 1)}),
    ("clip", {"image_read": "cells", "text_read": "cells", "queries": 2, "mirror": True}),
    ("unicl", {"image_encoder": "swin", "image_patch": 2, "image_depths": (1, 2), "image_window": 3}),
    ("mae_clip", {}),
    ("sgraf", {"match_dim": 8, "similarity_dim": 8}),
    ("vsrn", {"region_dim": 8}),
    *(pytest.param(system, {}, marks=pytest.mark.training) for system in ("siglip", "shared", "mvae", "mutual")),
]  # the last four read as the others do, and each takes a quarter of a minute


@pytest.mark.slow
@pytest.mark.parametrize(("system", "settings"), SETTINGS, ids=str)
def test_every_kind_of_pair_encoder_can_be_taken_away(system, settings, tmp_path):
    model = Case(system, tuple(settings.items())).build().eval().requires_grad_(False)
    assert isinstance(model, PairEncoder)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    pictures = [export._pictures(count, SPEC.image_size) for count in (2, 1, 3)]
    texts = []
    for count, length in ((2, 5), (1, 3), (3, 8)):
        tokens = torch.randint(4, SPEC.vocabulary, (count, length))
        real = torch.arange(length).expand(count, -1) < torch.randint(3, length + 1, (count, 1))
        texts.append((tokens.where(real, SPEC.pad_id), real))
    with torch.no_grad():
        seen = [model.encode_image(Batch(image=one.permute(0, 3, 1, 2))) for (one,) in pictures]
        read = [model.encode_text(Batch(tokens=tokens, token_mask=mask)) for tokens, mask in texts]
    for side, given, wanted in zip(export.sides(model), (pictures, texts), (seen, read), strict=True):
        assert export._write(side, tmp_path / "made.onnx", given, wanted) <= export.LARGEST
