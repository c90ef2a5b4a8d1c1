"""Effects and intervals against slow independent oracles, closed forms and laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.records import Estimate
from wheeltap.stats.crossed import crossed
from wheeltap.stats.effect import (
    exceeds,
    mean_effect,
    score_interval,
    smallest_detectable,
)


def paired(gained: int, lost: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of two subjects that differ on ``gained`` + ``lost`` of ``n`` examples."""
    a, b = np.ones(n), np.ones(n)
    b[:gained] = 0.0
    a[gained : gained + lost] = 0.0
    return a, b


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


@pytest.mark.parametrize("shape", [(2, 2), (2, 7), (5, 3), (4, 20)])
def test_variance_components_match_loops(shape: tuple[int, int]) -> None:
    d = np.random.default_rng(7).normal(size=shape)
    got = crossed(d)
    cells = d.size
    want = anova_by_loops(d)
    assert np.array([got.draw, got.example, got.residual]) * cells == pytest.approx(want, rel=1e-10)
    assert (got.draw_df, got.example_df) == (shape[0] - 1, shape[1] - 1)


def test_added_examples_are_two_more_columns() -> None:
    """The shortcut for the two imaginary examples equals really appending them."""
    d = np.random.default_rng(8).normal(size=(4, 9))
    longer = np.hstack([d, np.full((4, 1), 0.6), np.full((4, 1), -0.6)])
    got, want = crossed(d, pseudo=0.6), crossed(longer)
    assert float(got.centre) == pytest.approx(float(want.centre), rel=1e-12)
    assert float(got.example) == pytest.approx(float(want.example), rel=1e-12)
    assert got.example_df == want.example_df


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
    got = mean_effect(d, unit="nat")
    assert got.low is not None and got.high is not None
    assert (got.high - got.low) / 2 == pytest.approx(math.sqrt(want), rel=1e-8)
    assert (got.high + got.low) / 2 == pytest.approx(d.mean(), abs=1e-9)


def test_one_draw_is_the_paired_t_test() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 40))
    got = mean_effect((a - b)[None, :], unit="nat")
    want = stats.ttest_rel(a, b)
    interval = want.confidence_interval(0.95)
    assert (got.low, got.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert got.p == pytest.approx(want.pvalue, rel=1e-6)
    assert got.n == 40


def test_one_example_is_a_t_test_over_draws() -> None:
    d = np.random.default_rng(2).normal(1.0, 1.0, size=(6, 1))
    got = mean_effect(d, unit="nat")
    want = stats.ttest_1samp(d[:, 0], 0.0)
    assert got.p == pytest.approx(want.pvalue, rel=1e-6)
    assert got.low == pytest.approx(want.confidence_interval(0.95).low, rel=1e-9)
    assert got.n == 1


def test_a_single_number_has_no_interval_and_proves_nothing() -> None:
    for estimate in (mean_effect(np.array([[0.7]]), unit="nat"), mean_effect(np.ones((1, 1)), unit="nat")):
        assert (estimate.low, estimate.high, estimate.p) == (None, None, None)
        assert not exceeds(estimate, 0.0)
        assert smallest_detectable(estimate) is None
        assert smallest_detectable(estimate, df=3, margin=0.5) is None


@settings(max_examples=60)
@given(st.integers(0, 12), st.integers(0, 12), st.integers(24, 60))
def test_mcnemar_against_scipy(gained: int, lost: int, n: int) -> None:
    got = mean_effect(np.subtract(*paired(gained, lost, n))[None, :], bounded=True, unit="accuracy")
    want = stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0
    assert got.p == pytest.approx(want, rel=1e-9)
    assert got.value == pytest.approx((gained - lost) / n)


@settings(max_examples=60)
@given(st.integers(0, 15), st.integers(0, 15), st.integers(30, 400))
def test_bonett_price_with_t_for_z(gained: int, lost: int, n: int) -> None:
    got = mean_effect(np.subtract(*paired(gained, lost, n))[None, :], bounded=True, unit="accuracy")
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = stats.t.ppf(0.975, n + 1) * math.sqrt((up + down - (up - down) ** 2) / (n + 1))
    low, high = max(up - down - half, -1.0), min(up - down + half, 1.0)
    if got.p is not None and got.p >= 0.05:
        low, high = min(low, 0.0), max(high, 0.0)
    assert got.low is not None and got.high is not None
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-12)
    assert got.high > got.low


def test_test_and_interval_agree_at_the_edge() -> None:
    """At the 95 % level the interval leaves out 0 exactly where McNemar's exact test rejects."""
    for n in (30, 360, 5000):
        for gained in range(13):
            for lost in range(gained + 1):
                got = mean_effect(np.subtract(*paired(gained, lost, n))[None, :], bounded=True, unit="accuracy")
                assert got.p is not None
                assert exceeds(got, 0.0) == (got.p < 0.05), (gained, lost, n)


def test_nothing_seen_is_not_nothing() -> None:
    zero = np.zeros((1, 50))
    got = mean_effect(zero, unit="accuracy", bounded=True)
    assert got.low is not None and got.high is not None
    assert got.high == -got.low > 1.9 * math.sqrt(2) / 52
    # Four draws on the same examples say no more of the examples that were not drawn.
    four = mean_effect(np.zeros((4, 50)), unit="accuracy", bounded=True)
    assert (four.low, four.high) == pytest.approx((got.low, got.high))
    same_computation = mean_effect(np.zeros((4, 50)), unit="accuracy")
    assert (same_computation.low, same_computation.high, same_computation.p) == (0.0, 0.0, 1.0)


