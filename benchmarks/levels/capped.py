"""Losses with a cap (``--cap``): false verdicts on lognormal tails to either side, and intervals that hold the mean."""

from typing import Final

import numpy as np

from benchmarks.levels import WRONG, Row
from wheeltap.stats.sample import Sample

ALPHA, MARGIN = 0.05, 0.2
EXAMPLES: Final = (50, 100, 300)
CAPS: Final = (3.0, 10.0, 40.0)
_LEAST_HELD: Final = 0.92  # of Student's t, where a cap of 20 means leaves the tail as it is
_POPULATION: Final = 10**6


def _rows(examples: int, cap: float, sign: float, reps: int, rng: np.random.Generator) -> list[Row]:
    """The mean loss is exactly the margin, so whatever is decided is false."""
    true = np.minimum(np.exp(rng.normal(size=_POPULATION)), cap).mean()
    counts = np.zeros(3)
    for _ in range(reps):
        lost = MARGIN + sign * (np.minimum(np.exp(rng.normal(size=examples)), cap) - true)
        sample = Sample(lost[None], bound=cap + MARGIN, far=cap)
        made, safe = sample.effect(margin=MARGIN, name="loss", unit=""), sample.below(MARGIN, one_sided=True)
        held = made.low is not None and made.high is not None and made.low <= MARGIN <= made.high
        costs = lost.mean() > MARGIN and made.p is not None and made.p <= ALPHA
        counts += [safe is not None and safe <= ALPHA, costs, held]
    tail = "right" if sign > 0.0 else "left"
    bars = (("false safe", 0.0, WRONG), ("false costs", 0.0, WRONG), ("covered", _LEAST_HELD, 1.0))
    return [
        Row(
            claim="loss with a cap", design=f"lognormal 1, cap {cap:g} ({tail} tail), {examples} examples",
            figure=figure, rate=float(count) / reps, low=low, high=high, families=reps,
        )
        for (figure, low, high), count in zip(bars, counts, strict=True)
    ]  # fmt: skip


def run(reps: int) -> list[Row]:
    """All designs, ``reps`` samples each."""
    rng = np.random.default_rng(51)
    return [
        row
        for examples in EXAMPLES
        for cap in CAPS
        for sign in (1.0, -1.0)
        for row in _rows(examples, cap, sign, reps, rng)
    ]
