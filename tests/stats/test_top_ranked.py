"""The top-ranked of many: against plain loops, its false alarms at the margin and where all are alike, its coverage."""

import numpy as np
import pytest
from numpy.typing import NDArray
from simulation import covers, ends

from wheeltap.core.errors import DataError
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.selection import Halves
from wheeltap.stats.top_ranked import TopRankedLoss

Array = NDArray[np.float64]
HEADS, EXAMPLES, MARGIN, WORLDS = 24, 160, 0.1, 500


def top_ranked(costs: Array, *, weights: Array | None = None, splits: int = 4, seed: int = 0) -> TopRankedLoss:
    halves = Halves.drawn(costs.shape[1], splits=splits, rng=np.random.default_rng(seed))
    return TopRankedLoss(costs, np.ones(len(costs)) if weights is None else weights, halves, "nats")


def skewed(rng: np.random.Generator, means: Array) -> Array:
    """Rises as they are: a few examples pay most of it, and an example that is hard is hard without any head."""
    examples = rng.lognormal(0.0, 0.7, EXAMPLES) / np.exp(0.7**2 / 2)
    each = rng.gamma(0.5, 2.0, (len(means), EXAMPLES))
    return means[:, None] * examples * each + rng.normal(0.0, 0.1, (len(means), EXAMPLES))


def even(rng: np.random.Generator, means: Array) -> Array:
    return means[:, None] + rng.normal(0.0, 0.5, (len(means), EXAMPLES))


def test_every_example_is_measured_without_the_head_that_the_other_half_chose() -> None:
    rng = np.random.default_rng(1)
    found = top_ranked(rng.normal(size=(5, 19)) + np.array([[0.0], [0.2], [0.1], [0.0], [-0.4]]))
    costs = np.asarray(found.costs)
    chose_first = 0
    for split, first in enumerate(found.halves.first):
        for half in (first, ~first):
            best = max(range(5), key=lambda c: float(np.mean([costs[c, e] for e in range(19) if not half[e]])))
            chose_first += best == found.order[0]
            for example in np.flatnonzero(half):
                assert found.table[split, example] == costs[best, example]
    assert found.agreed == chose_first / 8
    assert list(found.order) == sorted(range(5), key=lambda c: -float(costs[c].mean()))
    assert found.cost(margin=0.1).value == pytest.approx(found.table.mean())


def test_one_that_was_drawn_stands_for_those_that_were_not_measured() -> None:
    """Of ten heads the first two and three of the others: with all subsets, the mean is that of the ten."""
    costs, total = np.random.default_rng(0).normal(size=(10, 8)), np.zeros(8)
    drawn = [(a, b, c) for a in range(2, 10) for b in range(a + 1, 10) for c in range(b + 1, 10)]
    weights = np.array([1.0, 1.0, 8 / 3, 8 / 3, 8 / 3])
    for others in drawn:
        total += top_ranked(costs[[0, 1, *others]], weights=weights).random
    assert np.allclose(total / len(drawn), costs.mean(0))


def test_what_one_alone_costs_is_shown() -> None:
    means = np.zeros(HEADS)
    means[7] = 1.0
    found = top_ranked(even(np.random.default_rng(0), means))
    cost, beyond, share = found.cost(margin=MARGIN), found.beyond(), found.share()
    assert found.order[0] == 7 and found.agreed == 1.0
    assert cost.p is not None and cost.p < 1e-6 and cost.low is not None and cost.low > 0.7
    assert beyond.value == pytest.approx(23 / 24, abs=0.1)
    assert share.value == pytest.approx(1.0, abs=0.3) and share.p is None


def test_where_all_cost_the_same_or_nothing_none_is_top_ranked() -> None:
    """However much each costs: the score depends on none of them more than on another."""
    found = top_ranked(np.broadcast_to(np.random.default_rng(0).uniform(0.5, 1.5, EXAMPLES), (HEADS, EXAMPLES)))
    cost = found.cost(margin=MARGIN)
    assert ends(cost)[0] > MARGIN and cost.p == 1.0
    assert found.beyond().value == 0.0 and found.share().value == pytest.approx(1 / HEADS)
    nothing = top_ranked(np.zeros((HEADS, EXAMPLES)))
    cost = nothing.cost(margin=MARGIN)
    assert (cost.value, cost.low, cost.high, cost.p) == (0.0, 0.0, 0.0, 1.0) and nothing.share().value is None


@pytest.mark.parametrize("world", [even, skewed])
def test_at_the_margin_a_head_is_found_as_seldom_as_promised(world: object) -> None:
    """Half of the heads cost exactly what does not matter: whichever is chosen, a finding is a false alarm."""
    means, rng = np.where(np.arange(HEADS) % 2, 0.0, MARGIN), np.random.default_rng(2)
    p = [top_ranked(world(rng, means), seed=n).cost(margin=MARGIN).p for n in range(WORLDS)]  # type: ignore[operator]
    assert np.mean(np.array(p) <= 0.05) <= 0.05


@pytest.mark.parametrize("world", [even, skewed])
@pytest.mark.parametrize("spread", [0.0, 0.05, 0.3])
def test_the_interval_covers_what_the_chosen_heads_cost(world: object, spread: float) -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for n in range(WORLDS):
        means = 0.3 + spread * rng.random(HEADS)
        found = top_ranked(world(rng, means), seed=n)  # type: ignore[operator]
        covered += covers(found.cost(margin=MARGIN), float(means[found.halves.picked(found.costs)].mean()))
    assert covered / WORLDS >= 0.93, covered


def test_a_single_candidate_holds_at_a_level_that_allows_for_all() -> None:
    """And what the halves are for: on all examples at once, some head seems to cost more than any does."""
    rng, outside, naive = np.random.default_rng(4), 0, 0
    for n in range(300):
        rises = even(rng, np.full(HEADS, 0.2))
        found = top_ranked(rises, seed=n)
        outside += ends(found.each(int(found.order[0]), name="best"))[0] > 0.2
        naive += ends(mean_effect(rises[found.order[:1]], margin=0.2, unit="nats"))[0] > 0.2
    assert outside / 300 <= 0.05 < 0.25 < naive / 300
    some = found.among(2)
    assert np.array_equal(some.costs, found.costs[:2]) and some.halves is found.halves
    assert np.allclose(some.random, np.asarray(found.costs)[:2].mean(0))


def test_what_cannot_be_ranked_is_refused() -> None:
    halves = Halves.drawn(20, splits=2, rng=np.random.default_rng(0))
    for costs, weights, match in (
        (np.zeros((3, 20)), np.ones(2), "cannot be ranked"),
        (np.zeros((3, 20)), np.array([1.0, 0.0, 1.0]), "cannot be ranked"),
        (np.zeros((3, 21)), np.ones(3), "cannot be ranked"),
        (np.full((3, 20), np.nan), np.ones(3), None),
        (np.zeros((3, 0)), np.ones(3), None),
    ):
        with pytest.raises(DataError, match=match):
            TopRankedLoss(costs, weights, halves, "nats")
