"""A stored tensor beside the original's: how near it is, how near its format brings it, and what is wrong with it."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating[Any]]
"""``[row, column]``."""

_SLOPE: Final = 0.01
"""How far the slope of the stored on the original values may be from that of our own rounding; where there is none,
from 1, beside what rounding does to it. Weights that were on another grid before are rounded with slopes of 1.02."""

_SHRINKS: Final = 1.5
"""Times the squared error: as far rounding to the centers of its cells brings the slope below 1."""

_SAME: Final = 0.5
"""Share of the blocks that must be ours to the bit before single ones that are not are no other way of rounding."""

_PASSED: Final = 2.0**-9
"""Error that numbers have which were kept in bfloat16 on their way."""

_FLOOR: Final = 1e-12
"""Share of a sum of squares below which nothing is left of it."""

_LOST, _CLEAR, _TINY = 0.5, 0.125, 1e-3
"""Error from which a row is not the original's, where our own rounding of it has at most the second one, and it is at
least this share of what rows of the tensor are. A row that another one replaced has about 1.4, an empty one 1."""

_BEYOND, _HALF = 1.2, 2.0**-9
"""Largest error of a block, in that of our own rounding, and beside it in its largest value: where the original was
kept in float16 on the way, the scale of a block is another float16 number (2^-10 of it), and its values move by 2^-11.
In files that llama.cpp made it is up to 2^-10.4."""


@dataclass
class TensorError:
    """Sums over pairs of stored and original values, block by block.

    Attributes:
        count: Values.
        finite: Whether all stored ones are.
        blocks: Of values that are stored together.
        changed: Those that are not our own rounding's, to the bit.
        beyond: Those of them that no rounding gives.
        known: Whether there is a rounding of our own.
        flat: Whether all stored values of each block are one.
        least: Of the stored values.
        most: Of the stored values.
        lost: Rows that do not hold the original's values, though a rounding of these would be near.
    """

    lost: int = 0
    count: int = 0
    blocks: int = 0
    changed: int = 0
    beyond: int = 0
    finite: bool = True
    known: bool = True
    flat: bool = True
    least: float = np.inf
    most: float = -np.inf
    _dot: float = 0.0
    _stored: float = 0.0
    _original: float = 0.0
    _gap: float = 0.0
    _ours: float = 0.0
    _toward: float = 0.0
    _sum: float = 0.0
    _sum_original: float = 0.0

    def add(self, stored: Rows, original: Rows, ours: Rows | None, *, block: int, usual: float = np.inf) -> None:
        """Takes some rows.

        Args:
            stored: As the file has them.
            original: Of the original.
            ours: Our own rounding of the original to the file's format; ``None`` where there is none.
            block: Values that the format stores together, along a row.
            usual: Error of the format, where our own rounding is not known.
        """
        self.count += stored.size
        if not np.isfinite(stored).all():
            self.finite = False
            return
        self.least, self.most = min(self.least, float(stored.min())), max(self.most, float(stored.max()))
        self.flat = self.flat and block > 1 and bool((np.ptp(stored.reshape(-1, block), axis=1) == 0.0).all())
        one, two = stored.astype(np.float64).ravel(), original.astype(np.float64).ravel()
        self._dot += float(one @ two)
        self._stored += float(one @ one)
        self._original += float(two @ two)
        gap = one - two
        self._gap += float(gap @ gap)
        self._sum += float(gap.sum())
        self._sum_original += float(two.sum())
        size, apart = (np.square(part, dtype=np.float64).sum(1) for part in (original, stored - original))
        rows = (size > _TINY**2 * size.mean()) & (apart > _LOST**2 * size)
        if ours is None:
            self.lost += int(rows.sum()) if usual <= _CLEAR else 0
            self.known = False
            return
        self.lost += int((rows & (np.square(ours - original, dtype=np.float64).sum(1) <= _CLEAR**2 * size)).sum())
        rest = ours.astype(np.float64).ravel() - two
        self._ours += float(rest @ rest)
        self._toward += float(rest @ two)
        apart = (stored != ours).reshape(-1, block).any(1)
        self.blocks += len(apart)
        self.changed += int(apart.sum())
        most, own, size = (np.abs(part.reshape(-1, block)[apart]).max(1, initial=0.0) for part in (gap, rest, two))
        self.beyond += int((most > _BEYOND * own + _HALF * size).sum())

    @property
    def cosine(self) -> float:
        """Of the two as vectors; 0 where one is zero."""
        size = float(np.sqrt(self._stored * self._original))
        return self._dot / size if size > 0.0 else 0.0

    @property
    def error(self) -> float:
        """||stored - original|| / ||original||."""
        return float(np.sqrt(self._gap / self._original)) if self._original > 0.0 else float(self._gap > 0.0)

    @property
    def expected(self) -> float | None:
        """The same of our own rounding."""
        if not self.known:
            return None
        return float(np.sqrt(self._ours / self._original)) if self._original > 0.0 else 0.0

    @property
    def slope(self) -> float:
        """Of the stored on the original values, through 0."""
        return self._dot / self._original if self._original > 0.0 else 1.0

    @property
    def offset(self) -> float:
        """Mean of stored minus original."""
        return self._sum / max(self.count, 1)

    @property
    def shifted(self) -> bool:
        """Whether one number was added to all: nothing else is left of the error."""
        left = self._gap - self._sum**2 / max(self.count, 1)
        return self._gap > 0.0 and left < _LEFT * self._gap

    @property
    def constant(self) -> bool:
        """Whether all stored values, or all of each block, are one, and the original ones are not."""
        spread = self._original - self._sum_original**2 / max(self.count, 1)
        return (self.flat or self.least == self.most) and spread > _FLOOR * self._original

    def sound(self, usual: float, *, times: float) -> bool:
        """Whether all is within what the format gives.

        Args:
            usual: Error of the format, where our own rounding is not known.
            times: Error that no sound rounding makes, in that one.
        """
        expected = usual if self.expected is None else self.expected
        near = self.error <= max(times * expected, _PASSED)
        if self.known:
            own = 1.0 + (self._toward / self._original if self._original > 0.0 else 0.0)
            return near and abs(self.slope - own) <= _SLOPE + _SHRINKS * expected**2
        return near and abs(self.slope - 1.0) <= _SLOPE + _SHRINKS * expected**2

    @property
    def flipped(self) -> float:
        """Share of the blocks that no rounding gives, where most are ours to the bit; 0 of another way of rounding."""
        return self.beyond / max(self.blocks, 1) if self.changed < _SAME * self.blocks else 0.0


_LEFT: Final = 0.05
"""Share of the squared error that is left where an offset is all that is wrong."""


def cosine(one: Rows, two: Rows) -> float:
    """Of two tensors of one shape, as vectors."""
    first, second = one.astype(np.float64).ravel(), two.astype(np.float64).ravel()
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size > 0.0 else 0.0


def stepped(stored: Rows, original: Rows, ours: Rows, *, block: int, most: float) -> bool:
    """Whether every block is shifted by about a whole number of its own steps: zero points are off.

    Args:
        stored: Values as the file has them, of whole blocks.
        original: The original's.
        ours: Our own rounding of these.
        block: Values that share a step.
        most: What a sound rounding leaves of the error, in that of ours.
    """
    held, first, rounded = (np.float64(1.0) * one.reshape(-1, block) for one in (stored, original, ours))
    shift = (held - first).mean(1)
    noise = (rounded - first).std(1)  # of a rounding to steps of d it is d / sqrt(12)
    left = (held - first).std(1)
    live = noise > 0.0
    off = live & (left < most * noise) & (np.abs(shift) > 1.5 * noise)
    return bool(np.count_nonzero(off) > _MOSTLY * max(np.count_nonzero(live), 1))


_MOSTLY: Final = 0.9
