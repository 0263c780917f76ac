"""The same few pictures with captions, written in every form that the front doors read."""

from __future__ import annotations

import csv
import io
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Item:
    name: str
    data: bytes
    captions: tuple[str, ...]
    split: str
    label: str


def items(count: int = 30) -> list[Item]:
    """Ragged pictures with one to three captions; the awkward characters are the point."""
    rng = np.random.default_rng(7)
    awkward = [
        'a "quoted", dog',
        "tab\there; semicolon",
        "红色的圆 in Chinese",
        "naïve café 😀",
        "[not a list",
        "it's | a bar",
    ]
    found = []
    for number in range(count):
        height, width = rng.integers(9, 40, 2)
        stream = io.BytesIO()
        pixels = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, "PNG" if number % 3 else "JPEG")
        name = f"p{number:03d}.{'png' if number % 3 else 'jpg'}"
        captions = tuple(f"{awkward[(number + k) % 6]} {number} {k}" for k in range(1 + number % 3))
        split = ("train", "train", "train", "dev", "test")[number % 5]
        found.append(Item(name, stream.getvalue(), captions, split, f"kind {number % 4}"))
    return found


def write_pictures(folder: Path, corpus: list[Item]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for item in corpus:
        (folder / item.name).write_bytes(item.data)


def write_csv(
    path: Path, corpus: list[Item], *, delimiter: str = ",", end: str = "\n", encoding: str = "utf-8"
) -> Path:
    """One caption a line, so that lines about one picture have to be merged."""
    write_pictures(path.parent / "images", corpus)
    with path.open("w", encoding=encoding, newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter, lineterminator=end)
        writer.writerow(["image", "caption", "split", "label"])
        for item in corpus:
            for caption in item.captions:
                writer.writerow([item.name, caption, item.split, item.label])
    return path


def records(corpus: list[Item]) -> list[dict[str, object]]:
    return [
        {"image": item.name, "captions": list(item.captions), "split": item.split, "label": item.label}
        for item in corpus
    ]


def write_jsonl(path: Path, corpus: list[Item]) -> Path:
    write_pictures(path.parent / "images", corpus)
    lines = [json.dumps(record, ensure_ascii=bool(k % 2)) for k, record in enumerate(records(corpus))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_json_list(path: Path, corpus: list[Item]) -> Path:
    write_pictures(path.parent / "images", corpus)
    path.write_text(json.dumps(records(corpus), indent=1), encoding="utf-8")
    return path


def write_numbered(path: Path, corpus: list[Item]) -> Path:
    """Columns caption_1, caption_2, caption_3."""
    write_pictures(path.parent, corpus)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["File Name", "caption_2", "caption_1", "caption_3", "set", "class"])
        for item in corpus:
            one, two, three = [*item.captions, "", ""][:3]
            writer.writerow([item.name, two, one, three, item.split.replace("dev", "val"), item.label])
    return path


def write_coco(folder: Path, corpus: list[Item]) -> Path:
    """The layout of COCO: `annotations/captions_x.json` beside `x/`; the format has no splits."""
    write_pictures(folder / "part2017", corpus)
    images = [{"id": 900 + k, "file_name": item.name, "height": 1} for k, item in enumerate(corpus)]
    pairs = [(900 + k, caption) for k, item in enumerate(corpus) for caption in item.captions]
    annotations = [{"id": k, "image_id": image, "caption": caption} for k, (image, caption) in enumerate(pairs)]
    (folder / "annotations").mkdir()
    path = folder / "annotations" / "captions_part2017.json"
    path.write_text(json.dumps({"info": {}, "images": images, "annotations": annotations}))
    return path


def write_karpathy(folder: Path, corpus: list[Item]) -> Path:
    write_pictures(folder / "images", corpus)
    images = [
        {
            "filename": item.name,
            "split": item.split.replace("dev", "val"),
            "sentences": [{"raw": c} for c in item.captions],
        }
        for item in corpus
    ]
    path = folder / "dataset_some8k.json"
    path.write_text(json.dumps({"images": images, "dataset": "some8k"}))
    return path


def write_folder(folder: Path, corpus: list[Item]) -> Path:
    write_pictures(folder, corpus)
    for item in corpus:
        path = folder / item.name
        path.with_suffix(".txt").write_text("\n".join(item.captions) + "\n", encoding="utf-8")
        path.with_suffix(".json").write_text(json.dumps({"split": item.split, "label": item.label}))
    return folder


def write_folder_json(folder: Path, corpus: list[Item]) -> Path:
    write_pictures(folder, corpus)
    for item, record in zip(corpus, records(corpus), strict=True):
        record.pop("image")
        (folder / item.name).with_suffix(".json").write_text(json.dumps(record))
    return folder


def write_shards(folder: Path, corpus: list[Item], *, shards: int = 3) -> str:
    """By webdataset's own writer."""
    import webdataset

    folder.mkdir()
    for shard in range(shards):
        with webdataset.TarWriter(str(folder / f"part-{shard:03d}.tar")) as writer:
            for item in corpus[shard * len(corpus) // shards : (shard + 1) * len(corpus) // shards]:
                record = {"captions": list(item.captions), "split": item.split, "label": item.label}
                suffix = item.name.partition(".")[2]
                writer.write({"__key__": item.name.partition(".")[0], suffix: item.data, "json": record})
    return f"{folder}/part-{{000..{shards - 1:03d}}}.tar"


def write_parquet_paths(path: Path, corpus: list[Item]) -> Path:
    import pyarrow
    import pyarrow.parquet

    write_pictures(path.parent / "images", corpus)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records(corpus)), path, row_group_size=7)
    return path


def write_parquet_bytes(path: Path, corpus: list[Item], *, struct: bool) -> Path:
    import pyarrow
    import pyarrow.parquet

    rows = records(corpus)
    for row, item in zip(rows, corpus, strict=True):
        row["image"] = {"bytes": item.data, "path": item.name} if struct else item.data
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=7)
    return path


def write_hub(folder: Path, corpus: list[Item], *, splits: bool) -> Path:
    """By datasets' own `save_to_disk`, with a class label and, if asked, in parts by split."""
    import datasets

    kinds = sorted({item.label for item in corpus})
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "captions": datasets.Sequence(datasets.Value("string")),
            "split": datasets.Value("string"),
            "label": datasets.ClassLabel(names=kinds),
        }
    )

    def part(chosen: list[Item]) -> datasets.Dataset:
        rows = records(chosen)
        for row, item in zip(rows, chosen, strict=True):
            row["image"] = {"bytes": item.data, "path": None}
        columns = {name: [row[name] for row in rows] for name in features}
        made = datasets.Dataset.from_dict(columns, features=features)
        return made.remove_columns(["split"]) if splits else made

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if splits:
            names = {"train": "train", "dev": "validation", "test": "test"}
            parts = {new: part([item for item in corpus if item.split == old]) for old, new in names.items()}
            datasets.DatasetDict(parts).save_to_disk(str(folder))
        else:
            part(corpus).save_to_disk(str(folder))
    return folder
