"""Effects and intervals, paired and not, against slow independent oracles, closed forms and laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from simulation import covers, ends

from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.records import Estimate
from wheeltap.stats.effect import (
    FEW,
    exceeds,
    mean_effect,
    score_interval,
    share_interval,
    smallest_detectable,
)
from wheeltap.stats.unpaired import unpaired_effect


def paired(gained: int, lost: int, n: int) -> np.ndarray:
    """Difference ``[draw, example]`` of the scores of two subjects that differ on ``gained`` + ``lost`` examples."""
    return np.repeat([1.0, -1.0, 0.0], [gained, lost, n - gained - lost])[None]


def given_interval(low: float | None, high: float | None, value: float | None = None) -> Estimate:
    return Estimate(name="x", value=value, low=low, high=high, level=0.95, n=9, unit="u", method="given")


def anova_by_loops(d: np.ndarray) -> tuple[float, float, float]:
    """Mean squares of a two-way table without replication, cell by cell."""
    draws, examples = d.shape
    grand = sum(d[s, e] for s in range(draws) for e in range(examples)) / (draws * examples)
    row = [sum(d[s, e] for e in range(examples)) / examples for s in range(draws)]
    column = [sum(d[s, e] for s in range(draws)) / draws for e in range(examples)]
    ms_draw = sum(examples * (r - grand) ** 2 for r in row) / (draws - 1)
    ms_example = sum(draws * (c - grand) ** 2 for c in column) / (examples - 1)
    rest = 0.0
    for s in range(draws):
        for e in range(examples):
            rest += (d[s, e] - row[s] - column[e] + grand) ** 2
    return ms_draw, ms_example, rest / ((draws - 1) * (examples - 1))


TABLES = st.tuples(st.integers(2, 6), st.integers(2, 12), st.integers(0, 2**32 - 1)).map(
    lambda t: np.random.default_rng(t[2]).normal(size=t[:2])
)


@settings(max_examples=40)
@given(TABLES, st.floats(0.0, 3.0))
def test_interval_from_mean_squares_by_loops(d: np.ndarray, draw: float) -> None:
    """Each part has its own t quantile, and the residual, which is in both mean squares, counts once."""
    d = d + draw * np.arange(len(d))[:, None]
    ms_draw, ms_example, ms_rest = (square / d.size for square in anova_by_loops(d))
    t_draw, t_example = (stats.t.ppf(0.975, size - 1) ** 2 for size in d.shape)
    want = max(
        t_draw * ms_draw + t_example * max(ms_example - ms_rest, 0.0),
        t_example * ms_example + t_draw * max(ms_draw - ms_rest, 0.0),
    )
    low, high = ends(mean_effect(d, unit="nat"))
    assert (high - low) / 2 == pytest.approx(math.sqrt(want), rel=1e-8)
    assert (high + low) / 2 == pytest.approx(d.mean(), abs=1e-9)


def test_one_draw_is_the_paired_t_test_and_one_example_a_t_test_over_draws() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 40))
    got, want = mean_effect((a - b)[None, :], unit="nat"), stats.ttest_rel(a, b)
    assert ends(got) == pytest.approx(tuple(want.confidence_interval(0.95)), rel=1e-9)
    assert got.p == pytest.approx(want.pvalue, rel=1e-6) and got.n == 40
    d = np.random.default_rng(2).normal(1.0, 1.0, size=(6, 1))
    got, want = mean_effect(d, unit="nat"), stats.ttest_1samp(d[:, 0], 0.0)
    assert ends(got) == pytest.approx(tuple(want.confidence_interval(0.95)), rel=1e-9)
    assert got.p == pytest.approx(want.pvalue, rel=1e-6) and got.n == 1


def test_a_single_number_has_no_interval_and_proves_nothing() -> None:
    estimate = mean_effect(np.array([[0.7]]), unit="nat")
    assert (estimate.low, estimate.high, estimate.p) == (None, None, None)
    assert not exceeds(estimate, 0.0)
    assert smallest_detectable(estimate) is None
    assert smallest_detectable(estimate, df=3, margin=0.5) is None


@settings(max_examples=60)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(24, 60))
def test_mcnemar_against_scipy(gained: int, lost: int, n: int) -> None:
    got = mean_effect(paired(gained, lost, n), bounded=True, unit="accuracy")
    want = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert got.p == pytest.approx(want, rel=1e-9)
    assert got.value == pytest.approx((gained - lost) / n)


@settings(max_examples=60)
@given(st.integers(0, 15), st.integers(0, 15), st.integers(30, 400))
def test_bonett_price_with_t_for_z(gained: int, lost: int, n: int) -> None:
    got = mean_effect(paired(gained, lost, n), bounded=True, unit="accuracy")
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = stats.t.ppf(0.975, n + 1) * math.sqrt((up + down - (up - down) ** 2) / (n + 1))
    low, high = max(up - down - half, -1.0), min(up - down + half, 1.0)
    if got.p is not None and got.p >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    assert ends(got) == pytest.approx((low, high), abs=1e-12) and ends(got)[1] > ends(got)[0]


def test_test_and_interval_agree_at_the_edge() -> None:
    """At the 95 % level the interval leaves out 0 exactly where McNemar's exact test rejects."""
    for n in (30, 5000):
        for gained in range(12):
            for lost in range(gained + 1):
                got = mean_effect(paired(gained, lost, n), bounded=True, unit="accuracy")
                assert exceeds(got, 0.0) == (got.p < 0.05), (gained, lost, n)


