"""Several processes stop, fail, save and go on together; none waits for another that has left."""

import json
import signal

import pytest
import torch
from safetensors.torch import load_file

from diptych.core.errors import UserError
from diptych.train.config import TrainConfig
from diptych.train.trainer import train
from tests.train import child, toys
from tests.train.test_resume import assert_same, everything

SETTINGS = {"steps": 11, "lr": 0.05, "ema": 0.9, "save_every": 2, "model": {"dropout": 0.3}}
SETTINGS |= {"task": {"batch_size": 4}, "accumulate": 2}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    stopped = SETTINGS | {"task": {"batch_size": 4, "signal_at": [7, int(signal.SIGTERM)], "only": 1}}
    several = []
    for sharding in ("none", "fsdp"):
        some = SETTINGS | {"sharding": sharding}
        several += [some | {"out": f"{sharding}/unbroken"}]
        several += [
            stopped | {"sharding": sharding, "out": f"{sharding}/stopped"},
            some | {"out": f"{sharding}/stopped"},
        ]
    several += [stopped | {"out": "two"}]
    several += [{"steps": 9, "kind": "Breaking", "model": {"only": 1}, "out": "nan"}]
    several += [SETTINGS | {"file_limit": 3000, "out": "full"}]
    return folder, child.run("train", folder, {"runs": several}, world=2)


def test_all_end_and_say_the_same(runs):
    _, ((first, told), (second, silent)) = runs
    assert (first, second) == (2, 2), told + silent  # the last of the runs fails, on both
    for text in (told, silent):
        assert text.count('"steps": 11') == 4
        assert text.count('"steps": 7') == text.count('"stopped": "interrupted"') == 3
        assert "error: stopped at step 6, epoch 3: loss became nan" in text
        assert "error: cannot write" in text
        assert "File too large; nothing had been saved yet" in text
    assert told.count("kept weights True torch.Size([8, 6]) False") == 7
    assert told.count("go on with: diptych go") == 3
    assert "go on with" not in silent


@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_a_signal_to_one_process_stops_both_and_they_go_on_bit_for_bit(runs, sharding):
    folder, _ = runs
    assert_same(everything(folder / sharding / "stopped"), everything(folder / sharding / "unbroken"))


def test_each_process_has_random_numbers_of_its_own(runs):
    folder, _ = runs
    (state,) = (folder / "none" / "unbroken" / "resume").iterdir()
    numbers = load_file(state / "random.safetensors")["torch"]
    assert len(numbers) == 2
    assert not torch.equal(numbers[0], numbers[1])


def test_a_run_of_two_does_not_go_on_with_one(runs):
    folder, _ = runs
    given = {name: value for name, value in SETTINGS.items() if name not in ("model", "task")}
    assert json.loads((folder / "two" / "resume" / "000000007" / "state.json").read_text())["world"] == 2
    with pytest.raises(
        UserError, match="started with 2 processes and has 1 now; go on with torchrun --nproc-per-node 2"
    ):
        train(toys.Twins(), toys.task(), TrainConfig(**given), out=folder / "two", record=toys.RECORD, quiet=True)
