"""Statistics over members against slow and independent formulas; intervals and p-values that agree; what is refused."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats
from simulation import ends as interval

from benchmarks.levels.members import ranked
from wheeltap.core.errors import DataError, UsageError
from wheeltap.stats.members import (
    MemberTest,
    NumberScale,
    PlannedTest,
    Single,
    association,
    auc,
    dead_because,
    difference,
    exact,
    one_of,
    over_nets,
    paired,
)

SHARE = NumberScale("share", normal=True)
RATIO = NumberScale("share", log=True, normal=True)
RATIOS = NumberScale("loss", log=True, normal=True)
A = [0.61, 0.58, 0.70, 0.66, 0.64, 0.55]
B = [0.52, 0.57, 0.60, 0.49, 0.61, 0.50]
C = [1.0, 5.0, 2.0, 6.0, 4.0, 3.0]

SEVERAL: dict[str, Callable[[], MemberTest]] = {
    "one_of": lambda: one_of(Single(0.7, 0.01, df=7), B, scale=SHARE),
    "difference": lambda: difference(A, B[:4], scale=SHARE),
    "ratio": lambda: difference(A, B[:4], scale=RATIO),
    "association, partial": lambda: association([*A, *B], [*C, *A], beyond=[[*B, *C]], groups=[0] * 6 + [1] * 6),
    "auc, separated": lambda: auc([5.0, 6.0, 7.0, 8.0, 9.0], [1.0, 2.0, 3.0, 4.0, 4.5]),
    "exact, all": lambda: exact(6, 6),
}
every = pytest.mark.parametrize("name", SEVERAL)


def ends(test: MemberTest) -> tuple[float, float]:
    return interval(test.estimate)


def test_one_net_against_others_as_in_the_textbook() -> None:
    test = one_of(Single(0.7), A, scale=SHARE)
    error = np.std(A, ddof=1) * math.sqrt(1 + 1 / 6)
    gap = 0.7 - np.mean(A)
    half = stats.t.ppf(0.975, 5) * error
    assert ends(test) == pytest.approx((gap - half, gap + half))
    assert test.estimate.p == pytest.approx(2 * stats.t.sf(abs(gap) / error, 5)) and test.estimate.n == 6
    expected = stats.t.interval(0.95, 5, loc=np.mean(A), scale=stats.sem(A))
    assert interval(over_nets(A, name="s", scale=SHARE)) == pytest.approx(expected)
    same = over_nets([0.5] * 3, name="s", scale=NumberScale("accuracy"))
    assert (same.low, same.high, same.method) == (None, None, "no interval: the same number in all 3 nets")


def test_pairs_and_independent_cohorts_as_scipy_has_them() -> None:
    slow = stats.ttest_rel(A, B)
    test = paired(A, B, scale=SHARE)
    assert ends(test) == pytest.approx(tuple(slow.confidence_interval()))
    assert (test.estimate.value, test.estimate.p, test.estimate.n) == pytest.approx(
        (np.mean(A) - np.mean(B), slow.pvalue, 6)
    )
    slow = stats.ttest_ind(A, B[:4], equal_var=False)
    test = difference(A, B[:4], scale=SHARE)
    assert ends(test) == pytest.approx(tuple(slow.confidence_interval()))
    assert (test.estimate.p, test.estimate.n) == pytest.approx((slow.pvalue, 10))


def test_ratios_are_differences_of_logarithms() -> None:
    slow = stats.ttest_ind(np.log(A), np.log(B[:4]), equal_var=False)
    test = difference(A, B[:4], scale=RATIO)
    assert ends(test) == pytest.approx(tuple(np.exp(slow.confidence_interval())))
    assert test.estimate.p == pytest.approx(slow.pvalue)
    assert test.estimate.value == pytest.approx(stats.gmean(A) / stats.gmean(B[:4]))
    beyond = stats.ttest_ind(np.log(A), np.log(B[:4]) + math.log(1.1), equal_var=False, alternative="greater")
    assert test.above(0.1, "more") == pytest.approx(min(1.0, 2 * beyond.pvalue))
    assert ends(paired(A, B, scale=RATIOS)) == pytest.approx(
        tuple(np.exp(stats.ttest_rel(np.log(A), np.log(B)).confidence_interval()))
    )
    one = one_of(Single(0.7, 0.02), B, scale=RATIOS)
    plain = one_of(Single(math.log(0.7), 0.02 / 0.7), list(np.log(B)), scale=SHARE)
    assert ends(one) == pytest.approx(tuple(np.exp(ends(plain))))


def slow_partial(x: np.ndarray, y: np.ndarray, held: list[np.ndarray]) -> float:
    """Partial correlation by the recursion over what is held fixed, one at a time."""
    if not held:
        return float(np.corrcoef(x, y)[0, 1])
    z, rest = held[0], held[1:]
    xy, xz, yz = slow_partial(x, y, rest), slow_partial(x, z, rest), slow_partial(y, z, rest)
    return (xy - xz * yz) / math.sqrt((1 - xz**2) * (1 - yz**2))


def test_rank_correlations_by_the_slow_recursion() -> None:
    members, rng = 20, np.random.default_rng(20)
    x, y, z, w = rng.integers(0, 9, (4, members)).astype(float)  # with ties
    groups = ["a", "b"] * (members // 2)
    plain = association(x, y)
    assert plain.value == pytest.approx(stats.spearmanr(x, y)[0])
    ranks = [stats.rankdata(v) for v in (x, y, z, w)]
    cohort = np.array([float(g == "b") for g in groups])
    partial = association(x, y, beyond=[z, w], groups=groups)
    r = slow_partial(ranks[0], ranks[1], [ranks[2], ranks[3], cohort])
    assert partial.value == pytest.approx(r)
    half = stats.norm.ppf(0.975) * math.sqrt((1 + r**2 / 2) / (members - 3 - 3))
    assert ends(partial) == pytest.approx((math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half)))
    twice = association(x, y, beyond=[z, w, z], groups=groups)  # the same metric again takes nothing more
    assert ends(twice) == pytest.approx(ends(partial))


def test_members_in_perfect_order_do_not_prove_a_perfect_correlation() -> None:
    test = association(range(5), [v**3 for v in range(5)])
    low, high = ends(test)
    assert (test.value, high) == (pytest.approx(1.0), 1.0)
    short = 1 - 6 / (5 * 24)
    assert low == pytest.approx(
        math.tanh(math.atanh(short) - stats.norm.ppf(0.975) * math.sqrt((1 + short**2 / 2) / 2))
    )
    assert (association(range(4), range(4)).estimate.p or 0.0) > 1 / 12  # no exact test by order finds it either


def test_auc_counts_pairs_and_its_interval_solves_the_score_equation() -> None:
    rng = np.random.default_rng(2)
    for sizes in ((3, 3), (5, 9), (10, 10)):
        a, b = (rng.integers(0, 6, n).astype(float) for n in sizes)
        test = auc(a, b)
        n, m = sizes
        slow = sum((x > y) + 0.5 * (x == y) for x in a for y in b) / (n * m)
        assert test.value == pytest.approx(slow)
        assert test.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / (n * m))
        df = (2 if min(sizes) < 5 else 4) * (min(sizes) - 1)
        for end in ends(test):
            if 0.0 < end < 1.0:
                q1, q2 = end / (2 - end), 2 * end**2 / (1 + end)  # Hanley and McNeil (1982)
                each = (n + m) / 2 - 1
                variance = (end * (1 - end) + each * (q1 - end**2) + each * (q2 - end**2)) / (n * m)
                assert abs(slow - end) == pytest.approx(stats.t.ppf(0.975, df) * math.sqrt(variance))


def test_shares_of_members_as_scipy_has_them() -> None:
    for hits, n, share in ((5, 6, 0.4), (0, 3, 0.5), (3, 3, 0.5), (7, 30, 0.2)):
        test = exact(hits, n, share=share)
        assert ends(test) == pytest.approx(tuple(stats.binomtest(hits, n).proportion_ci(0.95, "exact")), abs=1e-12)
        for direction, side in (("more", "greater"), ("less", "less")):
            p = stats.binomtest(hits, n, share, alternative=side).pvalue
            assert test.above(0.0, direction) == pytest.approx(min(1.0, 2 * p))


@every
def test_p_values_agree_with_the_interval_at_every_level(name: str) -> None:
    test = SEVERAL[name]()
    law = test.law
    assert law is not None
    for alpha in (0.3, 0.05, 0.001):
        low, high = law.interval(alpha)
        least, most = law.span
        assert least <= low <= high <= most
        if low > least:
            assert law.at_most(low) == pytest.approx(alpha / 2, rel=1e-4)
        if high < most:
            assert law.at_least(high) == pytest.approx(alpha / 2, rel=1e-4)
    points = np.linspace(max(law.span[0], -2.0), min(law.span[1], 3.0), 60)
    up, down = np.array([(law.at_most(x), law.at_least(x)) for x in points]).T
    assert (np.diff(up) >= -1e-12).all() and (np.diff(down) <= 1e-12).all()
    assert ((up >= 0) & (up <= 1) & (down >= 0) & (down <= 1)).all()
    assert test.value is not None and (ends(test)[0] <= test.value <= ends(test)[1])


@every
def test_found_is_where_the_interval_lies_beyond_the_margin_and_excluded_where_it_lies_within(name: str) -> None:
    test = SEVERAL[name]()
    low, high = (end - test.null for end in ends(test))
    for margin in np.linspace(0.01, 0.6, 40):
        more, less = low > margin, high < -margin
        for direction, found in (("more", more), ("less", less), ("either", more or less)):
            assert ((test.above(margin, direction) or 0.0) <= 0.05) == found
        within, above = high < margin, low > -margin
        for direction, excluded in (("more", within), ("less", above), ("either", within and above)):
            assert ((test.below(margin, direction) or 0.0) <= 0.05) == excluded
    assert test.estimate.p == test.above(0.0)


@every
def test_a_rule_about_less_sees_the_effect_with_its_sign_turned(name: str) -> None:
    test = SEVERAL[name]()
    more, less = (test.toward(direction, margin=0.02) for direction in ("more", "less"))
    low, high = ends(test)
    assert (more.low, more.high) == pytest.approx((low - test.null, high - test.null))
    assert (less.low, less.high) == pytest.approx((test.null - high, test.null - low))
    assert more.value == pytest.approx(-(less.value or 0.0))
    assert (more.p, less.p) == (test.above(0.02, "more"), test.above(0.02, "less"))


def test_what_cannot_be_tested_has_no_interval_and_says_why() -> None:
    several = [
        (one_of(Single(0.5), [0.4], scale=SHARE), "one net against one"),
        (paired([0.5], [0.4], scale=SHARE), "one pair"),
        (difference([0.5], [0.4, 0.6], scale=SHARE), "1 against 2 members"),
        (association([1.0, 2.0, 3.0], [2.0, 1.0, 3.0]), "3 members"),
        (association([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 2.0, 2.0, 2.0, 2.0]), "without any spread"),
        (difference([1.0, 1.0], [0.0, 0.0], scale=SHARE), "without any spread"),
        (paired([0.3, 0.7], [0.1, 0.5], scale=SHARE), "without any spread"),  # but for rounding
    ]
    for test, why in several:
        made = test.estimate
        assert (made.low, made.high, made.p, test.above(0.1), test.below(0.1)) == (None,) * 5
        assert (test.power(0.1), test.needed(0.1), test.smallest_detectable(0.1)) == (None,) * 3
        assert why in made.method
        assert test.toward("less").low is None


def test_what_is_no_number_or_no_pair_is_refused() -> None:
    for error, match, made in (
        (UsageError, "no net", lambda: difference([], [0.5], scale=SHARE)),
        (UsageError, "share", lambda: exact(1, 3, share=1.5)),
        (DataError, "not finite", lambda: auc([0.5, math.nan], [0.4, 0.3])),
        (DataError, "6 and 5 members", lambda: paired(A, B[:5], scale=SHARE)),
        (DataError, "6, 6, 5", lambda: association(A, B, groups=[0, 0, 1, 1, 1])),
    ):
        with pytest.raises(error, match=match):
            made()
    with pytest.raises(DataError, match="positive") as caught:
        difference(A, [0.5, 0.0, 0.2], scale=RATIO)
    assert caught.value.where == "second cohort, net 2"
    with pytest.raises(UsageError, match="cannot be counted"):
        exact(4, 3)
    test = paired(A, B, scale=SHARE)
    for ask, margin in ((test.above, -0.1), (test.below, 0.0), (test.power, -1.0), (test.power, math.nan)):
        with pytest.raises(UsageError, match="margin"):
            ask(margin)
    for counts, margin in (((), 0.0), ((-1,), 0.0), ((3,), -0.1)):
        with pytest.raises(UsageError, match="planned"):
            dead_because(PlannedTest(statistic="exact", counts=counts, margin=margin), alpha=0.05)


@pytest.mark.parametrize(
    ("asked", "alpha", "why"),
    [
        (PlannedTest(statistic="difference", counts=(1, 5)), 0.05, "needs at least 2"),
        (PlannedTest(statistic="association", counts=(5,), used=2), 0.05, "needs at least 6"),
        (PlannedTest(statistic="exact", counts=(8,), margin=0.1), 0.01, "p = 0.034"),
        (PlannedTest(statistic="exact", counts=(99,), share=0.9, margin=0.1, direction="more"), 0.05, "no effect"),
        (PlannedTest(statistic="exact", counts=(99,), share=0.9, margin=0.1), 0.05, None),
        (PlannedTest(statistic="association", counts=(6,)), 0.05, None),
        (PlannedTest(statistic="auc", counts=(3, 3)), 0.05, "3 + 3 members"),
        (PlannedTest(statistic="auc", counts=(5, 5)), 0.05, None),
        (PlannedTest(statistic="auc", counts=(5, 5), margin=0.2), 0.05, "clearest outcome"),
        (PlannedTest(statistic="difference", counts=(3, 3), margin=1.0, ends=(0.0, 1.0)), 0.05, "no effect"),
    ],
)  # fmt: skip
def test_rules_that_no_outcome_could_trip_are_known_beforehand(
    asked: PlannedTest, alpha: float, why: str | None
) -> None:
    said = dead_because(asked, alpha=alpha)
    assert (said is None) if why is None else (said is not None and why in said)


def test_no_outcome_of_a_dead_rule_is_found_and_the_clearest_one_of_a_live_rule_is() -> None:
    for n in range(1, 12):
        for alpha in (0.05, 0.01, 0.001):
            shares = [exact(hits, n).above(0.1) or 0.0 for hits in range(n + 1)]
            rule = PlannedTest(statistic="exact", counts=(n,), margin=0.1)
            assert (min(shares) <= alpha) == (dead_because(rule, alpha=alpha) is None)
            if n >= 2:
                orders = [auc(np.arange(n) + shift, np.arange(n) + 0.5).above(0.1) or 0.0 for shift in range(-n, n + 2)]
                rule = PlannedTest(statistic="auc", counts=(n, n), margin=0.1)
                assert (min(orders) <= alpha) == (dead_because(rule, alpha=alpha) is None)


LONG = NumberScale("u")
"""Of numbers that may have a long tail."""


@pytest.mark.parametrize(("n", "mirrored"), [(3, 1.0), (6, -1.0)])
def test_a_long_tail_that_few_members_lack_excludes_and_finds_nothing(n: int, mirrored: float) -> None:
    rng, runs, margin = np.random.default_rng(n), 1500, 0.5
    said = {scale: np.zeros(2) for scale in (LONG, SHARE)}
    for _ in range(runs):
        gaps = mirrored * (np.exp(rng.standard_normal(n) - 0.5) - 1.0) + margin
        for scale, wrong in said.items():
            test = paired(gaps, np.zeros(n), scale=scale)
            wrong += [(p or 0.0) <= 0.05 for p in (test.above(margin, "more"), test.below(margin, "more"))]
    assert said[LONG].max() / runs <= 0.06 + 3.1 * math.sqrt(0.06 * 0.94 / runs)
    assert said[SHARE].max() / runs > 0.12  # Student's t by itself


@pytest.mark.parametrize("n", [4, 6])
def test_no_correlation_is_tested_by_every_order_of_few_members(n: int) -> None:
    for rules in (1, 10, 50):
        [row] = ranked(n, (rules,))
        assert row.rate <= 0.05, row
    places = np.arange(n, dtype=float)
    best = association(places, places)
    assert (best.estimate.p or 0.0) >= 2.0 / math.factorial(n) * (1.0 - 1e-6)


def test_a_cohort_that_hardly_varies_lends_the_other_no_freedom() -> None:
    rng, rules, runs = np.random.default_rng(7), 10, 8000
    x = 1.0 - np.exp(rng.standard_normal((runs, 5)) - 0.5)  # of mean 0
    y = 0.05 * rng.standard_normal((runs, 5))
    found = [
        (difference(list(a), list(b), scale=LONG).above(0.0, "more") or 0.0) <= 0.05 / rules
        for a, b in zip(x, y, strict=True)
    ]
    assert rules * np.mean(found) <= 0.06 + 3.1 * rules * math.sqrt(0.006 / runs)
