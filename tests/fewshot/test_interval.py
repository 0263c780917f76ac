import pytest

from diptych.fewshot.interval import mean_interval, quantile

TABLE = {1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445, 5: 2.570582, 9: 2.262157, 30: 2.042272, 120: 1.979930}


@pytest.mark.parametrize("degrees", TABLE)
def test_the_quantile_is_that_of_the_printed_tables(degrees):
    assert quantile(0.975, degrees=degrees) == pytest.approx(TABLE[degrees], abs=1e-6)


def test_the_quantile_equals_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees in range(1, 40):
        for chance in (0.5, 0.8, 0.95, 0.995):
            assert quantile(chance, degrees=degrees) == pytest.approx(stats.t.ppf(chance, degrees), rel=1e-8, abs=1e-9)


def test_the_interval_of_five_numbers_by_hand():
    mean, half = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert mean == 3.0
    assert half == pytest.approx(2.776445 * (2.5 / 5) ** 0.5, abs=1e-6)
    assert mean_interval([0.5]) == (0.5, None)
    assert mean_interval([0.5, 0.5])[1] == 0.0
