"""More than one look: an undecided report is run again with as many examples or draws as it says would tell.

Every effect lies at its margin (or there is none, where any difference counts), so whatever is decided is wrong. The
examples of a look are kept in the next one. From the third look on there are half as many again, until all is decided.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import WRONG, Row
from benchmarks.levels.draws import DRAWN, MARGIN, VALUED, answers, judged
from benchmarks.levels.groups import losses
from wheeltap.stats.family import holm
from wheeltap.stats.sample import Sample

Array = NDArray[np.float64]
Rng = np.random.Generator

MOST: Final = 20_000
"""Examples of a second look, at most."""

DRAWS: Final = 640
"""Draws of a second look, at most."""


@dataclass(frozen=True, kw_only=True)
class Design:
    """Rows of a report.

    Attributes:
        name: What they are judged on.
        more: So many more examples (draws, groups) of one row, as ``[draw, example]``.
        first: How many there are at first.
        rows: How many rows there are.
        bound: Of a value.
        drawn: Whether draws are added and not examples.
        group: Examples of a group, which come together.
        differ: Whether any difference of two systems is found; else what exceeds the margin.
    """

    name: str
    more: Callable[[int, Rng], Array]
    first: int
    rows: int = 1
    bound: float | None = 1.0
    drawn: bool = False
    group: int = 1
    differ: bool = False

    def sample(self, values: Array) -> Sample:
        """What one row rests on."""
        groups = None if self.group == 1 else np.arange(values.shape[1], dtype=np.intp) // self.group
        return Sample(values, self.bound, skewed=self.drawn, groups=groups)

    def judged(self, sample: Sample) -> tuple[float, float]:
        """P-values of both sides; of two systems, that they differ at all, and that they are equivalent."""
        if not self.differ:
            return judged(sample)
        below = sample.below(MARGIN, one_sided=False)
        return sample.above(0.0) or 0.0, 1.0 if below is None else below

    def named(self, open_rows: list[Sample], alpha: float) -> int | None:
        """The largest number that the open rows name; ``None`` where one is there already."""
        each = [one.power(MARGIN, one_sided=not self.differ, alpha=alpha / self.rows) for one in open_rows]
        known = [one.draws if self.drawn else one.examples for one in each if one is not None]
        now = open_rows[0].values.shape[0 if self.drawn else 1]
        most = max((one for one in known if one is not None and one > now), default=None)
        return None if most is None else math.ceil(min(most, DRAWS if self.drawn else MOST) / self.group) * self.group


def family(design: Design, alphas: Sequence[float], rng: Rng) -> NDArray[np.bool_]:
    """Whether anything false was said by each look, ``[look, side]``; each has its own alpha."""
    values = [design.more(design.first, rng) for _ in range(design.rows)]
    wrong, now = np.zeros((len(alphas), 2), dtype=np.bool_), design.first
    for look, alpha in enumerate(alphas):
        samples = [design.sample(one) for one in values]
        p = np.array([design.judged(one) for one in samples])
        decided = np.array([holm(side) for side in p.T.tolist()], dtype=np.float64) <= alpha
        wrong[look:] |= decided.any(axis=1)
        left = [one for at, one in enumerate(samples) if not decided[:, at].any()]
        if not left or look == len(alphas) - 1:
            break
        target = design.named(left, alpha) if look == 0 else now + now // 2
        if target is None or target <= now:
            break
        axis = 0 if design.drawn else 1
        values = [np.concatenate([one, design.more(target - now, rng)], axis=axis) for one in values]
        now = target
    return wrong


def rows_of(
    design: Design, *, reps: int, rng: Rng, alphas: Sequence[float] = (0.05, 0.05), high: float = WRONG
) -> Iterator[Row]:
    """False verdicts of one look, and of all."""
    wrong = np.mean([family(design, alphas, rng) for _ in range(reps)], axis=0)
    level = "" if len(set(alphas)) == 1 else f", alpha {' and '.join(f'{one:g}' for one in alphas)}"
    for side, name in enumerate(("false difference",) if design.differ else ("false costs", "false safe")):
        yield Row(
            claim=f"{len(alphas)} looks{level}", design=design.name, figure=name, rate=float(wrong[-1, side]), high=high,
            families=reps, also=(("one look", float(wrong[0, side])),),
        )  # fmt: skip


def _answers(gained: float, mean: float = MARGIN) -> Callable[[int, Rng], Array]:
    """0/1 answers lost less gained, of one draw."""

    def more(n: int, rng: Rng) -> Array:
        u = rng.random((1, n))
        return np.where(u < gained + mean, 1.0, 0.0) - np.where(u > 1.0 - gained, 1.0, 0.0)

    return more


def _drawn(name: str, examples: int) -> Callable[[int, Rng], Array]:
    """0/1 answers under draws that cost unequally."""
    return lambda k, rng: answers(DRAWN[name](k, rng), examples, rng)


def _grouped(size: int) -> Callable[[int, Rng], Array]:
    """0/1 losses of groups, a tenth of whose variance is between them."""
    return lambda n, rng: losses(np.repeat(np.arange(n // size), size), 0.1, MARGIN, rng)[None]


def _valued(name: str) -> Callable[[int, Rng], Array]:
    """Losses of a measure without a bound, of one draw."""
    return lambda n, rng: VALUED[name](n, rng)[None]


def designs(n: int, rows: int = 1) -> Iterator[Design]:
    """So many examples at first, and rows."""
    size = f"{n} examples at first, {rows} rows" if rows > 1 else f"{n} examples at first"
    for gained in (1, 5):
        yield Design(name=f"0/1, {gained} % gained, {size}", more=_answers(gained / 100.0), first=n, rows=rows)
    for name in ("lognormal 1", "5 % lose exp(.4)"):
        yield Design(name=f"{name}, {size}", more=_valued(name), first=n, rows=rows, bound=None)


PAIR: Final = Design(name="two systems, 0/1, 300 items at first", more=_answers(0.1, 0.0), first=300, differ=True)
"""They do not differ; any difference would be found."""


def run(reps: int, *, examples: Sequence[int] = (100, 300, 1000), report: int = 10) -> list[Row]:
    """All designs, ``reps`` reports each; of many rows or draws a quarter."""
    rng, rows, few = np.random.default_rng(31), list[Row](), max(reps // 4, 1)
    for n in examples:
        for design in designs(n):
            rows += rows_of(design, reps=reps, rng=rng)
    for groups in (10, 20):
        name = f"0/1 losses, correlation .1, {groups} groups of 20 at first"
        rows += rows_of(Design(name=name, more=_grouped(20), first=20 * groups, group=20), reps=reps, rng=rng)
    for design in designs(300, report):
        rows += rows_of(design, reps=few, rng=rng)
    for law in ("normal", "lognormal 1", "lognormal 1.5"):
        drawn = Design(name=f"{law}, 300 examples, 4 draws at first", more=_drawn(law, 300), first=4, drawn=True)
        rows += rows_of(drawn, reps=few, rng=rng)
    # What must not be done, and what two systems take.
    rows += rows_of(next(designs(300)), reps=reps, rng=rng, alphas=(0.05,) * 6, high=1.0)
    rows += rows_of(PAIR, reps=reps, rng=rng, high=1.0)
    rows += rows_of(PAIR, reps=reps, rng=rng, alphas=(0.05, 0.01))
    return rows
