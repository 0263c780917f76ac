"""Whatever ends a process, the run goes on as if it had never stopped: bit for bit, on a CPU."""

import json
import shutil
import signal

import pytest
import torch
from safetensors.torch import load_file

from diptych.core.errors import UserError
from diptych.core.runtime import seed_everything
from diptych.train.config import TrainConfig
from diptych.train.trainer import train
from tests.train import child, toys

# 44 rows in batches of 8: an epoch has 5 steps, so step 50 + 3 is in the middle of one.
CONFIG = {"steps": 100, "lr": 0.05, "save_every": 6, "ema": 0.9, "evaluate_every": 1, "log_every": 4, "patience": 90}
MODEL = {"dropout": 0.3, "wild": True}


def whole_run(out, config=None, **given):
    seed_everything(0)
    return train(
        toys.Twins(**MODEL),
        toys.task(**given),
        TrainConfig(**(config or CONFIG)),
        out=out,
        record=toys.RECORD,
        quiet=True,
    )


def everything(out):
    """Read all that a run leaves, without the clock."""
    found = {"weights": load_file(out / "model.safetensors")}
    (state,) = (out / "resume").iterdir()
    for kind in ("weights", "optimizer", "average", "random"):
        found[f"state {kind}"] = load_file(state / f"{kind}.safetensors")
    plain = json.loads((state / "state.json").read_text())
    for clock in ("seconds", "log_bytes"):
        del plain["place"][clock]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return found, plain, [{key: value for key, value in line.items() if key not in ("time", "rate")} for line in lines]


