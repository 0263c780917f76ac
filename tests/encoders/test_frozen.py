"""Features of frozen towers: what is read equals what is computed, after any kill, and nothing bad stays unsaid."""

from __future__ import annotations

import io
import os
import shutil
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.core.errors import UserError
from diptych.data.source import Row, Source
from diptych.data.tokenizer import Tokenizer
from diptych.encoders import store as store_module
from diptych.encoders.base import ImageEncoder
from diptych.encoders.frozen import FeatureStore, image_features, text_features
from diptych.encoders.image import ViT
from diptych.encoders.plan import apply_plan
from diptych.encoders.store import StoreFiles, cache_folder
from diptych.encoders.text import TextTransformer

TEXTS = ["a red circle", "two small blue squares above a large green triangle", "", "red", "a cross"] * 5


class Drawn(Source):
    """Some pictures in memory, two of them unreadable."""

    def __init__(self, count: int = 23, name: str = "drawn") -> None:
        self.name, self.problems = name, []
        rng = np.random.default_rng(0)
        self.files: list[bytes] = []
        for _ in range(count):
            file = io.BytesIO()
            Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(file, "PNG")
            self.files.append(file.getvalue())
        for bad, content in ((5, b""), (17, b"no picture")):
            if bad < count:
                self.files[bad] = content

    def __len__(self) -> int:
        return len(self.files)

    def row(self, index: int) -> Row:
        return Row(f"picture {index}", (), "train")

    def picture(self, index: int) -> bytes:
        return self.files[index]

    def splits(self) -> np.ndarray:
        return np.zeros(len(self), dtype=np.uint8)

    def fingerprint(self) -> str:
        return self.name


@pytest.fixture
def tower() -> ViT:
    return apply_plan(ViT(image_size=16, patch=8, dim=16, layers=1, heads=2, dropout=0.3), "frozen")


@pytest.fixture
def source() -> Drawn:
    return Drawn()


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, vocabulary=300)


def rows(source: Source) -> np.ndarray:
    return np.arange(len(source), dtype=np.int64)


def decoded(source: Drawn, index: int) -> torch.Tensor:
    picture = Image.open(io.BytesIO(source.files[index])).resize((16, 16), Image.Resampling.BICUBIC)
    return torch.tensor(np.array(picture)).permute(2, 0, 1)[None]


@pytest.mark.parametrize("memory", [0, 1 << 30])
@pytest.mark.parametrize("keep", ["summary", "tokens"])
def test_pictures_equal_the_tower_itself(tower: ViT, source: Drawn, tmp_path: Path, keep: str, memory: int):
    store = image_features(tower, source, rows(source), keep=keep, folder=tmp_path, batch_size=4, memory=memory)
    assert store.missing.tolist() == [5, 17]
    assert [problem.where for problem in store.problems] == ["picture 5", "picture 17"]
    items = np.array([20, 3, 3, 11], dtype=np.int64)
    states = store.states(items)
    expected = [tower(decoded(source, item)) for item in items.tolist()]
    # fp16 keeps 11 bits; one grey level between two ways of resizing moves a feature by far less than 2e-2.
    close = {"atol": 2e-2, "rtol": 2**-10}
    torch.testing.assert_close(states.summary, torch.cat([one.summary for one in expected]), **close)
    assert torch.equal(states.summary[1], states.summary[2])
    if keep == "tokens":
        torch.testing.assert_close(states.tokens, torch.cat([one.tokens for one in expected]), **close)
        assert states.mask.all()
    else:
        assert states.tokens.shape == (4, 0, 16)
        assert states.mask.shape == (4, 0)


def test_rounding_is_all_that_differs(tower: ViT, tmp_path: Path):
    class Same(Drawn):
        def picture(self, index: int) -> np.ndarray:
            return np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)

    source = Same(9)
    store = image_features(tower, source, rows(source), keep="tokens", folder=tmp_path)
    image = torch.stack([torch.from_numpy(source.picture(index)).permute(2, 0, 1) for index in range(9)])
    states = tower(image)
    torch.testing.assert_close(store.states(rows(source)).summary, states.summary, atol=1e-6, rtol=2**-11)
    torch.testing.assert_close(store.states(rows(source)).tokens, states.tokens, atol=1e-6, rtol=2**-11)
    mirrored = image_features(tower, source, rows(source), folder=tmp_path, mirror=True)
    expected = tower(image.flip(-1)).summary
    torch.testing.assert_close(mirrored.states(rows(source)).summary, expected, atol=1e-6, rtol=2**-11)
    assert mirrored.folder != store.folder


