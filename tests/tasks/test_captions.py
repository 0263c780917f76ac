"""Captions as a task: what is judged, what a reward pays, and that cached features change nothing."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from diptych import models
from diptych.core.batch import Batch
from diptych.core.errors import UserError
from diptych.core.model import Captioner, Loss, Model
from diptych.core.writing import Writing, Written
from diptych.data.scenes import open_scenes
from diptych.data.source import Row, Source
from diptych.metrics.captions import References
from diptych.metrics.words import lines
from diptych.tasks import captions
from tests.models.systems import SMALL_CNN

SETTINGS = captions.Settings(batch_size=10, workers=0)


def config(system="meshed_memory", **changed):
    values = {**SMALL_CNN, "dim": 16, "text_vocabulary": 400, "image_size": 32, **changed}
    return models.load(system).Config.parse(values)


def joined(model=None, *, source=None, settings=SETTINGS, **changed):
    source = open_scenes("scenes:60") if source is None else source
    chosen = config(**changed)
    tokenizer, spec = captions.facts(source, chosen, settings)
    model = models.load("meshed_memory").build(chosen, spec) if model is None else model
    return captions.join(source, model, tokenizer, spec, settings, device="cpu"), model


class Parrot(Model, Captioner):
    """Writes what is written for each picture in a list."""

    def __init__(self, texts):
        super().__init__()
        self.texts, self.weight, self.data = texts, nn.Parameter(torch.zeros(())), None

    def loss(self, batch, phase="main"):
        return Loss(self.weight.square())

    def write(self, batch, writing):
        tokens, mask = self.data.tokenizer([self.texts[row] for row in batch.need("pair_id").tolist()], 99)
        tokens, mask = tokens[:, None, 1:], mask[:, None, 1:]
        return Written(tokens, mask, torch.zeros(len(tokens), 1), torch.zeros(len(tokens), 1))


def judged(texts):
    parrot = Parrot(texts)
    data, _ = joined(parrot)
    parrot.data = data
    return data.scores(parrot, "test")


class Words(Source):
    """Pictures with given captions."""

    name = "words"

    def __init__(self, told, *, split="train"):
        self.told, self.split, self.problems = told, split, []

    def __len__(self):
        return len(self.told)

    def row(self, index):
        return Row(str(index), self.told[index], self.split)

    def picture(self, index):
        return np.full((8, 8, 3), index, dtype=np.uint8)

    def splits(self):
        return np.zeros(len(self), dtype=np.uint8)

    def fingerprint(self):
        return "words"


def test_what_people_wrote_is_true_and_what_they_wrote_of_others_is_not():
    source = open_scenes("scenes:60")
    first = [source.row(row).captions[0] for row in range(len(source))]
    right, wrong = judged(first), judged(first[1:] + first[:1])
    assert right["bleu1"] == pytest.approx(1)
    assert right["rouge_l"] == right["true"] == 1
    assert right["words"] == pytest.approx(np.mean([len(line.split()) for line in lines(first[-6:])]))
    assert wrong["true"] < 0.4
    assert wrong["cider_d"] < 0.4 * right["cider_d"]
    assert wrong["cider_d"] < 0.5


def test_truth_is_judged_only_where_the_facts_are_known():
    data, model = joined(source=Words([("a dog runs", "the dog"), ("a red cat",), ("two birds",)]))
    scores = data.scores(model.eval(), "train")
    assert set(scores) == {"cider_d", "bleu1", "bleu4", "rouge_l", "words"}


def test_a_reward_is_cider_with_the_end_as_a_word():
    told = [("a dog runs fast", "the brown dog runs"), ("a red cat sleeps",), ("two birds fly away",), ()]
    source = Words(told)
    data, _ = joined(source=source, text_vocabulary=300)
    reward = captions.CiderReward(data.pairs)
    texts = ["A red cat sleeps", "a dog runs fast", "a dog runs", "", "a dog runs fast"]
    tokens, _ = data.tokenizer(texts, 32)
    tokens = tokens[:, 1:].clone()
    broken = tokens[4] == data.spec.eos_id
    tokens[4] = tokens[4].masked_fill(broken, data.spec.pad_id)  # all the words of a caption, but no end
    found = reward(tokens, torch.tensor([1, 0, 0, 0, 0]))
    known = References([[f"{line} {captions.END}" for line in lines(each)] for each in told[:3]])
    spoken = [f"{line} {captions.END}" for line in lines(texts[:4])] + lines(texts[4:])
    torch.testing.assert_close(found, torch.from_numpy(known.cider(spoken, np.array([1, 0, 0, 0, 0]))).float())
    assert found[1] > found[4] > found[2], "breaking off must cost something"


def test_the_reward_is_given_to_what_learns_from_it():
    data, model = joined()
    assert isinstance(model.reward, captions.CiderReward)
    batch = next(data.training().epoch(0))
    model.enter("reward")
    loss = model.train().loss(batch)
    assert math.isfinite(loss.total.item())
    assert loss.parts["reward"] >= 0


def test_a_picture_comes_with_as_many_captions_as_are_asked_for():
    data, _ = joined(settings=captions.Settings(batch_size=10, captions=5, workers=0))
    batch = next(data.training().epoch(0))
    assert torch.unique_consecutive(batch.pair_id, return_counts=True)[1].tolist() == [5, 5]
    assert len({tuple(row) for row in batch.tokens.tolist()}) >= 8, "a scene may be told twice alike"
    with pytest.raises(UserError, match="batch_size 12 is not a multiple of 1 processes with 5 captions"):
        joined(settings=captions.Settings(batch_size=12, captions=5))[0].training()


def test_pictures_are_written_about_once_each():
    data, model = joined()
    model.eval()
    seen = data.write(model, data.judged("test", model).epoch(0))
    assert list(seen) == data.source.rows("test").tolist()
    some = data.pictures("train", most=7)
    assert len(torch.cat([batch.pair_id for batch in some.epoch(0)])) == 7
    assert data.pictures("dev", most=7) is not None
    assert joined(source=Words([("a",), ("b",)]))[0].pictures("test") is None
    greedy = data.write(model, data.judged("test", model).epoch(0), Writing(beams=1))
    assert greedy.keys() == seen.keys()


def test_a_system_that_cannot_write_is_judged_by_its_loss():
    class Mute(Model):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(()))

        def loss(self, batch: Batch, phase="main"):
            return Loss(self.weight * len(batch.need("tokens")))

    data, model = joined(Mute())
    assert data.judge(model).monitor == "-loss"
    assert data.scores(model, "test")["loss"] > 0
    with pytest.raises(UserError, match="Mute does not write captions; meshed_memory does"):
        data.write(model, data.judged("test", model).epoch(0))


def test_cached_features_stand_in_for_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    settings = {"image_train": "frozen", "image_encoder": "vit", "image_dim": 16, "image_layers": 1, "image_heads": 2}
    torch.manual_seed(0)
    cached, model = joined(mirror=True, **settings)
    assert cached.pairs.features.mirrored is not None
    plain = captions.join(
        cached.source, model, cached.tokenizer, cached.spec, captions.Settings(workers=0, cache=False), device="cpu"
    )
    assert plain.pairs.features.image is None
    model.eval()
    assert next(iter(cached.judged("test", model).epoch(0))).image is None
    one, two = (data.write(model, data.judged("test", model).epoch(0)) for data in (cached, plain))
    assert one == two
    model.fit(cached.training().epoch(0))
    assert model.cells.even_cells.mean.abs().max() > 0


def test_data_without_captions_and_systems_without_a_decoder_are_refused():
    with pytest.raises(UserError, match="words has no captions; name their column with --caption-column"):
        captions.facts(Words([(), ()]), config(), SETTINGS)
    with pytest.raises(UserError, match="this system has no settings of a captioner"):
        captions.facts(open_scenes("scenes:20"), models.load("clip").Config(), SETTINGS)
