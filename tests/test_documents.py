"""Every command that a document prints runs: README, its Chinese sister, the guides, and the examples."""

import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from diptych import models, tasks
from diptych.train.config import TrainConfig
from tests.fixtures import TINY, sets

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"(<!-- needs the network -->\n)?```bash\n(.*?)```", re.DOTALL)
ALONE = [
    path for path in sorted((ROOT / "examples").glob("*.py")) if "sys.argv" not in path.read_text(encoding="utf-8")
]
SETUP = ("make demo", "make test")  # what CI does around these tests


def commands(document: Path) -> list[str]:
    found = []
    for network, block in BLOCK.findall(document.read_text(encoding="utf-8")):
        lines = block.replace("\\\n", " ").strip().splitlines()
        found += [] if network else [line for line in lines if line not in SETUP and not line.startswith("#")]
    return found


def new_commands(document: Path) -> list[str]:
    """Return a document's commands; of the Chinese README those alone that the README does not have as well."""
    if document.name != "README.zh-CN.md":
        return commands(document)
    run = set(commands(ROOT / "README.md"))
    return [line for line in commands(document) if line not in run]


def known_sets(system: str) -> list[str]:
    """Return the settings that make a system tiny, as far as it has them."""
    config = models.load(system).Config
    kinds = (config, tasks.load(config.learns).Settings, TrainConfig)
    known = {name: value for name, value in TINY.items() if any(name in kind.model_fields for kind in kinds)}
    return [word for name, value in known.items() for word in ("--set", f"{name}={value}")]


def serves(words: list[str], folder: Path) -> None:
    """Start a server, see that it says where it is, and end it."""
    command = [sys.executable, "-m", "diptych", *words, "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            lines = iter(process.stdout.readline, "")
            address = next(re.search(r"http://\S+", line)[0] for line in lines if "Open http" in line)
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{address}health/live", timeout=30).close()
                    break
                except OSError:
                    time.sleep(0.1)
        finally:
            process.terminate()
        assert process.wait(timeout=60) == 0


@pytest.fixture
def folder(tmp_path, run_folder, table, monkeypatch) -> Path:
    """Lay out what the documents speak of: captions.csv, photos/, a trained run and its index."""
    shutil.copy(table, tmp_path / "captions.csv")
    shutil.copytree(table.parent / "photos", tmp_path / "photos")
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("document", [path for path in DOCUMENTS if path.exists()], ids=lambda path: path.name)
def test_every_command_of_a_document_runs(document, folder, cli, run_folder):
    if document.parent.name == "docs":
        shutil.copytree(run_folder, folder / "runs" / "mine")
    for line in new_commands(document):
        program, *words = shlex.split(line)
        if program == "python":
            subprocess.run([sys.executable, *words], check=True, cwd=folder, capture_output=True, timeout=300)
            continue
        assert program == "diptych", line
        if words[0] in {"train", "compare"}:
            words += sets() if words[0] == "compare" else known_sets(words[1])
        if words[0] == "demo":
            continue
        if words[0] == "serve":
            serves(words, folder)
            continue
        status, _, err = cli(*words)
        assert status == 0, f"{line}\n{err}"


def test_the_python_of_the_readme_runs(folder, run_folder, cli):
    shutil.copytree(run_folder, folder / "runs" / "mine")
    assert cli("index", "runs/mine", "photos", "--out", "photos.index")[0] == 0
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_the_python_of_the_searching_guide_runs(folder, run_folder, cli):
    shutil.copytree(run_folder, folder / "runs" / "mine")
    assert cli("index", "runs/mine", "captions.csv", "--out", "photos.index")[0] == 0
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "searching.md").read_text("utf-8"), re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("example", ALONE, ids=lambda path: path.name)
def test_every_example_runs(example, tmp_path):
    done = subprocess.run([sys.executable, example], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_documents_name_no_machine_and_no_local_path():
    for document in [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]:
        text = document.read_text(encoding="utf-8") if document.exists() else ""
        assert not re.search(r"/(?:root|home)/\w", text), document


def test_the_page_of_systems_is_up_to_date():
    made = subprocess.run(
        [sys.executable, "-c", "import make_systems; print(make_systems.page(), end='')"],
        cwd=ROOT / "docs",
        capture_output=True,
        text=True,
        check=True,
    )
    assert made.stdout == (ROOT / "docs" / "systems.md").read_text(encoding="utf-8"), "run `make docs`"
