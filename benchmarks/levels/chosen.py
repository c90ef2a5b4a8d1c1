"""What is chosen from the data, and margins that are estimated from them."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import WRONG, Row
from wheeltap.stats.evidence import Evidence, Largest, Smallest
from wheeltap.stats.sample import Sample, largest_gap

Array = NDArray[np.float64]
Rng = np.random.Generator

CHANCE: Final = float(np.log(2.0))


def _no(evidence: Evidence, margin: float, *, one_sided: bool) -> bool:
    p = evidence.below(margin, one_sided=one_sided)
    return p is not None and p <= 0.05


def worst_weights(examples: int, *, reps: int, rng: Rng) -> list[Row]:
    """The worst of six weights, one model alone and two compared: the true difference is the margin."""

    def lost(*rates: float) -> Array:
        return np.stack([(rng.random(examples) < rate) * 1.0 for rate in rates])

    nothing = [0.0] * 5
    cases = {
        "one of six costs the margin": lambda: Largest([Sample(row[None], 1.0) for row in lost(0.02, *nothing)]),
        "pair, one weight matters in one": lambda: largest_gap(
            lost(0.0, *nothing), lost(0.02, *nothing), bound=2.0, groups=None
        ),
        "pair, six of .05 against one of .07": lambda: largest_gap(
            lost(*[0.05] * 6), lost(0.07, *nothing), bound=2.0, groups=None
        ),
    }
    return [
        Row(claim="worst weight", design=f"{name}, {examples} examples", high=WRONG,
            figure="false equivalent" if "pair" in name else "false safe", rate=float(np.mean([_no(made(), 0.02, one_sided="pair" not in name) for _ in range(reps)])), families=reps)
        for name, made in cases.items()
    ]  # fmt: skip


def weakest(examples: int, *, reps: int, rng: Rng) -> Row:
    """Five ablations that each cost exactly what is asked: none of them falls short."""
    wrong = 0
    for _ in range(reps):
        rows = (rng.random((5, examples)) < 0.3) * 1.0
        wrong += _no(Smallest([(Sample(row[None], 1.0), 0.3) for row in rows]), 0.3, one_sided=True)
    return Row(
        claim="weakest of five", design=f"{examples} examples", figure="false exclusion", rate=wrong / reps, high=WRONG,
        families=reps,
    )  # fmt: skip


def heads(examples: int, *, reps: int, rng: Rng) -> Row:
    """One of 48 heads costs the margin; where that one is not excluded, the rest cannot change it."""
    wrong = 0
    for _ in range(reps):
        rises = 0.2 * rng.normal(size=(48, examples))
        rises[0] += 0.05
        each = [Sample(row[None]) for row in rises]
        wrong += _no(each[0], 0.05, one_sided=True) and _no(Largest(each), 0.05, one_sided=True)
    return Row(
        claim="top of 48 heads", design=f"{examples} examples", figure="false exclusion", rate=wrong / reps, high=WRONG,
        families=reps,
    )  # fmt: skip


def estimated(examples: int, *, spread: float, loss: float, reps: int, rng: Rng) -> list[Row]:
    """What is left without a circuit is half of what the net does beyond chance, both measured on the same pairs."""
    found = excluded = 0
    for _ in range(reps):
        width = np.sqrt(np.log(1.0 + (spread / 0.2) ** 2))
        own = 0.2 * np.exp(width * rng.normal(size=examples) - width**2 / 2.0)
        left = 0.5 * (CHANCE - 0.2) + loss * rng.normal(size=examples)
        sample = Sample(left[None], margins=0.5 * (CHANCE - own))
        margin = sample.margin
        found += left.mean() > margin and (sample.above(margin) or 0.0) <= 0.05
        excluded += left.mean() <= margin and _no(sample, margin, one_sided=True)
    design = f"own loss varies by {spread:g}, the rest by {loss:g}, {examples} pairs"
    return [
        Row(claim="estimated margin", design=design, figure=name, rate=count / reps, high=WRONG, families=reps)
        for name, count in (("false found", found), ("false exclusion", excluded))
    ]


def majority(examples: int, *, held: float, reps: int, rng: Rng) -> list[Row]:
    """95 of 100 answers are one class; a net also gets some of the others right, and keeps a share of these.

    The margin is two points, yet at most half of what the score has above always giving the one answer. With nothing
    kept the net has become that answer and can lose no more; with half of it the loss is the margin.
    """
    costs = safe = 0
    for _ in range(reps):
        rare = rng.random(examples) < 0.05
        clean = ~rare | (rng.random(examples) < 0.5)
        left = ~rare | (clean & (rng.random(examples) < held))
        half = (clean * 1.0 - (~rare).mean()) / 2.0
        sample = Sample((clean * 1.0 - left)[None], 1.0, margins=half if half.mean() < 0.02 else None)
        margin = sample.margin or 0.02
        above = float(np.mean(sample.values)) > margin
        costs += above and (sample.above(margin) or 0.0) <= 0.05
        safe += not above and _no(sample, margin, one_sided=True)
    design = f"95 % one answer, a net that keeps {held:.0%} of the rest, {examples} examples"
    figures = {"false safe": safe} if held == 0.0 else {"false costs": costs, "false safe": safe}
    return [
        Row(claim="default margin", design=design, figure=name, rate=count / reps, high=WRONG, families=reps)
        for name, count in figures.items()
    ]


def opposed(examples: int, *, reps: int, rng: Rng) -> Row:
    """One example in a hundred goes from wrong to right in one model and back in the other: a difference of two."""
    wrong = 0
    for _ in range(reps):
        values = np.where(rng.random(examples) < 0.01, 2.0, 0.0)
        wrong += _no(Sample(values[None], 2.0), 0.02, one_sided=False)
    return Row(
        claim="difference of losses", design=f"{examples} examples", figure="false equivalent", rate=wrong / reps,
        high=WRONG, families=reps,
    )  # fmt: skip


def run(reps: int, *, examples: Sequence[int] = (50, 100, 300, 1000, 3000)) -> list[Row]:
    """All designs, ``reps`` samples each."""
    rng, rows = np.random.default_rng(5), list[Row]()
    for n in examples:
        rows += worst_weights(n, reps=reps, rng=rng)
        rows += [weakest(n, reps=reps, rng=rng), opposed(n, reps=reps, rng=rng)]
        rows += [heads(n, reps=reps, rng=rng)] if n <= 1000 else []
        rows += [row for held in (0.0, 0.5) for row in majority(n, held=held, reps=reps, rng=rng)]
        for spread, loss in ((0.2, 0.1), (0.4, 0.1), (0.4, 0.4)):
            rows += estimated(n, spread=spread, loss=loss, reps=reps, rng=rng)
    return rows
