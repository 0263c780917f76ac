"""Word similarity against scipy, and the lists that people rated."""

import math

import numpy as np
import pytest

from diptych.core.errors import UserError
from diptych.metrics.similarity import ranks, read_concreteness, read_rated, similarity, spearman


def test_spearman_is_that_of_scipy_with_ties_and_changes_under_no_monotone_map():
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(0)
    one, other = random.integers(0, 6, 60).astype(float), random.integers(0, 9, 60).astype(float)
    assert spearman(one, other) == pytest.approx(stats.spearmanr(one, other).statistic, abs=1e-12)
    assert spearman(np.exp(one), other**3) == pytest.approx(spearman(one, other), abs=1e-12)


def test_ties_share_the_mean_rank_and_no_order_is_no_number():
    assert ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]
    assert math.isnan(spearman(np.ones(4), np.arange(4.0)))
    assert math.isnan(spearman(np.ones(1), np.ones(1)))


def test_unknown_words_are_skipped_and_counted_and_concrete_words_stand_apart():
    words = {"dog": 0, "cat": 1, "idea": 2, "thought": 3}
    vectors = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.3, 1.0]])
    rated = [("dog", "cat", 9.0), ("idea", "thought", 8.0), ("dog", "idea", 1.0), ("dog", "unicorn", 2.0)]
    found = similarity(rated, words, vectors, concrete={"dog": 5.0, "cat": 5.0, "idea": 1.0, "thought": 1.5})
    assert found["spearman"] == pytest.approx(1.0)
    assert found["coverage"] == 0.75
    assert (found["pairs"], found["concrete/pairs"], found["abstract/pairs"]) == (3, 2, 1)
    assert math.isnan(found["abstract/spearman"])


def test_nothing_known_gives_no_number_but_coverage_zero():
    found = similarity([("a", "b", 1.0)], {}, np.zeros((3, 2)), concrete={})
    assert found["coverage"] == 0
    assert math.isnan(found["spearman"])
    assert found["concrete/pairs"] == 0


def test_lists_are_read_with_or_without_a_heading(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text("word1\tword2\tscore\nDog\tcat\t7.5\nsun,moon,3\nold new 1.58 extra\n")
    assert read_rated(path) == [("dog", "cat", 7.5), ("sun", "moon", 3.0), ("old", "new", 1.58)]
    path.write_text("nothing here\n")
    with pytest.raises(UserError, match="no lines of word, word, rating"):
        read_rated(path)
    with pytest.raises(UserError, match="cannot read"):
        read_rated(tmp_path / "absent.tsv")


def test_concreteness_needs_its_columns(tmp_path):
    path = tmp_path / "c.tsv"
    path.write_text("Word\tBigram\tConc.M\nDog\t0\t4.85\n")
    assert read_concreteness(path) == {"dog": 4.85}
    path.write_text("Word\tx\n")
    with pytest.raises(UserError, match=r"unknown column 'Conc.M'"):
        read_concreteness(path)


@pytest.mark.real
def test_the_published_lists_have_their_pairs(real_data):
    folder = real_data / "words"
    counts = {"men_tr_3k": 3000, "simlex_999": 999, "ws_353_all": 353}
    for name, count in counts.items():
        assert len(read_rated(folder / "similarity" / f"{name}.tsv")) == count
    assert read_concreteness(folder / "concreteness.tsv")["dog"] > 4
