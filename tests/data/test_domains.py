import csv

import pytest
from PIL import Image

from diptych.core.errors import UserError
from diptych.data.domains import Domains
from diptych.data.sources import open_data


def folder_of(tmp_path, names):
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


def test_the_outer_of_nested_folders_is_the_domain(tmp_path):
    names = [f"{split}/{style}/{label}/1.png" for split in ("train", "test") for style in "ab" for label in "xy"]
    source = open_data(folder_of(tmp_path, names))
    domains = Domains.read(source)
    assert domains.names == ("a", "b")
    assert [source.row(int(row)).key.split("/")[1] for row in domains.among(["b"])] == ["b"] * 4
    assert {source.row(row).fields["label"] for row in range(8)} == {"x", "y"}


def test_folders_of_classes_alone_have_no_domains(tmp_path):
    assert Domains.read(open_data(folder_of(tmp_path, ["x/1.png", "y/1.png"]))).names == ()


def test_a_column_is_guessed_or_named(tmp_path):
    folder_of(tmp_path, ["1.png", "2.png", "3.png"])
    with (tmp_path / "table.csv").open("w", newline="", encoding="utf-8") as file:
        rows = [("image", "label", "domain", "camera"), ("1.png", "x", "day", "c1"), ("2.png", "y", "night", "c2")]
        csv.writer(file).writerows([*rows, ("3.png", "y", "", "c2")])
    source = open_data(tmp_path / "table.csv")
    assert Domains.read(source).place.tolist() == [0, 1, -1]
    assert Domains.read(source, "camera").names == ("c1", "c2")
    with pytest.raises(UserError, match="did you mean 'camera'"):
        Domains.read(source, "camra")
    with pytest.raises(UserError, match="did you mean 'night'"):
        Domains.read(source).among(["nigt"])


def test_styles_of_scenes_are_domains():
    assert Domains.read(open_data("scenes:20?styles=flat,night")).names == ("flat", "night")