@pytest.mark.parametrize("keep", ["summary", "tokens"])
@pytest.mark.parametrize("pool", ["last", "mean"])
def test_texts_equal_the_tower_itself(tokenizer: Tokenizer, tmp_path: Path, keep: str, pool: str):
    tower = TextTransformer(vocabulary=tokenizer.vocabulary, context=9, dim=16, layers=2, heads=2, pool=pool)
    apply_plan(tower, "frozen")
    store = text_features(tower, tokenizer, TEXTS, keep=keep, folder=tmp_path, batch_size=3)
    items = np.array([1, 4, 2, 19], dtype=np.int64)
    states = store.states(items)
    tokens, mask = tokenizer([TEXTS[item] for item in items], 9)
    expected = tower(tokens, mask)
    torch.testing.assert_close(states.summary, expected.summary, atol=1e-5, rtol=2**-11)
    if keep == "tokens":
        assert torch.equal(states.mask, mask)
        real = mask[..., None]
        torch.testing.assert_close(states.tokens, expected.tokens * real, atol=1e-5, rtol=2**-11)
    else:
        assert states.tokens.shape == (4, 0, 16)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("at", [1, 2, 3, 4, 7])
def test_a_killed_store_goes_on_and_ends_the_same(
    tower: ViT, source: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
):
    def make(folder: Path) -> FeatureStore:
        return image_features(tower, source, rows(source), keep="tokens", folder=folder, batch_size=4)

    whole = make(tmp_path / "whole")
    calls = {"sync": 0, "encode": 0}
    sync, encode = os.fsync, ViT.encode

    def killing(descriptor: int) -> None:
        calls["sync"] += 1
        if calls["sync"] == at:
            raise Killed
        sync(descriptor)

    def counting(self: ImageEncoder, pixels: torch.Tensor) -> object:
        calls["encode"] += 1
        return encode(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(store_module.os, "fsync", killing)
        with pytest.raises(Killed):
            make(tmp_path / "killed")
    monkeypatch.setattr(ViT, "encode", counting)
    resumed = make(tmp_path / "killed")
    written = (at - 1) // 2  # two files are synchronised for each batch; a batch counts when both are
    # One more call finds the number of places. Batches 1 and 4 hold an unreadable picture: they are tried again.
    assert calls["encode"] == 1 + (6 - written) + (written > 1)
    good = resumed.readable
    assert torch.equal(resumed.states(good).summary, whole.states(good).summary)
    assert torch.equal(resumed.states(good).tokens, whole.states(good).tokens)
    for name in ("summary.f16", "tokens.f16", "done.u8"):
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_what_is_there_is_not_computed_again_and_more_can_be_added(
    tower: ViT, source: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    first = image_features(tower, source, np.arange(4, dtype=np.int64), folder=tmp_path)
    with pytest.raises(UserError, match=r"1 features are not in .*such as that of number 9"):
        first.states(np.array([1, 9], dtype=np.int64))
    monkeypatch.setattr(ViT, "encode", None)
    again = image_features(tower, source, np.array([2, 1], dtype=np.int64), folder=tmp_path)
    assert torch.equal(again.states(again.readable).summary, first.states(again.readable).summary)
    monkeypatch.undo()
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    more = image_features(tower, source, rows(source), folder=tmp_path, batch_size=10, progress=progress)
    assert told == [(10, 23), (20, 23), (23, 23)]
    assert len(more.readable) == 21


def test_other_weights_pictures_or_preprocessing_are_another_store(tower: ViT, source: Drawn, tmp_path: Path):
    some = np.arange(2, dtype=np.int64)
    folders = [image_features(tower, source, some, folder=tmp_path).folder]
    folders.append(image_features(tower, Drawn(name="other"), some, folder=tmp_path).folder)
    folders.append(image_features(tower, source, some, folder=tmp_path, crop="center").folder)
    folders.append(image_features(tower, source, some, folder=tmp_path, precision="bf16").folder)
    with torch.no_grad():
        tower.positions[0, 0] += 1
    folders.append(image_features(tower, source, some, folder=tmp_path).folder)
    assert len(set(folders)) == 5


def test_training_on_top_leaves_the_tower_as_it_is(tower: ViT, source: Drawn, tmp_path: Path):
    before = {name: value.clone() for name, value in tower.state_dict().items()}
    store = image_features(tower.train(), source, rows(source), folder=tmp_path)
    head = torch.nn.Linear(16, 2)
    optimizer = torch.optim.SGD([*head.parameters()], lr=0.1)
    head(store.states(store.readable).summary).square().sum().backward()
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in tower.state_dict().items())
    first = store.states(np.array([0], dtype=np.int64)).summary
    torch.testing.assert_close(first, tower(decoded(source, 0)).summary, atol=2e-2, rtol=0)


def test_huge_values_stay_finite(source: Drawn, tmp_path: Path):
    tower = apply_plan(ViT(image_size=16, patch=8, dim=16, layers=0, heads=2), "frozen")
    tower.norm_after.weight.fill_(1e6)
    summary = image_features(tower, source, np.arange(3, dtype=np.int64), folder=tmp_path).states(np.arange(3)).summary
    assert summary.abs().max() == store_module.LARGEST


Usage = namedtuple("Usage", "total used free")


def test_mistakes_and_full_disks(tower: ViT, source: Drawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def make(**settings: object) -> FeatureStore:
        return image_features(tower, source, rows(source), **{"folder": tmp_path, **settings})

    with pytest.raises(UserError, match="of a frozen tower only: set image_train"):
        image_features(ViT(image_size=16), source, rows(source), folder=tmp_path)
    with pytest.raises(UserError, match="unknown part of the features to keep 'token'; did you mean 'tokens'"):
        make(keep="token")
    with pytest.raises(UserError, match="unknown precision of features 'fp16'"):
        make(precision="fp16")
    with pytest.raises(UserError, match="none of 2 pictures can be read, such as picture 5: "):
        image_features(tower, source, np.array([5, 17], dtype=np.int64), folder=tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"features cannot be kept in .*set DIPTYCH_CACHE"):
        make(folder=tmp_path / "file")

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10, 10, 100))
    with pytest.raises(UserError, match=r"no room for features in .*0\.00 GB are free; free some.*DIPTYCH_CACHE"):
        make(keep="tokens")
    monkeypatch.undo()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store_module.os, "fsync", full)
    with pytest.raises(UserError, match=r"no room for features .*the disk is full, and all of it takes 0\.00 GB"):
        make(keep="tokens")
    monkeypatch.undo()
    assert len(make(keep="tokens").readable) == 21, "what was lost is made again"


def test_a_folder_of_something_else_is_refused(tmp_path: Path):
    offsets = np.zeros(4, dtype=np.int64)
    StoreFiles(tmp_path, dim=8, token_dim=8, offsets=offsets, about={})
    StoreFiles(tmp_path, dim=8, token_dim=8, offsets=offsets, about={"source": "renamed"})
    with pytest.raises(UserError, match="features of another kind: remove that folder"):
        StoreFiles(tmp_path, dim=9, token_dim=9, offsets=offsets, about={})


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "features"
    assert cache_folder("x") == Path("x")
    monkeypatch.delenv("DIPTYCH_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "diptych" / "features"


def test_no_texts_and_no_pictures(tower: ViT, source: Drawn, tokenizer: Tokenizer, tmp_path: Path):
    none = np.empty(0, dtype=np.int64)
    store = image_features(tower, source, none, keep="tokens", folder=tmp_path)
    assert store.states(none).summary.shape == (0, 16)
    text = apply_plan(TextTransformer(vocabulary=tokenizer.vocabulary, dim=16, layers=1, heads=2), "frozen")
    assert len(text_features(text, tokenizer, [], folder=tmp_path).readable) == 0