def assert_same(one, other):
    assert one[0].keys() == other[0].keys()
    for kind, tensors in one[0].items():
        assert tensors.keys() == other[0][kind].keys()
        for name, value in tensors.items():
            assert torch.equal(value, other[0][kind][name]), (kind, name)
    assert one[1:] == other[1:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Train in plain processes: the checks of the test run draw from Python's random numbers."""
    folder = tmp_path_factory.mktemp("runs")
    killed = {**CONFIG, "out": "killed", "model": MODEL}
    ((code, text),) = child.run("train", folder, {"runs": [{**killed, "task": {"kill_at": 54}}]})
    assert code == -signal.SIGKILL, text
    saved = [state.name for state in (folder / "killed" / "resume").iterdir()]
    assert saved in (["000000048"], ["000000050"])  # 50 ends an epoch; the steps after it and a line of log are lost
    several = [killed, {**killed, "out": "unbroken"}]
    for heard in (signal.SIGTERM, signal.SIGINT):
        stopped = {**killed, "save_every": 0, "save_minutes": 0, "out": heard.name}
        several += [{**stopped, "task": {"signal_at": [38, int(heard)]}}, stopped]
    ((code, text),) = child.run("train", folder, {"runs": several})
    assert code == 0, text
    return folder, text


def test_kill_in_the_middle_of_an_epoch(runs):
    folder, _ = runs
    assert_same(everything(folder / "killed"), everything(folder / "unbroken"))
    assert len(everything(folder / "unbroken")[2]) == 25 + 20  # lines of losses and of scores, none twice


@pytest.mark.parametrize("heard", ["SIGTERM", "SIGINT"])
def test_a_signal_saves_after_the_step_and_says_how_to_go_on(runs, heard):
    folder, text = runs
    assert text.count("stopped at step 38 and saved; go on with: diptych go") == 2
    assert text.count('"steps": 38') == text.count('"stopped": "interrupted"') == 2
    assert_same(everything(folder / heard), everything(folder / "unbroken"))


def test_a_second_signal_leaves_at_once(tmp_path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what is started in the background ignores it
    model, config = toys.Twins(), TrainConfig(steps=3)

    class Twice(toys.Pairs):
        def epoch(self, epoch, start=0):
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            yield from super().epoch(epoch, start)

    task = toys.task()
    with pytest.raises(KeyboardInterrupt):
        train(model, type(task)(task.spec, Twice()), config, out=tmp_path / "run", quiet=True)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_finished_run_is_not_overwritten_and_can_be_prolonged(tmp_path):
    out, config = tmp_path / "run", {"steps": 7, "lr": 0.01}
    whole_run(out, config)
    before = (out / "model.safetensors").read_bytes()
    with pytest.raises(UserError, match=r"finished run \(7 steps, best score .*give another --out, or --resume"):
        whole_run(out, config)
    assert (out / "model.safetensors").read_bytes() == before
    seed_everything(0)
    longer = TrainConfig(steps=9, lr=0.01)
    result = train(toys.Twins(**MODEL), toys.task(), longer, out=out, record=toys.RECORD, resume=True, quiet=True)
    assert (result.steps, result.stopped) == (9, "finished")
    assert json.loads((out / "config.json").read_text())["train"]["steps"] == 9


def interrupted(out, config):
    """Leave an unfinished run, stopped by a signal in this process."""
    result = whole_run(out, config, signal_at=(4, signal.SIGTERM))
    assert result.stopped == "interrupted"


def test_an_unfinished_run_of_other_settings_is_refused_by_the_first_that_differs(tmp_path):
    out = tmp_path / "run"
    interrupted(out, {"steps": 9, "lr": 0.01})
    with pytest.raises(UserError, match=r"other settings: train\.lr was 0\.01 and is now 0\.02; .*--resume"):
        whole_run(out, {"steps": 9, "lr": 0.02})
    record = {**toys.RECORD, "config": {"dim": 7}}
    with pytest.raises(UserError, match=r"config\.dim was 6 and is now 7; give the same, another --out$"):
        train(toys.Twins(), toys.task(), TrainConfig(steps=9, lr=0.01), out=out, record=record, resume=True, quiet=True)
    result = whole_run(out, {"steps": 9, "lr": 0.01, "save_minutes": 3.0})  # how often to save changes no number
    assert (result.steps, result.stopped) == (9, "finished")


def test_a_state_that_was_cut_short_is_not_used(tmp_path):
    out, config = tmp_path / "run", {"steps": 9, "lr": 0.01}
    interrupted(out, config)
    state = out / "resume" / "000000004"
    newer = out / "resume" / "000000006"
    shutil.copytree(state, newer)
    with (newer / "weights.safetensors").open("r+b") as file:
        file.truncate(100)
    (out / "resume" / ".000000008.part").mkdir()
    assert whole_run(out, config, signal_at=(1, signal.SIGTERM)).steps == 5
    for file in out.glob("resume/*/state.json"):
        file.unlink()
    with pytest.raises(UserError, match=r"state in .*resume is cut short or changed; delete .* or give another --out"):
        whole_run(out, config)


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(UserError, match=r"no run in .* to go on with; leave --resume out"):
        train(toys.Twins(), toys.task(), TrainConfig(), out=tmp_path / "none", resume=True, quiet=True)


def test_a_run_that_had_saved_nothing_begins_anew(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "config.json").write_text('{"system": "toy"}')
    (out / "metrics.jsonl").write_text('{"step": 1}\n{"st')
    whole_run(out, {"steps": 2, "lr": 0.3})
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == [2, 2]


def test_patience_counts_on_after_a_break_and_the_best_score_stays(tmp_path):
    # A rate of almost 0 with falling scores: the first score stays the best, whatever is taken up again.
    config = {"steps": 40, "lr": 1e-9, "patience": 3, "schedule": "constant", "weight_decay": 0}
    scores = iter([-1.0, -2.0, -3.0, -4.0])
    result = falling(tmp_path / "a", config, scores)
    assert (result.best, result.steps, result.stopped) == (-1.0, 20, "early")
    scores = iter([-1.0, -2.0, -3.0, -4.0])
    assert falling(tmp_path / "b", config, scores, signal_at=(12, signal.SIGTERM)).stopped == "interrupted"
    result = falling(tmp_path / "b", config, scores)
    assert (result.best, result.steps, result.stopped) == (-1.0, 20, "early")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["result"]["best"] == -1.0


def falling(out, config, scores, **given):
    seed_everything(0)
    made = toys.task(**given)
    judged = type(made)(
        made.spec, made.train, valid=made.valid, evaluators=(lambda *_: {"fit": next(scores)},), monitor="fit"
    )
    return train(toys.Twins(), judged, TrainConfig(**config), out=out, record=toys.RECORD, quiet=True)
