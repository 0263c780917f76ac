import json
import math
import signal

import pytest
import torch
from safetensors.torch import load_file

from diptych.core.errors import UserError
from diptych.core.runtime import seed_everything
from diptych.tasks.task import Task
from diptych.train.config import TrainConfig
from diptych.train.distributed import processes
from diptych.train.trainer import train
from tests.train import child, toys


def lines(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def go(model, out, task=None, **settings):
    task = toys.task() if task is None else task
    return train(model, task, TrainConfig(**settings), out=out, record=toys.RECORD, quiet=True)


def test_a_run_learns_keeps_the_best_and_says_all_in_its_folder(tmp_path):
    out, model = tmp_path / "run", toys.Guess()
    result = go(model, out, epochs=6, lr=0.03, log_every=10, weight_decay=0)
    assert (result.steps, result.stopped) == (30, "finished")
    assert result.best == max(line["valid/minus_loss"] for line in lines(out) if "valid/minus_loss" in line)
    assert not model.training
    assert toys.score(model, toys.Pairs(16, 8, seed=9).epoch(0))["minus_loss"] == pytest.approx(result.best)
    for name, value in load_file(out / "model.safetensors").items():
        assert torch.equal(value, model.state_dict()[name])
    learnt = [line for line in lines(out) if "loss" in line]
    assert [line["step"] for line in learnt] == [10, 20, 30]
    assert [line["epoch"] for line in learnt] == [2, 4, 6]
    assert learnt[-1]["loss"] < 0.9 * learnt[0]["loss"]
    assert all(line["norm"] > 0 and line["rate"] > 0 and line["time"] > 0 and line["lr"] >= 0 for line in learnt)
    record = json.loads((out / "config.json").read_text())
    assert record["system"] == "toy"
    assert record["train"]["lr"] == 0.03
    assert record["result"]["scores"] == result.scores


def test_falling_scores_keep_the_first_weights(tmp_path):
    model, scores, seen = toys.Guess(), iter([-5.0, math.nan, -7.0]), []

    def judge(model, batches):
        seen.append(model.gain.item())
        return {"fit": next(scores)}

    task = Task(toys.task().spec, toys.Pairs(), valid=toys.Pairs(), evaluators=(judge,), monitor="fit")
    result = go(model, tmp_path / "run", task, epochs=3, lr=0.1)
    assert result.best == -5.0
    assert model.gain.item() == seen[0] != seen[2]


def test_without_a_score_the_last_weights_are_kept(tmp_path):
    task = Task(toys.task().spec, toys.Pairs())
    result = go(toys.Guess(), tmp_path / "run", task, steps=7)
    (state,) = (tmp_path / "run" / "resume").iterdir()
    assert (result.best, result.steps) == (None, 7)
    assert load_file(state / "weights.safetensors").keys() == load_file(tmp_path / "run" / "model.safetensors").keys()
    for name, value in load_file(state / "weights.safetensors").items():
        assert torch.equal(value, load_file(tmp_path / "run" / "model.safetensors")[name])


def test_the_average_is_scored_and_kept_where_it_is_on(tmp_path):
    seen = []

    def judge(model, batches):
        seen.append(model.gain.item())
        return {"fit": 1.0}

    task = Task(toys.task().spec, toys.Pairs(), valid=toys.Pairs(), evaluators=(judge,), monitor="fit")
    go(toys.Guess(), tmp_path / "run", task, steps=5, lr=0.1, ema=0.9)
    (state,) = (tmp_path / "run" / "resume").iterdir()
    average, last = load_file(state / "average.safetensors")["gain"], load_file(state / "weights.safetensors")["gain"]
    assert seen == [average.item()]
    assert load_file(tmp_path / "run" / "model.safetensors")["gain"] == average != last


def test_phases_alternate_and_each_moves_only_its_own(tmp_path):
    seed_everything(0)
    model = toys.Gan()
    go(model, tmp_path / "run", Task(toys.task().spec, toys.Pairs()), steps=2, lr=0.01, phase_lr={"critic": 0.0})
    assert model.asked == [("critic", False, True), ("generator", True, False)] * 2
    seed_everything(0)
    fresh = toys.Gan()
    assert torch.equal(model.judge.bias, fresh.judge.bias)  # its rate was 0
    assert not torch.equal(model.make.bias, fresh.make.bias)
    assert all(value.requires_grad for value in model.parameters())
    assert {"critic/loss", "critic/norm", "generator/loss", "generator/norm"} <= lines(tmp_path / "run")[-1].keys()
    with pytest.raises(UserError, match="phase_lr names 'judge', but this system has only: critic, generator"):
        go(toys.Gan(), tmp_path / "other", Task(toys.task().spec, toys.Pairs()), steps=2, phase_lr={"judge": 1})


def test_stages_follow_one_another_each_with_its_own_best(tmp_path):
    def judge(model, batches):
        return {"drawn": 1.0} if model.stage == "code" else {"named": -float(model.word.weight.norm())}

    def stages(out, **given):
        seed_everything(0)
        model = toys.Ladder()
        task = Task(toys.task().spec, toys.Pairs(**given), valid=toys.Pairs(), evaluators=(judge,), monitor="named")
        return model, go(model, out, task, steps=7, lr=0.02, save_every=1)

    model, result = stages(tmp_path / "run")
    assert model.entered == ["code", "word"]
    assert (result.steps, result.stopped, set(result.scores)) == (14, "finished", {"named"})
    learnt = [line for line in lines(tmp_path / "run") if "loss" in line]
    assert [(line["step"], line["stage"]) for line in learnt] == [(7, "code"), (10, "word"), (14, "word")]
    _, broken = stages(tmp_path / "broken", signal_at=(10, signal.SIGTERM))
    assert (broken.steps, broken.stopped) == (10, "interrupted")
    again, result = stages(tmp_path / "broken")
    assert again.entered == ["code", "word"]
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


def test_a_stage_has_its_own_length_and_rate(tmp_path, capsys):
    task = Task(toys.task().spec, toys.Pairs())
    settings = {"epochs": 1, "lr": 0.02, "stage_epochs": {"word": 2}, "stage_lr": {"word": 0.5, "rhyme": 2.0}}
    config = TrainConfig(log_every=1, schedule="constant", warmup=0, **settings)
    assert train(toys.Ladder(), task, config, out=tmp_path / "run", record=toys.RECORD).steps == 5 + 10
    rates = {(line["stage"], line["lr"]) for line in lines(tmp_path / "run") if "loss" in line}
    assert rates == {("code", 0.02), ("word", 0.01)}
    said = capsys.readouterr()
    assert "stage 'rhyme' are not used" in said.out + said.err
    assert go(toys.Ladder(), tmp_path / "short", task, steps=3, stage_epochs={"word": 2}).steps == 6
    assert go(toys.Ladder(), tmp_path / "one", task, epochs=1, stage_epochs={"word": 0}).steps == 5


@pytest.mark.parametrize("how", ["loss", "norm"])
def test_a_loss_that_is_no_number_stops_before_the_weights_are_touched(tmp_path, how):
    out, model = tmp_path / "run", toys.Breaking(how)
    with pytest.raises(
        UserError,
        match=rf"stopped at step 6, epoch 2: {how} became nan in phase 'main' at lr .*; the last good state, "
        r"of step 5, stays; try a smaller lr \(0\.033\)",
    ):
        go(model, out, steps=20, lr=0.1)
    assert all(value.isfinite().all() for value in model.parameters())
    assert all(value.isfinite().all() for value in load_file(out / "model.safetensors").values())
    assert (out / "resume" / "000000005").is_dir()


def test_a_full_disk_leaves_the_last_good_state(tmp_path):
    out = tmp_path / "run"
    settings = {"steps": 30, "save_every": 1, "ema": 0.5, "log": [], "evaluate_every": 0}
    # the first run has room for everything; the second may not write a file of the size of the weights
    go(toys.Twins(), out, toys.task(signal_at=(4, 15)), **settings)
    ((code, text),) = child.run("train", out, {**settings, "file_limit": 3000})
    assert code == 2, text
    assert "error: cannot write" in text
    assert "File too large; the last good state, of step 4, stays; make room and start again" in text
    assert [folder.name for folder in (out / "resume").iterdir()] == ["000000004"]
    assert go(toys.Twins(), out, **settings).stopped == "finished"


def test_settings_and_data_that_do_not_fit_are_one_line(tmp_path):
    task, out = toys.task(), tmp_path / "run"
    with pytest.raises(
        UserError, match=r"no full batch to learn from: batches of 64 are over the data; give a smaller"
    ):
        go(toys.Guess(), out, toys.task(batch_size=64))
    with pytest.raises(UserError, match="nothing to do: epochs=0 and steps=0"):
        go(toys.Guess(), out, epochs=0)
    with pytest.raises(UserError, match="'fit' cannot be watched"):
        go(toys.Guess(), out, Task(task.spec, task.train, monitor="fit"))
    with pytest.raises(UserError, match=r"unknown score to watch 'minus_los'; did you mean 'minus_loss'\?"):
        go(toys.Guess(), out, Task(task.spec, task.train, task.valid, None, task.evaluators, "minus_los"), epochs=1)
    twice = Task(task.spec, task.train, task.valid, None, task.evaluators * 2, "minus_loss")
    with pytest.raises(UserError, match="two evaluators give the score 'minus_loss'"):
        go(toys.Guess(), out, twice, epochs=1)
    frozen = toys.Guess().requires_grad_(False)
    with pytest.raises(UserError, match="nothing to learn in phase 'main'"):
        go(frozen, out, epochs=1)
    with pytest.raises(UserError, match="sharding=fsdp needs torchrun"):
        go(toys.Guess(), out, epochs=1, sharding="fsdp")
    with pytest.raises(UserError, match="device 'quantum' is not known"):
        go(toys.Guess(), out, device="quantum")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is a file; give another --out"):
        go(toys.Guess(), tmp_path / "file")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(UserError, match="device 'cuda' is not there on this machine"), processes("cuda"):
        pass


def test_processes_that_have_not_joined_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="torchrun started several processes, but they have not joined"):
        go(toys.Guess(), tmp_path / "run", steps=1)


