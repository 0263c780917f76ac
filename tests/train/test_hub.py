"""A run goes to a folder or a hub as it is and is opened from there; the network is asked for `hf:` names alone."""

import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

import diptych
from diptych.core.errors import UserError
from diptych.train import hub

NEEDED = {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md", "scores.json"}


class Stub:
    """Keeps what would be sent."""

    def __init__(self, root: Path, fails: str = "") -> None:
        self.root, self.fails, self.told = root, fails, []

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        assert exist_ok
        self.told.append((repo_id, private))

    def upload_folder(self, *, repo_id, folder_path, allow_patterns, commit_message):
        if self.fails:
            raise OSError(self.fails)
        self.told.append((repo_id, commit_message))
        for path in folder_path.rglob("*"):
            name = path.relative_to(folder_path).as_posix()
            if path.is_file() and any(Path(name).match(pattern) for pattern in allow_patterns):
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, self.root / name)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """Use an empty cache of the hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def kept(cache: Path, run: Path, name: str, revision: str = "main") -> None:
    """Lay a run into the cache as a download leaves it."""
    place, sha = cache / f"models--{name.replace('/', '--')}", f"{abs(hash(revision)):040x}"[:40]
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / revision).write_text(sha)
    hub.push(run, str(place / "snapshots" / sha))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_gets_what_one_needs_and_no_picture_of_the_data(run_folder, tmp_path, cli):
    assert {"report.html", "metrics.jsonl"} <= files(run_folder)
    status, out, _ = cli("push", run_folder, tmp_path / "to" / "others")
    assert status == 0
    assert f'diptych.load("{tmp_path / "to" / "others"}")' in out
    assert files(tmp_path / "to" / "others") == NEEDED & files(run_folder)
    one, two = (diptych.load(folder, device="cpu") for folder in (run_folder, tmp_path / "to" / "others"))
    assert one.identity == two.identity
    np.testing.assert_array_equal(one.embed_text("a red circle"), two.embed_text("a red circle"))
    assert cli("push", run_folder, tmp_path / "to" / "others")[0] == 0  # again, over it


def test_a_hub_gets_the_same_files_in_one_commit(run_folder, tmp_path):
    stub = Stub(tmp_path / "hub")
    assert hub.push(run_folder, "hf:user/mine", hub=stub) == "hf:user/mine"
    assert stub.told == [("user/mine", True), ("user/mine", "Push clip trained with diptych")]
    assert files(tmp_path / "hub") == NEEDED & files(run_folder)
    diptych.load(tmp_path / "hub", device="cpu")
    hub.push(run_folder, "hf:user/mine", public=True, message="Better", hub=stub)
    assert stub.told[2:] == [("user/mine", False), ("user/mine", "Better")]


def test_a_client_of_the_hub_offers_what_is_asked_of_it():
    import inspect

    for name in ("create_repo", "upload_folder"):
        asked = set(inspect.signature(getattr(hub.Hub, name)).parameters)
        assert asked <= set(inspect.signature(getattr(huggingface_hub.HfApi, name)).parameters)


def test_a_name_is_opened_from_the_cache_without_the_network(run_folder, cache, monkeypatch):
    kept(cache, run_folder, "user/mine")
    kept(cache, run_folder, "user/mine", "v2")
    real, calls = huggingface_hub.snapshot_download, []

    def watched(*given, **named):
        calls.append(named["local_files_only"])
        return real(*given, **named)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", watched)
    wanted = diptych.load(run_folder, device="cpu").identity
    for name in ("user/mine", "hf:user/mine", "user/mine@v2", Path("user/mine")):
        assert diptych.load(name, device="cpu").identity == wanted
    assert calls == [True] * 4


def test_only_an_hf_name_asks_the_hub(run_folder, cache, monkeypatch):
    calls = []

    def fetch(name, *, local_files_only, **named):
        calls.append((name, named["revision"], local_files_only))
        if local_files_only:
            raise FileNotFoundError("not in the cache")
        assert "resume/*" not in named["allow_patterns"]
        return str(run_folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(UserError, match="no run in user/mine: there is no such folder"):
        diptych.load("user/mine")
    assert calls == [("user/mine", None, True)]
    diptych.load("hf:user/mine@v3", device="cpu")
    assert calls[1:] == [("user/mine", "v3", True), ("user/mine", "v3", False)]
    with pytest.raises(UserError, match="no such folder"):
        diptych.load("one/two/three")
    assert len(calls) == 3


def test_mistakes_are_one_line(run_folder, tmp_path, cli, cache, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    (tmp_path / "file").write_text("")

    def refuse(*given, **named):
        raise OSError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    for words, said in [
        (("push", run_folder, run_folder), "is the run itself"),
        (("push", run_folder, tmp_path / "full"), "holds other files"),
        (("push", run_folder, tmp_path / "file" / "x"), "cannot write"),
        (("push", run_folder, "hf:mine"), "'hf:mine' is no name on the hub: give hf:USER/NAME"),
        (("push", run_folder, "hf:user/mine@v2"), "is no name on the hub"),
        (("push", run_folder, "hf:user/mine"), "cannot push to hf:user/mine: no route; is there a token"),
        (("push", tmp_path / "gone", tmp_path / "to"), "no run in"),
        (("caption", "hf:user/mine", "x.png"), "no run hf:user/mine: neither the hub's cache nor the hub gives it"),
    ]:
        status, _, err = cli(*words)
        assert status == 2, words
        assert said in err
        assert err.count("\n") == 1
    with pytest.raises(UserError, match="cannot push"):
        hub.push(run_folder, "hf:user/mine", hub=Stub(tmp_path / "hub", fails="full"))
