"""Skewed draws, skewed losses and rare ones, at the margin."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import WRONG, Row
from wheeltap.stats.family import holm
from wheeltap.stats.sample import Sample

Array = NDArray[np.float64]
Rng = np.random.Generator

MARGIN: Final = 0.02
ROWS: Final = 10
"""Rows of a report, all at the margin: whatever is decided of one is wrong."""

DRAWN: Final[dict[str, Callable[[int, Rng], Array]]] = {
    "normal": lambda k, rng: MARGIN + 0.015 * rng.normal(size=k),
    "t, 3 degrees": lambda k, rng: MARGIN + 0.015 * rng.standard_t(3, k) / np.sqrt(3.0),
    "gamma .5": lambda k, rng: rng.gamma(0.5, 2.0 * MARGIN, k),
    "lognormal 1": lambda k, rng: MARGIN * np.exp(rng.normal(0.0, 1.0, k) - 0.5),
    "lognormal 1.5": lambda k, rng: MARGIN * np.exp(rng.normal(0.0, 1.5, k) - 1.125),
}
"""What a draw costs, with the margin as the mean over draws."""

VALUED: Final[dict[str, Callable[[int, Rng], Array]]] = {
    "normal": lambda n, rng: MARGIN + 0.1 * rng.normal(size=n),
    "lognormal 1": lambda n, rng: MARGIN * np.exp(rng.normal(size=n) - 0.5),
    "2 % lose exp(1)": lambda n, rng: (rng.random(n) < 0.02) * rng.exponential(1.0, n),
    "5 % lose exp(.4)": lambda n, rng: (rng.random(n) < 0.05) * rng.exponential(0.4, n),
    "t, 3 degrees": lambda n, rng: MARGIN + 0.1 * rng.standard_t(3, n) / np.sqrt(3.0),
}
"""What an example costs under a measure without a bound, one draw."""


def answers(by_draw: Array, examples: int, rng: Rng) -> Array:
    """0/1 answers lost less gained, ``[draw, example]``; one in a hundred is gained whatever the draw."""
    lost = np.clip(by_draw + 0.01, 0.0, 0.9)
    gained = np.clip(lost - by_draw, 0.0, 0.9)
    u = rng.random((len(by_draw), examples))
    return (u < lost[:, None]) * 1.0 - ((u >= lost[:, None]) & (u < (lost + gained)[:, None]))


def judged(sample: Sample, margin: float = MARGIN) -> tuple[float, float]:
    """P-values of "costs" and of "safe"."""
    if float(np.mean(sample.values)) > margin:
        return sample.above(margin) or 0.0, 1.0
    below = sample.below(margin, one_sided=True)
    return 1.0, 1.0 if below is None else below


def families(made: Callable[[], Sample], *, reps: int, design: str, claim: str, margin: float = MARGIN) -> list[Row]:
    """False verdicts of one row, and in a report of ten such rows."""
    p = np.array([judged(made(), margin) for _ in range(reps)])
    rows = [
        Row(claim=claim, design=design, figure=f"false {word}", rate=float((p[:, at] <= 0.05).mean()), high=WRONG,
            families=reps)
        for at, word in enumerate(("costs", "safe"))
    ]  # fmt: skip
    reports = p[: reps // ROWS * ROWS].reshape(-1, ROWS, 2)
    for at, word in enumerate(("costs", "safe")):
        wrong = [min(q for q in holm(report[:, at].tolist()) if q is not None) <= 0.05 for report in reports]
        rows.append(
            Row(claim=claim, design=design, figure=f"false {word}, report of {ROWS}", rate=float(np.mean(wrong)),
                high=WRONG, families=len(reports))
        )  # fmt: skip
    return rows


def run(reps: int, *, draws: Sequence[int] = (4, 16), examples: Sequence[int] = (300, 1000)) -> list[Row]:
    """All designs, ``reps`` samples each."""
    rng, rows = np.random.default_rng(7), list[Row]()
    for name, drawn in DRAWN.items():
        for k in draws:
            for n in examples:
                rows += families(
                    lambda drawn=drawn, k=k, n=n: Sample(answers(drawn(k, rng), n, rng), 1.0, skewed=True),
                    reps=reps, claim="loss over draws", design=f"{name}, {k} draws, {n} examples",
                )  # fmt: skip
    for name, valued in VALUED.items():
        for n in (50, 100, 300, 1000):
            rows += families(
                lambda valued=valued, n=n: Sample(valued(n, rng)[None]), reps=reps, claim="loss without a bound",
                design=f"{name}, {n} examples",
            )  # fmt: skip
    return rows
