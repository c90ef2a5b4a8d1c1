"""Wilson's interval: published figures, exact coverage, and answers that come by items."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulation import covers, ends

from wheeltap.core.errors import DataError
from wheeltap.stats.wilson1927 import wilson, wilson_of_items

Z = 1.959963984540054


def test_known_intervals() -> None:
    for right, n, *known in ((16, 50, 20.8, 45.8), (489, 542, 87.4, 92.4), (0, 20, 0.0, 16.1), (1, 543, 0.0, 1.0)):
        found = wilson(right, n)
        assert [round(100 * end, 1) for end in ends(found)] == known and found.n == n


@given(st.integers(1, 400), st.data())
def test_ends_solve_the_score_equation(n: int, data: st.DataObject) -> None:
    """Where the share lies z standard errors of the end away from it; mirrored where right and wrong change places."""
    right = data.draw(st.integers(0, n))
    found, other = wilson(right, n), wilson(n - right, n)
    low, high = ends(found)
    for end in (low, high):
        assert abs(right / n - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n), abs=1e-9) or end in (0.0, 1.0)
    assert 0.0 <= low <= right / n <= high <= 1.0
    assert low == pytest.approx(1.0 - ends(other)[1], abs=1e-12)


def test_it_covers_as_often_as_it_says() -> None:
    """Exactly, by the binomial distribution, in the mean over true shares; no share is covered much less often."""
    n = 50
    ends = [wilson(right, n) for right in range(n + 1)]
    low, high = (np.array([getattr(end, name) for end in ends]) for name in ("low", "high"))
    log = np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)])
    covered = []
    for p in np.arange(0.05, 0.951, 0.01):
        chance = np.exp(log + np.arange(n + 1) * math.log(p) + (n - np.arange(n + 1)) * math.log1p(-p))
        covered.append(chance[(low <= p) & (p <= high)].sum())
    assert 0.945 < np.mean(covered) < 0.957 and min(covered) > 0.92


@pytest.mark.parametrize("alike", [0.0, 0.9])
def test_several_answers_to_an_item(alike: float) -> None:
    """Answers of an item that are more or less alike; one interval of all answers as if independent covers less."""
    rng, repeats, inside, naive = np.random.default_rng(1), 1000, 0, 0
    for _ in range(repeats):
        sizes = rng.choice([4, 8, 12], 80)
        own = rng.random(80) < 0.6
        item = np.repeat(np.arange(80), sizes)
        right = np.where(rng.random(len(item)) < alike, own[item], rng.random(len(item)) < 0.6)
        inside += covers(wilson_of_items(right, item), 0.6)
        naive += covers(wilson(int(right.sum()), len(right)), 0.6)
    assert 0.93 <= inside / repeats <= 0.975
    assert alike == 0.0 or naive / repeats < 0.9


def test_what_is_no_share() -> None:
    for right, n in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(DataError, match="needs counts"):
            wilson(right, n)
    with pytest.raises(DataError, match="each of an item"):
        wilson_of_items(np.ones(3, dtype=bool), np.zeros(2, dtype=int))
