"""One side alone: texts as batches that are exact and without state, and who may learn from them."""

import pytest
import torch

from diptych.core import runtime
from diptych.core.errors import UserError
from diptych.data.sources import open_data
from diptych.data.tokenizer import Tokenizer
from diptych.models.align.clip import Config as Other
from diptych.models.selfsup.data2vec import Config
from diptych.tasks import alone

TEXTS = [f"text number {number} of some {'long ' * (number % 4)}words" for number in range(22)]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS, vocabulary=300)


def batches(tokenizer, **changed):
    settings = {"context": 16, "batch_size": 6, "seed": 0, "training": True} | changed
    return alone.TextBatches(TEXTS, tokenizer, **settings)


def told(tokenizer, found):
    return [tokenizer.decode(row) for batch in found for row in batch.tokens.tolist()]


def test_an_epoch_has_each_text_once_in_a_new_order_and_can_be_entered_anywhere(tokenizer):
    data = batches(tokenizer)
    first, second = (told(tokenizer, data.epoch(number)) for number in (0, 1))
    assert len(data) == 3
    assert len(set(first)) == len(set(second)) == 18
    assert first != second
    assert told(tokenizer, data.epoch(0, 2)) == first[12:]
    assert sorted(told(tokenizer, batches(tokenizer, training=False).epoch(0))) == sorted(TEXTS)


def test_the_parts_of_two_processes_are_the_batch_of_one(tokenizer, monkeypatch):
    whole, parts = list(batches(tokenizer).epoch(3)), []
    monkeypatch.setattr(runtime, "world", lambda: 2)
    for rank in (0, 1):
        monkeypatch.setattr(runtime, "rank", lambda rank=rank: rank)
        data = batches(tokenizer)
        assert data.batch_size == 3
        parts.append(list(data.epoch(3)))
    for one, first, second in zip(whole, *parts, strict=True):
        assert told(tokenizer, [first, second]) == told(tokenizer, [one])
    with pytest.raises(UserError, match="batch_size 7 is not a multiple of 2 processes; use 6"):
        batches(tokenizer, batch_size=7)


def test_long_texts_are_cut_to_what_the_tower_reads(tokenizer):
    (batch,) = batches(tokenizer, training=False, batch_size=30, context=5).epoch(0)
    assert batch.tokens.shape == (22, 5)
    assert torch.equal(batch.tokens[:, -1], torch.full((22,), tokenizer.eos_id))


def test_only_a_system_that_says_its_side_learns_alone():
    with pytest.raises(UserError, match="no setting modality"):
        alone.facts(open_data("scenes:20"), Other(), alone.Settings())


def test_further_sentences_are_learnt_from_too(tmp_path):
    source, path = open_data("scenes:20?captions=1"), tmp_path / "more.txt"
    path.write_text("zebras graze\n\nzebras run\n")
    settings = alone.Settings(texts=str(path), batch_size=1)
    tokenizer, spec = alone.facts(source, Config(modality="text"), settings)
    data = alone.TextData(source, tokenizer, spec, settings)
    assert len(data.training()) == len(list(source.texts(source.rows("train")))) + 2
    assert "zebras run" in told(tokenizer, data.training().epoch(0))
