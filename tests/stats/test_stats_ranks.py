"""Intervals for ranks: they hold together, ties included, and shrink to single ranks where subjects differ."""

from collections.abc import Sequence

import numpy as np
import pytest
from simulation import ends, slack

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats.mogstad2024 import rank_intervals
from wheeltap.stats.rare import Ends

Generator = np.random.Generator


def true_ranks(means: np.ndarray) -> list[int]:
    return [1 + int((means > mean).sum()) for mean in means]


def hold(found: list[Estimate], best: Sequence[int], worst: Sequence[int]) -> bool:
    """Whether all intervals hold the true ranks; of subjects that tie the best and the worst of theirs."""
    each = zip(found, best, worst, strict=True)
    return all(ends(e)[0] <= one and other <= ends(e)[1] for e, one, other in each)


def crossed_table(rng: Generator, means: np.ndarray, draws: int, examples: int) -> np.ndarray:
    """``[subject, draw, example]``: draws and examples that subjects share, and each subject's own."""
    k, own = len(means), 0.1 if draws > 1 else 0.0  # one draw is taken as no sampling of draws
    return (
        means[:, None, None]
        + 0.3 * rng.normal(size=(1, draws, 1))
        + rng.normal(size=(1, 1, examples))
        + own * rng.normal(size=(k, draws, 1))
        + 0.5 * rng.normal(size=(k, 1, examples))
        + 0.5 * rng.normal(size=(k, draws, examples))
    )


WORLDS = {
    "all tie": np.zeros(5),
    "two groups": np.array([0.0, 0.0, 0.0, 0.25, 0.25]),
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "draws", "examples"), [("all tie", 1, 80), ("two groups", 4, 60)])
def test_all_ranks_lie_in_their_intervals_together(name: str, draws: int, examples: int) -> None:
    rng, means, runs = np.random.default_rng(12), WORLDS[name], 400
    best, worst = true_ranks(means), [len(means) + 1 - rank for rank in true_ranks(-means)]
    tables = (crossed_table(rng, means, draws, examples) for _ in range(runs))
    held = sum(hold(rank_intervals(x), best, worst) for x in tables)
    assert held / runs >= max(0.95 - slack(0.95, runs), 0.93)


def test_subjects_far_apart_get_single_ranks_and_those_that_cannot_be_told_apart_share_theirs() -> None:
    found = rank_intervals(crossed_table(np.random.default_rng(14), np.array([0.0, 3.0, 1.0, 2.0]), 8, 100))
    assert [(e.low, e.value, e.high, e.unit) for e in found] == [(rank, rank, rank, "rank") for rank in (4, 1, 3, 2)]
    found = rank_intervals(crossed_table(np.random.default_rng(15), np.array([2.0, 0.0, 2.0, 4.0]), 8, 100))
    assert [ends(e) for e in found] == [(2, 3), (4, 4), (2, 3), (1, 1)]
    x = np.random.default_rng(16).normal(size=(1, 50))
    found = rank_intervals(np.concatenate([x, x, x - 5.0 + 0.01 * np.arange(50)[None]]))
    assert [(e.value, *ends(e)) for e in found] == [(1, 1, 2), (1, 1, 2), (3, 3, 3)], "the same scores tie exactly"


def test_with_two_draws_a_difference_between_draws_is_not_taken_for_one_between_subjects() -> None:
    rng, wrong = np.random.default_rng(17), 0
    for _ in range(200):  # everything hangs on the draw, so 2 x 200 numbers are worth 2
        x = np.repeat(rng.normal(size=(3, 2, 1)), 200, axis=2) + 0.01 * rng.normal(size=(3, 2, 200))
        wrong += any(e.low != 1 or e.high != 3 for e in rank_intervals(x))
    assert wrong / 200 <= 0.07


SCORES: list[Ends] = [(0.0, 1.0)] * 3


def false_ranks(draws: int, rare: list[Ends] | None, *, runs: int = 150, examples: int = 200) -> float:
    """Share of tables in which a true rank lies outside its interval.

    The first subject loses half as much, in every draw, as the others lose by one draw in ``draws`` that ruins them.
    """
    rng, wrong = np.random.default_rng([18, draws]), 0
    rates, usual = np.array([0.0, 1.0, 1.0]) / draws, np.array([0.45 / draws, 0.0, 0.0])
    ranks = true_ranks(1.0 - rates * 0.9 - usual)
    assert ranks == [1, 2, 2]
    for _ in range(runs):
        ruined = rng.random((3, draws, 1)) < rates[:, None, None]
        lost = rng.random((3, draws, examples)) < np.where(ruined, 0.9, usual[:, None, None])
        wrong += not hold(rank_intervals(1.0 - lost, rare=rare), ranks, ranks)
    return wrong / runs


@pytest.mark.parametrize("draws", [4, 16])
def test_ranks_allow_for_draws_harder_than_any_that_were_made(draws: int) -> None:
    """The first loses most in the usual draw and is the soundest: the others are ruined now and then, mostly unseen."""
    assert false_ranks(draws, SCORES) <= 0.05
    assert false_ranks(draws, None) > 0.1, "what is guarded against"


def test_ranks_far_apart_are_told_all_the_same() -> None:
    rng = np.random.default_rng(19)
    right = (rng.random((3, 64, 100)) < np.array([0.9, 0.2, 0.6])[:, None, None]) * 1.0
    found = rank_intervals(right, rare=SCORES)
    assert [(e.low, e.high) for e in found] == [(1, 1), (3, 3), (2, 2)]
    endless = rank_intervals(right, rare=[(0.0, None)] * 3)
    assert [(e.low, e.high) for e in endless] == [(1, 3)] * 3, "a draw may cost anything, so nobody is surely first"


def test_what_has_no_ranks_is_refused() -> None:
    with pytest.raises(DataError, match="One subject has no rank"):
        rank_intervals(np.zeros((1, 10)))
    with pytest.raises(DataError, match="wrong shape"):
        rank_intervals(np.zeros(10))
