"""Classes and domains: what is read of which side, that a target's labels change nothing, and how it is scored."""

import json
from itertools import islice

import numpy as np
import pytest
import torch

from diptych import models, tasks
from diptych.core.errors import UserError
from diptych.data.source import Row
from diptych.data.sources import open_data
from diptych.data.view import View
from diptych.tasks.beside import Beside
from diptych.tasks.class_scores import Outputs
from diptych.tasks.classes import Settings
from diptych.train.experiment import data_for, load_run, prepare, run
from diptych.train.plan import make_plan

TINY = {"image_patch": "8", "image_dim": "8", "image_layers": "1", "image_heads": "2", "dim": "8", "image_size": "16"}
SCENES = "scenes:200?objects=1&distinct=no&captions=1&size=16&styles=flat,night"
TO_NIGHT = {"sources": "flat", "targets": "night", "batch_size": "16"}


class Relabelled(View):
    """Gives the rows of one domain each other's labels, in the test split too if asked to."""

    def __init__(self, source, domain, *, test=False):
        super().__init__(source, how="relabelled")
        own = [i for i in range(len(source)) if source.row(i).fields["style"] == domain]
        own = [i for i in own if test or source.row(i).split != "test"]
        shuffled = np.random.default_rng(0).permutation(own).tolist()
        self.of = dict(zip(own, shuffled, strict=True))

    def change(self, row: Row, place: int) -> Row:
        label = self.source.row(self.of.get(place, place)).fields["label"]
        return Row(row.key, row.captions, row.split, {**row.fields, "label": label})


class Unlabelled(View):
    """Has no classes."""

    def change(self, row: Row, place: int) -> Row:
        return Row(row.key, row.captions, row.split)


def joined(source=None, system="dann", seed=0, **settings):
    plan = make_plan(system, settings={**TINY, **TO_NIGHT, **settings})
    source = open_data(SCENES) if source is None else source
    kind = tasks.load("classes")
    tokenizer, spec = kind.facts(source, plan.model, plan.data)
    torch.manual_seed(0)
    model = models.load(system).build(plan.model, spec)
    return kind.join(source, model, tokenizer, spec, plan.data, seed=seed), model


def trained(out, source, system, **settings):
    plan = make_plan(system, settings={**TINY, **TO_NIGHT, "steps": "6", "evaluate_every": "0.5", **settings})
    experiment = prepare(plan, source, out=out, named="scenes")
    return run(experiment, out=out)


def test_a_batch_holds_labelled_source_and_as_much_unlabelled_target():
    data, _ = joined()
    assert isinstance(data.training(), Beside)
    batch = next(data.training().epoch(0))
    assert batch.need("domain").tolist() == [0] * 16 + [1] * 16
    assert (batch.need("label")[:16] >= 0).all()
    assert (batch.need("label")[16:] == -1).all()
    styles = [data.source.row(int(row)).fields["style"] for row in batch.need("pair_id")]
    assert styles == ["flat"] * 16 + ["night"] * 16
    named = [data.spec.classes[place] for place in batch.need("label")[:16].tolist()]
    assert named == [data.source.row(int(row)).fields["label"] for row in batch.need("pair_id")[:16]]


def test_a_system_that_does_not_adapt_sees_no_target():
    batch = next(joined(system="fine_tune")[0].training().epoch(0))
    assert batch.need("domain").tolist() == [0] * 16
    batch = next(joined(system="fine_tune", labels="target")[0].training().epoch(0))
    assert batch.need("domain").tolist() == [1] * 16
    assert (batch.need("label") >= 0).all()
    assert set(next(joined(system="fine_tune", labels="both")[0].training().epoch(0)).need("domain").tolist()) == {0, 1}


def test_batches_are_the_same_wherever_an_epoch_is_begun():
    batches = joined()[0].training()
    whole = [batch.need("pair_id").tolist() for epoch in range(3) for batch in batches.epoch(epoch)]
    count = len(batches)
    assert [b.need("pair_id").tolist() for b in batches.epoch(1, 2)] == whole[count + 2 : 2 * count]
    target = [row for rows in whole for row in rows[16:]]
    size = len(batches.second) * 16
    assert len(set(target[:size])) == size, "an epoch of the target shows each picture once"


@pytest.mark.parametrize("system", ["fine_tune", "mmd", "dann"])
def test_shuffling_the_targets_labels_changes_no_bit_of_training(system, tmp_path):
    source = open_data(SCENES)
    for name, data in (("one", source), ("two", Relabelled(source, "night", test=True))):
        trained(tmp_path / name, data, system)
    one, two = (tmp_path / "one", tmp_path / "two")
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    lines = [[json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()] for place in (one, two)]
    timed = ("time", "rate")
    kept = [[{k: v for k, v in line.items() if k not in timed} for line in log] for log in lines]
    assert kept[0] == kept[1]
    assert not any("valid/target/accuracy" in line for line in kept[0])
    scores = [json.loads((place / "scores.json").read_text())["test"] for place in (one, two)]
    assert scores[0]["source/accuracy"] == scores[1]["source/accuracy"]


