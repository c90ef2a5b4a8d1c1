"""One against random draws: a further draw is no finding, a real outlier is."""

import numpy as np
import pytest
from simulation import ends

from wheeltap.core.errors import DataError
from wheeltap.stats.beyond import Beyond
from wheeltap.stats.crossed import Values
from wheeltap.stats.effect import mean_effect

DRAWS, EXAMPLES, RUNS = 16, 200, 400


def draws(rng: np.random.Generator, *, count: int, spread: float, examples: int = EXAMPLES) -> Values:
    """Values with a spread among draws, one among examples (shared), and one of their own."""
    return (
        spread * rng.normal(size=(count, 1)) + rng.normal(size=(1, examples)) + 0.5 * rng.normal(size=(count, examples))
    )


@pytest.mark.parametrize("spread", [0.0, 0.05, 1.0])
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


@pytest.mark.parametrize("examples", [1, 3])
def test_with_equal_examples_or_one_it_is_the_known_t_test(examples: int) -> None:
    """Crawford and Howell's: (one - mean) / (sd sqrt((n + 1) / n)) on n - 1 degrees of freedom."""
    others = np.array([1.0, 2.0, 4.0, 7.0])
    found = Beyond(np.full(examples, 9.0), np.repeat(others[:, None], examples, axis=1)).effect(name="x", unit="x")
    half = 3.182446305284263 * others.std(ddof=1) * np.sqrt(5 / 4)
    assert (found.value, *ends(found)) == pytest.approx((5.5, 5.5 - half, 5.5 + half))
    assert found.p is not None and (found.p < 0.05) == (ends(found)[0] > 0.0)


def test_an_outlier_is_found_and_the_margin_counts_and_a_bounded_measure_has_an_interval_where_all_agree() -> None:
    values = draws(np.random.default_rng(1), count=DRAWS, spread=0.1)
    outlier = Beyond(values.mean(0) + 1.0, values)
    assert (outlier.effect(name="x", unit="x").p or 0.0) < 1e-4
    assert outlier.effect(margin=2.0, name="x", unit="x").p == 1.0
    found = Beyond(np.ones(50), np.zeros((4, 50)), bounded=True).effect(name="x", unit="share")
    assert found.value == 1.0 and 0.8 < ends(found)[0] < 1.0


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
