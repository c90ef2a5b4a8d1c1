"""Groups that nobody declared: how often copies are noticed, and how often verdicts on them are false."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import WRONG, Row
from wheeltap.core.near_duplicates import near_sets, similar_text_sets
from wheeltap.stats.sample import Sample
from wheeltap.stats.serial import serial_groups

Array = NDArray[Any]
Groups = NDArray[Any]
Rng = np.random.Generator
Notice = Callable[[Groups, Array, Rng], Groups | None]

ORIGINALS, COPIES, MARGIN = 150, 20, 0.05
NOTICED: Final = 0.9
ALARMS: Final = 0.05
JITTERS: Final = (0.0005, 0.01, 0.1)
SYMBOLS: Final = ((10, 4), (20, 4), (50, 8), (1000, 12))


def pictures(rng: Rng, count: int) -> Array:
    """Two bumps of random place and height on 8 x 8 pixels."""
    x, y = np.meshgrid(np.arange(8), np.arange(8))
    places, heights = rng.uniform(0, 8, (2, 2 * count)), rng.uniform(0.5, 1.0, 2 * count)
    bumps = [h * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 4.0) for a, b, h in zip(*places, heights, strict=True)]
    return np.array(bumps).reshape(count, 2, 64).sum(1)


def tables(rng: Rng, count: int) -> Array:
    """Twelve columns."""
    return rng.uniform(size=(count, 12))


def _near(make: Callable[[Rng, int], Array], jitter: float) -> Notice:
    def notice(groups: Groups, losses: Array, rng: Rng) -> Groups | None:
        rows = make(rng, int(groups.max()) + 1)[groups]
        return near_sets(rows + jitter * rng.normal(size=rows.shape), [""] * len(rows))

    return notice


def _tokens(groups: Groups, losses: Array, rng: Rng) -> Groups | None:
    rows = rng.integers(1000, size=(int(groups.max()) + 1, 16))[groups]
    rows[np.arange(len(rows)), rng.integers(16, size=len(rows))] = rng.integers(1000, size=len(rows))
    return similar_text_sets([[*map(str, row)] for row in rows])


def _in_order(groups: Groups, losses: Array, rng: Rng) -> Groups | None:
    return serial_groups(losses[None], np.zeros(len(losses), dtype=np.intp))


def _losses(groups: Groups, rng: Rng) -> Array:
    """Lost right answers, at the margin: those of a group are lost together in four of five cases."""
    chance = rng.beta(MARGIN / 4, (1 - MARGIN) / 4, size=int(groups.max()) + 1)
    return (rng.random(len(groups)) < chance[groups]) * 1.0


def _row(name: str, notice: Notice, reps: int, rng: Rng, *, ordered: bool, unequal: bool, copies: int) -> list[Row]:
    seen = safe = costs = 0
    for _ in range(reps):
        sizes = rng.integers(1, 2 * copies, size=ORIGINALS) if unequal else copies
        groups = np.repeat(np.arange(ORIGINALS), sizes)
        groups = groups if ordered else rng.permutation(groups)
        losses = _losses(groups, rng)
        noticed = notice(groups, losses, rng)
        seen += noticed is not None
        sample = Sample(losses[None], bound=1.0, groups=noticed)
        p_safe, p_costs = sample.below(MARGIN, one_sided=True), sample.above(MARGIN)
        safe += p_safe is not None and p_safe <= 0.05
        costs += bool(losses.mean() > MARGIN and p_costs is not None and p_costs <= 0.05)
    design = f"{name}, {'unequal' if unequal else copies}, {'in order' if ordered else 'shuffled'}"
    figures = (("noticed", seen, NOTICED, 1.0), ("false safe", safe, 0.0, WRONG), ("false costs", costs, 0.0, WRONG))
    return [
        Row(
            claim="undeclared groups",
            design=design,
            figure=figure,
            rate=count / reps,
            low=low,
            high=high,
            families=reps,
        )
        for figure, count, low, high in figures
    ]


def _alarms(reps: int, rng: Rng) -> list[Row]:
    rows = list[Row]()
    for name, make in (("pictures", pictures), ("table", tables)):
        alarms = np.mean([near_sets(make(rng, 500), [""] * 500) is not None for _ in range(reps)])
        rows.append(
            Row(
                claim="independent examples",
                design=name,
                figure="alarm",
                rate=float(alarms),
                high=ALARMS,
                families=reps,
            )
        )
    for symbols, length in SYMBOLS:
        texts = ([[*map(str, row)] for row in rng.integers(symbols, size=(300, length))] for _ in range(reps))
        alarms = np.mean([similar_text_sets(one) is not None for one in texts])
        design = f"{length} of {symbols} tokens"
        rows.append(
            Row(
                claim="independent examples",
                design=design,
                figure="alarm",
                rate=float(alarms),
                high=ALARMS,
                families=reps,
            )
        )
    alarms = np.mean([_in_order(np.arange(0), rng.random(1000) ** 4, rng) is not None for _ in range(reps)])
    rows.append(
        Row(
            claim="independent examples",
            design="order of 1,000",
            figure="alarm",
            rate=float(alarms),
            high=ALARMS,
            families=reps,
        )
    )
    return rows


def run(reps: int) -> list[Row]:
    """All designs; a tenth of the families each, 120 at least: noticing takes a second."""
    rng, reps = np.random.default_rng(15), max(reps // 10, 120)
    rows = _alarms(max(reps, 200), rng)
    for make in (pictures, tables):
        for jitter in JITTERS:
            notice = _near(make, jitter)
            rows += _row(
                f"{make.__name__}, jitter {jitter:g}", notice, reps, rng, ordered=False, unequal=False, copies=COPIES
            )
        rows += _row(
            f"{make.__name__}, jitter .01", _near(make, 0.01), reps, rng, ordered=True, unequal=True, copies=COPIES
        )
    rows += _row("tokens, one replaced", _tokens, reps, rng, ordered=False, unequal=False, copies=COPIES)
    rows += _row("patients, ten rows", _in_order, reps, rng, ordered=True, unequal=False, copies=10)
    rows += _row("patients", _in_order, reps, rng, ordered=True, unequal=True, copies=10)
    return rows
