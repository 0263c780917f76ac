"""What a run came to, read from its folder."""

import json

import pytest
import torch

from diptych.train.memory import PeakMemory
from diptych.train.outcome import Outcome, changed_setting, finite, mean_rate, read_outcome
from diptych.train.plan import make_plan


def test_an_outcome_is_read_as_it_was_written(tmp_path):
    assert read_outcome(tmp_path) is None
    told = Outcome(3, {"a/b": 0.5}, split="test", monitor="a/b", rate=10.0, memory=2**40, steps=7)
    told.write(tmp_path / "run")
    assert read_outcome(tmp_path / "run") == told


def test_the_mean_rate_is_all_examples_over_all_seconds(tmp_path):
    """Ten steps at 100 a second and ten at 25: twenty steps' examples in the time of 50 at 100."""
    lines = [{"step": 10, "rate": 100.0}, {"step": 10, "valid/r": 1.0}, {"step": 20, "rate": 25.0}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert mean_rate(tmp_path) == pytest.approx(20 / (10 / 100 + 10 / 25))
    assert mean_rate(tmp_path / "none") is None


def test_a_changed_setting_is_named(tmp_path):
    plan = make_plan("clip", settings={"dim": 8})
    assert changed_setting(tmp_path, plan, "f") == ""
    record = {
        "system": "clip",
        "config": plan.model.model_dump(mode="json"),
        "data": {"fingerprint": "f", "source": "a table"} | plan.data.model_dump(mode="json", exclude={"workers"}),
        "train": plan.train.model_dump(mode="json"),
    }
    (tmp_path / "config.json").write_text(json.dumps(record))
    assert changed_setting(tmp_path, make_plan("clip"), "f") == ""  # nothing to lose yet
    (tmp_path / "resume").mkdir()
    assert changed_setting(tmp_path, plan, "f") == ""
    assert changed_setting(tmp_path, plan, "g") == "the data was a table and is now another"
    harmless = make_plan("clip", settings={"dim": 8, "workers": 0, "device": "cpu", "save_every": 3})
    assert changed_setting(tmp_path, harmless, "f") == ""
    longer = make_plan("clip", settings={"dim": 8, "epochs": 3})
    assert changed_setting(tmp_path, longer, "f") == "train.epochs was 10.0 and is now 3.0"
    assert changed_setting(tmp_path, make_plan("siglip"), "f") == "system was clip and is now siglip"


def test_a_score_that_is_no_number():
    assert finite({"a": 1.0})
    assert not finite({"a": 1.0, "b": float("nan")})


def test_peak_memory_sees_what_is_gone_again():
    peak = PeakMemory(torch.device("cpu"))
    before = peak.bytes()
    torch.ones(2**26).sum()
    assert peak.bytes() - before > 2**27
