"""Bands of pass@k hold the whole true curve, and of a gap that of the gap."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaln

from benchmarks.levels import HELD, WRONG, Row
from wheeltap.stats.simultaneous import Band, band
from wheeltap.suites.lens.stats.passk import pass_at

Array = NDArray[np.float64]
Rng = np.random.Generator

ITEMS: Final = (20, 50, 100, 300)
TRIES: Final = (4, 12, 64)
SHAPES: Final = {"even": (2.0, 2.0), "two ends": (0.4, 0.6), "easy": (20.0, 1.0), "hard": (0.2, 3.0)}
"""How likely items are to be solved in one try: beta distributions."""

DRAWS: Final = 2000
_POPULATION: Final = 200_000


def _counted(p: Array, tries: int, rng: Rng) -> Array:
    """Pass@k ``[item, k]`` of one sample of tries."""
    return pass_at(rng.binomial(tries, p), np.full(len(p), tries), most=tries)


def _holds(made: Band, truth: Array) -> bool:
    return bool(((made.low <= truth + 1e-12) & (truth <= made.high + 1e-12)).all())


def _sure(made: Band) -> bool:
    return bool(((made.low > 0.0) | (made.high < 0.0)).any())


def curves(shape: str, items: int, tries: int, *, reps: int, rng: Rng) -> Iterator[Row]:
    """Of one system's curve, and of two that solve every item equally often."""
    a, b = SHAPES[shape]
    ks = np.arange(1, tries + 1)
    truth = 1.0 - np.exp(betaln(a, b + ks) - betaln(a, b))
    held = sure = 0
    width = 0.0
    for _ in range(reps):
        p = rng.beta(a, b, items)
        one, two = (_counted(p, tries, rng) for _ in range(2))
        made = band(one, draws=DRAWS, rng=rng)
        held, width = held + _holds(made, truth), width + float((made.high - made.low).mean())
        sure += _sure(band(two - one, difference=True, draws=DRAWS, rng=rng))
    design = f"{shape}, {items} items, {tries} tries"
    yield Row(
        claim="pass@k", design=design, figure="whole curve held", rate=held / reps, low=HELD, families=reps,
        also=(("mean width", width / reps),),
    )  # fmt: skip
    yield Row(
        claim="gap of pass@k, none", design=design, figure="some k sure", rate=sure / reps, high=WRONG, families=reps
    )


def _lost(base: tuple[float, float], share: float) -> Callable[[int, Rng], tuple[Array, Array]]:
    """A share of the items is never solved by the second."""

    def draw(items: int, rng: Rng) -> tuple[Array, Array]:
        p = rng.beta(*base, items)
        return p, np.where(rng.random(items) < share, 0.0, p)

    return draw


def _sharper(items: int, rng: Rng) -> tuple[Array, Array]:
    p = rng.beta(2.0, 2.0, items)
    return p, p**3 / (p**3 + (1.0 - p) ** 3)


GAPS: Final[dict[str, Callable[[int, Rng], tuple[Array, Array]]]] = {
    "1 % lost, even": _lost((2.0, 2.0), 0.01),
    "2 % lost, easy": _lost((20.0, 1.0), 0.02),
    "sharper": _sharper,
}
"""Two systems that differ."""


@cache
def _true_gap(name: str, tries: int) -> Array:
    first, second = GAPS[name](_POPULATION, np.random.default_rng(0))
    return np.array([((1.0 - first) ** k - (1.0 - second) ** k).mean() for k in range(1, tries + 1)])


def gaps(name: str, items: int, tries: int, *, reps: int, rng: Rng) -> Row:
    """Of the gap between two systems that differ."""
    truth, held = _true_gap(name, tries), 0
    for _ in range(reps):
        one, two = (_counted(p, tries, rng) for p in GAPS[name](items, rng))
        held += _holds(band(two - one, difference=True, draws=DRAWS, rng=rng), truth)
    design = f"{name}, {items} items, {tries} tries"
    return Row(
        claim="gap of pass@k", design=design, figure="whole curve held", rate=held / reps, low=HELD, families=reps
    )


def run(reps: int, *, items: Sequence[int] = ITEMS, tries: Sequence[int] = TRIES) -> list[Row]:
    """All designs, ``reps`` samples each."""
    rng, rows = np.random.default_rng(28), list[Row]()
    for many in items:
        for most in tries:
            for shape in SHAPES:
                rows += curves(shape, many, most, reps=reps, rng=rng)
            rows += [gaps(name, many, most, reps=reps, rng=rng) for name in GAPS]
    return rows
