"""Held-out prediction of members: against a slow ridge regression, and on worlds with planted R2."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import ends, slack

from wheeltap.core.errors import DataError
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.held_out import PENALTIES, halvings, predictions
from wheeltap.stats.members import NumberScale, Single, mean

HALF = 1.0
"""Halvings of the squared error at an R2 of .5."""


def world(rng: np.random.Generator, members: int, r2: float, *, features: int = 6) -> tuple[FloatArray, FloatArray]:
    """Three features of six count alike; normal errors."""
    x = rng.standard_normal((members, features))
    signal = x[:, :3].sum(1) / math.sqrt(3.0)
    return x, math.sqrt(r2) * signal + math.sqrt(1.0 - r2) * rng.standard_normal(members)


def ridge(x: FloatArray, y: FloatArray, new: FloatArray, penalty: float) -> float:
    """Standardized, fitted and asked, as one would by hand."""
    centre, spread = x.mean(0), x.std(0)
    z, level = (x - centre) / spread, y.mean()
    slopes = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - level))
    return float(level + ((new - centre) / spread) @ slopes)


def left_out(x: FloatArray, y: FloatArray, penalty: float) -> float:
    """Squared error of members left out one at a time; standardized and leveled with them, as the closed form is."""
    z = (x - x.mean(0)) / x.std(0)
    design = np.column_stack([z, np.ones(len(z))])
    curb = np.diag([*[penalty] * z.shape[1], 0.0])
    missed = 0.0
    for at in range(len(y)):
        kept = np.arange(len(y)) != at
        slopes = np.linalg.solve(design[kept].T @ design[kept] + curb, design[kept].T @ y[kept])
        missed += float(y[at] - design[at] @ slopes) ** 2
    return missed


def slowly(x: FloatArray, y: FloatArray) -> FloatArray:
    found = list[float]()
    for at in range(len(y)):
        kept = np.arange(len(y)) != at
        best = min(PENALTIES, key=lambda penalty: left_out(x[kept], y[kept], penalty))
        found.append(ridge(x[kept], y[kept], x[at], best))
    return np.array(found)


def test_predictions_are_those_of_a_slow_regression() -> None:
    x, y = world(np.random.default_rng(3), 12, 0.7, features=3)
    np.testing.assert_allclose(predictions(x, y), slowly(x, y), rtol=1e-8, atol=1e-10)


def test_halvings_are_the_jackknife_of_the_whole_procedure() -> None:
    x, y = world(np.random.default_rng(4), 10, 0.6, features=3)

    def slow(x: FloatArray, y: FloatArray) -> float:
        others = (y.sum() - y) / (len(y) - 1)
        return -math.log2(np.square(y - slowly(x, y)).sum() / np.square(y - others).sum())

    kept = [np.arange(10) != at for at in range(10)]
    pseudo = np.array([10 * slow(x, y) - 9 * slow(x[rows], y[rows]) for rows in kept])
    found = halvings(x, y)
    np.testing.assert_allclose(found - found.mean(), pseudo - pseudo.mean(), rtol=1e-6, atol=1e-8)
    assert found.mean() == pytest.approx(slow(x, y))


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.floats(-3.0, 3.0), st.floats(0.01, 100.0))
def test_units_and_order_do_not_matter(seed: int, shift: float, scale: float) -> None:
    rng = np.random.default_rng(seed)
    x, y = world(rng, 8, 0.5, features=2)
    order = rng.permutation(8)
    moved = halvings(scale * x[order] - shift, -scale * y[order] + shift)
    np.testing.assert_allclose(moved, halvings(x, y)[order], rtol=1e-5, atol=1e-6)


def halved(values: FloatArray) -> tuple[float, float]:
    """Ends of the interval of the mean of these halvings."""
    scale = NumberScale("halvings", normal=True)
    return ends(mean([Single(float(value)) for value in values], scale=scale).estimate)


def tries(r2: float, count: int, *, members: int = 48) -> Iterator[FloatArray]:
    rng = np.random.default_rng(6)
    for _ in range(count):
        yield halvings(*world(rng, members, r2))


def test_permuted_outcomes_are_not_predicted() -> None:
    rng = np.random.default_rng(7)
    x, y = world(rng, 32, 0.9)
    above = [halved(halvings(x, rng.permutation(y)))[0] > 0.0 for _ in range(40)]
    assert sum(above) <= 3  # at most 2.5 % of the time
    assert halved(halvings(x, y))[0] > 0.0


@pytest.mark.release
def test_intervals_cover_and_verdicts_are_seldom_wrong() -> None:
    """Of 48 nets and 6 features: the expected halvings are covered; an R2 of .5 is seldom called more or less.

    With a planted R2 of .565 the expected held-out one is .5, for a regression has to be learned first. In 400 runs
    each of .5, .565 and .8, 96 to 97 % were covered; .3, 1 and 71 % called more than .5, and 6, 2 and 0 % less.
    """
    runs = 60
    error = slack(0.05, runs)
    for planted in (0.565, 0.8):
        found = list(tries(planted, runs))
        truth = float(np.mean([each.mean() for each in found]))
        intervals = [halved(each) for each in found]
        assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.95 - error, planted
        assert np.mean([high < HALF for _, high in intervals]) <= 0.025 + error, planted
        more = np.mean([low > HALF for low, _ in intervals])
        assert more <= 0.025 + error if planted < 0.8 else more >= 0.5  # power .71


def test_what_cannot_be_predicted_is_refused() -> None:
    for x, y in (
        (np.ones((5, 2)), np.arange(5.0)), (np.ones((8, 2)), np.arange(7.0)), (np.ones(8), np.arange(8.0)),
        (np.ones((8, 2)), np.ones(8)), (np.ones((8, 2)), np.eye(8)[0]), (np.full((8, 2), np.nan), np.arange(8.0)),
    ):  # fmt: skip
        with pytest.raises(DataError):
            halvings(x, y)
