import json

import pytest

from diptych.core.errors import UserError
from diptych.train import log as log_module
from diptych.train.log import Log
from diptych.train.meter import Meter
from diptych.train.progress import Silent
from diptych.train.state import Place


def test_lines_after_the_saved_moment_are_written_again(tmp_path):
    log = Log(tmp_path, ("jsonl",))
    log.write(1, {"loss": 2.0})
    length = len(log)
    log.write(2, {"loss": 1.0})
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')  # a process that was killed while it wrote
    log = Log(tmp_path, ("jsonl",), length=length, step=1)
    log.write(2, {"loss": 1.5})
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]


def test_no_log_is_a_log_too(tmp_path):
    log = Log(tmp_path, ())
    log.write(1, {"loss": 2.0})
    assert len(log) == 0
    log.close()
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_that_is_not_installed_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(log_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'log=tensorboard needs TensorBoard: pip install "diptych\[log\]"'):
        Log(tmp_path, ("tensorboard",))


def test_a_line_is_the_mean_of_its_steps_and_a_break_does_not_change_it(tmp_path):
    lines = []
    for broken in (False, True):
        (tmp_path / str(broken)).mkdir()
        log, place = Log(tmp_path / str(broken), ("jsonl",)), Place()
        meter = Meter(log, Silent(), place, every=4, epoch=5)
        for step in range(1, 7):
            place.step, place.stage_step, place.batch = step, step, step
            meter.step({"loss": float(step), "norm": 1.0}, lr=0.1, examples=8, last=step == 6)
            if broken and step == 3:
                meter = Meter(log, Silent(), place, every=4, epoch=5)
        log.close()
        lines.append([json.loads(line) for line in (tmp_path / str(broken) / "metrics.jsonl").read_text().splitlines()])
    assert [[(line["step"], line["epoch"], line["loss"]) for line in each] for each in lines] == [
        [(4, 0.8, 2.5), (6, 1.2, 5.5)]
    ] * 2
