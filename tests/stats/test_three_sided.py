"""Three-sided verdicts on planted effects: neither side errs more often than a family's alpha, and power is as told.

The truth is the margin, where both verdicts are false. P-values of single tests are simulated, and families of ten are
drawn from them, as tests in a family are independent here. Only p-values up to .05 can decide, so that those beyond, by
an interval that is never wider than the test's, are not worked out.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from three_sided_worlds import (
    ALPHA,
    FAMILIES,
    ONE,
    TESTS,
    WORLDS,
    World,
    answers,
    falsely,
    pool,
    shifted,
    slack,
)

from tests.cases import cases
from wheeltap.core.errors import DataError, UsageError
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.three_sided import LEAST, Unbounded, p_below, power_of


@pytest.mark.slow
@pytest.mark.parametrize("name", cases(WORLDS, daily=["churn, 300", "lognormal, 300", "areas, 32 draws"]))
def test_a_family_errs_on_either_side_no_more_often_than_alpha(name: str) -> None:
    rng, known = np.random.default_rng(1), pool(name)
    families = known[rng.integers(0, len(known), (FAMILIES, TESTS))]
    found, excluded = falsely(families[:, :, 0]), falsely(families[:, :, 1])
    assert max(found, excluded) <= ALPHA + slack(WORLDS[name]), (found, excluded)


def test_the_interval_alone_would_err() -> None:
    """What the second test is for: 300 examples of which 2 % are lost, and an interval that excludes 2 %."""
    lost = np.arange(30)
    chance = stats.binom.pmf(lost, 300, 0.02)
    values = (np.arange(300) < lost[:, None, None]) * 1.0
    intervals = [mean_effect(x, level=1.0 - ONE, bounded=True, unit="u").high or 1.0 for x in values]
    p = np.array([p_below(x, margin=0.02, bound=1.0, one_sided=True) for x in values])
    assert chance[np.array(intervals) < 0.02].sum() > 2 * ONE
    assert 0.0005 < chance[p <= ONE].sum() <= ONE / 2


def counted(examples: int, *, margin: float) -> dict[tuple[int, int], float]:
    """P-values of every number lost and gained."""
    table = dict[tuple[int, int], float]()
    for lost in range(examples + 1):
        for gained in range(examples + 1 - lost):
            x = np.concatenate([np.ones(lost), -np.ones(gained), np.zeros(examples - lost - gained)])[None]
            table[lost, gained] = p_below(x, margin=margin, bound=1.0, one_sided=True) or 0.0
    return table


@pytest.mark.parametrize(("examples", "margin"), [(20, 0.3), (30, 0.05)])
def test_enumerated_over_every_outcome_it_is_valid_at_every_alpha(examples: int, margin: float) -> None:
    table = counted(examples, margin=margin)
    outcomes, p = np.array(list(table)), np.array(list(table.values()))
    cells = np.column_stack([outcomes, examples - outcomes.sum(axis=1)])
    for gained in (0.0, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3):
        chance = stats.multinomial.pmf(cells, examples, [gained + margin, gained, 1.0 - margin - 2.0 * gained])
        order = np.argsort(p)
        cumulated = np.cumsum(chance[order])
        # Of equal p-values the last counts: it has the chance of all of them.
        last = np.append(np.diff(p[order]) > 0.0, True) & (p[order] < 1.0)
        assert (cumulated[last] <= p[order][last] / 2.0 + 1e-12).all(), gained


@pytest.mark.parametrize(("examples", "lost", "margin"), [(200, 0, 0.02), (900, 20, 0.04)])
def test_of_losses_alone_it_is_clopper_and_pearsons(examples: int, lost: int, margin: float) -> None:
    p = p_below((np.arange(examples) < lost)[None] * 1.0, margin=margin, bound=1.0, one_sided=True)
    exact = 2.0 * stats.binom.cdf(lost, examples, margin)
    assert p is not None and exact <= p <= 1.05 * exact


def alpha_at(y: np.ndarray, margin: float, *, bounded: bool) -> float:
    """Largest alpha at which the interval still reaches the margin, by bisection."""

    def reaches(alpha: float) -> bool:
        high = mean_effect(y[None], level=1.0 - alpha, bounded=bounded, unit="u").high
        return high is None or high >= margin

    low, high = 1e-6, 0.999
    if not reaches(low):
        return 0.0
    for _ in range(30):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if reaches(middle) else (low, middle)
    return low


@pytest.mark.parametrize(("bounded", "least"), [(True, LEAST), (False, 0.0), (False, LEAST)])
def test_it_is_that_of_an_oracle_that_draws_the_weights(bounded: bool, least: float) -> None:
    """Dirichlet weights of the values and an imaginary one, drawn; and the alpha at which the interval ends there."""
    rng, drawn = np.random.default_rng(5), 60_000
    for examples, margin, sign in ((12, 0.3, 1.0), (40, 0.12, 1.0), (40, 0.08, -1.0), (250, 0.06, 1.0)):
        x = sign * np.clip(rng.exponential(0.1, examples) - 0.1, -1.0, 1.0)
        weights, sides = rng.dirichlet(np.ones(examples + 1), drawn), list[float]()
        for y in (x, -x):
            most = 1.0 if bounded else y.mean() + max(2.0 * (y.max() - y.mean()), least * (margin - y.mean()))
            share = 2.0 * float((weights @ np.append(y, most) >= margin).mean())
            sides.append(min(max(share, alpha_at(y, margin, bounded=bounded)), 1.0))
        for one_sided, expected in ((True, sides[0]), (False, max(sides))):
            p = p_below(
                x[None], margin=margin, bound=1.0 if bounded else None, one_sided=one_sided, unbounded=Unbounded(least)
            )
            error = 4.0 * math.sqrt(2.0 * expected / drawn) + 0.02 * expected + 1e-4
            assert p is not None and p >= expected - error
            assert p <= expected + error or expected > 0.5, "what decides nothing may be larger still"


tables = st.builds(
    lambda seed, draws, examples, by_draw, kind: made(seed, (draws, examples), by_draw, kind),
    st.integers(0, 10**6), st.sampled_from([1, 2, 3, 8]), st.sampled_from([2, 5, 30, 120]),
    st.sampled_from([0.0, 0.02, 0.2]), st.sampled_from(["answers", "normal", "skewed", "same"]),
)  # fmt: skip


def made(seed: int, shape: tuple[int, int], by_draw: float, kind: str) -> np.ndarray:
    rng = np.random.default_rng(seed)
    if kind == "answers":
        return rng.choice([-1.0, 0.0, 1.0], p=[0.04, 0.9, 0.06], size=shape)
    cells = rng.exponential(0.2, (1, shape[1])) - 0.2 if kind == "skewed" else rng.normal(0.0, 0.1, shape)
    table = (
        np.full(shape, 0.01) if kind == "same" else cells + by_draw * rng.normal(size=(shape[0], 1)) + np.zeros(shape)
    )
    return np.clip(table, -1.0, 1.0)


@settings(max_examples=60)
@given(x=tables, margin=st.floats(1e-3, 0.9), bounded=st.booleans(), one_sided=st.booleans())
def test_it_agrees_with_the_interval_and_with_the_other_side(
    x: np.ndarray, margin: float, bounded: bool, one_sided: bool
) -> None:
    p = p_below(x, margin=margin, bound=1.0 if bounded else None, one_sided=one_sided)
    estimate = mean_effect(x, margin=margin, bounded=bounded, unit="u")
    assert p is not None and 0.0 <= p <= 1.0 and estimate.value is not None and estimate.p is not None
    assert estimate.low is not None and estimate.high is not None
    if p <= 0.05:
        assert estimate.high <= margin + 1e-9 and (one_sided or estimate.low >= -margin - 1e-9)
        assert estimate.p > 0.05 or (one_sided and estimate.value < 0.0)
    if not one_sided:
        mirrored = p_below(-x, margin=margin, bound=1.0 if bounded else None, one_sided=False)
        assert p == pytest.approx(mirrored, rel=1e-6)


def test_what_cannot_be_told_or_asked() -> None:
    one = np.array([[0.0]])
    assert p_below(one, margin=0.1, bound=1.0, one_sided=True) is None
    assert power_of(one, margin=0.1, bound=1.0, one_sided=True, alpha=0.05) is None
    x = np.zeros((1, 50))
    for margin in (0.0, -0.1, math.nan):
        with pytest.raises(UsageError):
            p_below(x, margin=margin, bound=1.0, one_sided=True)
    with pytest.raises(UsageError):
        power_of(x, margin=0.1, bound=1.0, one_sided=True, alpha=0.0)
    with pytest.raises(DataError):
        p_below(x + 2.0, margin=0.1, bound=1.0, one_sided=True)
    # Ten draws of one example are ten numbers, as ten examples of one draw are.
    y = np.random.default_rng(0).normal(0.0, 0.1, (1, 10))
    by_draw, by_example = (p_below(z, margin=0.2, bound=1.0, one_sided=True) for z in (y.T, y))
    assert by_draw == pytest.approx(by_example)
    assert p_below(y, margin=0.2, bound=None, one_sided=True) == 1.0, "one in fifty may lose what nothing bounds"


@pytest.mark.parametrize(("examples", "gained"), [(200, 0), (300, 6)])
def test_the_power_of_few_losses_is_close_to_the_exact_one(examples: int, gained: int) -> None:
    """Every number that may be lost and gained, where as many are gained as were, and none or .1 more are lost."""
    world, share = World(margin=0.05, draw=answers(examples, 0.0), bounded=True), gained / examples
    x = np.repeat([-1.0, 0.0], [gained, examples - gained])[None]
    power = power_of(x, margin=world.margin, bound=1.0, one_sided=True, alpha=ONE)
    exact = [0.0, 0.0]
    for side, lost in enumerate((share + 0.1, share)):
        most = stats.binom.isf(1e-5, examples, [share, lost])
        for y, z in np.ndindex(int(most[0]) + 1, int(most[1]) + 1):
            chance = stats.multinomial.pmf([y, z, examples - y - z], examples, [share, lost, 1.0 - share - lost])
            if chance > 1e-6:
                values = np.repeat([-1.0, 1.0, 0.0], [y, z, examples - y - z])[None]
                exact[side] += chance * (world.p(values)[side] <= ONE)
    assert power is not None and (power.found, power.excluded) == pytest.approx(tuple(exact), abs=0.03)


FRESH = {
    "churn": (answers(300, 0.01), 0.02, True),
    "normal": (shifted(lambda rng, s: 0.2 * rng.normal(size=s), 300), 0.02, False),
    "exponential, left": (shifted(lambda rng, s: 0.15 * (1.0 - rng.exponential(1.0, s)), 300), 0.02, False),
}


@pytest.mark.parametrize("name", FRESH)
def test_the_examples_told_decide_four_times_in_five(name: str) -> None:
    """True means spread from 0 to 3 margins: as many fresh examples as are named decide the row."""
    rng, (draw, margin, bounded) = np.random.default_rng(21), FRESH[name]
    world, right, near = World(margin=margin, draw=draw, bounded=bounded), list[bool](), list[bool]()
    for mean in np.linspace(0.0, 3.0 * margin, 200):
        x = draw(rng, 1, mean)[0]
        if min(world.p(x)) <= ONE:
            continue
        power = power_of(x, margin=margin, bound=1.0 if bounded else None, one_sided=True, alpha=ONE)
        assert power is not None and (power.examples is None or 300 < power.examples <= 20 * 300)
        near += [power.examples is None] * int(abs(mean - margin) < margin / 4.0)
        if power.examples is not None:
            several = np.concatenate([draw(rng, 1, mean)[0, 0] for _ in range(math.ceil(power.examples / 300))])
            right.append(min(world.p(rng.permutation(several)[None, : power.examples])) <= ONE)
    assert len(right) > 30 and np.mean(right) >= 0.68, "0.75 to 0.83 of many"
    assert np.mean(near) >= 0.4


def test_more_draws_are_told_where_draws_decide() -> None:
    rng = np.random.default_rng(3)
    x = 0.1 * rng.normal(size=(16, 1)) + 0.1 * rng.normal(size=(16, 1000))
    power = power_of(x, margin=0.08, bound=None, one_sided=True, alpha=0.05)
    assert power is not None and min(power.found, power.excluded) < 0.8
    assert power.examples is None and power.draws is not None and 16 < power.draws < 200
    varied = power_of(x + 2.0 * rng.normal(size=(1, 1000)), margin=0.08, bound=None, one_sided=True, alpha=0.05)
    assert varied is not None and varied.draws is None  # the examples alone vary too much
    alone = power_of(x[:1], margin=0.08, bound=None, one_sided=True, alpha=0.05)
    assert alone is not None and alone.draws is None and alone.examples is not None
    by_draw = power_of(x[:, :1], margin=0.15, bound=None, one_sided=True, alpha=0.05)
    assert by_draw is not None and by_draw.examples is None and by_draw.draws is not None
