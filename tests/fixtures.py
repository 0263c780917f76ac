"""A small table of drawn pictures, a run trained on it for two steps, and the command line without a new process."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from diptych.cli.main import main
from diptych.data.scenes import open_scenes

TINY = {
    "image_dim": 16,
    "image_layers": 1,
    "image_heads": 2,
    "image_patch": 16,
    "text_dim": 16,
    "text_layers": 1,
    "text_heads": 2,
    "text_vocabulary": 300,
    "dim": 16,
    "batch_size": 16,
    "steps": 2,
}

Cli = Callable[..., tuple[int, str, str]]


def sets(**changed: object) -> list[str]:
    return [word for name, value in {**TINY, **changed}.items() for word in ("--set", f"{name}={value}")]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `diptych ...` here; return the exit status and what stood on standard output and error."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["diptych", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        status = 0
        try:
            main()
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 1
        found = capsys.readouterr()
        return status, found.out, found.err

    return run


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return `captions.csv` of 60 pictures, two captions each, with pictures beside it in `photos/`."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "photos").mkdir()
    source = open_scenes("scenes:60")
    with (folder / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "caption", "split", "label"])
        for index in range(len(source)):
            row = source.row(index)
            name = f"photos/{index:03}.png"
            Image.fromarray(source.picture(index)).save(folder / name)
            split = "train" if index < 40 else "dev" if index < 50 else "test"
            for caption in row.captions[:2]:
                writer.writerow([name, f"{caption} {index}", split, row.fields["label"]])
    return folder / "captions.csv"


@pytest.fixture(scope="session")
def run_folder(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of two steps on the table."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    before = sys.argv
    sys.argv = ["diptych", "train", "clip", str(table), "--out", str(out), *sets()]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    finally:
        sys.argv = before
    return out
