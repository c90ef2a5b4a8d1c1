"""The smallest detectable effect, against tests that are really repeated."""

import numpy as np
import pytest

from wheeltap.core.records import Estimate
from wheeltap.stats.effect import mean_effect, smallest_detectable

DRAWS, EXAMPLES = 24, 120


def experiment(effect: float, rng: np.random.Generator) -> Estimate:
    """One measured effect: a shift that differs by example and by draw."""
    by_example = rng.normal(effect, 0.30, EXAMPLES)
    by_draw = rng.normal(0.0, 0.05, (DRAWS, 1))
    return mean_effect(by_example + by_draw + rng.normal(0.0, 0.4, (DRAWS, EXAMPLES)), margin=0.02, unit="u")


def test_the_smallest_detectable_effect_is_found_as_often_as_it_says() -> None:
    rng, alpha, margin = np.random.default_rng(7), 0.05 / 3, 0.02
    told = [smallest_detectable(experiment(0.1, rng), alpha=alpha, margin=margin) for _ in range(400)]
    least = float(np.mean([one for one in told if one is not None]))
    tried = [experiment(least, rng) for _ in range(400)]
    observed = np.mean([one.p is not None and one.p <= alpha for one in tried])
    assert len(told) == 400 and abs(0.8 - observed) < 0.08


def test_the_smallest_detectable_effect_in_closed_form() -> None:
    known = Estimate(name="x", value=0.0, low=-1.96, high=1.96, level=0.95, n=9, unit="u", method="")
    assert smallest_detectable(known) == pytest.approx(2.8016, abs=1e-3)


def test_an_effect_of_any_size_may_go_unseen_where_the_interval_is_open() -> None:
    exact = Estimate(name="x", value=0.5, low=0.5, high=0.5, level=0.95, n=9, unit="u", method="")
    unknown = Estimate(name="x", value=0.5, low=None, high=None, level=0.95, n=1, unit="u", method="")
    assert smallest_detectable(exact, margin=0.4) == pytest.approx(0.4)
    assert smallest_detectable(unknown) is None