def test_a_constant_effect_is_certain() -> None:
    got = mean_effect(np.full((3, 20), 0.25), unit="nat")
    assert (got.low, got.high, got.p) == (0.25, 0.25, 0.0)


@settings(max_examples=50)
@given(TABLES, st.floats(0.01, 100.0))
def test_scale_and_sign(d: np.ndarray, scale: float) -> None:
    one, other = mean_effect(d, unit="nat"), mean_effect(-scale * d, unit="nat")
    assert one.low is not None and one.high is not None
    assert (other.low, other.high) == pytest.approx((-scale * one.high, -scale * one.low), rel=1e-9, abs=1e-12)
    assert other.p == pytest.approx(one.p, rel=1e-6)


@settings(max_examples=50)
@given(TABLES)
def test_never_narrower_than_one_factor_alone(d: np.ndarray) -> None:
    both = crossed(d).half_width(0.05)
    for axis in (0, 1):
        means = d.mean(axis=axis)
        alone = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / math.sqrt(len(means))
        assert both >= alone * (1 - 1e-9)


@settings(max_examples=50)
@given(TABLES, st.floats(0.0, 0.5), st.sampled_from([0.8, 0.95, 0.999]))
def test_p_value_is_the_interval_inverted(d: np.ndarray, margin: float, level: float) -> None:
    got = mean_effect(d + 0.4, level=level, margin=margin, unit="nat")
    assert got.p is not None
    if abs(got.p - (1 - level)) > 1e-6:
        assert (got.p < 1 - level) == exceeds(got, margin)


def test_verdicts() -> None:
    def interval(low: float | None, high: float | None) -> Estimate:
        return Estimate(name="x", value=None, low=low, high=high, level=0.95, n=9, unit="u", method="given")

    assert exceeds(interval(0.03, 0.05), 0.02) and exceeds(interval(-0.05, -0.03), 0.02)
    assert not exceeds(interval(0.01, 0.05), 0.02) and not exceeds(interval(-0.05, 0.05), 0.02)
    assert exceeds(interval(0.03, None), 0.02) and not exceeds(interval(None, 0.05), 0.02)
    with pytest.raises(UsageError):
        exceeds(interval(0.0, 1.0), -0.1)
    with pytest.raises(UsageError):
        exceeds(interval(0.0, 1.0), float("nan"))


def test_smallest_detectable_in_closed_form() -> None:
    estimate = Estimate(name="x", value=0.0, low=-1.96, high=1.96, level=0.95, n=9, unit="u", method="given")
    assert smallest_detectable(estimate) == pytest.approx(2.8016, abs=1e-3)
    assert smallest_detectable(estimate, margin=0.5) == pytest.approx(3.3016, abs=1e-3)
    assert smallest_detectable(estimate, alpha=0.01, power=0.9) == pytest.approx(3.8574, abs=1e-3)


def test_score_interval_against_scipy() -> None:
    for right in (0, 1, 25, 49, 50):
        got = score_interval(np.arange(50) < right, bounded=True, unit="accuracy")
        want = stats.binomtest(right, 50).proportion_ci(0.95, "exact")
        assert (got.low, got.high) == pytest.approx((want.low, want.high), abs=1e-12)
    x = np.random.default_rng(4).normal(size=12)
    low, high = stats.t.interval(0.9, 11, loc=x.mean(), scale=stats.sem(x))
    got = score_interval(x, level=0.9, bounded=False, unit="nat")
    assert (got.low, got.high) == pytest.approx((low, high))


def test_refuses_what_it_cannot_use() -> None:
    good = np.ones(5)
    with pytest.raises(DataError, match="NaN"):
        score_interval(np.array([1.0, np.nan]), bounded=False, unit="nat")
    with pytest.raises(DataError, match="bounded"):
        score_interval(2 * good, bounded=True, unit="nat")
    with pytest.raises(DataError, match="shape"):
        mean_effect(good, unit="nat")
    with pytest.raises(DataError, match="bounded"):
        mean_effect(np.full((2, 3), -1.5), unit="nat", bounded=True)
    with pytest.raises(UsageError, match="level"):
        score_interval(good, level=1.0, bounded=True, unit="accuracy")
    with pytest.raises(UsageError, match="margin"):
        mean_effect(np.ones((2, 3)), margin=-0.1, unit="nat")


@pytest.mark.parametrize(("nets", "alpha"), [(3, 0.05), (5, 0.01), (8, 0.01)])
def test_a_t_test_of_few_finds_what_it_could_find_four_times_out_of_five(nets: int, alpha: float) -> None:
    """At a corrected level and with few nets, where the normal approximation promised too much."""
    rng = np.random.default_rng(0)
    runs, reach = 4000, []
    for _ in range(runs):
        x = rng.standard_normal(nets)
        half = float(stats.t.ppf(0.975, nets - 1) * x.std(ddof=1) / nets**0.5)
        told = Estimate(name="x", value=0.0, low=-half, high=half, level=0.95, n=nets, unit="", method="")
        reach.append(smallest_detectable(told, alpha=alpha, df=nets - 1) * nets**0.5 / x.std(ddof=1))
    assert np.ptp(reach) < 1e-9  # in standard errors always the same
    tests = rng.standard_normal((runs, nets)) + reach[0] / nets**0.5
    found = float((stats.ttest_1samp(tests, 0.0, axis=1).pvalue <= alpha).mean())
    assert abs(found - 0.8) < 4 * (0.16 / runs) ** 0.5
