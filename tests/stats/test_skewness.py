"""Means of skewed values of an unbounded measure: Hall's transformation, and how many examples it takes."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy import optimize, stats
from simulation import ends

from benchmarks.levels.draws import judged
from wheeltap.stats.beyond import Beyond
from wheeltap.stats.effect import share_kept
from wheeltap.stats.evidence import Candidate, Largest
from wheeltap.stats.sample import Sample

RNG = np.random.default_rng(17)


def transformed(x: np.ndarray, mean: float) -> float:
    """Hall (1992), term by term."""
    n, u, g = len(x), (x.mean() - mean) / x.std(ddof=1), float(stats.skew(x))
    return float(np.sqrt(n) * (u + g * u**2 / 3.0 + g**2 * u**3 / 27.0 + g / (6.0 * n)))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_interval_and_both_p_values_are_those_of_the_transformed_t(sign: float) -> None:
    for n in (200, 1000):
        x = sign * RNG.gamma(6.0, 1.0, n)
        for level in (0.95, 0.995):
            low, high = ends(Sample(x[None]).effect(level=level, name="x", unit="nats"))
            t, far = stats.t.ppf((1.0 + level) / 2.0, n - 1), 10.0 * x.std() / np.sqrt(n)
            assert transformed(x, low) == pytest.approx(t) and transformed(x, high) == pytest.approx(-t)
            exact = optimize.brentq(lambda mean, x=x, t=t: transformed(x, mean) - t, x.mean() - far, x.mean())
            assert low == pytest.approx(exact)
        # The near end touches a margin exactly where the p-value is 1 - level.
        low, high = ends(Sample(x[None]).effect(level=0.98, name="x", unit="nats"))
        near = low if sign > 0.0 else -high
        assert Sample(x[None]).above(near) == pytest.approx(0.02, rel=1e-6)
        assert Sample(x[None]).effect(margin=near, name="x", unit="nats").p == pytest.approx(0.02, rel=1e-6)


def test_symmetric_values_have_students_t_and_bounded_ones_keep_their_tests() -> None:
    x = RNG.normal(size=50)
    x = np.concatenate([x, -x]) + 0.2
    expected = stats.ttest_1samp(x, 0.0).confidence_interval(0.95)
    assert ends(Sample(x[None]).effect(name="x", unit="nats")) == pytest.approx(tuple(expected))
    rare = (np.arange(400) < 2)[None] * 1.0
    assert Sample(rare, 1.0).required(0.1) == 0 < Sample(rare).required(0.1)


@pytest.mark.parametrize("side", [0, 1])
def test_a_long_tail_towards_the_margin_leaves_a_verdict_open_where_examples_are_few(side: int) -> None:
    tail, margin = RNG.normal(size=300) ** 2 - 1.0, 0.5
    mean, towards = (1.0, -tail) if side == 0 else (0.0, tail)
    sample, required = Sample(mean + towards[None]), int(np.ceil(50.0 * stats.skew(tail) ** 2))
    assert sample.required(margin) == required > 300 and judged(sample, margin) == (1.0, 1.0)
    assert Candidate(sample, among=3).required(margin) == Largest([sample]).required(margin) == required
    assert judged(Sample(np.tile(mean + towards, 9)[None]), margin)[side] < 1e-6, "of as many as are required"
    # A tail away from the margin makes Student's t err less often than it may.
    assert judged(Sample(mean - towards[None]), margin)[side] < 0.05
    # All of them lie on one side of the margin: skewness is no doubt about the side of their mean.
    assert sample.required(99.0) == 0
    power = sample.power(margin, one_sided=True, alpha=0.05)
    assert power is not None and (power.examples is None or power.examples >= required)


def test_what_is_left_of_a_score_and_a_lead_over_random_sets_have_it_too() -> None:
    clean, more = RNG.gamma(2.0, 1.0, 500), RNG.exponential(1.0, 500)
    kept = share_kept((clean + more)[None], clean, chance=0.0)
    rest = clean + more - (kept.value or 0.0) * clean
    low, high = ends(Sample(rest[None]).effect(name="x", unit="nats"))
    assert ends(kept) == pytest.approx(
        ((kept.value or 0.0) + low / clean.mean(), (kept.value or 0.0) + high / clean.mean())
    )
    lead = Beyond(more, np.zeros((3, 500)))
    assert ends(lead.effect(name="x", unit="nats")) == pytest.approx(
        ends(Sample(more[None]).effect(name="x", unit="nats"))
    )
    assert Beyond(2.0 - more[:50], np.zeros((3, 50))).effect(margin=0.2, name="x", unit="nats").p == 1.0


TAILS: dict[str, Callable[[tuple[int, int]], np.ndarray]] = {
    "exponential": lambda size: RNG.exponential(1.0, size) - 1.0,
    "chi-square": lambda size: RNG.normal(size=size) ** 2 - 1.0,
}


@pytest.mark.parametrize("name", TAILS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("n", [50, 300])
def test_neither_side_is_decided_falsely_at_the_margin(name: str, sign: float, n: int) -> None:
    x = 1.0 + sign * TAILS[name]((1500, n))
    t = (x.mean(1) - 1.0) / x.std(1, ddof=1) * np.sqrt(n)
    p = np.ones((len(x), 2))
    for at in np.flatnonzero(np.abs(t) > 1.0):
        p[at] = judged(Sample(x[at][None]), 1.0)
    assert (p <= 0.05).mean(0).max() <= 0.045
    assert (1.0 - (1.0 - (p <= 0.05 / 13).mean(0)) ** 13).max() <= 0.09  # a report of 13 such rows; noise of .03
