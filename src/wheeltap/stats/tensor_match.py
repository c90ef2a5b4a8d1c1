"""Error of a stored tensor relative to the original, beside the error that its format makes."""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating[Any]]
"""``[row, column]``."""

TIMES: Final = 2.0
"""Error allowed, in that of our own rounding: other ways of rounding to nearest, such as imatrix, make up to 1.5."""

_PASSED: Final = 2.0**-9
"""Error allowed in any format: that of numbers kept in bfloat16 on their way."""

_ROW_TIMES: Final = 1.5
"""Error of a single row allowed, in that allowed of a tensor: rows of a few values vary."""

_ROW_ERRORS: Final = 4.0
"""Standard errors of the largest allowed error by which the slope of a row may be apart from that of the others."""

_LOST, _CLEAR, _APART = 0.5, 0.125, 4.0
"""Without a rounding of our own, a row is lost from the first error on, where the median row has at most the second,
and the row's absolute error is this many times the median one. Another row's values have an error of about 1.4."""

_SLOPE, _SHRINKS = 0.01, 1.5
"""How far the slope of stored on original values may be from that of our own rounding (or from 1), and times the
squared error: rounding to cell centers lowers it by as much."""

_GRID_SLOPE, _GRID_SHRINKS, _ERRORS = 2.0**-9, 0.3, 4.0
"""The same for our own rounding to the file's own grid (16-bit scales; AutoGPTQ shrinks by .17 times the squared error
at most), and in standard errors of the largest allowed error."""


@dataclass
class TensorError:
    """Squared errors of a stored tensor, gathered block by block of rows.

    Attributes:
        rows: Sums of squares ``[5, row]``: of the original, of stored minus original, of our own rounding minus
            original; and products with the original of the second and third.
        columns: Of a row.
        is_finite: Whether all stored values are finite.
        has_rounding: Whether the format's own rounding of the original is known.
    """

    rows: list[Rows] = field(default_factory=list[Rows])
    columns: int = 1
    is_finite: bool = True
    has_rounding: bool = True

    def add(self, stored: Rows, original: Rows, ours: Rows | None) -> None:
        """Add some rows: as stored, as in the original, and as our own rounding (None if unknown) leaves that."""
        self.columns, self.has_rounding = stored.shape[1], ours is not None
        if not np.isfinite(stored).all():
            self.is_finite = False
            return
        base = original.astype(np.float64)
        error = stored - base
        own = error if ours is None else ours - base
        products = ((base, base), (error, error), (own, own), (error, base), (own, base))
        self.rows.append(np.stack([np.einsum("rc,rc->r", *pair) for pair in products]))

    def _relative(self, sums: int) -> float:
        totals = np.concatenate(self.rows, 1).sum(1)
        return float(totals[sums] / totals[0]) if totals[0] > 0.0 else float(totals[sums] > 0.0)

    @property
    def error(self) -> float:
        """||stored - original|| / ||original||."""
        return self._relative(1) ** 0.5

    @property
    def expected(self) -> float | None:
        """The same of our own rounding; None where the format has none."""
        return self._relative(2) ** 0.5 if self.has_rounding else None

    def is_allowed(self, usual: float, *, times: float, is_grid: bool) -> bool:
        """Return whether the format makes such an error: in the tensor, in each row, and along the original.

        Args:
            usual: Relative error of the format, where our own rounding is not known.
            times: Error allowed, in that of our own rounding.
            is_grid: Whether our own rounding is to the scales and zero points of the file.
        """
        expected = usual if self.expected is None else self.expected
        if self.error > max(times * expected, _PASSED) or self._has_lost_rows(times):
            return False
        own_slope = self._relative(4) if self.has_rounding else 0.0
        tolerance = _SLOPE + _SHRINKS * expected**2
        if is_grid:
            values = self.columns * sum(part.shape[1] for part in self.rows)
            tolerance = _GRID_SLOPE + _GRID_SHRINKS * expected**2 + _ERRORS * times * expected / max(values, 1) ** 0.5
        return abs(self._relative(3) - own_slope) <= tolerance

    def _has_lost_rows(self, times: float) -> bool:
        size, error, own, along, own_along = np.concatenate(self.rows, 1)
        if self.has_rounding:
            slopes = (along - own_along) / np.maximum(size, np.finfo(np.float32).tiny)
            # Beside the slope of the other rows: what moves weights on purpose, as GPTQ does, moves all of them.
            spread = np.sqrt(own / np.maximum(size, np.finfo(np.float32).tiny) / self.columns)
            off = np.abs(slopes - np.median(slopes)) > _SLOPE + _ROW_ERRORS * times * spread
            return bool(((error > (_ROW_TIMES * times) ** 2 * own + _PASSED**2 * size) | off).any())
        middle = (len(size) - 1) // 2
        usual = np.sort(error / np.maximum(size, np.finfo(np.float32).tiny))[middle]
        lost = (error > _LOST**2 * size) & (error > _APART**2 * np.sort(error)[middle])
        return bool(usual <= _CLEAR**2 and lost.any())


def cosine(one: Rows, two: Rows) -> float:
    """Return the cosine of two tensors of one shape, as vectors."""
    first, second = one.astype(np.float64).ravel(), two.astype(np.float64).ravel()
    size = np.sqrt((first @ first) * (second @ second))
    return float(first @ second / size) if size > 0.0 else 0.0
