"""data2vec goes on bit for bit after kill -9 in the middle of an epoch, by itself and as two processes."""

import json
import signal

import pytest

from tests.train import child
from tests.train.test_resume import assert_same, everything
from tests.train.test_resume_pairs import as_files

pytestmark = pytest.mark.slow

SETTINGS = {"system": "data2vec", "steps": 20, "save_every": 7, "batch_size": 8, "lr": 1e-3, "tower_dropout": 0.2}
SETTINGS |= {"top": 1, "ema": 0.9, "log_every": 3, "evaluate_every": 2, "momentum_steps": 10}
IMAGE = {"image_size": 16, "image_dim": 16, "image_layers": 1, "image_heads": 2, "image_patch": 4, "augment": "crop"}
TEXT = {"modality": "text", "text_dim": 16, "text_layers": 1, "text_heads": 2, "text_vocabulary": 300}


@pytest.mark.parametrize(("own", "world"), [(IMAGE, 1), (TEXT, 1), (IMAGE, 2)])
def test_kill_in_the_middle_of_an_epoch(tmp_path, own, world):
    settings = {"data": str(as_files(tmp_path / "data")), **SETTINGS, **own}
    for code, text in child.run("pairs", tmp_path / "killed", {**settings, "kill_at": 17}, world=world):
        assert code == -signal.SIGKILL, text
    (state,) = (tmp_path / "killed" / "resume").iterdir()
    place = json.loads((state / "state.json").read_text())["place"]
    assert place["step"] == 14
    assert place["batch"] > 0  # not at the end of an epoch
    for out in ("killed", "unbroken"):
        for code, text in child.run("pairs", tmp_path / out, settings, world=world):
            assert code == 0, text
    killed, unbroken = everything(tmp_path / "killed"), everything(tmp_path / "unbroken")
    assert_same(killed, unbroken)
    assert unbroken[1]["place"]["step"] == 20
    assert unbroken[0]["weights"]["steps"] <= 20
