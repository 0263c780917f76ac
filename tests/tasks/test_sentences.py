"""Batches of sentences: exact, without state, and with the noise that word2vec draws."""

import gzip

import numpy as np
import pytest
import torch

from diptych.core.errors import UserError
from diptych.data.vocabulary import word_tokenizer
from diptych.tasks.sentences import Corpus, SentenceBatches, kept_share, lines_of

TEXTS = ["A dog runs, fast!", "the dog sleeps", "", "a cat", "狗跑 a dog"] * 4


def corpus():
    tokenizer = word_tokenizer(TEXTS, least=4)
    return Corpus.read([*TEXTS, "a zebra sleeps"], tokenizer), tokenizer


def batches(**changed):
    given, tokenizer = corpus()
    counts = given.counts(tokenizer.vocabulary)
    settings = {"batch_size": 6, "noise": 4, "threshold": 0.0, "seed": 0, "training": True} | changed
    return SentenceBatches(given, counts, **settings)


def test_words_are_whole_and_small_and_unknown_ones_leave_no_gap(tmp_path):
    given, tokenizer = corpus()
    names = [tokenizer.backend.id_to_token(int(word)) for word in given.words]
    assert names[:4] == ["a", "dog", "runs", "fast"]
    assert names[-2:] == ["a", "sleeps"]
    assert "狗" in names
    tokenizer.save(tmp_path)
    again = type(tokenizer).load(tmp_path)
    assert again.backend.encode("A dog").ids == tokenizer.backend.encode("A dog").ids
    assert again.unk_id == tokenizer.unk_id


def test_an_epoch_goes_on_from_any_batch_and_holds_every_sentence_once():
    data = batches(training=False)
    whole = list(data.epoch(0))
    assert len(whole) == len(data) == 4
    assert sum(int(batch.token_mask.sum()) for batch in whole) == len(data.corpus.words)
    trained = batches()
    whole, rest = list(trained.epoch(3)), list(trained.epoch(3, start=2))
    for one, other in zip(whole[2:], rest, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert torch.equal(one.negatives, other.negatives)
    assert not torch.equal(whole[0].negatives, next(iter(trained.epoch(4))).negatives)


def test_noise_follows_counts_to_the_power_of_three_quarters():
    data = batches(noise=5000, training=False)
    drawn = torch.cat([batch.negatives.flatten() for batch in data.epoch(0)])
    counts = data.corpus.counts(len(data.keep)).astype(np.float64) ** 0.75
    share = np.bincount(drawn.numpy(), minlength=len(counts)) / len(drawn)
    np.testing.assert_allclose(share, counts / counts.sum(), atol=0.006)  # 4 deviations of 100,000 draws
    assert share[0] == share[1] == 0  # neither padding nor unknown


def test_frequent_words_are_dropped_as_the_code_of_word2vec_does():
    counts = np.array([0, 0, 900, 100])
    wanted = np.minimum(1, np.sqrt(0.01 / np.array([0.9, 0.1])) + 0.01 / np.array([0.9, 0.1]))
    np.testing.assert_allclose(kept_share(counts, 0.01)[2:], wanted)
    assert kept_share(counts, 0).tolist() == [1, 1, 1, 1]
    fewer = sum(int(batch.token_mask.sum()) for batch in batches(threshold=1e-3, training=False).epoch(0))
    assert 0 < fewer < len(corpus()[0].words)


def test_a_batch_larger_than_the_corpus_is_the_corpus():
    data = batches(batch_size=500)
    assert len(data) == 1
    assert data.batch_size == len(data.corpus)


def test_too_few_words_and_missing_files_are_told(tmp_path):
    with pytest.raises(UserError, match="at least 50 times"):
        word_tokenizer(TEXTS, least=50)
    with pytest.raises(UserError, match="cannot read sentences"):
        lines_of(str(tmp_path / "absent.txt"))
    (tmp_path / "t.tsv.gz").write_bytes(gzip.compress(b"train\t1.jpg\ttwo words\n\nmore\n"))
    assert lines_of(str(tmp_path / "t.tsv.gz")) == ["two words", "more"]
