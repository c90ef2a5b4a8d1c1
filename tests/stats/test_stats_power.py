"""Detection power, against tests that are really repeated."""

import numpy as np
import pytest

from wheeltap.core.records import Estimate
from wheeltap.stats.effect import detection_power, mean_effect, smallest_detectable

DRAWS, EXAMPLES = 24, 120


def experiment(effect: float, rng: np.random.Generator) -> Estimate:
    """One measured effect: a shift that differs by example and by draw."""
    by_example = rng.normal(effect, 0.30, EXAMPLES)
    by_draw = rng.normal(0.0, 0.05, (DRAWS, 1))
    return mean_effect(by_example + by_draw + rng.normal(0.0, 0.4, (DRAWS, EXAMPLES)), margin=0.02, unit="u")


@pytest.mark.parametrize("effect", [0.05, 0.10, 0.13, 0.18])
def test_power_told_is_power_observed(effect: float) -> None:
    rng = np.random.default_rng(7)
    alpha, tried = 0.05 / 3, [experiment(effect, rng) for _ in range(400)]
    observed = np.mean([one.p is not None and one.p <= alpha for one in tried])
    told = np.mean([detection_power(one, alpha=alpha, margin=0.02) for one in tried])
    assert abs(told - observed) < 0.08


def test_power_in_closed_form() -> None:
    known = Estimate(
        name="x", value=2.8016, low=2.8016 - 1.96, high=2.8016 + 1.96, level=0.95, n=9, unit="u", method=""
    )
    assert detection_power(known) == pytest.approx(0.8, abs=1e-3)
    assert smallest_detectable(known) == pytest.approx(2.8016, abs=1e-3)


def test_nothing_is_found_where_nothing_is_known_to_vary() -> None:
    exact = Estimate(name="x", value=0.5, low=0.5, high=0.5, level=0.95, n=9, unit="u", method="")
    unknown = Estimate(name="x", value=0.5, low=None, high=None, level=0.95, n=1, unit="u", method="")
    assert detection_power(exact, margin=0.4) == 1.0
    assert detection_power(exact, margin=0.5) == 0.0
    assert detection_power(unknown) == 0.0
