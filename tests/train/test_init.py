"""Going on from an earlier run: weights arrive as they were, grids are resized, and what does not fit is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn.functional import interpolate

from diptych import models
from diptych.core.batch import DataSpec
from diptych.core.errors import UserError
from diptych.core.model import Model
from diptych.core.saved import named_weights, read_tensors
from diptych.encoders.towers import ImageTowerConfig
from diptych.nn.resize import resize_positions
from diptych.train.checkpoint import save_model
from diptych.train.init import begin_with
from tests.fixtures import sets
from tests.models.systems import CASES
from tests.models.systems import SPEC as CASE_SPEC

SMALL = {
    "image_patch": 4,
    "image_dim": 16,
    "image_layers": 1,
    "image_heads": 2,
    "image_width": 8,
    "image_blocks": (1, 1),
    "image_depths": (1, 1),
    "text_dim": 16,
    "text_layers": 1,
    "text_heads": 2,
    "dim": 12,
}
SPEC = DataSpec(image_size=16, vocabulary=40, context=8)


def build(*, image_size: int = 16, system: str = "unicl", **settings: object) -> tuple[Model, object]:
    module = models.load(system)
    config = module.Config.parse({name: SMALL[name] for name in SMALL if name in module.Config.model_fields} | settings)
    return module.build(config, SPEC.model_copy(update={"image_size": image_size})), config


@pytest.fixture
def earlier(tmp_path: Path):
    def save(**settings: object) -> tuple[Path, dict]:
        model, config = build(**settings)
        record = {"system": "unicl", "config": config.model_dump(mode="json"), "spec": SPEC.model_dump(mode="json")}
        save_model(tmp_path / "earlier", model, record)
        return tmp_path / "earlier", {name: value.detach().clone() for name, value in named_weights(model).items()}

    return save


@pytest.mark.parametrize("kind", ["vit", "resnet", "swin"])
@pytest.mark.parametrize("pool", ["class", "mean"])
def test_equal_settings_give_equal_weights(kind: str, pool: str, earlier):
    folder, weights = earlier(image_encoder=kind, image_pool=pool)
    model, config = build(image_encoder=kind, image_pool=pool, tower_dropout=0.1, system="clip")
    begin_with(model, str(folder), config)
    for name, value in named_weights(model).items():
        assert torch.equal(value, weights[name]), name


@pytest.mark.parametrize(
    ("kind", "settings", "changed"),
    [
        ("vit", {"image_pool": "class"}, "image_tower.positions"),
        ("vit", {"image_pool": "mean"}, "image_tower.positions"),
        ("resnet", {}, "image_tower.pool.positions"),
        ("swin", {"image_window": 3}, ""),
    ],
)
def test_larger_pictures_resize_positions_and_nothing_else(kind: str, settings: dict, changed: str, earlier):
    folder, weights = earlier(image_encoder=kind, **settings)
    model, config = build(image_size=32, image_encoder=kind, **settings)
    begin_with(model, str(folder), config)
    for name, value in named_weights(model).items():
        if name != changed:
            assert torch.equal(value, weights[name]), name
    image = torch.zeros(1, 3, 32, 32)
    assert torch.isfinite(model.image_tower(image).summary).all()
    if changed:
        old, new = weights[changed], named_weights(model)[changed]
        extra = len(old) % 2  # grids have an even number of places here
        assert torch.equal(new[:extra], old[:extra])
        side = round((len(old) - extra) ** 0.5)
        grid = old[extra:].T.reshape(1, -1, side, side)
        wanted = interpolate(grid, (2 * side, 2 * side), mode="bicubic").flatten(2)[0].T
        torch.testing.assert_close(new[extra:], wanted)


def test_another_window_resizes_the_tables(earlier):
    folder, weights = earlier(image_encoder="swin", image_window=2)
    model, config = build(image_encoder="swin", image_window=4)
    begin_with(model, str(folder), config)
    name = "image_tower.blocks.0.attention.bias_table"
    new = named_weights(model)[name]
    assert new.shape == (49, 1)
    assert weights[name].shape == (9, 1)
    torch.testing.assert_close(new.view(7, 7)[3, 3], weights[name].view(3, 3)[1, 1], msg="no step stays no step")


def test_resizing_to_the_same_grid_and_a_constant_change_nothing():
    positions = torch.randn(17, 3)
    torch.testing.assert_close(resize_positions(positions, 16, extra=1), positions, atol=1e-6, rtol=0)
    flat = torch.full((4, 2), 0.7)
    torch.testing.assert_close(resize_positions(flat, 9), torch.full((9, 2), 0.7))


def test_what_does_not_fit_is_named(earlier, tmp_path):
    folder, _ = earlier()
    model, config = build(dim=8)
    with pytest.raises(
        UserError,
        match=r"does not fit at read_image\S+ and \d more \(12 x 16 there, 8 x 16 here\): dim was 12 and is 8",
    ):
        begin_with(model, str(folder), config)
    model, config = build(tower_activation="relu")
    with pytest.raises(UserError, match="tower_activation was 'gelu' and is 'relu'; give --set tower_activation as it"):
        begin_with(model, str(folder), config)
    model, config = build(image_layers=2)
    with pytest.raises(UserError, match=r"\(nothing there, 16 here\): image_layers was 1 and is 2"):
        begin_with(model, str(folder), config)
    with pytest.raises(UserError, match=r"no run in .*: there is no such folder"):
        begin_with(model, str(tmp_path / "none"), config)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="has no weights yet"):
        begin_with(model, str(folder), config)


def test_a_classifier_begins_with_the_image_tower_of_an_aligned_run_alone(earlier):
    folder, weights = earlier(image_encoder="vit")
    torch.manual_seed(1)
    module = models.load("dann")
    config = module.Config.parse({k: v for k, v in SMALL.items() if k in module.Config.model_fields})
    spec = SPEC.model_copy(update={"image_size": 32, "classes": ("a", "b")})
    model = module.build(config, spec)
    before = {name: value.detach().clone() for name, value in named_weights(model).items()}
    begin_with(model, str(folder), config)
    for name, value in named_weights(model).items():
        if not name.startswith("image_tower."):
            assert torch.equal(value, before[name]), name
        elif name != "image_tower.positions":
            assert torch.equal(value, weights[name]), name
    with pytest.raises(UserError, match="image_patch was 4 and is 8"):
        begin_with(model, str(folder), config.model_copy(update={"image_patch": 8}))


SYSTEMS = [
    case
    for case in CASES
    if issubclass(models.load(case.system).Config, ImageTowerConfig)
    and models.load(case.system).Config.learns != "classes"
]


@pytest.mark.parametrize("case", SYSTEMS, ids=str)
def test_a_classifier_begins_with_any_system_that_has_an_image_tower(case, tmp_path):
    earlier = case.build()
    record = {"system": case.system, "config": case.config().model_dump(mode="json"), "spec": CASE_SPEC.model_dump()}
    save_model(tmp_path, earlier, record)
    module = models.load("dann")
    kept = {k: v for k, v in case.config().model_dump().items() if k in ImageTowerConfig.model_fields}
    if case.system in ("data2vec", "mae", "mae_clip"):
        kept["image_encoder"] = "masked_vit"
    config = module.Config.parse(kept | {"dim": 4})
    model = module.build(config, CASE_SPEC)
    if not any(name.startswith("image_tower.") for name in named_weights(earlier)):
        with pytest.raises(UserError, match="has no image tower to begin with"):
            begin_with(model, str(tmp_path), config)
        return
    begin_with(model, str(tmp_path), config)
    image = torch.rand(2, 3, 16, 16)
    found, wanted = model.image_tower.eval()(image), earlier.image_tower.eval()(image)
    torch.testing.assert_close(found.summary, wanted.summary)


@pytest.mark.parametrize(
    ("system", "other", "told"),
    [("clip", "masked_vit", "hid no patches"), ("mae", "vit", "give --set image_encoder=masked_vit")],
)
def test_the_two_vision_transformers_are_not_mixed(system, other, told, tmp_path):
    parts = [models.load(name) for name in (system, "fine_tune")]
    spec = SPEC.model_copy(update={"classes": ("a", "b")})
    configs = [part.Config.parse({k: v for k, v in SMALL.items() if k in part.Config.model_fields}) for part in parts]
    record = {"system": system, "config": configs[0].model_dump(mode="json"), "spec": spec.model_dump(mode="json")}
    save_model(tmp_path, parts[0].build(configs[0], spec), record)
    config = configs[1].model_copy(update={"image_encoder": other})
    with pytest.raises(UserError, match=told):
        begin_with(parts[1].build(config, spec), str(tmp_path), config)


def test_a_run_without_an_image_tower_is_nothing_to_begin_a_classifier_with(earlier):
    folder, weights = earlier(image_encoder="vit")
    words = {name: value for name, value in weights.items() if not name.startswith("image_tower.")}
    save_file(words, folder / "model.safetensors")
    model = models.load("dann").build(models.load("dann").Config(), SPEC.model_copy(update={"classes": ("a", "b")}))
    config = models.load("dann").Config(image_patch=4, image_heads=2)
    with pytest.raises(UserError, match="'unicl', which has no image tower"):
        begin_with(model, str(folder), config)


def test_a_second_stage_goes_on_with_the_first_ones_words_and_weights(cli, run_folder, table, tmp_path):
    out = tmp_path / "second"
    more = sets(init=run_folder, image_size=96, steps=1, lr=1e-12, batch_size=2)
    status, _, err = cli("train", "unicl", table, "--out", out, *more, "--set", "only=label=red circle,blue square")
    assert status == 0, err
    assert (out / "tokenizer.json").read_text() == (run_folder / "tokenizer.json").read_text()
    before, after = (read_tensors(folder / "model.safetensors") for folder in (run_folder, out))
    assert before["image_tower.positions"].shape != after["image_tower.positions"].shape
    name = "text_tower.embedding.weight"
    torch.testing.assert_close(after[name], before[name], atol=1e-6, rtol=0)
    status, _, err = cli("evaluate", out, table)
    assert status == 0, err


def test_what_draws_begins_with_the_text_tower_alone(earlier):
    folder, weights = earlier(image_encoder="resnet", image_pool="mean")
    model, config = build(system="gan_cls", text_train="frozen")
    before = {name: value.detach().clone() for name, value in named_weights(model).items()}
    begin_with(model, str(folder), config)
    for name, value in named_weights(model).items():
        own = name.startswith("text_tower.")
        assert torch.equal(value, weights[name] if own else before[name]), name
    other, config = build(system="gan_cls", text_pool="mean")
    with pytest.raises(UserError, match="text_pool was 'auto' and is 'mean'"):
        begin_with(other, str(folder), config)
