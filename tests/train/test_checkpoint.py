import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from diptych.core.errors import UserError
from diptych.core.model import Loss, Model
from diptych.train.checkpoint import load_weights, named_weights, read_record, save_model
from diptych.train.files import disk_trouble, is_whole, read_json, read_tensors, whole_folder, write_json, write_tensors
from tests.train import toys


class Tied(Model):
    """Words go in and out through the same matrix."""

    def __init__(self, words=5):
        super().__init__()
        self.read, self.say = nn.Embedding(words, 3), nn.Linear(3, words, bias=False)
        self.say.weight = self.read.weight
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def loss(self, batch, phase="main"):
        return Loss(self.read.weight.sum())


def test_a_model_comes_back_with_tied_weights_tied(tmp_path):
    model = Tied()
    model.seen += 3
    save_model(tmp_path / "run", model, toys.RECORD)
    assert set(load_file(tmp_path / "run" / "model.safetensors")) == {"read.weight", "seen"}
    other = Tied()
    load_weights(other, tmp_path / "run")
    assert torch.equal(other.say.weight, model.read.weight)
    assert other.say.weight is other.read.weight
    assert other.seen == 3
    assert read_record(tmp_path / "run", system="toy") == toys.RECORD
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["config.json", "model.safetensors"]


def test_weights_that_do_not_fit_are_told_by_the_first_name(tmp_path):
    save_model(tmp_path, Tied(), toys.RECORD)
    with pytest.raises(UserError, match=r"read\.weight has shape \(5, 3\) there and \(7, 3\) here; the vocabulary"):
        load_weights(Tied(7), tmp_path)
    with pytest.raises(UserError, match=r"lacks weights: image\.bias, image\.weight, norm\.bias and 5 more"):
        load_weights(toys.Twins(), tmp_path)
    save_file({**named_weights(Tied()), "more": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"has unknown weights: more; it is of another system"):
        load_weights(Tied(), tmp_path)


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"no run in .*none: there is no such folder"):
        read_record(tmp_path / "none")
    with pytest.raises(UserError, match=r"it has no config\.json"):
        read_record(tmp_path)
    (tmp_path / "config.json").write_text('{"system": "clip", "config": ')
    with pytest.raises(UserError, match=r"config\.json is cut short"):
        read_record(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="holds no JSON object"):
        read_record(tmp_path)
    (tmp_path / "config.json").write_text('{"system": "clip"}')
    with pytest.raises(UserError, match="does not say config, spec"):
        read_record(tmp_path)
    write_json(tmp_path / "config.json", toys.RECORD)
    with pytest.raises(UserError, match="holds a 'toy', not a 'clip'"):
        read_record(tmp_path, system="clip")
    with pytest.raises(UserError, match=r"model\.safetensors is not there"):
        load_weights(Tied(), tmp_path)


def test_weights_cut_short_are_one_line(tmp_path):
    save_model(tmp_path, Tied(), toys.RECORD)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match="is cut short or no safetensors file"):
        load_weights(Tied(), tmp_path)


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    target = tmp_path / "state"
    with pytest.raises(FileNotFoundError), whole_folder(target) as folder:
        (folder / "none" / "one.json").write_text("{}")
    assert list(tmp_path.iterdir()) == []
    with whole_folder(target) as folder:
        write_json(folder / "one.json", {"a": 1})
        write_tensors(folder / "two.safetensors", {"b": torch.ones(2)})
    assert is_whole(target)
    assert sorted(json.loads((target / "manifest.json").read_text())) == ["one.json", "two.safetensors"]
    two = bytearray((target / "two.safetensors").read_bytes())
    two[-1] ^= 1
    (target / "two.safetensors").write_bytes(two)
    assert not is_whole(target)
    (target / "two.safetensors").unlink()
    assert not is_whole(target)
    assert not is_whole(tmp_path / "none")


def test_the_file_before_stays_when_the_new_one_cannot_be_written(tmp_path, monkeypatch):
    file = tmp_path / "weights.safetensors"
    write_tensors(file, {"a": torch.ones(3)})

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with (
        pytest.raises(UserError, match="cannot write it: No space left on device; the old one stays; make room"),
        disk_trouble("it", "the old one stays"),
    ):
        write_tensors(file, {"a": torch.zeros(3)})
    assert torch.equal(read_tensors(file)["a"], torch.ones(3))
    assert [found.name for found in tmp_path.iterdir()] == ["weights.safetensors"]


def test_other_faults_are_not_called_a_full_disk():
    with (
        pytest.raises(UserError, match="Read-only file system; nothing is lost; see to the disk"),
        disk_trouble("it", "nothing is lost"),
    ):
        raise OSError(30, "Read-only file system")
    with pytest.raises(ValueError, match="mine"), disk_trouble("it", ""):
        raise ValueError("mine")


def test_json_keeps_words_of_every_language(tmp_path):
    write_json(tmp_path / "a.json", {"caption": "一只红猫", "nothing": None, "number": 0.1})
    assert read_json(tmp_path / "a.json") == {"caption": "一只红猫", "nothing": None, "number": 0.1}
    assert "一只红猫" in (tmp_path / "a.json").read_text(encoding="utf-8")
