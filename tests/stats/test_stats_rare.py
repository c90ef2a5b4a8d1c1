"""Means over draws of which a few hit hard: the interval holds where the spread of a handful of draws does not."""

import numpy as np
import pytest
from simulation import covers, ends

from wheeltap.core.records import Power
from wheeltap.stats.crossed import unseen
from wheeltap.stats.curve import band
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.rare import (
    allowing,
    allowing_band,
    inner,
    p_below,
    power_of,
    rare_effect,
    where_it_falls,
)

SETS = 400
EXAMPLES = 60


def losses(rng: np.random.Generator, draws: int, rate: float) -> np.ndarray:
    """``[draw, example]``: a share ``rate`` of draws loses half of the answers, the others none."""
    hit = rng.random((draws, 1)) < rate
    return (hit & (rng.random((draws, EXAMPLES)) < 0.5)).astype(np.float64)


@pytest.mark.parametrize(("draws", "rate"), [(2, 0.5), (4, 0.1), (64, 0.015)])
def test_the_true_mean_is_inside(draws: int, rate: float) -> None:
    rng = np.random.default_rng([draws, int(1000 * rate)])
    inside = 0
    for _ in range(SETS):
        d = losses(rng, draws, rate)
        plain = mean_effect(d, level=inner(0.95), bounded=True, unit="accuracy")
        inside += covers(allowing(plain, d.mean(1), (-1.0, 1.0)), rate / 2)
    assert inside >= 0.95 * SETS - 2 * (0.05 * 0.95 * SETS) ** 0.5


def test_without_the_allowance_it_is_outside() -> None:
    """What is guarded against: one draw in ten ruins the net, and four draws mostly show none."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(SETS):
        inside += covers(mean_effect(losses(rng, 4, 0.1), bounded=True, unit="accuracy"), 0.05)
    assert inside < 0.6 * SETS


def test_the_band_and_the_dose_at_half_allow_for_rare_draws_too() -> None:
    """Scores fall from 1 to 0 by draws that ruin: their share is the dose, so half is lost at a dose of .5."""
    draws = 4
    rng, doses = np.random.default_rng([5, draws]), np.array([0.01, 0.1, 0.3, 0.7, 0.9])
    covered, crossed = 0, 0
    for _ in range(100):
        scores = np.stack([1.0 - losses(rng, draws, rate) * 2.0 for rate in doses])
        scores = np.clip(scores, 0.0, 1.0)
        truth = 1.0 - 0.5 * doses
        _, low, high = band(scores, bounded=True, level=inner(0.95))
        low, high = allowing_band((low, high), scores.mean(2), (0.0, 1.0))
        covered += int(((low <= truth) & (truth <= high)).sum())
        first, last = where_it_falls(doses, (low, high), 0.75)
        crossed += (first is None or first <= 0.5) and (last is None or last >= 0.5)
    assert covered >= 0.95 * 500 - 2 * (0.05 * 0.95 * 500) ** 0.5
    assert crossed >= 95


# ---- shown to be less than a margin --------------------------------------------------------------------------------

MARGIN = 0.05
ENDS = (-0.1, 0.9)


def hits(rng: np.random.Generator, draws: int, rate: float, loss: float, *, examples: int = 300) -> np.ndarray:
    """``[draw, example]``: a share ``rate`` of draws loses each answer with probability ``loss``, the others none."""
    hit = rng.random((draws, 1)) < rate
    return (hit & (rng.random((draws, examples)) < loss)).astype(np.float64)


@pytest.mark.parametrize(("draws", "loss"), [(16, 0.9), (60, 0.5), (200, 0.15)])
def test_a_mean_at_the_margin_is_excluded_no_more_often_than_alpha(draws: int, loss: float) -> None:
    """The rare draw that carries the mean to the margin was mostly not seen: that is no evidence."""
    rng, sets = np.random.default_rng([draws, round(100 * loss)]), 150
    told = [hits(rng, draws, MARGIN / loss, loss) for _ in range(sets)]
    p = [p_below(d, ENDS, margin=MARGIN, bounded=True, one_sided=True) for d in told]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 2.6 * (0.05 * 0.95 / sets) ** 0.5
    naive = [mean_effect(d, bounded=True, unit="u") for d in told]
    if draws == 16 and loss == 0.9:  # what is guarded against: without the allowance a third would be false all-clears
        assert np.mean([one.high is not None and one.high < MARGIN for one in naive]) > 0.3


@pytest.mark.parametrize("one_sided", [True, False])
def test_the_p_value_below_is_that_of_the_interval(one_sided: bool) -> None:
    for rate in (0.0, 0.003, 0.05):
        rng = np.random.default_rng(round(1000 * rate))
        for draws in (20, 120, 400):
            d = hits(rng, draws, rate, 0.9, examples=200)
            low, high = ends(rare_effect(d, ENDS, margin=MARGIN, bounded=True, unit="u"))
            p = p_below(d, ENDS, margin=MARGIN, bounded=True, one_sided=one_sided)
            assert (p < 0.05) == (high < MARGIN and (one_sided or low > -MARGIN))
            assert p >= p_below(d, ENDS, margin=2.0 * MARGIN, bounded=True, one_sided=one_sided)
    gain = -hits(np.random.default_rng(0), 400, 0.6, 0.5, examples=200)
    p = p_below(gain, (-0.9, 0.1), margin=MARGIN, bounded=True, one_sided=one_sided)
    assert p < 1e-6 if one_sided else p == 1.0


@pytest.mark.parametrize(("alpha", "most"), [(0.05, 0.9), (0.004, 0.3)])
def test_the_number_of_draws_is_the_smallest_that_excludes_what_none_showed(alpha: float, most: float) -> None:
    """Where no draw lost anything, the number is exact: one draw fewer does not do."""
    few = np.zeros((8, 400))
    power = power_of(few, (-0.1, most), margin=MARGIN, bounded=True, alpha=alpha)
    assert power.draws is not None and (power.found, power.excluded, power.examples) == (None, None, None)
    p = [
        p_below(np.zeros((draws, 400)), (-0.1, most), margin=MARGIN, bounded=True, one_sided=True)
        for draws in (power.draws, power.draws - 1)
    ]
    assert p[0] <= alpha * (1.0 + 1e-6) < p[1]
    # By hand: what k draws do not show must not be able to carry the mean from the interval's end to the margin.
    plain = mean_effect(few, level=inner(1.0 - alpha), bounded=True, unit="u").high
    assert plain is not None
    assert unseen(power.draws, alpha / 4.0) * most <= MARGIN - plain < unseen(power.draws - 1, alpha / 4.0) * most


def test_where_no_number_of_draws_would_do_none_is_told() -> None:
    wide, lost = np.zeros((8, 12)), np.full((640, 400), 0.2)  # of twelve examples no draw tells 5 % from none
    for d, far, bounded in ((np.zeros((8, 400)), (-0.1, None), False), (wide, ENDS, True), (lost, ENDS, True)):
        assert power_of(d, far, margin=MARGIN, bounded=bounded, alpha=0.05) == Power(found=None, excluded=None)
    for d, far, bounded in ((np.zeros((640, 400)), (-0.1, None), False), (lost, ENDS, True)):
        assert p_below(d, far, margin=MARGIN, bounded=bounded, one_sided=True) == 1.0
