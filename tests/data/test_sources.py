"""Bad and odd input at the front doors: one clear line each, nothing lost."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.core.errors import UserError
from diptych.data.images import BadPicture
from diptych.data.packed import PackedStrings, Packer
from diptych.data.places import Parts
from diptych.data.source import Problem, Source, hashed_splits
from diptych.data.sources import open_data


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / ".cache"))


def png(shade: int = 0) -> bytes:
    stream = io.BytesIO()
    Image.new("L", (4, 4), shade).save(stream, "PNG")
    return stream.getvalue()


def pictures(folder: Path, *names: str) -> None:
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(shade))


def table(tmp_path: Path, text: str | bytes, name: str = "pairs.csv", count: int = 4) -> Path:
    pictures(tmp_path, *(f"{letter}.png" for letter in "abcdefgh"[:count]))
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def captions(source: Source) -> dict[str, tuple[str, ...]]:
    return {row.key: row.captions for row in map(source.row, range(len(source)))}


def told(source: Source) -> list[tuple[str, str]]:
    return [(problem.where, problem.what) for problem in source.problems]


# ---- what is not there


def test_missing_file_names_the_near_one(tmp_path: Path) -> None:
    path = table(tmp_path, "image,caption\na.png,x\n")
    with pytest.raises(UserError, match=r"there is no '.*pair.csv'; did you mean 'pairs.csv'\? \(data can be a csv"):
        open_data(path.with_name("pair.csv"))
    with pytest.raises(UserError, match="did you mean 'scenes'"):
        open_data("scene")
    with pytest.raises(UserError, match=r"there is no '/no/such/folder/x.csv'"):
        open_data("/no/such/folder/x.csv")
    with pytest.raises(UserError, match="is of no known form"):
        open_data(table(tmp_path, "x", name="pairs.xlsx"))


def test_missing_column_lists_those_there_are(tmp_path: Path) -> None:
    path = table(tmp_path, "image,caption,mood\na.png,x,good\n")
    with pytest.raises(
        UserError,
        match=r"no column 'captoin'; did you mean 'caption'\? \(columns: image, caption, mood\); see --caption",
    ):
        open_data(path, caption_column="captoin")
    with pytest.raises(UserError, match=r"no column 'photo'.*see --image-column"):
        open_data(path, image_column="photo")
    with pytest.raises(
        UserError, match=r"no column of pictures that can be guessed .columns: a, b.; name it with --image"
    ):
        open_data(table(tmp_path, "a,b\n1,2\n"))


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.tsv", "pairs.jsonl", "pairs.json"])
@pytest.mark.parametrize("text", ["", "\n\n", "image,caption\n", "[]", "{}"])
def test_an_empty_table_is_an_error(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(UserError, match=r"empty|holds no picture|guessed|valid JSON"):
        open_data(table(tmp_path, text, name=name))


def test_missing_pictures_are_left_out_and_listed(tmp_path: Path) -> None:
    (tmp_path / "d.png").mkdir()
    text = "image,caption\na.png,one\nnone.png,two\nd.png,three\n,four\nhttp://x.org/y.png,five\n"
    source = open_data(table(tmp_path, text, count=3))
    assert captions(source) == {"a.png": ("one",)}
    assert [where for where, _ in told(source)] == [f"pairs.csv line {number}" for number in (3, 4, 5, 6)]
    for (_, what), expected in zip(
        told(source),
        ("there is no picture none.png (looked in", "is a folder", "no picture is named", "web address"),
        strict=True,
    ):
        assert expected in what
    with pytest.raises(
        UserError, match=r"holds no picture that can be used; the first problem: .* line 2: there is no"
    ):
        open_data(table(tmp_path, "image,caption\nx.png,one\n", count=3))


def test_pictures_are_looked_for_beside_in_images_and_where_told(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "images/b.png", "else where/c.png")
    path = tmp_path / "pairs.jsonl"
    names = ["a.png", "b.png", "images/b.png", str(tmp_path / "else where" / "c.png"), ".\\images\\b.png"]
    path.write_text("".join(json.dumps({"file": name, "text": name}) + "\n" for name in names))
    assert len(open_data(path)) == 5
    path.write_text('{"path": "c.png", "text": "x"}\n')
    assert len(open_data(path, image_folder=tmp_path / "else where")) == 1
    with pytest.raises(UserError, match=r"there is no folder .*nowhere .given as --image-folder"):
        open_data(path, image_folder=tmp_path / "nowhere")


# ---- what the columns are


def test_columns_are_guessed_said_and_overridden(tmp_path: Path) -> None:
    text = "id,Image Path,title,Sentence,Category,Fold\n7,a.png,T,S,cat,val\n8,b.png,U,V,dog,TEST\n"
    source = open_data(table(tmp_path, text))
    assert (
        "image = Image Path, captions = Sentence, split = Fold, label = Category; train 0, dev 1, test 1" in source.name
    )
    assert source.row(0).fields == {"id": "7", "title": "T", "label": "cat"}
    assert [source.row(number).split for number in (0, 1)] == ["dev", "test"]
    other = open_data(table(tmp_path, text), caption_column="title, Sentence", split_column="", label_column="id")
    assert captions(other) == {"a.png": ("T", "S"), "b.png": ("U", "V")}
    assert other.row(0).fields == {"label": "7", "Category": "cat", "Fold": "val"}


def test_no_captions_is_allowed_until_they_are_needed(tmp_path: Path) -> None:
    source = open_data(table(tmp_path, "image,label\na.png,dog\n"))
    assert captions(source) == {"a.png": ()}
    with pytest.raises(UserError, match="has no captions; name their column with --caption-column"):
        source.need_captions()
    with_some = open_data(table(tmp_path, "image,caption\na.png,dog\n"))
    with_some.need_captions()
    assert captions(open_data(table(tmp_path, "image,caption\na.png,dog\n"), caption_column="")) == {"a.png": ()}


def test_caption_columns_of_any_shape(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"image": "a.png", "captions": "one"},
        {"image": "b.png", "captions": ["two", "three"]},
        {"image": "c.png", "captions": '["four", "five"]'},
        {"image": "d.png", "captions": [{"raw": "six", "tokens": ["six"]}, {"caption": "seven"}]},
        {"image": "e.png", "captions": 8},
        {"image": "f.png", "captions": "[red] nine"},
    ]
    source = open_data(table(tmp_path, "\n".join(map(json.dumps, rows)), name="x.jsonl", count=6))
    assert list(captions(source).values()) == [
        ("one",), ("two", "three"), ("four", "five"), ("six", "seven"), ("8",), ("[red] nine",),
    ]  # fmt: skip
    assert source.problems == []


# ---- the captions themselves


def test_empty_captions_are_left_out_and_listed(tmp_path: Path) -> None:
    text = "image,caption\na.png,\na.png,one\nb.png,  \nc.png,two\n"
    source = open_data(table(tmp_path, text))
    assert captions(source) == {"a.png": ("one",), "c.png": ("two",)}
    assert told(source) == [("pairs.csv line 2", "the caption is empty"), ("pairs.csv line 4", "the caption is empty")]
    lists = '{"image": "a.png", "captions": ["x", " "]}\n{"image": "b.png", "captions": []}\n{"image": "c.png"}\n'
    source = open_data(table(tmp_path, lists, name="pairs.jsonl"))
    assert captions(source) == {"a.png": ("x",)}
    assert [what for _, what in told(source)] == ["one of the captions is empty", *["the caption is empty"] * 2]


def test_a_caption_of_ten_thousand_characters_is_taken(tmp_path: Path) -> None:
    long = "word " * 2000
    for name, text in (
        ("pairs.csv", f"image,caption\na.png,{long}\n"),
        ("pairs.tsv", f"image\tcaption\na.png\t{long}\n"),
        ("pairs.jsonl", json.dumps({"image": "a.png", "caption": long})),
    ):
        assert captions(open_data(table(tmp_path, text, name=name))) == {"a.png": (long.strip(),)}


def test_duplicate_keys_merge_and_repeats_are_told(tmp_path: Path) -> None:
    lines = ["a.png,one,train,1", "b.png,two,test,2", "a.png,three,train,3", "a.png,one,dev,4", "./b.png,x,,5"]
    text = "\n".join(["image,caption,split,n", *lines])
    source = open_data(table(tmp_path, text))
    assert captions(source) == {"a.png": ("one", "three", "one"), "b.png": ("two", "x")}
    assert told(source) == [
        ("pairs.csv line 5", "the split is 'dev', but an earlier line puts a.png elsewhere; that one counts"),
        ("a.png", "the same caption stands twice and is kept twice: 'one'"),
    ]
    assert source.row(0).fields == {"n": ["1", "3", "4"]}  # what differs between lines is a list, in every row
    assert source.row(1).fields == {"n": ["2", "5"]}


def test_columns_that_agree_between_lines_stay_plain(tmp_path: Path) -> None:
    text = "image,question,label\na.png,q1,dog\na.png,q2,dog\nb.png,q3,cat\n"
    source = open_data(table(tmp_path, text))
    assert source.row(0).fields == {"label": "dog", "question": ["q1", "q2"]}
    assert source.row(1).fields == {"label": "cat", "question": ["q3"]}


# ---- how tables are written


def test_csv_oddities(tmp_path: Path) -> None:
    text = (
        b'\xef\xbb\xbfimage;caption;x\r\na.png;"say ""hi""; twice\r\nover";1\r\n\r\n;;\r\nb.png;caf\xe9;2\r\n'
        b"c.png;too;many;cells\r\nd.png;fine;3\r\n"
    )
    source = open_data(table(tmp_path, text))
    assert captions(source) == {"a.png": ('say "hi"; twice over',), "d.png": ("fine",)}
    assert told(source) == [
        ("pairs.csv line 6", "not UTF-8 (byte 0xe9); save the file as UTF-8"),
        ("pairs.csv line 7", "it has 4 cells where the header has 3; does a text need quotes?"),
    ]


def test_an_open_quote_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    source = open_data(table(tmp_path, 'image,caption\na.png,"one"\nb.png,"two\nc.png,"three"\nd.png,four\n'))
    assert captions(source) == {"a.png": ("one",), "d.png": ("four",)}
    assert [where for where, _ in told(source)] == ["pairs.csv lines 3 to 4"]
    assert "is a quote left open?" in source.problems[0].what
    source = open_data(table(tmp_path, 'image,caption\na.png,"one"\nb.png,"two\n'))
    assert captions(source) == {"a.png": ("one",)}
    assert len(source.problems) == 1


def test_tsv_takes_quotes_as_they_are(tmp_path: Path) -> None:
    text = 'image\tcaption\na.png\t"Hi" she said\nb.png\t"left open\nc.png\t"all ""of"" it"\n'
    assert list(captions(open_data(table(tmp_path, text, name="pairs.tsv"))).values()) == [
        ('"Hi" she said',), ('"left open',), ('all "of" it',),
    ]  # fmt: skip


def test_a_header_that_is_data(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"first line of pairs.csv looks like data .'a.png'.; put a line with the names"
    ):
        open_data(table(tmp_path, "a.png,a dog\nb.png,a cat\n"))
    with pytest.raises(UserError, match="looks like data"):
        open_data(table(tmp_path, "a.jpg#0\ta dog\n", name="Flickr8k.token.tsv"))


def test_jsonl_oddities(tmp_path: Path) -> None:
    text = (
        b'\xef\xbb\xbf{"image": "a.png", "caption": "one"}\r\n\r\n{"image": "b.png", \n[1, 2]\n'
        b'{"image": "c.png", "caption": "caf\xe9"}\n{"image": "d.png", "caption": "two", "extra": {"deep": [1]}}'
    )
    source = open_data(table(tmp_path, text, name="pairs.jsonl"))
    assert captions(source) == {"a.png": ("one",), "d.png": ("two",)}
    assert source.row(1).fields == {"extra": {"deep": [1]}}
    assert [where for where, _ in told(source)] == [f"pairs.jsonl line {number}" for number in (3, 4, 5)]
    assert "not a JSON object" in source.problems[0].what
    assert "was expected, not list" in source.problems[1].what
    assert "not UTF-8 (byte 0xe9)" in source.problems[2].what


def test_json_forms(tmp_path: Path) -> None:
    by_picture = table(tmp_path, json.dumps({"a.png": ["one", "two"], "b.png": "three"}), name="x.json")
    assert captions(open_data(by_picture)) == {"a.png": ("one", "two"), "b.png": ("three",)}
    lines = table(tmp_path, '{"image": "a.png", "text": "x"}\n{"image": "b.png", "text": "y"}', name="x.json")
    assert captions(open_data(lines)) == {"a.png": ("x",), "b.png": ("y",)}
    with pytest.raises(UserError, match="is not valid JSON: Expecting"):
        open_data(table(tmp_path, '{"a": ', name="x.json"))
    with pytest.raises(UserError, match=r"no JSON that holds captions; allowed are COCO"):
        open_data(table(tmp_path, '{"a": 1}', name="x.json"))
    with pytest.raises(UserError, match=r"x.json is not UTF-8"):
        open_data(table(tmp_path, b'{"a.png": "\xe9"}', name="x.json"))


def test_coco_oddities(tmp_path: Path) -> None:
    whole = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, {"id": 3}],
        "annotations": [{"image_id": 1, "caption": "x"}, {"image_id": 9, "caption": "y"}, {"image_id": 1, "bbox": []}],
    }
    source = open_data(table(tmp_path, json.dumps(whole), name="coco.json"))
    assert captions(source) == {"a.png": ("x",)}
    assert sorted(told(source)) == [
        ("coco.json image 2", "the caption is empty"),
        ("coco.json image 3", "it has no file_name"),
        ("coco.json image_id 9", "captions of a picture that is not in the list of images"),
    ]


def test_gzip_is_unpacked(tmp_path: Path) -> None:
    for name, text in (("p.csv.gz", "image,text\na.png,x\n"), ("p.jsonl.gz", '{"image": "a.png", "text": "x"}')):
        assert captions(open_data(table(tmp_path, gzip.compress(text.encode()), name=name))) == {"a.png": ("x",)}


# ---- folders


def test_folders_named_after_what_they_show(tmp_path: Path) -> None:
    pictures(tmp_path / "d", "train/big_dog/a.png", "train/cat/b.PNG", "val/cat/c.png", ".hidden/x.png", "train/.y.png")
    (tmp_path / "d" / "notes.md").write_text("no picture")
    source = open_data(tmp_path / "d")
    assert captions(source) == {
        "train/big_dog/a.png": ("big dog",), "train/cat/b.PNG": ("cat",), "val/cat/c.png": ("cat",),
    }  # fmt: skip
    assert [source.row(number).split for number in range(3)] == ["train", "train", "dev"]
    assert source.row(0).fields == {"label": "big dog"}
    assert "label and caption = name of the folder" in source.name


def test_a_plain_folder_has_no_captions(tmp_path: Path) -> None:
    pictures(tmp_path / "d", "a.png", "b.png")
    assert captions(open_data(tmp_path / "d")) == {"a.png": (), "b.png": ()}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no picture"):
        open_data(tmp_path / "empty")


def test_a_folder_where_some_texts_are_missing_or_bad(tmp_path: Path) -> None:
    pictures(tmp_path / "d", "a.png", "b.png", "c.png", "d.png", "sub/e.png")
    (tmp_path / "d" / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "d" / "b.json").write_text("{")
    (tmp_path / "d" / "c.txt").write_bytes(b"caf\xe9")
    (tmp_path / "d" / "sub" / "e.json").write_text('["three"]')
    source = open_data(tmp_path / "d")
    assert captions(source) == {"a.png": ("one", "two"), "sub/e.png": ("three",)}
    assert [where for where, _ in told(source)] == ["b.png", "b.png", "c.png", "c.png", "d.png"]
    assert "not valid JSON" in source.problems[0].what
    assert "not UTF-8" in source.problems[2].what


def test_a_table_in_the_folder_is_taken(tmp_path: Path) -> None:
    table(tmp_path, "file_name,text\na.png,x\n", name="metadata.csv")
    assert captions(open_data(tmp_path)) == {"a.png": ("x",)}
    table(tmp_path, '{"image": "b.png", "text": "y"}', name="other.jsonl")
    assert captions(open_data(tmp_path)) == {"a.png": ("x",)}
    (tmp_path / "metadata.csv").rename(tmp_path / "pairs.csv")
    with pytest.raises(UserError, match=r"holds several tables \(other.jsonl, pairs.csv\); name the one to read"):
        open_data(tmp_path)


# ---- shards


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_shard_oddities(tmp_path: Path) -> None:
    long = "deep/" * 30 + "name"
    path = tar(
        tmp_path / "train-0.tar",
        [
            ("./a.png", png(1)), ("./a.txt", b"one\ntwo"),
            ("b.txt", b"no picture"),
            ("c.left.png", png(3)), ("c.json", b'{"caption": "json", "label": 5}'), ("c.cls", b"7"),
            (f"{long}.png", png(4)), (f"{long}.txt", "红".encode()),
            ("e.jpg", b""), ("e.txt", b"empty picture"),
            ("a.png", png(6)), ("a.txt", b"again"),
            ("f.png", png(7)), ("f.json", b"{"),
        ],
    )  # fmt: skip
    source = open_data(path)
    assert captions(source) == {
        "a": ("one", "two"),
        "c": ("json",),
        long: ("红",),
        "e": ("empty picture",),
        "train-0/a": ("again",),
    }
    assert [source.picture(number) for number in (0, 1, 2)] == [png(1), png(3), png(4)]
    assert source.picture(3) == b""
    assert source.row(1).fields == {"label": "7"}
    assert told(source) == [
        ("train-0.tar b", "no picture (only .txt)"),
        (
            "train-0.tar f.json",
            "not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ("f", "the caption is empty"),
    ]


def test_shards_with_the_same_keys_and_splits_by_name(tmp_path: Path) -> None:
    for shard, shade in (("train-0", 1), ("val-0", 2), ("test-0", 3)):
        tar(tmp_path / "s" / f"{shard}.tar", [("000.png", png(shade)), ("000.txt", b"x")])
    source = open_data(tmp_path / "s")
    assert list(captions(source)) == ["000", "train-0/000", "val-0/000"]
    assert [source.row(number).split for number in range(3)] == ["test", "train", "dev"]
    assert [source.picture(number) for number in range(3)] == [png(3), png(1), png(2)]
    with pytest.raises(UserError, match=r"there is no shard .*s/b.tar \(1 of 2 in"):
        open_data(f"{tmp_path}/s/{{train-0,b}}.tar")
    with pytest.raises(UserError, match="there is no shard"):
        open_data(f"{tmp_path}/none/*.tar")


def test_a_shard_cut_short_gives_what_is_whole(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "x.tar",
        [(f"{number}.{kind}", data) for number in range(9) for kind, data in (("png", png()), ("txt", b"x"))],
    )
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"5.png") + 600])
    source = open_data(path)
    assert list(captions(source)) == ["0", "1", "2", "3", "4"]
    assert source.problems[0].where == "x.tar"
    assert "damaged, cut short or compressed" in source.problems[0].what
    path.write_bytes(gzip.compress(data))
    with pytest.raises(
        UserError, match=r"holds no picture that can be used; the first problem: x.tar: the shard is dam"
    ):
        open_data(path)


def test_the_index_of_a_shard_is_kept_and_renewed(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", [("a.png", png()), ("a.txt", b"one")])
    open_data(path)
    (kept,) = (tmp_path / ".cache" / "shards").iterdir()
    first = kept.read_bytes()
    kept.write_bytes(first[:50])
    assert captions(open_data(path)) == {"a": ("one",)}
    assert len(kept.read_bytes()) == len(first)
    before = open_data(path).fingerprint()
    tar(path, [("a.png", png()), ("a.txt", b"two, longer"), ("b.png", png()), ("b.txt", b"x")])
    assert captions(open_data(path)) == {"a": ("two, longer",), "b": ("x",)}
    assert open_data(path).fingerprint() != before


def test_only_some_shards_stay_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diptych.data.places.MAPS_OPEN", 2)
    for shard in range(5):
        tar(tmp_path / "s" / f"{shard}.tar", [(f"{shard}.png", png(shard)), (f"{shard}.txt", b"x")])
    source = open_data(tmp_path / "s")
    for number in (0, 1, 2, 3, 4, 0, 4):
        assert source.picture(number) == png(number)
    parts = source.places
    assert isinstance(parts, Parts)
    assert len(parts._maps) == 2


# ---- parquet and hub


def test_parquet_oddities(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match="parquet file that cannot be read"):
        open_data(tmp_path / "x.parquet")
    import pyarrow
    import pyarrow.parquet

    rows = [
        {"image": {"bytes": png(1), "path": "a.png"}, "text": "one", "id": 5},
        {"image": {"bytes": png(1), "path": "a.png"}, "text": "two", "id": 6},
        {"image": {"bytes": None, "path": str(tmp_path / "b.png")}, "text": "three", "id": 7},
        {"image": {"bytes": None, "path": None}, "text": "four", "id": 8},
        {"image": None, "text": "five", "id": 9},
    ]
    pictures(tmp_path, "b.png")
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "x.parquet")
    source = open_data(tmp_path / "x.parquet")
    assert list(captions(source).values()) == [("one", "two"), ("three",), ("four",), ("five",)]
    assert list(captions(source))[2:] == ["8", "9"]
    assert (source.picture(0), source.picture(1)) == (png(1), png(0))
    for number in (2, 3):
        with pytest.raises(BadPicture, match="the cell is empty"):
            source.picture(number)


def test_unknown_name_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    with pytest.raises(UserError, match="no data set 'nobody/nothing' here or on the hub: "):
        open_data("hf:nobody/nothing")


def test_scenes_are_a_front_door() -> None:
    source = open_data("scenes:12")
    assert len(source) == 12
    source.need_captions()


# ---- splits, packing, fingerprints


def test_splits_by_hash_are_stable_and_about_right() -> None:
    keys = [f"{number}.jpg" for number in range(5000)]
    splits = hashed_splits(keys)
    assert np.bincount(splits).tolist() == pytest.approx([4000, 500, 500], abs=80)
    assert (hashed_splits(keys[:700]) == splits[:700]).all()
    for count in range(3, 12):
        assert set(hashed_splits(keys[:count]).tolist()) == {0, 1, 2}
    assert hashed_splits([]).tolist() == []


@pytest.mark.parametrize(
    ("given", "expected", "said"),
    [
        (["train"] * 40, {"train", "dev", "test"}, "split by a hash of the key"),
        (["train"] * 39 + ["test"], {"train", "dev", "test"}, "a tenth of train serves as dev"),
        (["train"] * 39 + ["dev"], {"train", "dev"}, "dev 1, test 0)"),
        (["test"] * 40, {"test"}, "train 0, dev 0, test 40)"),
        (["dev", "test"] + [""] * 38, {"train", "dev", "test"}, "38 without a split were given one"),
    ],
)
def test_splits_that_the_data_leave_open(tmp_path: Path, given: list[str], expected: set[str], said: str) -> None:
    names = [f"{number:02d}.png" for number in range(40)]
    pictures(tmp_path, *names)
    lines = [f"{name},x {name},{split}\n" for name, split in zip(names, given, strict=True)]
    (tmp_path / "pairs.csv").write_text("image,caption,split\n" + "".join(lines))
    source = open_data(tmp_path / "pairs.csv")
    assert {source.row(number).split for number in range(40)} == expected
    assert said in source.name
    assert sum(len(source.rows(split)) for split in ("train", "val", "test")) == len(source.rows()) == 40
    kept = [number for number, split in enumerate(given) if split == "test"]
    assert set(kept) <= set(source.rows("test").tolist())


def test_unknown_splits_are_told(tmp_path: Path) -> None:
    source = open_data(table(tmp_path, "image,caption,split\na.png,x,train\nb.png,y,unlabelled\n"))
    assert source.problems == [Problem("pairs.csv line 3", "the split 'unlabelled' is none of train, dev, test")]
    with pytest.raises(UserError, match="unknown split 'tset'; did you mean 'test'"):
        source.rows("tset")


def test_packed_strings() -> None:
    strings = ["a", "", "红色", "long" * 50, "\udce9"]
    packed = PackedStrings.pack(strings)
    assert list(packed) == strings
    assert packed[-1] == "\udce9"
    assert packed[1:3] == ["", "红色"]
    assert list(packed.take(np.array([3, 0, 0, 2]))) == [strings[3], "a", "a", "红色"]
    with pytest.raises(IndexError):
        packed[5]
    packer = Packer()
    for owner, string in ((2, "x"), (0, "y"), (2, "z"), (3, "w")):
        packer.add([string], owner)
    grouped, starts = packer.grouped(4)
    assert list(grouped) == ["y", "x", "z", "w"]
    assert starts.tolist() == [0, 1, 1, 3, 4]


def test_fingerprints_follow_pictures_order_and_captions(tmp_path: Path) -> None:
    base = "image,caption\na.png,one\nb.png,two\n"
    first = open_data(table(tmp_path, base)).fingerprint()
    assert open_data(tmp_path / "pairs.csv").fingerprint() == first
    others = ["image,caption\nb.png,two\na.png,one\n", "image,caption\na.png,one!\nb.png,two\n", base + "b.png,three\n"]
    seen = {first} | {open_data(table(tmp_path, text)).fingerprint() for text in others}
    path = table(tmp_path, base)
    (tmp_path / "a.png").write_bytes(png(99) + b"x")
    assert len(seen | {open_data(path).fingerprint()}) == 5


@pytest.mark.real
@pytest.mark.slow
def test_real_tables(real_data: Path) -> None:
    source = open_data(real_data / "flickr8k" / "captions.jsonl")
    assert [len(source.rows(split)) for split in ("train", "dev", "test")] == [6000, 1000, 800]
    assert len(list(source.texts(source.rows("test")))) == 4000
    daquar = open_data(real_data / "daquar" / "qa.jsonl")
    assert len(daquar) == 1316
    assert sum(len(daquar.row(number).fields["question"]) for number in range(1316)) == 11_345