def test_data_that_give_nothing_do_not_run_for_ever(tmp_path):
    class Empty(toys.Pairs):
        def epoch(self, epoch, start=0):
            return super().epoch(epoch, start) if epoch < 2 else iter(())

    with pytest.raises(UserError, match="gave no batch at all"):
        go(toys.Guess(), tmp_path / "run", Task(toys.task().spec, Empty()), epochs=3)


def test_pictures_that_were_left_out_are_counted_in_the_log(tmp_path):
    task = Task(toys.task().spec, toys.Pairs())
    task.train.skipped = ["a.jpg", "b.jpg"]
    go(toys.Guess(), tmp_path / "run", task, epochs=2)
    assert [line["skipped"] for line in lines(tmp_path / "run") if "skipped" in line] == [2.0]


def test_scoring_does_not_change_the_training(tmp_path):
    weights = []
    for every in (0, 0.2, 1):
        seed_everything(0)
        model = toys.Twins(dropout=0.5)
        go(model, tmp_path / str(every), epochs=2, evaluate_every=every)
        (state,) = (tmp_path / str(every) / "resume").iterdir()
        weights.append(load_file(state / "weights.safetensors")["text.weight"])
        scored = [line["step"] for line in lines(tmp_path / str(every)) if "valid/minus_loss" in line]
        assert scored == {0: [10], 0.2: list(range(1, 11)), 1: [5, 10]}[every]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_scores_are_in_float32_where_the_training_is_not(tmp_path):
    seen = {"train": set(), "valid": set()}

    class Looking(toys.Guess):
        def logits(self, batch):
            found = super().logits(batch)
            seen["train" if self.training else "valid"].add(self.layers[0](batch.image.flatten(1)).dtype)
            return found

    go(Looking(), tmp_path / "run", epochs=1, precision="bf16")
    assert seen == {"train": {torch.bfloat16}, "valid": {torch.float32}}


def test_tensorboard_gets_the_same_curves(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    out = tmp_path / "run"
    go(toys.Guess(), out, epochs=2, log=("jsonl", "tensorboard"), log_every=5)
    board = reading.EventAccumulator(str(out / "tensorboard"))
    board.Reload()
    told = {line["step"]: line["loss"] for line in lines(out) if "loss" in line}
    assert {event.step: event.value for event in board.Scalars("loss")} == pytest.approx(told)
