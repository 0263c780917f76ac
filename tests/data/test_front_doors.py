from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.data.loader import Example, Loader
from diptych.data.source import Source
from diptych.data.sources import open_data
from diptych.data.tokenizer import Tokenizer
from tests.data import corpus as write

CORPUS = write.items()


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([caption for item in CORPUS for caption in item.captions], vocabulary=400)


def loader(source: Source, tokenizer: Tokenizer) -> Loader:
    def make(examples: list[Example]) -> Batch:
        chosen = [one.row.captions[int(one.rng.integers(len(one.row.captions)))] for one in examples]
        tokens, mask = tokenizer(chosen)
        return Batch(
            image=torch.stack([one.image for one in examples if one.image is not None]),
            tokens=tokens,
            token_mask=mask,
            pair_id=torch.tensor([one.index for one in examples]),
        )

    return Loader(source, source.rows(), make, batch_size=7, size=16, crop="random", shuffle=True, drop_last=False)


FORMS: dict[str, Callable[[Path], object]] = {
    "csv": lambda folder: write.write_csv(folder / "pairs.csv", CORPUS),
    "csv with semicolons": lambda folder: write.write_csv(folder / "pairs.csv", CORPUS, delimiter=";"),
    "csv from Windows": lambda folder: write.write_csv(folder / "pairs.csv", CORPUS, end="\r\n", encoding="utf-8-sig"),
    "csv in UTF-16": lambda folder: write.write_csv(folder / "pairs.csv", CORPUS, delimiter="\t", encoding="utf-16"),
    "tsv": lambda folder: write.write_csv(folder / "pairs.tsv", CORPUS, delimiter="\t"),
    "numbered columns": lambda folder: write.write_numbered(folder / "pairs.csv", CORPUS),
    "jsonl": lambda folder: write.write_jsonl(folder / "pairs.jsonl", CORPUS),
    "json list": lambda folder: write.write_json_list(folder / "pairs.json", CORPUS),
    "coco": lambda folder: write.write_coco(folder, CORPUS),
    "karpathy": lambda folder: write.write_karpathy(folder, CORPUS),
    "parquet of paths": lambda folder: write.write_parquet_paths(folder / "pairs.parquet", CORPUS),
    "parquet of bytes": lambda folder: write.write_parquet_bytes(folder / "pairs.parquet", CORPUS, struct=False),
    "parquet of structs": lambda folder: write.write_parquet_bytes(folder / "pairs.parquet", CORPUS, struct=True),
    "folder with texts": lambda folder: write.write_folder(folder / "pictures", CORPUS),
    "folder with json": lambda folder: write.write_folder_json(folder / "pictures", CORPUS),
    "shards": lambda folder: write.write_shards(folder / "shards", CORPUS),
    "one shard": lambda folder: write.write_shards(folder / "shards", CORPUS, shards=1).replace("{000..000}", "000"),
    "shards by glob": lambda folder: write.write_shards(folder / "shards", CORPUS).replace("{000..002}", "*"),
    "folder of shards": lambda folder: Path(write.write_shards(folder / "shards", CORPUS)).parent,
    "hf": lambda folder: f"hf:{write.write_hub(folder / 'saved', CORPUS, splits=False)}",
    "hf folder": lambda folder: write.write_hub(folder / "saved", CORPUS, splits=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_front_door_reads_the_same_pairs_to_the_same_batches(
    form: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    source = open_data(FORMS[form](tmp_path))
    assert source.problems == []
    assert f"{len(CORPUS)} pictures, {sum(len(item.captions) for item in CORPUS)} captions" in source.name
    for number, item in enumerate(CORPUS):
        row = source.row(number)
        assert row.captions == tuple(" ".join(caption.split()) for caption in item.captions)
        if form != "coco":
            assert row.split == item.split
        if form not in ("coco", "karpathy"):
            assert row.fields["label"] == item.label
        assert source.picture(number) == item.data
    expected = list(loader(open_data(write.write_jsonl(tmp_path / "expected.jsonl", CORPUS)), tokenizer).epoch(1))
    got = list(loader(source, tokenizer).epoch(1))
    assert len(got) == len(expected) == 5
    for one, other in zip(got, expected, strict=True):
        for name in ("image", "tokens", "token_mask", "pair_id"):
            assert torch.equal(getattr(one, name), getattr(other, name))
    resumed = list(loader(source, tokenizer).epoch(1, start=3))
    assert len(resumed) == 2
    assert all(torch.equal(one.image, other.image) for one, other in zip(resumed, expected[3:], strict=True))
    again = pickle.loads(pickle.dumps(source))
    assert again.picture(3) == source.picture(3)
    assert again.row(3) == source.row(3)
    assert again.fingerprint() == source.fingerprint()


def test_hub_splits_become_ours(tmp_path: Path) -> None:
    source = open_data(write.write_hub(tmp_path / "saved", CORPUS, splits=True))
    assert [len(source.rows(name)) for name in ("train", "dev", "test")] == [18, 6, 6]
    by_split = [item for name in ("train", "dev", "test") for item in CORPUS if item.split == name]
    assert [source.picture(number) for number in range(30)] == [item.data for item in by_split]
    assert source.row(20).fields == {"label": by_split[20].label}


def test_parquet_in_several_files_is_one_source(tmp_path: Path) -> None:
    for number in range(3):
        path = tmp_path / f"part-{number:05d}-of-00003.parquet"
        write.write_parquet_bytes(path, CORPUS[number * 10 : number * 10 + 10], struct=bool(number % 2))
    with pytest.raises(UserError, match=r"part-00001-of-00003.parquet holds its pictures as .* as binary"):
        open_data(tmp_path)
    for number in range(3):
        path = tmp_path / f"part-{number:05d}-of-00003.parquet"
        write.write_parquet_bytes(path, CORPUS[number * 10 : number * 10 + 10], struct=True)
    for data in (tmp_path, f"{tmp_path}/part-*.parquet"):
        source = open_data(data)
        assert source.name.startswith("3 parquet files: 30 pictures")
        assert [source.picture(number) for number in range(30)] == [item.data for item in CORPUS]
