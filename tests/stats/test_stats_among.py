"""One among random draws, and shares of means: exact under the null, honest where nothing is known."""

import numpy as np
import pytest
from simulation import covers

from wheeltap.core.errors import DataError
from wheeltap.stats.among import above_draws, share_of


@pytest.mark.parametrize("places", [1, 5])
def test_a_draw_among_draws_is_above_them_no_more_often_than_alpha(places: int) -> None:
    rng = np.random.default_rng(0)
    runs = 2000
    told = 0
    for _ in range(runs):
        # Skewed effects, which in all places share a part of what makes them large.
        effects = np.exp(rng.normal(size=(places, 33)) + rng.normal(size=33))
        told += above_draws(effects[:, 0], effects[:, 1:]) <= 0.05
    # The largest of 33 alone has p = 1/33: exactly that often.
    assert told / runs == pytest.approx(1 / 33, abs=0.012)


def test_what_is_larger_in_one_place_is_seen_and_equal_effects_are_not() -> None:
    draws = np.exp(np.random.default_rng(1).normal(size=(4, 32)))
    one = draws.mean(1)
    assert above_draws(one, draws) > 0.1
    one[2] = 50.0 * draws[2].max()
    assert above_draws(one, draws) == pytest.approx(1 / 33)
    assert above_draws(np.ones(2), np.ones((2, 8))) == above_draws(np.zeros(1), np.zeros((1, 8))) == 1.0
    with pytest.raises(DataError, match="comparison"):
        above_draws(np.ones(2), np.ones((3, 8)))
    with pytest.raises(DataError, match="same examples"):
        share_of(np.ones(3), np.ones(4))


@pytest.mark.parametrize("skew", [0.5, 1.0])
def test_the_interval_of_a_share_covers_it_and_the_test_keeps_its_level(skew: float) -> None:
    rng = np.random.default_rng(2)
    covered = rejected = 0
    runs = 1000
    for _ in range(runs):
        whole = rng.gamma(2.0, size=112)
        part = 0.1 * whole * np.exp(skew * rng.normal(size=112) - skew**2 / 2)
        share = share_of(part, whole, below=0.1)
        covered += covers(share, 0.1)
        rejected += (share.p or 0.0) <= 0.05
    assert covered / runs > 0.90
    # At the very edge of what must not be told, and with skewed parts.
    assert rejected / runs < 0.065


def test_a_share_far_below_is_told_and_one_far_above_or_of_nothing_is_not() -> None:
    rng = np.random.default_rng(3)
    whole = rng.gamma(2.0, size=200)
    low, high = (share_of(part, whole, below=0.1).p for part in (0.02 * whole + 1e-3 * rng.random(200), 0.5 * whole))
    assert low is not None and low < 1e-6 and high is not None and high > 0.999
    share = share_of(np.ones(5), np.zeros(5), below=0.1)
    assert (share.value, share.low, share.high, share.p) == (None, None, None, 1.0)
    assert share_of(np.zeros(5), np.ones(5), below=0.1).p == 1.0, "nothing varies, so nothing is tested"
