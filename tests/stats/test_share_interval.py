"""Intervals of means of scores in [0, 1]: always a width, coverage where answers are repeated or partly right."""

import numpy as np
import pytest

from wheeltap.core.errors import DataError
from wheeltap.stats.effect import FEW, has_width, share_interval, without_point
from wheeltap.stats.effect import score_interval as plain


@pytest.mark.parametrize("value", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("items", [1, 5, 29, 30, 400])
def test_it_always_has_a_width_and_stays_within(value: float, items: int) -> None:
    one = share_interval(np.full(items, value), unit="1")
    assert one.low is not None and one.high is not None
    assert 0.0 <= one.low <= value <= one.high <= 1.0 and one.high - one.low > 0.5 / items


def test_zeros_and_ones_have_the_interval_of_a_share() -> None:
    right = np.array([1.0, 0.0, 1.0] * 40)
    assert share_interval(right, unit="1") == plain(right, bounded=True, unit="1")


@pytest.mark.parametrize("items", [5, 12, FEW - 1, FEW, 100])
@pytest.mark.parametrize("repeats", [2, 8])
def test_coverage_of_means_of_repeats(items: int, repeats: int) -> None:
    rng, runs, inside = np.random.default_rng(items * repeats), 1500, 0
    for _ in range(runs):
        values = rng.binomial(repeats, rng.beta(0.6, 0.6, size=items)) / repeats
        one = share_interval(values, unit="1")
        assert one.low is not None and one.high is not None
        inside += one.low <= 0.5 <= one.high
    assert inside / runs >= 0.93
    assert items < FEW or inside / runs <= 0.97


def test_scores_beyond_one_are_refused() -> None:
    with pytest.raises(DataError, match="bounded"):
        share_interval(np.array([0.0, 2.0]), unit="1")


def test_a_point_is_no_interval() -> None:
    point, real = (plain(np.array(values), bounded=False, unit="1") for values in ([2.0, 2.0], [2.0, 3.0]))
    assert not has_width(point) and has_width(real)
    none = without_point(point)
    assert (none.low, none.high, none.value) == (None, None, 2.0) and "all 2 items" in none.method
    assert without_point(real) == real


pytestmark = pytest.mark.slow  # simulations
