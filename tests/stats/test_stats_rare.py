"""Means over draws of which a few hit hard: the interval holds where the spread of a handful of draws does not."""

import numpy as np
import pytest

from wheeltap.stats.effect import mean_effect
from wheeltap.stats.rare import allowing, inner, rare_effect, unseen

SETS = 400
EXAMPLES = 60


def losses(rng: np.random.Generator, draws: int, rate: float) -> np.ndarray:
    """``[draw, example]``: a share ``rate`` of draws loses half of the answers, the others none."""
    hit = rng.random((draws, 1)) < rate
    return (hit & (rng.random((draws, EXAMPLES)) < 0.5)).astype(np.float64)


@pytest.mark.parametrize("draws", [2, 4, 64])
@pytest.mark.parametrize("rate", [0.004, 0.015, 0.1, 0.5])
def test_the_true_mean_is_inside(draws: int, rate: float) -> None:
    rng = np.random.default_rng([draws, int(1000 * rate)])
    inside = 0
    for _ in range(SETS):
        d = losses(rng, draws, rate)
        plain = mean_effect(d, level=inner(0.95), bounded=True, unit="accuracy")
        found = allowing(plain, d.mean(1), (-1.0, 1.0))
        assert found.low is not None and found.high is not None
        inside += found.low <= rate / 2 <= found.high
    assert inside >= 0.95 * SETS - 2 * (0.05 * 0.95 * SETS) ** 0.5


def test_without_the_allowance_it_is_outside() -> None:
    """What is guarded against: one draw in ten ruins the net, and four draws mostly show none."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(SETS):
        plain = mean_effect(losses(rng, 4, 0.1), bounded=True, unit="accuracy")
        assert plain.low is not None and plain.high is not None
        inside += plain.low <= 0.05 <= plain.high
    assert inside < 0.6 * SETS


def test_what_was_not_seen_is_bounded_by_its_probability() -> None:
    assert unseen(4, 0.05) == pytest.approx(1 - 0.05**0.25)
    assert (1 - unseen(64, 0.0125)) ** 64 == pytest.approx(0.0125)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9, 1.0])
def test_the_p_value_is_that_of_the_interval(rate: float) -> None:
    rng = np.random.default_rng(3)
    for draws in (2, 8, 64):
        found = rare_effect(losses(rng, draws, rate), (-0.2, 0.8), margin=0.02, bounded=True, unit="accuracy")
        assert found.low is not None and found.high is not None and found.p is not None
        assert (found.p < 0.05) == (found.low > 0.02)


def test_where_a_loss_has_no_bound_the_interval_is_open() -> None:
    d = losses(np.random.default_rng(1), 32, 0.9)
    found = rare_effect(d, (-0.1, None), margin=0.02, unit="squared error")
    assert found.high is None and found.low is not None and found.low > 0.02
    assert found.p is not None and found.p < 0.05  # that it costs something can be shown all the same
