"""Numbers of examples that "would tell": how often a row is decided with that many fresh ones, for each measure.

True losses are spread evenly from 0 to 3 margins. A disturbed model has noise of its own, so that answers change at
every true loss, and a push toward the right answer or away from it, which sets the true loss.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import torch

from benchmarks.levels import Row
from wheeltap.core.measures import classes
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.sample import Sample

ALPHA, MARGIN = 0.05, 0.02
NEAR: Final = 0.25  # of the margin, to either side: a truth there is "near the margin"
FRESH: Final = 4  # fresh samples of each row with a number
_DECIDED: Final = 0.75
_POPULATION: Final = 400_000
_PUSHES: Final = np.linspace(0.3, -1.5, 37)

World = Callable[[int, float, np.random.Generator], tuple[FloatArray, dict[str, float]]]
"""Losses ``[example]`` of so many examples with that push, and what ``Sample`` is told of them."""


def _scores(examples: int, push: float, rng: np.random.Generator, *, share: float, options: int):
    """Undisturbed and disturbed scores ``[example, option]``, and right answers; the last option has ``share``."""
    shares = np.full(options, (1.0 - share) / (options - 1))
    shares[-1] = share
    targets = rng.choice(options, size=examples, p=shares)
    right = np.eye(options)[targets]
    clean = 2.5 * right + rng.normal(size=right.shape)
    disturbed = clean + 0.25 * rng.normal(size=right.shape) + push * right
    return torch.from_numpy(clean), torch.from_numpy(disturbed), torch.from_numpy(targets)


def _world(measure: classes.LinearStatistic | None, *, share: float, options: int) -> World:
    """Of a statistic of all examples; ``None`` is accuracy."""

    def losses(examples: int, push: float, rng: np.random.Generator) -> tuple[FloatArray, dict[str, float]]:
        clean, disturbed, targets = _scores(examples, push, rng, share=share, options=options)
        if measure is None:
            right = [(scores.argmax(-1) == targets).double().numpy() for scores in (clean, disturbed)]
            return right[0] - right[1], {"bound": 1.0}
        values = [measure(scores, targets, clean).numpy() for scores in (clean, disturbed)]
        return values[0] - values[1], {"far": measure.carried(clean, targets)[1]}

    return losses


def _nll(examples: int, push: float, rng: np.random.Generator) -> tuple[FloatArray, dict[str, float]]:
    clean, disturbed, targets = _scores(examples, push, rng, share=0.25, options=4)
    each = [torch.nn.functional.cross_entropy(scores, targets, reduction="none") for scores in (clean, disturbed)]
    return (each[1] - each[0]).numpy(), {}


def _mse(examples: int, push: float, rng: np.random.Generator) -> tuple[FloatArray, dict[str, float]]:
    error = 0.4 * rng.normal(size=examples)
    disturbed = (1.0 - push / 4.0) * error + 0.06 * rng.normal(size=examples)
    return disturbed**2 - error**2, {}


WORLDS: Final[tuple[tuple[str, int, World], ...]] = (
    ("accuracy", 300, _world(None, share=0.25, options=4)),
    ("accuracy", 1_000, _world(None, share=0.25, options=4)),
    ("f1", 400, _world(classes.F1(), share=0.2, options=2)),
    ("f1", 1_200, _world(classes.F1(), share=0.2, options=2)),
    ("balanced_accuracy", 400, _world(classes.BalancedAccuracy(), share=0.2, options=2)),
    ("macro_f1", 400, _world(classes.MacroF1(), share=0.1, options=4)),
    ("auc", 400, _world(classes.AUC(), share=0.2, options=2)),
    ("nll", 300, _nll),
    ("mse", 300, _mse),
)


def decided(lost: FloatArray, known: dict[str, float]) -> bool:
    """Whether a row is *safe* or *costs*."""
    sample = Sample(lost[None], **known)
    safe = sample.below(MARGIN, one_sided=True)
    costs = sample.above(MARGIN) if lost.mean() > MARGIN else None
    return any(p is not None and p <= ALPHA for p in (safe, costs))


def _pushes(world: World, truths: FloatArray, rng: np.random.Generator) -> FloatArray:
    """The push that gives each true loss."""
    seed = int(rng.integers(2**31))
    means = [float(world(_POPULATION, push, np.random.default_rng(seed))[0].mean()) for push in _PUSHES]
    return np.interp(truths, np.maximum.accumulate(means), _PUSHES)


def _rows(name: str, examples: int, world: World, reps: int, rng: np.random.Generator) -> list[Row]:
    truths = 3.0 * MARGIN * (np.arange(reps) + 0.5) / reps
    undecided, right, numbers, near, unnumbered = 0, [], [], 0, 0
    for truth, push in zip(truths, _pushes(world, truths, rng), strict=True):
        lost, known = world(examples, push, rng)
        if decided(lost, known):
            continue
        undecided += 1
        power = Sample(lost[None], **known).power(MARGIN, one_sided=True, alpha=ALPHA)
        number = None if power is None else power.examples
        if abs(truth - MARGIN) < NEAR * MARGIN:
            near, unnumbered = near + 1, unnumbered + (number is None)
        if number is not None:
            numbers.append(number / examples)
            right += [decided(*world(number, push, rng)) for _ in range(FRESH)]
    named = {"undecided": undecided / reps, "with a number": len(numbers) / max(undecided, 1)}
    also = (*named.items(), ("median N/n", float(np.median(numbers or [0.0]))))
    design = f"{name}, {examples:,} examples"
    return [
        Row(
            claim="N examples would tell", design=design, figure="decided with N fresh ones",
            rate=float(np.mean(right or [0.0])), low=_DECIDED, families=reps, also=also,
        ),
        Row(
            claim="N examples would tell", design=design, figure="no number near the margin",
            rate=unnumbered / max(near, 1), families=reps,
        ),
    ]  # fmt: skip


def run(reps: int) -> list[Row]:
    """All measures, ``reps`` true losses each, four fresh samples of each number."""
    rng = np.random.default_rng(51)
    return [row for name, examples, world in WORLDS for row in _rows(name, examples, world, reps, rng)]
