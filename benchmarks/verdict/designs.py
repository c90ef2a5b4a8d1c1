"""What a verdict costs by each design, in forwards: passes of one example over the task's examples."""

from collections.abc import Callable
from itertools import pairwise
from math import ceil

import numpy as np
from scipy import stats

from benchmarks.verdict.replay import Replay, replay
from benchmarks.verdict.worlds import DOSES, Array, World, weights
from wheeltap.core.records import Estimate
from wheeltap.stats.effect import score_interval
from wheeltap.stats.sequential import Rules, dose_shares

ALPHA, POWER = 0.05, 0.9
MOST = 1.5
"""The observation of a round at one dose stays within +- this (see ``dose_shares``)."""
LEARN = (32, 64, 128, 256, 512)
"""Rounds after which the shares of the doses are set anew, from the rounds before."""
Say = dict[str, float | int | str]


def rules(*, margin: float = 0.0, most: float = MOST) -> Rules:
    """A race against "no difference at all", as the fixed designs test."""
    return Rules(margin=margin, alpha=ALPHA, bounds=(-most, most))


WHOLE, CELLS, ONE = "whole passes", "cells", "cells at one dose"
"""The fixed unpaired designs: every draw over the whole task; a fresh draw for each example; and at one dose each."""


def fixed_forwards(world: World) -> dict[str, float]:
    """Of unpaired designs of fixed size: each arm has its own draws, and its own examples for each draw.

    The number of draws is that of a two-sided z test at alpha .05 with power .9 of the true gap, from the true
    variances, rounded up. ``WHOLE`` takes the task as the population, which spares it the variance between examples.
    ``CELLS`` has the least variance for its forwards of all that run each draw through the ladder; ``ONE`` borrows the
    trick of drawing the dose, by its weight, as well.
    """
    draw, cell = world.arm_variances()
    areas, ladder, one = world.areas(), 2 * len(DOSES), 2
    designs = {
        WHOLE: (draw, float(ladder)),
        CELLS: (draw + cell, ladder / world.examples),
        ONE: (areas * (1.0 - areas), one / world.examples),
    }
    quantiles = float(stats.norm.ppf(1 - ALPHA / 2) + stats.norm.ppf(POWER))
    return {
        name: cost * ceil(quantiles**2 * float(variance.sum()) / world.gap**2)
        for name, (variance, cost) in designs.items()
    }


def learnt_rounds(world: World, rng: np.random.Generator, races: int, length: int) -> Array:
    """``[race, round]``: one draw, one example, one dose; each race learns how often to draw each dose."""
    area = weights()
    seen, squares = np.ones((races, len(DOSES))), np.full((races, len(DOSES)), 0.25)
    shares = np.tile(area, (races, 1))
    found = np.empty((races, length))
    rows = np.arange(races)[:, None]
    ends = [*(end for end in LEARN if end < length), length]
    for start, stop in pairwise([0, *ends]):
        uniform = rng.random((races, stop - start))
        dose = np.minimum((uniform[..., None] > shares.cumsum(axis=1)[:, None, :]).sum(axis=-1), len(DOSES) - 1)
        cells = world.cells(rng, dose)
        found[:, start:stop] = cells * (area[dose] / shares[rows, dose])
        for index in range(len(DOSES)):
            here = dose == index
            seen[:, index] += here.sum(axis=1)
            squares[:, index] += np.square(cells * here).sum(axis=1)
        shares = np.array([dose_shares(area, row, most=MOST) for row in squares / seen])
    return found


def told(name: str, ran: Replay, *, per_round: float, against: dict[str, float]) -> Say:
    """What a set of races of a true gap came to.

    ``mean_forwards`` and ``median_forwards`` are of races given up at the round by which nine in ten have said that A
    is sounder, so that the power is that of the fixed designs; ``uncut_mean_forwards`` of races run until they are
    decided, whatever the verdict.
    """
    right = ran.verdict == 1.0
    last = float(np.sort(np.where(right, ran.rounds, np.inf))[ceil(POWER * len(right)) - 1])
    cut = np.minimum(ran.rounds, last)
    row: Say = {
        "design": name,
        "power": float((right & (ran.rounds <= last)).mean()),
        "mean_rounds": float(cut.mean()),
        "mean_forwards": float(cut.mean() * per_round),
        "median_forwards": float(np.median(cut) * per_round),
        "uncut_mean_forwards": float(ran.rounds.mean() * per_round),
        "uncut_power": float(right.mean()),
        "wrong_way": float((ran.verdict == -1.0).mean()),
    }
    return {**row, **{f"of {name}": row["mean_forwards"] / cost for name, cost in against.items()}}


