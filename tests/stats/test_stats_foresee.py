"""What a plan says beforehand that it can find is what it then finds."""

import numpy as np
import pytest

from wheeltap.stats import foresee
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.sample import Sample


def found_share(effect: float, *, draws: int, examples: int, margin: float, runs: int) -> float:
    """Share of simulated comparisons, with the planned variances, whose test finds the effect."""
    random, hits = np.random.default_rng(0), 0
    for _ in range(runs):
        cells = (
            effect
            + foresee.DRAW * random.normal(size=(draws, 1))
            + foresee.EXAMPLE * random.normal(size=(1, examples))
            + foresee.RESIDUAL * random.normal(size=(draws, examples))
        )
        p = Sample(cells, skewed=True).above(margin)
        hits += p is not None and p <= 0.05
    return hits / runs


@pytest.mark.parametrize(("draws", "examples"), [(8, 100), (16, 400), (32, 60)])
def test_the_foreseen_difference_is_found_four_times_in_five(draws: int, examples: int) -> None:
    least = foresee.area_difference(draws=draws, examples=examples, margin=0.02)
    share = found_share(least, draws=draws, examples=examples, margin=0.02, runs=600)
    assert 0.76 <= share <= 0.93, share  # at least what is promised; more where draws are few
    assert found_share(least / 3, draws=draws, examples=examples, margin=0.02, runs=300) < 0.4


def test_more_draws_and_examples_see_less() -> None:
    by_draws = [foresee.area_difference(draws=n, examples=200) for n in (2, 4, 8, 16, 32)]
    by_examples = [foresee.area_difference(draws=8, examples=n) for n in (20, 80, 320)]
    assert by_draws == sorted(by_draws, reverse=True) and by_examples == sorted(by_examples, reverse=True)


def test_a_foreseen_loss_is_found_four_times_in_five() -> None:
    random, examples = np.random.default_rng(0), 400
    least, hits = foresee.loss(examples=examples), 0
    # ``CHANGED`` of the answers differ, so many more lost than gained that the mean loss is the foreseen one.
    lost, gained = (foresee.CHANGED + least) / 2, (foresee.CHANGED - least) / 2
    for _ in range(1000):
        moved = random.choice([1.0, -1.0, 0.0], p=[lost, gained, 1 - lost - gained], size=(1, examples))
        p = mean_effect(moved, bounded=True, unit="accuracy").p
        hits += p is not None and p <= 0.05
    assert 0.72 <= hits / 1000 <= 0.92, hits
