"""One against, or among, random draws: exact under the null, honest where nothing is known."""

import numpy as np
import pytest
from simulation import covers, ends

from wheeltap.core.errors import DataError
from wheeltap.stats.among import above_draws, share_of
from wheeltap.stats.beyond import Beyond
from wheeltap.stats.crossed import Values
from wheeltap.stats.effect import mean_effect


def test_a_draw_among_draws_is_above_them_no_more_often_than_alpha() -> None:
    places = 5
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


def test_the_interval_of_a_share_covers_it_and_the_test_keeps_its_level() -> None:
    skew = 1.0
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


DRAWS, EXAMPLES, RUNS = 16, 200, 400


def draws(rng: np.random.Generator, *, count: int, spread: float, examples: int = EXAMPLES) -> Values:
    """Values with a spread among draws, one among examples (shared), and one of their own."""
    return (
        spread * rng.normal(size=(count, 1)) + rng.normal(size=(1, examples)) + 0.5 * rng.normal(size=(count, examples))
    )


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_a_further_draw_is_found_no_more_often_than_it_may(spread: float) -> None:
    rng = np.random.default_rng(0)
    alarms = naive = 0
    for _ in range(RUNS):
        values = draws(rng, count=DRAWS + 1, spread=spread)
        alarms += (Beyond(values[0], values[1:]).effect(name="x", unit="x").p or 0.0) <= 0.05
        naive += (mean_effect(values[0] - values[1:], unit="x").p or 0.0) <= 0.05
    assert alarms / RUNS <= 0.075, f"{alarms} of {RUNS}"
    if spread == 1.0:
        assert naive / RUNS > 0.4, "the interval of a mean is no interval of a draw"
        assert alarms / RUNS >= 0.025


def test_with_equal_examples_it_is_the_known_t_test() -> None:
    """Crawford and Howell's: (one - mean) / (sd sqrt((n + 1) / n)) on n - 1 degrees of freedom."""
    examples, others = 3, np.array([1.0, 2.0, 4.0, 7.0])
    found = Beyond(np.full(examples, 9.0), np.repeat(others[:, None], examples, axis=1)).effect(name="x", unit="x")
    half = 3.182446305284263 * others.std(ddof=1) * np.sqrt(5 / 4)
    assert (found.value, *ends(found)) == pytest.approx((5.5, 5.5 - half, 5.5 + half))
    assert found.p is not None and (found.p < 0.05) == (ends(found)[0] > 0.0)


def test_what_examples_of_a_group_repeat_is_no_proof() -> None:
    """By .2 more on average, and each of ten groups by more or less than that."""
    rng, member, alarms = np.random.default_rng(2), np.repeat(np.arange(10), EXAMPLES // 10), [0, 0]
    for _ in range(RUNS):
        others = draws(rng, count=DRAWS, spread=0.0)
        one = others.mean(0) + 0.2 + rng.normal(size=10)[member]
        for at, groups in enumerate((None, member)):
            found = Beyond(one, others, groups=groups).effect(margin=0.2, name="x", unit="x")
            alarms[at] += (found.p or 0.0) <= 0.05
    assert alarms[0] / RUNS > 0.2 and alarms[1] / RUNS <= 0.075, alarms
    single = Beyond(np.ones(EXAMPLES), np.zeros((4, EXAMPLES)), groups=np.zeros(EXAMPLES, dtype=int))
    found = single.effect(name="x", unit="x")
    assert (found.low, found.high, found.p, single.below(2.0, one_sided=True)) == (None, None, 1.0, 1.0)


def test_what_does_not_fit_is_refused() -> None:
    for others in (np.zeros((1, 5)), np.zeros((3, 4))):
        with pytest.raises(DataError, match="cannot serve"):
            Beyond(np.zeros(5), others)
    with pytest.raises(DataError):
        Beyond(np.full(50, 2.0), np.zeros((4, 50)), bounded=True)
