"""Answers as a task: every question once an epoch, answers of training alone, and judges that know what blind means."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
import torch
from torch import nn

from diptych import models
from diptych.core.errors import UserError
from diptych.core.model import Answerer, Loss, Model
from diptych.data.scenes import open_scenes
from diptych.data.source import Row, Source
from diptych.encoders.offers import Sighted
from diptych.tasks import answers
from tests.models.systems import SMALL_ASK, SPEC

SETTINGS = {"batch_size": 12, "questions": 3, "workers": 0}


def config(system="attention_vqa", **changed):
    kind = models.load(system).Config
    values = {**SMALL_ASK, "dim": 16, "text_vocabulary": 400, "image_size": 32, "text_dim": 16, **changed}
    return kind.parse({name: value for name, value in values.items() if name in kind.model_fields})


def joined(model=None, *, source=None, system="attention_vqa", changed=None, **settings):
    source = open_scenes("scenes:60") if source is None else source
    chosen, known = config(system, **(changed or {})), answers.Settings(**{**SETTINGS, **settings})
    tokenizer, spec = answers.facts(source, chosen, known)
    model = models.load(system).build(chosen, spec) if model is None else model
    return answers.join(source, model, tokenizer, spec, known, device="cpu"), model


class Told(Source):
    """Pictures with given questions."""

    name = "told"

    def __init__(self, fields, splits):
        self.fields, self.split, self.problems = fields, splits, []

    def __len__(self):
        return len(self.fields)

    def row(self, index):
        return Row(str(index), (), self.split[index], self.fields[index])

    def picture(self, index):
        return np.full((8, 8, 3), index, dtype=np.uint8)

    def splits(self):
        return np.array([("train", "dev", "test").index(one) for one in self.split], dtype=np.uint8)

    def fingerprint(self):
        return "told"


def small(*, test="blue"):
    people = {"question": "what colour?", "answers": ["red"] * 7 + ["pink"] * 3, "kind": "colour"}
    counted = {"question": ["how many?", "what colour?"], "answers": [["2"], ["red"]], "kind": ["count", "colour"]}
    return Told([people, counted, {"question": "what colour?", "answers": [test]}], ["train", "train", "test"])


class Oracle(Model, Answerer, Sighted):
    """Gives the right answer where it sees, and always the last one where it does not."""

    def __init__(self, data=None):
        super().__init__()
        self.weight, self.image_tower = nn.Parameter(torch.zeros(())), None

    def loss(self, batch, phase="main"):
        return Loss(self.weight.square())

    def reads(self):
        raise AssertionError("nothing is frozen")

    def answer(self, batch):
        if batch.image is None:
            found = torch.zeros_like(batch.answer_scores)
            found[:, -1] = 1
            return found
        return batch.answer_scores


def test_every_question_comes_once_an_epoch_in_pictures_of_several():
    data, _ = joined()
    wanted = Counter((row, place) for row in range(48) for place in range(len(data.source.asked(row))))
    orders = []
    for epoch in (0, 1):
        batches = list(data.training().epoch(epoch))
        assert all(len(batch) <= 12 for batch in batches)
        seen = [pair for b in batches for pair in zip(b.pair_id.tolist(), b.question_id.tolist(), strict=True)]
        assert max(Counter(seen).values()) == 1
        assert len(seen) >= 0.9 * wanted.total(), "only the last, smaller batch is left out"
        assert set(seen) <= set(wanted)
        orders.append(seen)
    assert orders[0] != orders[1]
    again = [
        pair for b in data.training().epoch(1) for pair in zip(b.pair_id.tolist(), b.question_id.tolist(), strict=True)
    ]
    assert again == orders[1]


def test_a_batch_holds_the_question_its_picture_and_what_answers_are_worth():
    data, _ = joined()
    batch = next(iter(data.training().epoch(0)))
    for row in range(len(batch)):
        picture, place = int(batch.pair_id[row]), int(batch.question_id[row])
        asked = data.source.asked(picture)[place]
        assert data.tokenizer.decode(batch.tokens[row].tolist()) == asked.question
        assert data.spec.answers[int(batch.answer[row])] == asked.answer
        assert batch.answer_scores[row].sum() == batch.answer_scores[row, batch.answer[row]] == 1
        first = batch.pair_id.tolist().index(picture)
        torch.testing.assert_close(batch.image[row], batch.image[first])


def test_answers_are_those_of_training_the_commonest_first():
    data, _ = joined(source=small())
    assert data.spec.answers == ("red", "2")
    assert data.usual == {"colour": "red", "count": "2"}
    loader = data.asked(data.readable("test"))
    (batch,) = loader.epoch(0)
    assert batch.answer.tolist() == [-1]
    assert not batch.answer_scores.any()
    scores = data.score(Oracle(), loader.epoch(0))
    assert scores["accuracy"] == 0, "an answer that was never learnt is wrong"


def test_people_are_worth_what_they_agree():
    data, _ = joined(source=small(test="red"))
    (batch,) = data.asked(np.array([0])).epoch(0)
    assert batch.answer_scores.tolist() == [[1.0, 0.0]], "pink is no commonest answer, so it cannot be given"
    least, _ = joined(source=small(), least=2)
    assert least.spec.answers == ("red",)
    with pytest.raises(UserError, match="no answer that is given 9 times in training"):
        joined(source=small(), least=9)


def test_the_judge_counts_by_kind_and_without_the_picture():
    data, _ = joined()
    oracle = Oracle()
    scores = data.scores(oracle, "test")
    every = [one for row in data.source.rows("test").tolist() for one in data.source.asked(row)]
    last, first = data.spec.answers[-1], data.spec.answers[0]
    assert scores["accuracy"] == 1
    assert scores["questions"] == len(every)
    assert scores["accuracy_blind"] == pytest.approx(np.mean([one.answer == last for one in every]))
    assert scores["accuracy_constant"] == pytest.approx(np.mean([one.answer == first for one in every]))
    exists = [one for one in every if one.kind == "exists"]
    assert scores["exists/accuracy_constant"] == pytest.approx(
        np.mean([one.answer == data.usual["exists"] for one in exists])
    )


def test_a_system_that_sees_nothing_reads_no_picture():
    data, model = joined(system="question_only")
    (batch, *_) = data.training().epoch(0)
    assert batch.image is None
    assert torch.isfinite(model.loss(batch).total)
    assert "accuracy_blind" not in data.scores(model, "test")


def test_a_frozen_text_tower_is_asked_once_though_nothing_is_seen(monkeypatch, tmp_path):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    data, model = joined(system="question_only", changed={"text_train": "frozen"})
    model.eval()
    batch = next(iter(data.training().epoch(0)))
    want = model.answer(dataclasses.replace(batch, text_states=None))
    monkeypatch.setattr(model.text_tower, "forward", lambda *_: pytest.fail("the tower was asked again"))
    got = model.answer(batch)
    torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-3)  # features are kept in half precision


def test_what_does_not_fit_is_refused():
    with pytest.raises(UserError, match="not a multiple of 1 processes with 5 questions a picture; use 10"):
        joined(questions=5)[0].training()
    with pytest.raises(UserError, match="no settings of an answerer"):
        answers.facts(open_scenes("scenes:30"), models.load("clip").Config(), answers.Settings())
    clip = models.load("clip")
    with pytest.raises(UserError, match="CLIP does not answer questions; attention_vqa does"):
        joined()[0].told(clip.build(clip.Config(), SPEC), ())
