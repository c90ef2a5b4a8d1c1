"""What one score adds to others over members: a slow second implementation, coverage, wrong verdicts, what is refused.

The worlds are those of ``benchmarks.members``, whose tables have more runs: their expected gains are known by another
way, fits to fresh members and the closed form of their AUC.
"""

import math

import numpy as np
import pytest
from simulation import ends, slack

from benchmarks.members.gains import Scores, scored
from benchmarks.members.worlds import ALPHA
from wheeltap.core.errors import DataError
from wheeltap.stats.family import holm
from wheeltap.stats.members import MemberTest, NumberScale, Single, added, mean
from wheeltap.stats.members.adding import SPLITS
from wheeltap.stats.members.means import shared_sample
from wheeltap.stats.members.student import LocationLaw, welch
from wheeltap.stats.ridge_logistic import log_odds

WORLDS = {(one.name, one.within): one for one in scored()}
RUNS = 40


def drawn(name: str, *, within: bool, n: int, runs: int = RUNS) -> tuple[Scores, list[MemberTest]]:
    world, rng = WORLDS[name, within], np.random.default_rng(n)
    return world, [world.make(rng, n) for _ in range(runs)]


@pytest.mark.parametrize(("name", "within", "n"), [("much to nothing", True, 20), ("nothing", True, 10)])
def test_intervals_cover_the_gain_to_be_expected_and_the_estimate_is_unbiased(name: str, within: bool, n: int) -> None:
    world, tests = drawn(name, within=within, n=n)
    truth = world.truth(n)
    values = np.array([test.value for test in tests])
    assert abs(values.mean() - truth) <= 3.5 * values.std() / math.sqrt(RUNS)
    ends = np.array([test.law.interval(ALPHA) for test in tests if test.law is not None])
    assert np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) >= 0.93 - slack(0.93, RUNS)
    # Wide enough, and no wider than twice that.
    half = float((ends[:, 1] - ends[:, 0]).mean() / 2)
    assert half <= 2.2 * 2.3 * values.std() + 2.3 * 1.5 / (n + 2)


@pytest.mark.release
def test_a_score_that_adds_nothing_is_seldom_found_and_one_that_adds_its_margin_seldom_excluded() -> None:
    nothing, adds, rng = WORLDS["nothing", True], WORLDS["much to nothing", False], np.random.default_rng(3)
    tables, rules, false = 30, 2, np.zeros(2)
    for _ in range(tables):
        sides = ([nothing.make(rng, 10).above(0.02, "more") for _ in range(rules)],
                 [adds.make(rng, 10).below(adds.truth(10), "more") for _ in range(rules)])  # fmt: skip
        false += [any(p is not None and p <= ALPHA for p in holm(side)) for side in sides]
    assert (false / tables <= ALPHA + slack(ALPHA, tables)).all()


def test_the_gain_by_a_slow_count_over_the_same_halves() -> None:
    rng = np.random.default_rng(5)
    one, two = rng.normal(size=(7, 3)) + np.array([0.5, 0.0, 1.0]), rng.normal(size=(7, 3))
    counts = np.zeros((7, 7))
    gaps, sums, without = one - two, [], [[] for _ in range(7)]
    from wheeltap.stats.members.adding import _halves  # the halves are the ones that were drawn

    for seen in _halves(7, "pairs"):
        right = [log_odds(gaps[:, :k], np.ones(7), seen=seen, intercept=False) > 0 for k in (3, 2)]
        gain = right[0].astype(float) - right[1]
        left = np.flatnonzero(~seen)
        counts[np.ix_(seen, seen)] += 1
        sums.append(gain[left].mean())
        for k in left:
            without[k].append(gain[[i for i in left if i != k]].mean())
    test = added(one, two, within=True)
    assert test.value == pytest.approx(np.mean(sums))
    spread = 6 / 7 * np.square([np.mean(w) - np.mean([np.mean(v) for v in without]) for w in without]).sum()
    assert test.law is not None and test.law.spread.error == pytest.approx(math.sqrt(spread + 2 / 81))  # type: ignore[attr-defined]
    assert abs(np.diag(counts) - SPLITS * 3 / 7).max() <= 3  # all are fitted to equally often, but for a last round


def test_what_differs_between_nets_counts_only_across_them() -> None:
    rng = np.random.default_rng(1)
    base = 100.0 * rng.normal(size=(12, 1))
    one, two = np.hstack([rng.normal(size=(12, 1)), base + 1.0]), np.hstack([rng.normal(size=(12, 1)), base])
    assert (added(one, two, within=True).value or 0.0) > 0.25
    assert abs(added(one, two, within=False).value or 0.0) < 0.25


