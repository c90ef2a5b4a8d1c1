"""pass@k as curves with bands, for all of a benchmark and for each part of it."""

from collections.abc import Iterator, Sequence
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from wheeltap.core import seeds
from wheeltap.stats.clusters import Groups
from wheeltap.stats.simultaneous import Band, band
from wheeltap.suites.lens.record import Kept, TryCurve, TryGap
from wheeltap.suites.lens.stats.passk import pass_all, pass_at, runs_of
from wheeltap.suites.lens.stats.support import Solved

ALL: Final = 512
"""Numbers of tries up to which every one is looked at; beyond, so many in equal ratios."""

MOST_GROUPS: Final = 8
"""Parts of a benchmark that are shown by themselves."""


class Counted(Protocol):
    """Answers of one subject, counted; see ``Sampled``."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def right(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def samples(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...  # noqa: D102
    @property
    def group(self) -> NDArray[np.int64] | None: ...  # noqa: D102


def tries(most: int) -> tuple[int, ...]:
    """Numbers of tries from 1 to ``most``."""
    if most <= ALL:
        return tuple(range(1, most + 1))
    return tuple(sorted({round(k) for k in np.geomspace(1, most, ALL)}))


def curves_of(
    held: Sequence[Counted], ks: tuple[int, ...], *, seed: int, groups: Groups | None
) -> tuple[TryCurve, ...]:
    """One curve for each subject and part of the benchmark; the band of the whole is over groups, where there are."""
    return tuple(_curve(one, part, ks, seed, groups) for one in held for part in _parts(one))


def _curve(
    one: Counted, part: tuple[str, NDArray[np.intp]], ks: tuple[int, ...], seed: int, groups: Groups | None
) -> TryCurve:
    (group, rows), at, most = part, np.array(ks) - 1, ks[-1]
    right, samples = one.right[rows], one.samples[rows]
    solved = pass_at(right, samples, most=most)[:, at]
    made = band(solved, groups=None if group else groups, rng=_rng(seed, one.name, group))
    return TryCurve(
        subject=one.name, group=group, items=len(rows), ks=ks, solved=_floats(made.mean), low=_ends(made.low),
        high=_ends(made.high), always=_floats(pass_all(right, samples, most=most)[:, at].mean(axis=0)),
    )  # fmt: skip


def gaps_of(one: Counted, two: Counted, ks: tuple[int, ...], *, seed: int, groups: Groups | None) -> tuple[TryGap, ...]:
    """The second's pass@k minus the first's, item by item, for each part of the benchmark."""
    at, name = np.array(ks) - 1, f"{one.name} vs {two.name}"
    solved = [pass_at(*held.counts, most=ks[-1])[:, at] for held in (one, two)]
    gap = solved[1] - solved[0]
    return tuple(
        _gap(
            band(gap[rows], difference=True, groups=None if group else groups, rng=_rng(seed, name, group)),
            ks,
            (name, group, len(rows)),
        )
        for group, rows in _parts(one)
    )


def _gap(made: Band, ks: tuple[int, ...], which: tuple[str, str, int]) -> TryGap:
    more, fewer = made.low > 0.0, made.high < 0.0
    name, group, items = which
    return TryGap(
        subject=name, group=group, items=items, ks=ks, gap=_floats(made.mean),
        low=_ends(made.low), high=_ends(made.high), more=runs_of(ks, more), fewer=runs_of(ks, fewer),
        undecided=runs_of(ks, ~(more | fewer)),
    )  # fmt: skip


def listed_items(one: NDArray[np.int64], two: NDArray[np.int64], found: Solved, *, most: int) -> tuple[Kept, ...]:
    """Items that only one of two solves, the surest first."""
    order = sorted(range(len(found.each)), key=lambda at: found.each[at])[:most]
    places = (*found.first, *found.second)
    return tuple(
        Kept(item=places[at], id="", first=int(one[places[at]]), second=int(two[places[at]]), p=found.each[at])
        for at in order
    )


def _parts(one: Counted) -> Iterator[tuple[str, NDArray[np.intp]]]:
    yield "", np.arange(len(one.right))
    if one.group is not None:
        counts = [int(count) for count in np.bincount(one.group)]
        largest = sorted(range(len(counts)), key=lambda name: -counts[name])[:MOST_GROUPS]
        for name in sorted(name for name in largest if 0 < counts[name] < len(one.right)):
            yield str(name), np.flatnonzero(one.group == name)


def _rng(seed: int, name: str, group: str) -> np.random.Generator:
    return seeds.generator(seed, "band", name, group)


def _floats(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _ends(values: NDArray[Any]) -> tuple[float | None, ...]:
    return tuple(float(value) if np.isfinite(value) else None for value in values)