def test_nothing_seen_is_not_nothing_and_a_constant_effect_is_certain() -> None:
    low, high = ends(mean_effect(np.zeros((1, 50)), unit="accuracy", bounded=True))
    assert high == -low > 1.9 * math.sqrt(2) / 52
    # Four draws on the same examples say no more of the examples that were not drawn.
    assert ends(mean_effect(np.zeros((4, 50)), unit="accuracy", bounded=True)) == pytest.approx((low, high))
    for same_computation, p in ((np.zeros((4, 50)), 1.0), (np.full((3, 20), 0.25), 0.0)):
        got, value = mean_effect(same_computation, unit="accuracy"), same_computation[0, 0]
        assert (got.low, got.high, got.p) == (value, value, p)


@settings(max_examples=50)
@given(TABLES, st.floats(0.0, 0.5), st.sampled_from([0.8, 0.95, 0.999]))
def test_p_value_is_the_interval_inverted(d: np.ndarray, margin: float, level: float) -> None:
    got = mean_effect(d + 0.4, level=level, margin=margin, unit="nat")
    assert got.p is not None
    if abs(got.p - (1 - level)) > 1e-6:
        assert (got.p < 1 - level) == exceeds(got, margin)


def test_smallest_detectable_in_closed_form() -> None:
    estimate = given_interval(-1.96, 1.96, 0.0)
    assert smallest_detectable(estimate) == pytest.approx(2.8016, abs=1e-3)
    assert smallest_detectable(estimate, margin=0.5) == pytest.approx(3.3016, abs=1e-3)
    assert smallest_detectable(estimate, alpha=0.01, power=0.9) == pytest.approx(3.8574, abs=1e-3)
    assert smallest_detectable(given_interval(0.5, 0.5, 0.5), margin=0.4) == pytest.approx(0.4)


def test_score_interval_against_scipy() -> None:
    for right in (0, 1, 25, 49, 50):
        got = score_interval(np.arange(50) < right, bounded=True, unit="accuracy")
        want = stats.binomtest(right, 50).proportion_ci(0.95, "exact")
        assert ends(got) == pytest.approx((want.low, want.high), abs=1e-12)
    x = np.random.default_rng(4).normal(size=12)
    low, high = stats.t.interval(0.9, 11, loc=x.mean(), scale=stats.sem(x))
    got = score_interval(x, level=0.9, bounded=False, unit="nat")
    assert (got.low, got.high) == pytest.approx((low, high))


def test_refuses_what_it_cannot_use() -> None:
    good = np.ones(5)
    for error, match, asked in (
        (DataError, "NaN", lambda: score_interval(np.array([1.0, np.nan]), bounded=False, unit="nat")),
        (DataError, "shape", lambda: mean_effect(good, unit="nat")),
        (DataError, "bounded", lambda: mean_effect(np.full((2, 3), -1.5), unit="nat", bounded=True)),
        (UsageError, "level", lambda: score_interval(good, level=1.0, bounded=True, unit="accuracy")),
        (UsageError, "margin", lambda: mean_effect(np.ones((2, 3)), margin=-0.1, unit="nat")),
    ):
        with pytest.raises(error, match=match):
            asked()


@pytest.mark.parametrize(("nets", "alpha"), [(3, 0.05), (5, 0.01)])
def test_a_t_test_of_few_finds_what_it_could_find_four_times_out_of_five(nets: int, alpha: float) -> None:
    """At a corrected level and with few nets, where the normal approximation promised too much."""
    rng = np.random.default_rng(0)
    runs, reach = 4000, []
    for _ in range(runs):
        x = rng.standard_normal(nets)
        half = float(stats.t.ppf(0.975, nets - 1) * x.std(ddof=1) / nets**0.5)
        told = smallest_detectable(given_interval(-half, half, 0.0), alpha=alpha, df=nets - 1)
        reach.append(told * nets**0.5 / x.std(ddof=1))
    assert np.ptp(reach) < 1e-9  # in standard errors always the same
    tests = rng.standard_normal((runs, nets)) + reach[0] / nets**0.5
    found = float((stats.ttest_1samp(tests, 0.0, axis=1).pvalue <= alpha).mean())
    assert abs(found - 0.8) < 4 * (0.16 / runs) ** 0.5


# ---- means of scores in [0, 1] -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("items", "repeats"), [(5, 2), (FEW - 1, 8), (FEW, 2)])
def test_coverage_of_means_of_repeats(items: int, repeats: int) -> None:
    rng, runs, inside = np.random.default_rng(items * repeats), 1500, 0
    for _ in range(runs):
        values = rng.binomial(repeats, rng.beta(0.6, 0.6, size=items)) / repeats
        inside += covers(share_interval(values, unit="1"), 0.5)
    assert inside / runs >= 0.93
    assert items < FEW or inside / runs <= 0.97


def test_it_is_welch_with_a_normal_quantile() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=4000), rng.normal(0.05, size=3000)
    found, expected = unpaired_effect(x, y, unit="1"), stats.ttest_ind(x, y, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-2)
    assert ends(found) == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=1e-4)
    alike = unpaired_effect(np.ones(9), np.zeros(9), unit="1")  # nothing varies
    assert (alike.value, alike.low, alike.p) == (1.0, None, None)