def learnt_verdicts(world: World, *, races: int, length: int, margin: float = 0.0, seed: int = 1) -> Replay:
    """Races of rounds of one dose and one example."""
    return replay(learnt_rounds(world, np.random.default_rng(seed), races, length), rules(margin=margin))


def ladder_verdicts(world: World, *, chunk: int, races: int, length: int, seed: int = 1) -> Replay:
    """Races of rounds in which ``chunk`` examples go through the whole ladder."""
    x = world.rounds(np.random.default_rng(seed), (races, length), chunk=chunk, ladder=True)
    return replay(x, rules(most=1.0))


def dose_verdicts(world: World, *, chunk: int, races: int, length: int, seed: int = 1) -> Replay:
    """Races of rounds in which ``chunk`` examples meet one dose, drawn by its weight."""
    x = world.rounds(np.random.default_rng(seed), (races, length), chunk=chunk, ladder=False)
    return replay(x, rules(most=1.0))


def alarms(world: World, *, races: int, length: int, seed: int = 2) -> Estimate:
    """Share of races between equals that ever say that one is sounder, followed for ``length`` rounds.

    "Even" is out of reach here, so that nothing stops a race from looking on for a difference.
    """
    x = learnt_rounds(world, np.random.default_rng(seed), races, length)
    return ever(x, bounds=(-MOST, MOST))


def ever(x: Array, *, bounds: tuple[float, float] = (-1.0, 1.0)) -> Estimate:
    """Share of the sequences ``[race, round]`` in which "the mean is 0" is ever rejected."""
    from wheeltap.stats.waudbysmith2023 import Capital, p_value

    capital = Capital(np.zeros(1), bounds=bounds, bets=rules().bets, shape=(len(x),))
    for column in x.T:
        capital.feed(column)
    p = 2 * np.minimum(p_value(capital.above), p_value(capital.below))[:, 0]
    return score_interval((p <= ALPHA) * 1.0, bounded=True, name="false_alarms", unit="share of races")


Bettor = Callable[[int, Array, Array], Array]


def bettors() -> dict[str, Bettor]:
    """Stakes on "the mean is above 0", from rounds, sums and learnt mean squares: ``[gambler, race]``."""
    ready, grid = np.array([0.025, 0.05, 0.1, 0.2, 0.4])[:, None], np.geomspace(0.02, 0.9, 10)[:, None]
    return {
        "one gambler, ready for .1": lambda n, total, square: 0.1 / square[None],
        "even mixture of .025 to .4": lambda n, total, square: ready / square,
        "fixed stakes .02 to .9, mixed": lambda n, total, square: grid + 0.0 * square,
        "aGRAPA": lambda n, total, square: (np.maximum(total, 0.0) / (n + 1) / square)[None],
        "aGRAPA that starts at .1": lambda n, total, square: (
            np.maximum(total + 0.5, 0.0) / (n + 5) / square
        )[None],
    }  # fmt: skip


def stopped(x: Array, bettor: Bettor, *, most: float = MOST) -> Replay:
    """When a bettor's capital against "the mean is 0" reaches 2 / alpha on either side."""
    rounds, verdict = np.full(len(x), float(x.shape[1])), np.full(len(x), 2.0)
    total, square = np.zeros(len(x)), np.full(len(x), (most / 2) ** 2)
    won = {1.0: np.zeros(1), -1.0: np.zeros(1)}
    for n in range(x.shape[1]):
        for side in (1.0, -1.0):
            stake = np.minimum(bettor(n, side * total, square / (n + 1)), 0.95 / most)
            won[side] = won[side] + np.log1p(stake * side * x[:, n])
            new = (verdict == 2.0) & (np.log(np.exp(won[side]).mean(axis=0)) >= np.log(2 / ALPHA))
            rounds[new], verdict[new] = n + 1.0, side
        total, square = total + x[:, n], square + np.square(x[:, n])
    return Replay(rounds, verdict)
