from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.data.check import KINDS, CheckResult, check
from diptych.data.near import groups, look_hash, near_pairs
from diptych.data.scenes import open_scenes
from diptych.data.scripts import count_scripts, script
from diptych.data.sources import open_data
from diptych.data.tokenizer import Tokenizer
from tests.data.test_images import encode, photo, png_header


def write(folder: Path, files: dict[str, bytes], lines: list[dict[str, object]] | None = None) -> Path:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    lines = lines or [{"image": name, "caption": f"this is {name}", "split": "train"} for name in files]
    path = folder / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def kinds(result: CheckResult) -> dict[str, list[str]]:
    return {found.kind: [spot.key for group in found.groups for spot in group] for found in result.findings}


def test_every_kind_of_bad_picture_is_named(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    small = Image.fromarray(photo(48, 48, 1))
    frames = [Image.fromarray(photo(40, 40, seed)) for seed in (2, 3)]
    deep = Image.fromarray(np.asarray(small.convert("L")).astype(np.uint16) * 257)
    files = {
        "good.jpg": encode(photo(60, 80, 4)),
        "empty.jpg": b"",
        "text.jpg": b"<html>not found</html>",
        "cut.jpg": encode(photo(200, 200, 5))[:3000],
        "cut.png": encode(photo(60, 60, 6), "PNG")[:2000],
        "bomb.png": png_header(20_000, 20_000),
        "print.jpg": encode(Image.fromarray(photo(50, 50, 7)).convert("CMYK")),
        "deep.png": encode(deep, "PNG"),
        "moving.gif": encode(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        "turned.jpg": encode(photo(50, 70, 8), exif=exif),
        "icon.png": encode(photo(16, 16, 9), "PNG"),
        "strip.png": encode(photo(40, 400, 10), "PNG"),
        "blank.png": encode(np.full((50, 50, 3), 200, np.uint8), "PNG"),
        "clear.png": encode(small.convert("RGBA"), "PNG"),
        "grey.jpg": encode(Image.fromarray(photo(50, 50, 11)).convert("L")),
        "huge.png": encode(np.zeros((5100, 5000), np.uint8), "PNG"),
    }
    lines: list[dict[str, object]] = [{"image": name, "caption": f"this is {name}"} for name in files]
    lines.append({"image": "nowhere.jpg", "caption": "lost"})
    seen: list[tuple[int, int]] = []
    source = open_data(write(tmp_path, files, lines))
    (tmp_path / "good.jpg").rename(tmp_path / "moved.jpg")  # after it was opened
    result = check(source, progress=lambda done, total: seen.append((done, total)))
    assert kinds(result) == {
        "missing": ["good.jpg"],
        "empty": ["empty.jpg"],
        "unknown": ["text.jpg"],
        "damaged": ["cut.jpg", "cut.png"],
        "too large": ["bomb.png"],
        "blank": ["blank.png", "huge.png"],
        "tiny": ["icon.png"],
        "strip": ["strip.png"],
        "huge": ["huge.png"],
        "animated": ["moving.gif"],
        "CMYK": ["print.jpg"],
        "16-bit": ["deep.png"],
        "rotated": ["turned.jpg"],
        "transparent": ["clear.png"],
        "grey": ["deep.png", "grey.jpg", "huge.png"],
    }
    assert [(problem.where, problem.what.split(" (")[0]) for problem in result.left_out] == [
        ("pairs.jsonl line 17", "there is no picture nowhere.jpg")
    ]
    assert seen == [(16, 16)]
    assert result.formats == {"PNG": 6, "JPEG": 3, "GIF": 1}
    assert result.sizes[9].tolist() == [70, 50]
    assert result.sizes[0].tolist() == [0, 0]
    assert result.finding("damaged").severity == "error"
    assert "cut short" in result.finding("damaged").notes[0]
    assert len(result.finding("leak")) == 0
    bad = list(result.bad_rows())
    assert bad[0][:3] == ("error", "left out", "pairs.jsonl line 17")
    assert ("note", "rotated", "turned.jpg", "50 x 70 pixels") in bad
    assert all(found.meaning and found.advice for found in result.findings)


def test_copies_near_copies_and_leaks(tmp_path: Path) -> None:
    whole = photo(120, 160, 1)
    brighter = np.clip(whole.astype(int) + 4, 0, 255).astype(np.uint8)
    small = np.asarray(Image.fromarray(whole).resize((81, 61)))
    files = {
        "a.jpg": encode(whole), "same.jpg": encode(whole), "brighter.png": encode(brighter, "PNG"),
        "small.jpg": encode(small, quality=60), "b.jpg": encode(photo(120, 160, 2)),
        "b2.jpg": encode(photo(120, 160, 2)), "c.jpg": encode(photo(120, 160, 3)),
        "mirrored.jpg": encode(whole[:, ::-1]),
    }  # fmt: skip
    splits = {"same.jpg": "test", "small.jpg": "dev"}
    lines: list[dict[str, object]] = [
        {"image": name, "caption": f"this is {name}", "split": splits.get(name, "train")} for name in files
    ]
    result = check(open_data(write(tmp_path, files, lines)))
    assert [[spot.key for spot in group] for group in result.finding("duplicate").groups] == [
        ["a.jpg", "same.jpg"], ["b.jpg", "b2.jpg"],
    ]  # fmt: skip
    (leak,) = result.finding("leak").groups
    assert [(spot.key, spot.split, spot.row) for spot in leak] == [("a.jpg", "train", 0), ("same.jpg", "test", 1)]
    assert result.finding("leak").notes == ("in train and test",)
    (near,) = result.finding("near leak").groups
    assert [spot.key for spot in near] == ["a.jpg", "same.jpg", "brighter.png", "small.jpg"]
    assert result.finding("near leak").notes == ("in train and dev and test",)
    assert len(result.finding("near duplicate").groups) == 1


def test_captions_are_measured(tmp_path: Path) -> None:
    files = {f"{letter}.jpg": encode(photo(40, 40, place)) for place, letter in enumerate("abcd")}
    lines: list[dict[str, object]] = [
        {"image": "a.jpg", "captions": ["A dog", "红色的圆"]},
        {"image": "b.jpg", "captions": ["a dog", "a dog"]},
        {"image": "c.jpg", "captions": ["word " * 2000]},
        {"image": "d.jpg", "captions": ["Привет мир", "ある犬の写真", "1234"]},
    ]
    source = open_data(write(tmp_path, files, lines))
    tokenizer = Tokenizer.train(source.texts(source.rows()), vocabulary=300, context=16)
    result = check(source, tokenizer=tokenizer)
    assert result.scripts == {"Latin": 4, "Han": 1, "Cyrillic": 1, "Japanese": 1, "none": 1}
    assert result.captions_per_picture == {1: 1, 2: 2, 3: 1}
    assert result.context == 16
    assert len(result.tokens) == len(result.words) == result.captions == 8
    assert result.words.tolist() == [2, 1, 2, 2, 2000, 2, 1, 1]
    assert result.tokens.tolist() == [tokenizer.count(text) for text in source.texts(source.rows())]
    assert kinds(result)["repeated caption"] == ["a.jpg", "b.jpg"]
    assert result.finding("repeated caption").notes == ("a dog",)
    assert kinds(result)["long caption"][0] == "c.jpg"
    assert result.finding("long caption").notes[0] == "2,002 tokens, 1,986 are cut"
    assert check(source, tokenizer=tokenizer, context=5000).finding("long caption").groups == ()
    assert ([problem.where for problem in result.noted], result.left_out) == (["b.jpg"], ())
    assert next(result.bad_rows())[:3] == ("note", "noted", "b.jpg")
    without = check(source)
    assert (without.context, len(without.tokens)) == (None, 0)


def test_data_without_captions_and_drawn_pictures(tmp_path: Path) -> None:
    files = {f"{letter}.jpg": encode(photo(40, 40, place)) for place, letter in enumerate("abcd")}
    lines: list[dict[str, object]] = [{"image": name, "label": "x"} for name in files]
    result = check(open_data(write(tmp_path, files, lines)))
    assert (result.captions, result.scripts, result.findings) == (0, {}, ())
    drawn = check(open_scenes("scenes:20"))
    assert drawn.pictures == 20
    assert drawn.formats == {"pixels": 20}
    assert not any(found.severity == "error" for found in drawn.findings)


def test_the_search_for_near_hashes_misses_nothing() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 3000, dtype=np.uint64)
    hashes[:40] = hashes[0]  # a crowd that is all the same
    for place in range(100, 400):
        bits = rng.choice(64, int(rng.integers(1, 8)), replace=False)
        hashes[place] = hashes[place + 1000] ^ np.uint64(sum(1 << int(bit) for bit in bits))
    colours = np.tile(np.arange(192, dtype=np.uint8), (3000, 1))
    colours[350:400] = 255 - colours[350:400]
    distance = np.bitwise_count(hashes[:, None] ^ hashes[None])
    alike = colours[:, None, 0] == colours[None, :, 0]
    expected = groups(np.argwhere(np.triu((distance <= 4) & alike, 1)))
    assert groups(near_pairs(hashes, colours)) == expected
    assert expected[0] == list(range(40))
    assert len(expected) > 100


def test_hash_of_a_known_picture() -> None:
    ramp = np.broadcast_to(np.repeat(np.arange(9, dtype=np.uint8) * 20, 8), (3, 72, 72))
    rising, colours = look_hash(np.ascontiguousarray(ramp))
    assert int(rising) == 2**64 - 1
    assert int(look_hash(np.ascontiguousarray(ramp[:, :, ::-1]))[0]) == 0
    assert colours.reshape(3, 8, 8)[0, 0].tolist() == [2, 24, 47, 69, 91, 113, 136, 158]
    none = near_pairs(np.zeros(0, np.uint64), np.zeros((0, 192), np.uint8))
    assert groups(none) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a dog", "Latin"), ("Ein Mädchen", "Latin"), ("红色", "Han"), ("a 红色的圆形", "Han"),
        ("犬がいる", "Japanese"), ("개", "Hangul"), ("собака", "Cyrillic"), ("σκύλος", "Greek"), ("كلب", "Arabic"),
        ("כלב", "Hebrew"),
        ("कुत्ता", "Devanagari"), ("หมา", "Thai"), ("123 !?", "none"), ("", "none"), ("😀", "none"), ("ꙮ ԱԲ", "other"),
    ],
)  # fmt: skip
def test_scripts(text: str, expected: str) -> None:
    assert script(text) == expected
    assert count_scripts([text, text]) == {expected: 2}


def test_every_kind_is_explained() -> None:
    assert {severity for severity, _, _ in KINDS.values()} == {"error", "warning", "note"}


@pytest.mark.real
@pytest.mark.slow
def test_real_data(real_data: Path) -> None:
    result = check(open_data(real_data / "caltech101" / "labels.jsonl"))
    assert not any(found.severity == "error" for found in result.findings)
    near = [[spot.key for spot in group] for group in result.finding("near duplicate").groups]
    assert ["metronome/image_0004.jpg", "metronome/image_0003.jpg"] in near
