"""Skewed draws, skewed losses and rare ones, at the margin."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import WRONG, Row
from wheeltap.stats.sample import Sample

Array = NDArray[np.float64]
Rng = np.random.Generator
Drawn = Callable[[int, Rng], Array]

ALPHA: Final = 0.05
MARGIN: Final = 0.02
ROWS: Final = 13
"""Rows of a report, all at the margin and independent: whatever is decided of one is wrong."""
_DEALT: Final = 4
"""Rows of a report that are drawn; what a report of more says follows, since rows are independent."""

DRAWN: Final[dict[str, Drawn]] = {
    "normal": lambda k, rng: MARGIN + 0.015 * rng.normal(size=k),
    "t, 3 degrees": lambda k, rng: MARGIN + 0.015 * rng.standard_t(3, k) / np.sqrt(3.0),
    "gamma .5": lambda k, rng: rng.gamma(0.5, 2.0 * MARGIN, k),
    "lognormal 1": lambda k, rng: MARGIN * np.exp(rng.normal(0.0, 1.0, k) - 0.5),
    "lognormal 1.5": lambda k, rng: MARGIN * np.exp(rng.normal(0.0, 1.5, k) - 1.125),
}
"""What a draw costs, with the margin as the mean over draws."""

SKEWED: Final = ("gamma .5", "lognormal 1", "lognormal 1.5")


def mirrored(drawn: Drawn) -> Drawn:
    """Few draws cost much less than the others."""
    return lambda k, rng: 2.0 * MARGIN - drawn(k, rng)


PAIRED: Final[dict[str, Callable[[Drawn, int, Rng], tuple[Array, Array]]]] = {
    "against steady": lambda drawn, k, rng: (np.full(k, 2.0 * MARGIN), drawn(k, rng)),
    "own draws": lambda drawn, k, rng: (MARGIN + drawn(k, rng), drawn(k, rng)),
    "shared draws": lambda drawn, k, rng: (1.5 * MARGIN + 0.5 * (hard := drawn(k, rng)), hard),
}
"""What a draw costs each of two models, with the margin as the difference of their means."""

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
    made = (u < lost[:, None]) * 1.0 - ((u >= lost[:, None]) & (u < (lost + gained)[:, None]))
    return np.asarray(made, dtype=np.float64)


def judged(sample: Sample, margin: float = MARGIN, *, one_sided: bool = True) -> tuple[float, float]:
    """P-values of "costs" and of "safe", or of "differ" and of "equivalent"."""
    over = float(np.mean(sample.values)) > margin
    found = sample.above(margin) if over or (not one_sided and float(np.mean(sample.values)) < -margin) else 1.0
    below = 1.0 if over else sample.below(margin, one_sided=one_sided)
    return 0.0 if found is None else found, 1.0 if below is None else below


def families(
    made: Callable[[], Sample], *, reps: int, design: str, claim: str, margin: float = MARGIN, one_sided: bool = True
) -> list[Row]:
    """False verdicts of one row, and in a report of so many such rows, where Holm is Bonferroni; the worse counts."""
    p = np.array([judged(made(), margin, one_sided=one_sided) for _ in range(_DEALT * reps)])
    rows = list[Row]()
    for at, word in enumerate(("costs", "safe") if one_sided else ("differ", "equivalent")):
        alone, strict = (float((p[:, at] <= alpha).mean()) for alpha in (ALPHA, ALPHA / ROWS))
        several = 1.0 - (1.0 - strict) ** ROWS
        rows.append(
            Row(claim=claim, design=design, figure=f"false {word}", rate=max(alone, several), high=WRONG, families=reps,
                also=(("alone", alone), (f"report of {ROWS}", several)))
        )  # fmt: skip
    return rows


def price(loss: float, k: int, *, reps: int, rng: Rng) -> Row:
    """What is found of a loss whose draws are normal, with a deviation of a quarter of it, at a score of .9."""
    hits = np.zeros((2, 2))
    for _ in range(reps):
        x = answers(np.clip(rng.normal(loss, loss / 4.0, k), -0.1, 0.9), 1000, rng)
        for at, sample in enumerate((Sample(x, 1.0, (-0.1, 0.9), skewed=True), Sample(x, 1.0))):
            p = sample.above(MARGIN) or 0.0
            hits[at] += p <= ALPHA, p <= ALPHA / ROWS
    (alone, several), (plain, plain_several) = hits / reps
    return Row(
        claim="price over draws", design=f"loss of {loss:g}, {k} draws, 1000 examples", figure="found", rate=alone,
        families=reps,
        also=(("by Student's t", plain), (f"strictest of {ROWS}", several), ("by Student's t", plain_several)),
    )  # fmt: skip


def over_draws(k: int, n: int, *, reps: int, rng: Rng, skewed: bool = True) -> list[Row]:
    """Single models and pairs; not ``skewed`` by Student's t on the side where something is found."""
    rows = list[Row]()
    laws = {**DRAWN, **{f"mirrored {name}": mirrored(DRAWN[name]) for name in SKEWED}}
    size = f"{k} draws, {n} examples"
    for name, drawn in laws.items():
        rows += families(
            lambda drawn=drawn: Sample(answers(drawn(k, rng), n, rng), 1.0, skewed=skewed),
            reps=reps, claim="loss over draws", design=f"{name}, {size}",
        )  # fmt: skip
    for kind, paired in PAIRED.items():
        for name in SKEWED:

            def made(paired: Callable[[Drawn, int, Rng], tuple[Array, Array]] = paired, name: str = name) -> Sample:
                one, two = (answers(by_draw, n, rng) for by_draw in paired(DRAWN[name], k, rng))
                return Sample(one - two, 2.0, skewed=skewed)

            rows += families(
                made, reps=reps, claim="difference over draws", design=f"{kind}, {name}, {size}", one_sided=False
            )
    return rows


def run(reps: int, *, draws: Sequence[int] = (4, 16), examples: Sequence[int] = (50, 300, 3000)) -> list[Row]:
    """All designs, ``reps`` families each."""
    rng, rows = np.random.default_rng(7), list[Row]()
    for k in draws:
        for n in examples:
            rows += over_draws(k, n, reps=reps, rng=rng)
        rows += [price(loss, k, reps=reps // 4, rng=rng) for loss in (0.1, 0.2, 0.4)]
    for name, valued in VALUED.items():
        for n in (50, 100, 300, 1000):
            rows += families(
                lambda valued=valued, n=n: Sample(valued(n, rng)[None]), reps=reps, claim="loss without a bound",
                design=f"{name}, {n} examples",
            )  # fmt: skip
    return rows
