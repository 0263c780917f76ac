"""Means, spreads and paired differences, by hand and against tables of Student's t."""

import math

import pytest

from diptych.core.errors import UserError
from diptych.metrics.spread import Spread, clear_winner, difference, is_count, lower_is_better, t_quantile

# Two-sided quantiles as printed in tables of Student's distribution.
TABLE = {(1, 0.95): 12.7062, (2, 0.95): 4.30265, (3, 0.95): 3.18245, (4, 0.99): 4.60409, (9, 0.95): 2.26216}
TABLE |= {(10, 0.9): 1.81246, (30, 0.95): 2.04227, (1000, 0.95): 1.96234}


@pytest.mark.parametrize(("degrees", "level"), TABLE)
def test_quantiles_are_those_of_the_tables(degrees, level):
    assert t_quantile(degrees, level=level) == pytest.approx(TABLE[degrees, level], abs=6e-5)


@pytest.mark.parity
def test_quantiles_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees in (*range(1, 40), 77, 200):
        for level in (0.5, 0.9, 0.95, 0.999):
            assert t_quantile(degrees, level=level) == pytest.approx(stats.t.ppf((1 + level) / 2, degrees), rel=1e-9)


@pytest.mark.parametrize(("degrees", "level"), [(0, 0.95), (3, 0.0), (3, 1.0)])
def test_no_quantile_without_freedom(degrees, level):
    with pytest.raises(UserError, match="degree of freedom"):
        t_quantile(degrees, level=level)


def test_spread_by_hand():
    found = Spread.of([1.0, 2.0, 6.0])
    assert (found.mean, found.count) == (3.0, 3)
    assert found.deviation == pytest.approx(math.sqrt(7), abs=1e-12)
    assert Spread.of([4.0]) == Spread(4.0, None, 1)
    assert math.isnan(Spread.of([1.0, math.inf]).mean)
    with pytest.raises(UserError, match="nothing"):
        Spread.of([])


def test_difference_is_paired():
    """What moves both sides alike is not in the interval."""
    first, other = [0.10, 0.50, 0.90], [0.21, 0.60, 0.99]
    found = difference(first, other)
    half = 4.302652729911275 * 0.01 / math.sqrt(3)
    assert (found.mean, found.count) == (pytest.approx(0.10, abs=1e-12), 3)
    assert (found.low, found.high) == (pytest.approx(0.10 - half, abs=1e-9), pytest.approx(0.10 + half, abs=1e-9))
    assert found.sure
    assert not difference(first, [0.21, 0.40, 0.99]).sure


def test_one_pair_has_no_interval_and_two_are_never_sure():
    assert difference([1.0], [2.0]).low is None
    assert not difference([1.0], [2.0]).sure
    assert not difference([1.0, 2.0], [2.0, 3.0]).sure
    with pytest.raises(UserError, match="2 and 1"):
        difference([1.0, 2.0], [1.0])


def test_a_winner_is_clear_only_beyond_the_spread():
    near = {"a": Spread(0.50, 0.05, 3), "b": Spread(0.46, 0.01, 3)}
    assert clear_winner(near) is None
    far = near | {"a": Spread(0.60, 0.05, 3)}
    assert clear_winner(far) == "a"
    assert clear_winner(far, lower=True) == "b"
    assert clear_winner(far | {"c": Spread(0.9, None, 1)}) == "a"
    assert clear_winner({"a": Spread(0.6, 0.1, 3)}) is None
    equal = {"a": Spread(1.0, 0.0, 3), "b": Spread(1.0, 0.0, 3)}
    assert clear_winner(equal) is None


def test_names_tell_which_way_is_better():
    assert [lower_is_better(name) for name in ("image_to_text/mean_rank", "loss", "fid")] == [True] * 3
    assert [lower_is_better(name) for name in ("text_to_image/r@1", "-loss", "cider", "accuracy")] == [False] * 4
    assert is_count("texts")
    assert not is_count("texts/r@1")
