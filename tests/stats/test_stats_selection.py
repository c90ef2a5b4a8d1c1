"""The best of many on halves and the top-ranked of many: against plain loops, false alarms, coverage."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from simulation import covers, ends, slack

from wheeltap.core.errors import DataError
from wheeltap.stats.selection import Halves
from wheeltap.stats.top_ranked import TopRankedLoss

Array = NDArray[np.float64]
WORLDS = 300


def halves(examples: int, *, splits: int = 4, seed: int = 0) -> Halves:
    return Halves.drawn(examples, splits=splits, rng=np.random.default_rng(seed))


def test_each_example_is_scored_by_what_was_best_on_the_other_half() -> None:
    rng = np.random.default_rng(3)
    scores, made = rng.random((7, 21)), halves(21)
    told = made.chosen(scores)
    for split in range(4):
        for example in range(21):
            elsewhere = [e for e in range(21) if made.first[split, e] != made.first[split, example]]
            best = max(range(7), key=lambda c: np.mean([scores[c, e] for e in elsewhere]))
            assert told[split, example] == scores[best, example]


def right(scores: Array, targets: NDArray[np.int64], shift: Array) -> float:
    return float(((scores + shift).argmax(1) == targets).mean())


def test_an_output_that_hides_the_answer_is_put_right_on_new_examples_and_one_passed_on_is_not() -> None:
    rng = np.random.default_rng(0)
    targets = rng.integers(10, size=400)
    scores = 6.0 * np.eye(10)[targets] + rng.normal(size=(400, 10))
    scores[:, 3] += 9.0
    assert (scores.argmax(1) == targets).mean() < 0.2
    assert halves(400).shifted(scores, targets).mean() > 0.95
    passed_on = 6.0 * np.eye(10)[(targets + 1) % 10] + rng.normal(size=(400, 10))
    assert halves(400).shifted(passed_on, targets).mean() < 0.2


def equal(rng: np.random.Generator, examples: int) -> Array:
    """Candidates that are all as often right as the start, each on its own examples."""
    return (rng.random((60, examples)) < 0.4).astype(float)


def alike(rng: np.random.Generator, examples: int) -> Array:
    """The same, but candidates agree on most examples, as doses of one draw do."""
    base = rng.random(examples) < 0.4
    fresh = rng.random((60, examples)) < 0.4
    return np.where(rng.random((60, examples)) < 0.8, base, fresh).astype(float)


def exclusive(rng: np.random.Generator, examples: int) -> Array:
    """Two candidates, each right exactly where the other is wrong: here the halves' means vary together most."""
    one = (rng.random(examples) < 0.5).astype(float)
    return np.stack([one, 1.0 - one])


@pytest.mark.parametrize(("world", "start", "splits"), [(equal, 0.4, 5), (alike, 0.4, 5), (exclusive, 0.5, 1)])
def test_false_alarms_of_the_best_of_many_are_as_rare_as_alpha_says(
    world: Callable[[np.random.Generator, int], Array], start: float, splits: int
) -> None:
    """Worlds in which no candidate gains anything; found is a p-value of at most .05 with a gain above zero."""
    alarms, covered, naive = 0, 0, 0
    for seed in range(WORLDS):
        rng = np.random.default_rng(seed)
        scores = world(rng, 60)
        made = Halves.drawn(60, splits=splits, rng=rng)
        gain = made.effect(made.chosen(scores) - start, name="gain", unit="accuracy")
        alarms += (gain.p or 0.0) <= 0.05 and (gain.value or 0.0) > 0.0
        covered += covers(gain, 0.0)
        naive += scores.mean(1).max() > start + 1.96 * scores[0].std() / math.sqrt(60)
    off = slack(0.05, WORLDS, errors=2.6)
    assert alarms / WORLDS <= 0.05 + off and covered / WORLDS >= 0.95 - off
    if world is equal:
        assert naive / WORLDS > 0.5, "the best of 60 without halves is nearly always above its start"


def test_of_examples_in_groups_the_best_of_many_is_no_better() -> None:
    """Twenty groups of three that are right or wrong as one: halves of the examples would choose what they measure."""
    member, alarms = np.repeat(np.arange(20), 3), [0, 0]
    for seed in range(200):
        rng = np.random.default_rng(seed)
        scores = (rng.random((60, 20)) < 0.4)[:, member].astype(float)
        for at, groups in enumerate((None, member)):
            made = Halves.drawn(60, splits=4, groups=groups, rng=rng)
            gain = made.effect(made.chosen(scores) - 0.4, name="gain", unit="accuracy")
            alarms[at] += (gain.p or 0.0) <= 0.05 and (gain.value or 0.0) > 0.0
    assert alarms[0] > 30 and alarms[1] <= 18, alarms
    with pytest.raises(DataError, match="too few groups"):
        Halves.drawn(60, splits=1, groups=np.repeat(np.arange(3), 20), rng=np.random.default_rng(0))


def test_a_gain_that_is_there_is_found_and_nothing_seen_to_change_is_no_proof() -> None:
    rng, made = np.random.default_rng(7), halves(400)
    scores = (rng.random((60, 400)) < 0.4).astype(float)
    scores[17] = rng.random(400) < 0.75
    gain = made.effect(made.chosen(scores) - 0.4, margin=0.16, name="gain", unit="accuracy")
    assert gain.p is not None and gain.p < 1e-4 and covers(gain, 0.35)
    gains = (np.random.default_rng(5).random((3, 200)) < 0.3) * 1.0
    gain = halves(200, splits=3).effect(gains, margin=0.2, name="gain", unit="accuracy")
    assert gain.p is not None and (gain.p < 0.05) == (ends(gain)[0] > 0.2)
    none = halves(20).effect(np.zeros((4, 20)), name="gain", unit="accuracy")
    assert none.value == 0.0 and ends(none)[1] > 0.1


HEADS, EXAMPLES, MARGIN, SPREADS = 24, 160, 0.1, 300


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
    p = [top_ranked(world(rng, means), seed=n).cost(margin=MARGIN).p for n in range(SPREADS)]  # type: ignore[operator]
    assert np.mean(np.array(p) <= 0.05) <= 0.05


@pytest.mark.parametrize(("world", "spread"), [(even, 0.3), (skewed, 0.05)])
def test_the_interval_covers_what_the_chosen_heads_cost(world: object, spread: float) -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for n in range(SPREADS):
        means = 0.3 + spread * rng.random(HEADS)
        found = top_ranked(world(rng, means), seed=n)  # type: ignore[operator]
        covered += covers(found.cost(margin=MARGIN), float(means[found.halves.picked(found.costs)].mean()))
    assert covered / SPREADS >= 0.93, covered


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