def test_members_that_all_show_the_same_are_no_proof() -> None:
    flat = np.zeros((10, 2))
    test = added(flat, flat, within=True)
    low, high = ends(test.estimate)
    assert test.value == 0.0 and -0.5 < low < -0.02 and 0.02 < high < 0.5  # nothing is excluded at a margin of .02


def test_what_cannot_be_compared_is_refused_or_left_open() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert added(x[:2], x).law is None and "too few" in added(x[:2], x).method
    for one, two, within in ((x, x[:, :2], False), (x, x[:3], True), (x[:, :1], x[:, :1], False)):
        with pytest.raises(DataError, match="cannot be compared"):
            added(one, two, within=within)
    with pytest.raises(DataError, match="not finite"):
        added(x, np.where(x == x[1, 1], np.nan, x))


def test_the_mean_of_one_cohort_against_nothing() -> None:
    scale = NumberScale("AUC", normal=True)
    test = mean([Single(value) for value in (0.01, 0.03, 0.02)], scale=scale)
    half = 4.30265 * 0.01 / math.sqrt(3)
    assert ends(test.estimate) == pytest.approx((0.02 - half, 0.02 + half), rel=1e-4)
    alone = mean([Single(0.05, 0.01, "DeLong")], scale=scale)
    assert ends(alone.estimate) == pytest.approx((0.05 - 0.0196, 0.05 + 0.0196), abs=1e-5)
    assert "DeLong" in alone.method and alone.estimate.n == 1
    assert (alone.above(0.02, "more") or 1.0) == pytest.approx(0.0027, abs=1e-4)
    assert alone.needed(0.02, "more") in (1, None)
    few = mean([Single(0.05, 0.01, "DeLong", df=3)], scale=scale)
    assert (few.estimate.low or 0.0) == pytest.approx(0.05 - 3.18245 * 0.01, abs=1e-5)
    for same in ([Single(0.05)], [Single(0.05)] * 3):
        assert mean(same, scale=scale).law is None


def test_nets_that_share_examples_share_their_error() -> None:
    nets = 3
    rng, truth, spread, error, runs = np.random.default_rng(nets), 0.02, 0.006, 0.01, 2000
    own = truth + spread * rng.standard_normal((runs, nets))
    seen = own + error * rng.standard_normal((runs, 1))  # the same examples for all nets of a run
    tests = [
        mean([Single(float(value), error) for value in row], scale=NumberScale("AUC", normal=True)) for row in seen
    ]
    ends = np.array([(test.estimate.low, test.estimate.high) for test in tests])
    assert 0.93 <= np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])) <= 1.0
    # At a true gain that is the margin, neither side may be decided more often than alpha.
    assert np.mean([(test.above(truth, "more") or 1.0) <= 0.05 for test in tests]) <= 0.035
    assert np.mean([(test.below(truth, "more") or 1.0) <= 0.05 for test in tests]) <= 0.035


@pytest.mark.parametrize(("nets", "spread", "alpha"), [(2, 0.02, 0.0036), (3, 0.03, 0.05)])
def test_nets_that_happen_to_agree_make_nothing_certain(nets: int, spread: float, alpha: float) -> None:
    rng, error, runs = np.random.default_rng(nets), 0.01, 20_000
    seen = spread * rng.standard_normal((runs, nets)) + error * rng.standard_normal((runs, 1))
    ends = [
        LocationLaw(float(row.mean()), shared_sample(float(row.var(ddof=1)), nets, error**2)).interval(alpha)
        for row in seen
    ]
    missed = np.mean([not low <= 0.0 <= high for low, high in ends])
    assert missed <= 1.1 * alpha + 3.0 * math.sqrt(alpha / runs)


@pytest.mark.parametrize(("counts", "wide"), [((2, 12), 3.0), ((2, 12), 0.3)])
def test_few_that_happen_to_agree_are_not_told_from_many(counts: tuple[int, int], wide: float) -> None:
    rng, alpha, runs = np.random.default_rng(counts), 0.0036, 20_000
    one, two = wide * rng.standard_normal((runs, counts[0])), rng.standard_normal((runs, counts[1]))
    gaps, pairs = one.mean(1) - two.mean(1), zip(one.var(1, ddof=1), two.var(1, ddof=1), strict=True)
    halves = [welch([float(v) for v in pair], counts).half(alpha) for pair in pairs]
    assert np.mean(np.abs(gaps) > halves) <= alpha + 3.0 * math.sqrt(alpha / runs)


pytestmark = pytest.mark.slow  # simulations
