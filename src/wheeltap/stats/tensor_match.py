"""A stored tensor beside the original's: how near it is, how near its format brings it, and what is wrong with it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating[Any]]
"""``[row, column]``."""

_SLOPE: Final = 0.01
"""How far the slope of the stored on the original values may be from that of our own rounding; where there is none,
from 1, beside what rounding does to it. Weights that were on another grid before are rounded with slopes of 1.02."""

_SHRINKS: Final = 1.5
"""Times the squared error: as far rounding to the centers of its cells brings the slope below 1."""

_KEPT, _TILT, _ERRORS = 2.0**-9, 0.3, 4.0
"""The same where our own rounding is that to the file's own grid: what numbers of 16 bits do to scales, times the
squared error (AutoGPTQ at 2 to 8 bits: .17 at most), and in standard errors, of the largest error that is sound."""

_FAR, _WIDE, _NORMAL, _SMALL = 8.0, 2.0, 1.4826, 1e-30
"""How far a group may be from the same one of other rows, in their spread, and what that may be in standard errors: it
is so many times the median distance from their middle, as of normal numbers. In 12 matrices of SmolLM2 that AutoGPTQ
rounded in 6 ways it is up to 6.5 and 1.7."""

_SAME: Final = 0.5
"""Share of the blocks that must be ours to the bit before single ones that are not are no other way of rounding."""

_PASSED: Final = 2.0**-9
"""Error that numbers have which were kept in bfloat16 on their way."""

_FLOOR: Final = 1e-12
"""Share of a sum of squares below which nothing is left of it."""

_LOST, _CLEAR, _TINY, _APART = 0.5, 0.125, 1e-3, 4.0
"""Error from which a row is not the original's, where our own rounding of it has at most the second one, and it is at
least this share of what rows of the tensor are. A row that another one replaced has about 1.4, an empty one 1. Where
there is no rounding of our own, the row in the middle has at most the second, and this one so many times its error."""

_BEYOND, _HALF = 1.2, 2.0**-9
"""Largest error of a block, in that of our own rounding, and beside it in its largest value: where the original was
kept in float16 on the way, the scale of a block is another float16 number (2^-10 of it), and its values move by 2^-11.
In files that llama.cpp made it is up to 2^-10.4."""

_LEFT: Final = 0.05
"""Share of the squared error that is left where an offset is all that is wrong."""


class _Sums(NamedTuple):
    """Over pairs of values: products, squares and values themselves; ``ours`` and ``toward`` of our own rounding."""

    dot: float = 0.0
    stored: float = 0.0
    original: float = 0.0
    gap: float = 0.0
    ours: float = 0.0
    toward: float = 0.0
    offset: float = 0.0
    whole: float = 0.0


@dataclass
class TensorError:
    """Stored beside original values, block by block.

    Attributes:
        sums: Over all of them.
        groups: Sums ``[5, group]`` over those that share a scale, and over those of a row, by how many values that are:
            squares of the original, of what our own rounding leaves, of what is apart from that, the product of this
            with the original, and itself.
        columns: Of a row.
        rows: Sums of squares ``[3, row]``: of the original, of what is apart from it, and of what our own rounding
            leaves.
        count: Values.
        blocks: Of values that are stored together.
        changed: Those that are not our own rounding's, to the bit.
        beyond: Those of them that no rounding gives.
        finite: Whether all stored values are.
        known: Whether there is a rounding of our own.
        flat: Whether all stored values of each block are one.
        least: Of the stored values.
        most: Of the stored values.
    """

    sums: _Sums = field(default_factory=_Sums)
    groups: dict[int, list[Rows]] = field(default_factory=dict[int, list[Rows]])
    columns: int = 1
    rows: list[Rows] = field(default_factory=list[Rows])
    count: int = 0
    blocks: int = 0
    changed: int = 0
    beyond: int = 0
    finite: bool = True
    known: bool = True
    flat: bool = True
    least: float = np.inf
    most: float = -np.inf

    def add(self, stored: Rows, original: Rows, ours: Rows | None, *, block: int) -> None:
        """Takes some rows.

        Args:
            stored: As the file has them.
            original: Of the original.
            ours: Our own rounding of the original to the file's format; ``None`` where there is none.
            block: Values that the format stores together, along a row.
        """
        self.count, self.columns, self.known = self.count + stored.size, stored.shape[1], ours is not None
        if not np.isfinite(stored).all():
            self.finite = False
            return
        self.least, self.most = min(self.least, float(stored.min())), max(self.most, float(stored.max()))
        self.flat = self.flat and block > 1 and bool((np.ptp(stored.reshape(-1, block), axis=1) == 0.0).all())
        one, two = stored.astype(np.float64), original.astype(np.float64)
        gap = one - two
        rest = gap if ours is None else ours - two
        pairs = ((one, two), (one, one), (two, two), (gap, gap), (rest, rest), (rest, two))
        added = (*(float(np.vdot(*pair)) for pair in pairs), float(gap.sum()), float(two.sum()))
        self.sums = _Sums(*(old + new for old, new in zip(self.sums, added, strict=True)))
        self.rows.append(np.stack([np.square(part).sum(1) for part in (two, gap, rest)]))
        if ours is None:
            return
        moved = one - ours
        for width in {block, self.columns} - {1}:
            cut = ((two, two), (rest, rest), (moved, moved), (moved, two), (moved, np.ones_like(moved)))
            sums = [np.einsum("gv,gv->g", *(part.reshape(-1, width) for part in pair)) for pair in cut]
            self.groups.setdefault(width, []).append(np.stack(sums))
        other = (stored != ours).reshape(-1, block).any(1)
        self.blocks += len(other)
        self.changed += int(other.sum())
        most, own, size = (np.abs(part.reshape(-1, block)[other]).max(1, initial=0.0) for part in (gap, rest, two))
        self.beyond += int((most > _BEYOND * own + _HALF * size).sum())

    def _share(self, part: float, otherwise: float) -> float:
        """Of the original's sum of squares."""
        return part / self.sums.original if self.sums.original > 0.0 else otherwise

    @property
    def cosine(self) -> float:
        """Of the two as vectors; 0 where one is zero."""
        size = (self.sums.stored * self.sums.original) ** 0.5
        return self.sums.dot / size if size > 0.0 else 0.0

    @property
    def error(self) -> float:
        """||stored - original|| / ||original||."""
        return self._share(self.sums.gap, float(self.sums.gap > 0.0)) ** 0.5

    @property
    def expected(self) -> float | None:
        """The same of our own rounding."""
        return self._share(self.sums.ours, 0.0) ** 0.5 if self.known else None

    @property
    def slope(self) -> float:
        """Of the stored on the original values, through 0."""
        return self._share(self.sums.dot, 1.0)

    @property
    def offset(self) -> float:
        """Mean of stored minus original."""
        return self.sums.offset / max(self.count, 1)

    @property
    def shifted(self) -> bool:
        """Whether one number was added to all: nothing else is left of the error."""
        return self.sums.gap > 0.0 and self.sums.gap - self.sums.offset * self.offset < _LEFT * self.sums.gap

    @property
    def lost(self) -> int:
        """How many rows do not hold the original's values, where a rounding of these would be near and most others are.

        0 where half of them or more do not: then it is the tensor that does not.
        """
        size, apart, near = np.concatenate(self.rows, 1)
        rows = (size > _TINY**2 * size.mean()) & (apart > _LOST**2 * size)
        if self.known:
            rows &= near <= _CLEAR**2 * size
        else:
            middle = (len(size) - 1) // 2
            usual = np.sort(apart / np.maximum(size, _SMALL))[middle]
            rows &= (usual <= _CLEAR**2) & (apart > _APART**2 * np.sort(apart)[middle])
        found = int(rows.sum())
        return found if 2 * found <= len(size) else 0

    @property
    def constant(self) -> bool:
        """Whether all stored values, or all of each block, are one, and the original ones are not."""
        spread = self.sums.original - self.sums.whole**2 / max(self.count, 1)
        return (self.flat or self.least == self.most) and spread > _FLOOR * self.sums.original

    def near(self, usual: float, *, times: float) -> bool:
        """Whether the error is one that the format gives.

        Args:
            usual: Error of the format, where our own rounding is not known.
            times: Error that no sound rounding makes, in that one.
        """
        return self.error <= max(times * (usual if self.expected is None else self.expected), _PASSED)

    def level(self, usual: float, *, times: float, grid: bool) -> bool:
        """Whether the slope of stored on original values is that of our own rounding; see ``near``.

        Args:
            usual: As there.
            times: As there.
            grid: Whether our own rounding is that to the scales and zero points of the file.
        """
        expected = usual if self.expected is None else self.expected
        own = 1.0 + (self._share(self.sums.toward, 0.0) if self.known else 0.0)
        most = _SLOPE + _SHRINKS * expected**2
        if grid:
            most = _KEPT + _TILT * expected**2 + _ERRORS * times * expected / max(self.count, 1) ** 0.5
        return abs(self.slope - own) <= most

    def _moved(self) -> Iterator[Rows]:
        """Scale and offset ``[2, row, group]`` that fit best beyond those of our own rounding, in standard errors."""
        for width, parts in self.groups.items():
            size, left, square, along, offset = np.concatenate(parts, 1)
            size = np.maximum(size, _SMALL)
            left = np.maximum(left, size * max(float(np.median(left / size)), _KEPT**2))
            factors = along * (width / (size * (left + np.maximum(square - along**2 / size, 0.0)))) ** 0.5
            offsets = offset / (left + np.maximum(square - offset**2 / width, 0.0)) ** 0.5
            yield np.stack([factors, offsets]).reshape(2, -1, max(self.columns // width, 1))

    @property
    def stepped(self) -> bool:
        """Whether nearly every group has an offset that rounding does not give: zero points are off."""
        return any(np.median(np.abs(one[1])) > _FAR for one in self._moved())

    @property
    def odd(self) -> int:
        """How many groups of values that share a scale, or whole rows, have another scale or offset than the others.

        They are held against the same group in other rows: what moves weights on purpose, as GPTQ does, moves all rows.
        0 where our own rounding is not known: weights that were on a grid before lie by chance on those of some groups.
        """
        found = 0
        for moved in self._moved():
            apart = np.abs(moved - np.median(moved, 1, keepdims=True))
            spread = np.clip(_NORMAL * np.median(apart, 1, keepdims=True), 1.0, _WIDE)
            found = max(found, int((apart > _FAR * spread).any(0).sum()))
        return found

    @property
    def flipped(self) -> float:
        """Share of the blocks that no rounding gives, where most are ours to the bit; 0 of another way of rounding."""
        return self.beyond / max(self.blocks, 1) if self.changed < _SAME * self.blocks else 0.0


def cosine(one: Rows, two: Rows) -> float:
    """Of two tensors of one shape, as vectors."""
    first, second = one.astype(np.float64).ravel(), two.astype(np.float64).ravel()
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size > 0.0 else 0.0