def test_shuffling_the_sources_labels_does_change_it(tmp_path):
    source = open_data(SCENES)
    trained(tmp_path / "one", source, "dann")
    trained(tmp_path / "two", Relabelled(source, "flat"), "dann")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two")]
    assert weights[0] != weights[1]


def test_labels_of_the_target_are_told_on_the_test_split_alone():
    data, model = joined()
    for split, told in (("train", False), ("dev", False), ("test", True), ("all", True)):
        batches = list(data.judged(split, model).epoch(0))
        domain = torch.cat([batch.need("domain") for batch in batches])
        label = torch.cat([batch.need("label") for batch in batches])
        assert (label[domain == 0] >= 0).all()
        assert bool((label[domain == 1] >= 0).all()) == told, split
    assert {"source/accuracy", "target/infomax"} <= data.scores(model, "dev").keys()
    assert "target/accuracy" not in data.scores(model, "dev")
    assert {"target/accuracy", "target/accuracy_by_class"} <= data.scores(model, "test").keys()


def test_the_selection_is_the_chance_of_the_right_class_and_how_decided_the_target_is():
    logits = torch.log(torch.tensor([[0.8, 0.2], [0.4, 0.6], [0.99, 0.01], [0.01, 0.99]]))
    out = Outputs(torch.zeros(4, 1), logits, torch.tensor([0, 0, -1, -1]), torch.tensor([0, 0, 1, 1]), torch.arange(4))
    assert out.chance((0,)) == pytest.approx(0.6, abs=1e-6)
    scores = out.scores(prefixed=True)
    assert scores["source/accuracy"] == 0.5
    assert scores["target/infomax"] == pytest.approx(0.9192, abs=1e-4)
    for system, more in (("dann", True), ("fine_tune", False)):
        data, model = joined(system=system)
        model.eval()
        dev = data.scores(model, "dev")
        plain = data.outputs(model, data.judged("dev", model).epoch(0)).chance((0,))
        assert dev["selection"] == pytest.approx(plain + more * dev["target/infomax"], abs=1e-9)


def test_a_class_that_was_never_learnt_counts_as_wrong():
    logits = torch.tensor([[2.0, 1.0], [2.0, 1.0]])
    out = Outputs(torch.zeros(2, 1), logits, torch.tensor([0, 2]), torch.zeros(2).long(), torch.arange(2))
    assert out.scores(prefixed=False) == {"accuracy": 0.5, "accuracy_by_class": 0.5}


def test_without_domains_it_is_plain_classification(tmp_path):
    source = open_data("scenes:100?objects=1&distinct=no&captions=1&size=16")
    plan = make_plan("fine_tune", settings={**TINY, "batch_size": "16", "steps": "4"})
    _, scores = run(prepare(plan, source, out=tmp_path / "run", named="scenes"), out=tmp_path / "run")
    assert {"accuracy", "accuracy_by_class", "selection"} == scores.keys()


def test_a_run_is_scored_again_as_it_was(tmp_path):
    source = open_data(SCENES)
    _, scores = trained(tmp_path / "run", source, "mmd")
    opened = load_run(tmp_path / "run")
    again = data_for(opened, source, split="test").scores(opened.model, "test")
    assert again == pytest.approx(scores, abs=1e-5)


def test_it_adapts_from_several_domains_to_the_rest():
    source = open_data("scenes:60?objects=1&distinct=no&captions=1&size=16&styles=flat,night,noisy")
    data, _ = joined(source, sources="flat,noisy", batch_size="8")
    batches = list(islice(data.training().epoch(0), 3))
    seen = {source.row(int(row)).fields["style"] for b in batches for row in b.need("pair_id")[:8]}
    assert seen == {"flat", "noisy"}
    assert len(joined(source, sources="", targets="night", batch_size="8")[0].sides.source) == len(data.sides.source)


@pytest.mark.parametrize(
    ("system", "settings", "told"),
    [
        ("dann", {"sources": "", "targets": ""}, r"give --set targets=DOMAIN \(there are: flat, night\)"),
        ("dann", {"targets": "nigt"}, "did you mean 'night'"),
        ("dann", {"targets": "flat"}, "'flat' is a source and a target"),
        ("fine_tune", {"labels": "target", "targets": "", "sources": ""}, "labels=target needs a target"),
        ("fine_tune", {"domain": "camera"}, "there is no column 'camera'"),
        ("fine_tune", {"batch_size": "5000"}, "batch size 5000 is more than"),
    ],
)
def test_mistakes_are_told(system, settings, told):
    with pytest.raises(UserError, match=told):
        joined(system=system, **settings)[0].training()


def test_data_without_classes_or_domains_is_refused(table):
    plan = make_plan("dann", settings={**TINY, "sources": "a", "targets": "b"})
    kind = tasks.load("classes")
    with pytest.raises(UserError, match="has no domains"):
        kind.facts(open_data(table), plan.model, plan.data)
    with pytest.raises(UserError, match="has no classes"):
        kind.facts(Unlabelled(open_data(table), how="unlabelled"), plan.model, Settings())
