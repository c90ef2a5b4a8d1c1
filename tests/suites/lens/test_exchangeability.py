"""Exact tests of order and of versions: against enumeration, and how often they reject where nothing is there."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wheeltap.suites.lens.stats.exchangeability import flipped, mean_interval, more_often, order_test


def enumerated(likelihoods: np.ndarray) -> float:
    """Share of all assignments of one arrangement to each shard that are as likely as the given ones."""
    scores = (likelihoods - likelihoods.mean(1, keepdims=True)) / likelihoods.std(1, keepdims=True)
    shards, arrangements = scores.shape
    sums = [
        sum(scores[s, a] for s, a in enumerate(each)) for each in itertools.product(range(arrangements), repeat=shards)
    ]
    return float(np.mean(np.array(sums) >= scores[:, 0].sum() - 1e-9))


@pytest.mark.parametrize("seed", range(6))
def test_the_p_value_is_the_share_of_all_assignments(seed: int) -> None:
    rng = np.random.default_rng(seed)
    likelihoods = rng.normal(size=(4, 5)) * [[1.0], [10.0], [0.1], [3.0]]
    likelihoods[:, 0] += 0.5 * likelihoods.std(axis=1)
    found = order_test(likelihoods, rng, draws=40_000)
    assert found.p == pytest.approx(enumerated(likelihoods), abs=4 * np.sqrt(0.25 / 40_000))
    gains = likelihoods[:, 0] - likelihoods[:, 1:].mean(axis=1)
    assert found.p_t == pytest.approx(stats.ttest_1samp(gains, 0.0, alternative="greater").pvalue)


def test_where_nothing_was_seen_p_values_are_uniform() -> None:
    rng = np.random.default_rng(0)
    # Skewed and heavy: no law is assumed. Arrangements of one shard depend on each other, and are exchangeable.
    ps = [
        order_test(rng.standard_t(2, size=(6, 11)) ** 3 + rng.normal(size=(6, 1)), rng, draws=999).p for _ in range(600)
    ]
    assert stats.kstest(ps, "uniform").pvalue > 0.01
    assert np.mean(np.array(ps) <= 0.05) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 600)


def test_a_known_order_is_found() -> None:
    rng = np.random.default_rng(1)
    likelihoods = rng.normal(size=(8, 21))
    likelihoods[:, 0] += 1.5
    assert order_test(likelihoods, rng).p < 0.01
    assert order_test(-likelihoods, rng).p > 0.5


def test_shards_that_tell_nothing_reject_nothing() -> None:
    found = order_test(np.full((4, 6), -3.0), np.random.default_rng(0))
    assert (found.p, found.p_t) == (1.0, 1.0)


@settings(max_examples=25)
@given(st.lists(st.floats(-50, 50), min_size=3, max_size=3), st.floats(0.1, 100))
def test_neither_shift_nor_scale_of_a_shard_matters(shifts: list[float], scale: float) -> None:
    likelihoods = np.random.default_rng(3).normal(size=(3, 6))
    moved = scale * likelihoods + np.array(shifts)[:, None]
    one, two = (order_test(some, np.random.default_rng(5), draws=500).p for some in (likelihoods, moved))
    assert one == two


@pytest.mark.parametrize("seed", range(4))
def test_flipped_signs_against_all_of_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    gaps = rng.normal(0.4, 1.0, 8)
    sums = np.array([np.dot(signs, gaps) for signs in itertools.product((-1, 1), repeat=8)])
    exact = float(np.mean(sums >= gaps.sum() - 1e-9))
    assert flipped(gaps, rng, draws=40_000) == pytest.approx(exact, abs=4 * np.sqrt(0.25 / 40_000))


def test_more_often_is_the_exact_one_sided_test() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        one, two = rng.integers(0, 2, (2, 40)).astype(float)
        above, below = int((one > two).sum()), int((one < two).sum())
        exact = stats.binomtest(above, above + below, 0.5, alternative="greater").pvalue
        assert more_often(one, two) == pytest.approx(exact)
    assert more_often(np.ones(5), np.ones(5)) == 1.0


def test_the_interval_is_that_of_student() -> None:
    values = np.random.default_rng(0).normal(size=12)
    mean, low, high = mean_interval(values, level=0.9)
    wanted = stats.t.interval(0.9, 11, loc=values.mean(), scale=stats.sem(values))
    assert (mean, low, high) == pytest.approx((values.mean(), *wanted))
    assert mean_interval(np.ones(3), level=0.9) == (1.0, None, None)
