"""Wilson's interval: published figures, exact coverage, and answers that come by items."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core.errors import DataError
from wheeltap.stats.wilson1927 import wilson, wilson_of_items

Z = 1.959963984540054


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [(16, 50, 20.8, 45.8), (489, 542, 87.4, 92.4), (0, 20, 0.0, 16.1), (1, 543, 0.0, 1.0)],
)
def test_known_intervals(right: int, n: int, low: float, high: float) -> None:
    found = wilson(right, n)
    assert found.low is not None and found.high is not None
    assert (round(100 * found.low, 1), round(100 * found.high, 1), found.n) == (low, high, n)


@given(st.integers(1, 400), st.data())
def test_ends_solve_the_score_equation(n: int, data: st.DataObject) -> None:
    """Where the share lies z standard errors of the end away from it; mirrored where right and wrong change places."""
    right = data.draw(st.integers(0, n))
    found, other = wilson(right, n), wilson(n - right, n)
    assert found.low is not None and found.high is not None and other.low is not None and other.high is not None
    for end in (found.low, found.high):
        assert abs(right / n - end) == pytest.approx(Z * math.sqrt(end * (1 - end) / n), abs=1e-9) or end in (0.0, 1.0)
    assert 0.0 <= found.low <= right / n <= found.high <= 1.0
    assert found.low == pytest.approx(1.0 - other.high, abs=1e-12)


@pytest.mark.parametrize("n", [50, 543])
def test_it_covers_as_often_as_it_says(n: int) -> None:
    """Exactly, by the binomial distribution, in the mean over true shares; no share is covered much less often."""
    ends = [wilson(right, n) for right in range(n + 1)]
    low, high = (np.array([getattr(end, name) for end in ends]) for name in ("low", "high"))
    log = np.array([math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(n + 1)])
    covered = []
    for p in np.arange(0.05, 0.951, 0.01):
        chance = np.exp(log + np.arange(n + 1) * math.log(p) + (n - np.arange(n + 1)) * math.log1p(-p))
        covered.append(chance[(low <= p) & (p <= high)].sum())
    assert 0.945 < np.mean(covered) < 0.957 and min(covered) > 0.92


@pytest.mark.parametrize("alike", [0.0, 0.3, 0.9])
def test_several_answers_to_an_item(alike: float) -> None:
    """Answers of an item that are more or less alike; one interval of all answers as if independent covers less."""
    rng, repeats, inside, naive = np.random.default_rng(1), 1000, 0, 0
    for _ in range(repeats):
        sizes = rng.choice([4, 8, 12], 80)
        own = rng.random(80) < 0.6
        item = np.repeat(np.arange(80), sizes)
        right = np.where(rng.random(len(item)) < alike, own[item], rng.random(len(item)) < 0.6)
        found, plain = wilson_of_items(right, item), wilson(int(right.sum()), len(right))
        assert found.low is not None and found.high is not None and plain.low is not None and plain.high is not None
        inside += found.low <= 0.6 <= found.high
        naive += plain.low <= 0.6 <= plain.high
    assert 0.93 <= inside / repeats <= 0.975
    assert alike == 0.0 or naive / repeats < 0.9


def test_one_answer_an_item_is_wilsons_interval_with_students_quantile() -> None:
    right = np.arange(400) % 3 == 0
    found, plain = wilson_of_items(right, np.arange(400)), wilson(int(right.sum()), 400)
    assert found.low == pytest.approx(plain.low, abs=5e-4) and found.high == pytest.approx(plain.high, abs=5e-4)
    assert found.n == 400


def test_answers_that_are_all_alike_are_worth_one_an_item() -> None:
    found, plain = wilson_of_items(np.ones(80, dtype=bool), np.arange(80) // 4), wilson(20, 20)
    assert found.low is not None and plain.low is not None and found.low < plain.low
    assert wilson_of_items(np.ones(4, dtype=bool), np.zeros(4, dtype=int)).low is None


@pytest.mark.parametrize(("right", "n"), [(3, 2), (-1, 2), (0, 0)])
def test_what_is_no_share(right: int, n: int) -> None:
    with pytest.raises(DataError, match="needs counts"):
        wilson(right, n)


def test_answers_without_items() -> None:
    with pytest.raises(DataError, match="each of an item"):
        wilson_of_items(np.ones(3, dtype=bool), np.zeros(2, dtype=int))
