"""Random schemes, of which a user deploys one draw: how often "safe" and "costs" are false, and what is decided.

"Safe" is false where more than one draw in ten loses more than the margin, "costs" where fewer than half of them do and
the mean does not. Draws are added until a row is decided, as an audit does.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import WRONG, Row
from wheeltap.stats.draws import Draws
from wheeltap.stats.sample import Sample

Array = NDArray[np.float64]
Rng = np.random.Generator

ALPHA: Final = 0.05
MARGIN: Final = 0.02
CLEAN: Final = 0.95
FIRST, MOST = 16, 128
"""Draws at first, and the most."""
EXAMPLES: Final = 300


def kinds(bad: float, lost: float, rest: float = 0.0) -> Callable[[int, Rng], Array]:
    """Losses of draws, of which a share ``bad`` loses ``lost``."""
    return lambda draws, rng: np.where(rng.random(draws) < bad, lost, rest)


BEYOND: Final = MARGIN + 1e-9

SAFE: Final[dict[str, Callable[[int, Rng], Array]]] = {
    "1 in 10 loses .2": kinds(0.1, 0.2),
    "1 in 5 loses .2": kinds(0.2, 0.2),
    "1 in 10 loses the margin": kinds(0.1, BEYOND),
    "1 in 5 loses the margin": kinds(0.2, BEYOND),
    "all lose the margin": kinds(1.0, BEYOND),
    "1 in 10 loses .2, others half the margin": kinds(0.1, 0.2, MARGIN / 2.0),
}
"""Not safe, or (1 in 10) just so."""

COSTS: Final[dict[str, Callable[[int, Rng], Array]]] = {
    "half lose .04, half nothing": kinds(0.5, 2.0 * MARGIN),
    "half lose the margin, half .001": kinds(0.5, 0.001, MARGIN),
    "all lose the margin": kinds(1.0, MARGIN),
    "1 in 10 loses .2": kinds(0.1, 0.2),
    "9 in 10 lose the margin, 1 gains .04": kinds(0.1, -0.04, MARGIN),
    "normal, sd half the margin": lambda draws, rng: rng.normal(MARGIN, MARGIN / 2.0, draws),
}
"""No more than half lose more than the margin, nor does the mean."""

DECIDED: Final[dict[str, tuple[str, Callable[[int, Rng], Array]]]] = {
    "none loses anything": ("safe", kinds(1.0, 0.0)),
    "1 in 20 loses .2": ("safe", kinds(0.05, 0.2)),
    "1 in 100 loses .2": ("safe", kinds(0.01, 0.2)),
    "all lose twice the margin": ("costs", kinds(1.0, 2.0 * MARGIN)),
    "all lose .1": ("costs", kinds(1.0, 0.1)),
    "1 in 5 loses .5": ("costs", kinds(0.2, 0.5)),
}


def answers(lost: Array, examples: int, rng: Rng, *, shared: bool) -> Array:
    """Answers lost less gained, ``[draw, example]``: the same ones under every draw that loses as much, or any."""
    luck = rng.random((1 if shared else len(lost), examples))
    return (luck < lost[:, None]) * 1.0 - (luck < -lost[:, None])


def report(drawn: Callable[[int, Rng], Array], examples: int, rng: Rng, *, shared: bool, tests: int = 1,
           fixed: int | None = None) -> tuple[str, int]:  # fmt: skip
    """The verdict on one row, and its draws: so many, or as many as an audit makes."""
    most, first, alpha = fixed or MOST, fixed or FIRST, ALPHA / tests
    values = answers(drawn(most, rng), examples, rng, shared=shared)
    draws, looks = first, 1 + int(np.ceil(np.log2(most / first)))
    row = _row(values[:draws], looks)
    while draws < most and (wanted := row.wanted(MARGIN, alpha=alpha, most=most)) > draws:
        draws = wanted
        row = _row(values[:draws], looks)
    above, below = row.above(MARGIN), row.below(MARGIN, one_sided=True)
    assert above is not None and below is not None
    return "costs" if above <= alpha else "safe" if below <= alpha else "open", draws


def _row(values: Array, looks: int) -> Draws:
    return Draws(Sample(values, 1.0, (CLEAN - 1.0, CLEAN), skewed=True), looks)


def run(reps: int) -> list[Row]:
    """All designs, ``reps`` reports each."""
    rng, rows = np.random.default_rng(11), list[Row]()
    for word, designs in (("safe", SAFE), ("costs", COSTS)):
        for name, drawn in designs.items():
            for shared in (True, False):
                for fixed in (None, *((16, 32, 64) if word == "safe" and shared else ())):
                    told = [report(drawn, EXAMPLES, rng, shared=shared, fixed=fixed)[0] for _ in range(reps)]
                    size = f"{fixed or f'up to {MOST}'} draws, {EXAMPLES} {'shared' if shared else 'own'} answers"
                    rate = told.count(word) / reps
                    rows.append(
                        Row(claim="share of draws", design=f"{name}, {size}", figure=f"false {word}", rate=rate,
                            high=WRONG, families=reps)
                    )  # fmt: skip
    for name, (word, drawn) in DECIDED.items():
        for tests in (1, 13):
            told = [report(drawn, 1000, rng, shared=False, tests=tests) for _ in range(reps // 4)]
            draws = float(np.mean([draws for _, draws in told]))
            rows.append(
                Row(claim="share of draws", design=f"{name}, strictest of {tests}, 1000 own answers",
                    figure=word, rate=sum(one == word for one, _ in told) / len(told), families=len(told),
                    also=(("draws", draws),))
            )  # fmt: skip
    return rows
