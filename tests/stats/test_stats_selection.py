"""The best of many on halves: against plain loops, and its false alarms where nothing is better than the start."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from simulation import covers, ends, slack

from wheeltap.core.errors import DataError
from wheeltap.stats.selection import Halves, best_shift

Array = NDArray[np.float64]
WORLDS = 600


def halves(examples: int, *, splits: int = 4, seed: int = 0) -> Halves:
    return Halves.drawn(examples, splits=splits, rng=np.random.default_rng(seed))


def test_halves_are_halves_and_differ() -> None:
    for examples in (4, 9, 40):
        first = halves(examples, splits=30).first
        assert (first.sum(axis=1) == examples // 2).all() and len(np.unique(first, axis=0)) > 1
    with pytest.raises(DataError, match="too few examples"):
        halves(3)


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


@given(st.integers(0, 10_000), st.integers(2, 6))
def test_a_shift_never_costs_a_right_answer_where_it_was_fitted(seed: int, options: int) -> None:
    rng = np.random.default_rng(seed)
    scores, targets = rng.normal(size=(30, options)).round(1), rng.integers(options, size=30)
    assert right(scores, targets, best_shift(scores, targets)) >= right(scores, targets, np.zeros(options))


@given(st.integers(0, 10_000))
def test_of_two_options_the_best_shift_is_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores, targets = rng.normal(size=(25, 2)), rng.integers(2, size=25)
    ends = np.sort(scores[:, 1] - scores[:, 0])
    places = [ends[0] - 1.0, *(ends[:-1] + ends[1:]) / 2, ends[-1] + 1.0]
    tried = [right(scores, targets, np.array([shift, 0.0])) for shift in places]
    assert right(scores, targets, best_shift(scores, targets)) >= max(tried)


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


@pytest.mark.parametrize(("world", "start"), [(equal, 0.4), (alike, 0.4), (exclusive, 0.5)])
@pytest.mark.parametrize("splits", [1, 5])
def test_false_alarms_of_the_best_of_many_are_as_rare_as_alpha_says(
    world: Callable[[np.random.Generator, int], Array], start: float, splits: int
) -> None:
    """600 worlds in which no candidate gains anything; found is a p-value of at most .05 with a gain above zero."""
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
