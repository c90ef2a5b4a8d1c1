"""Exactly the smallest ``count``, also where many are equally small.

A net with few distinct sizes has many weights of equal size, and only some of them are to go. A rule by place would
take whole units first, and other units of a copy whose units are permuted. Here weights of equal size go in the order
of their *marks*: numbers made from the sign and mantissa of a weight and of all weights in its row and column, in one
round or two. Sums of integers do not depend on their order, so a mark moves along with its weight when rows and columns
change places, and is the same on every device. Exponents are left out: units rescaled by powers of two, as in 16-bit
types, keep their marks. Where marks are equal as well (repeated rows or columns) the place decides.

Source: Weisfeiler & Leman (1968), "The reduction of a graph to canonical form" (refinement of colors); Steele, Lea &
Flood (2014), "Fast splittable pseudorandom number generators", section 4 (multiply and shift).
"""

import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import final

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

MarksAt = Callable[[Tensor], Tensor]
"""Gives the marks of the places that a mask names, in the order of places."""

_CODES = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_FIRST, _SECOND, _OF_COLUMNS = -7046029254386353131, -4658895280553007687, 7809847782465536323
_ROUNDS = 2
_ALREADY_ZERO = -(2**63)
_CHUNK = 1 << 15
"""Weights looked at together: what they need on the way stays in the processor's cache."""
_MANY = 1 << 20
"""Marks made together."""
_SAMPLE = 1 << 14
"""Numbers from which the place of a threshold is guessed where there are many more."""


@final
class Marks:
    """Marks of the weights of a matrix, of its rows and of its columns.

    Args:
        matrix: ``[row, column]``, of a floating point type.
        chunk: Numbers that are summed at a time; the marks do not depend on it.
        at_once: Marks that are made at a time; the same.
    """

    def __init__(self, matrix: Shaped[Tensor, "row column"], *, chunk: int = _CHUNK, at_once: int = _MANY) -> None:
        self._matrix, self._chunk, self._at_once = matrix, chunk, at_once

    def at(self, where: Bool[Tensor, "..."]) -> Int[Tensor, " marked"]:
        """Marks of single weights; those that are zero already come first."""
        found: list[Tensor] = []
        for places in torch.split(where.reshape(-1).nonzero()[:, 0], self._at_once):
            row = torch.div(places, self._matrix.shape[1], rounding_mode="floor")
            found.append(self.of(row, places - row * self._matrix.shape[1]))
        return torch.cat(found)  # split gives one part even of none

    def of(self, row: Int[Tensor, " marked"], column: Int[Tensor, " marked"]) -> Int[Tensor, " marked"]:
        """The same by rows and columns."""
        values = self._matrix[row, column]
        if not bool(values.any()):
            return torch.full_like(row, _ALREADY_ZERO)
        rows, columns = self._sums
        return _colored(values, rows[row] + columns[column]).masked_fill_(values == 0, _ALREADY_ZERO)

    def zero(self, rows: Int[Tensor, " row"]) -> Bool[Tensor, "row column"]:
        """Which weights of some rows are zero already."""
        return self._matrix[rows] == 0

    def rows(self, where: Bool[Tensor, " row"]) -> Int[Tensor, " marked"]:
        """Marks of whole rows."""
        return self._sums[0][where]

    def columns(self, width: int = 1) -> MarksAt:
        """Gives marks of every ``width`` columns together; those that are all zero already come first."""

        def marked(where: Tensor) -> Tensor:
            zero = ~self._matrix.any(0).reshape(-1, width).any(1)
            return self._sums[1].reshape(-1, width).sum(1).masked_fill_(zero, _ALREADY_ZERO)[where]

        return marked

    @cached_property
    def _sums(self) -> tuple[Tensor, Tensor]:
        matrix = self._matrix
        rows, columns = (torch.zeros(size, dtype=torch.int64, device=matrix.device) for size in matrix.shape)
        for _ in range(_ROUNDS):
            new_rows, new_columns = torch.zeros_like(rows), torch.zeros_like(columns)
            for part in self._parts():
                colors = _colored(matrix[part], rows[part[0], None] + columns[part[1]])
                new_rows[part[0]] += colors.sum(1)
                new_columns[part[1]] += colors.sum(0)
            rows, columns = _mixed(new_rows), _mixed(new_columns + _OF_COLUMNS)
            if all(bool(colors.sort().values.diff().all()) for colors in (rows, columns)):
                break  # each row and column differs from all others
        return rows, columns

    def _parts(self) -> Iterator[tuple[slice, slice]]:
        """Small parts of the matrix, in the order of places."""
        rows, columns = self._matrix.shape
        wide = min(columns, self._chunk)
        high = max(1, self._chunk // wide)
        for top in range(0, rows, high):
            for left in range(0, columns, wide):
                yield slice(top, top + high), slice(left, left + wide)


def _colored(values: Tensor, colors: Tensor) -> Tensor:
    """Sign and mantissa of each weight, mixed with the sum of the colors of its row and column."""
    mantissa = -round(math.log2(torch.finfo(values.dtype).eps))
    exponent = 8 * values.dtype.itemsize - 1 - mantissa
    bits = values.view(_CODES[values.dtype.itemsize]).long() & ~(((1 << exponent) - 1) << mantissa)
    # Zero and powers of two have the same mantissa.
    return _mixed(bits.add_(values != 0).add_(colors))


def _mixed(numbers: Tensor) -> Tensor:
    """Each integer mapped to another one that looks random; modulo 2^64, and no two to the same."""
    mixed = numbers * _FIRST
    mixed ^= mixed >> 32
    mixed *= _SECOND
    return mixed.bitwise_xor_(mixed >> 29)


def by_place(where: Bool[Tensor, "..."]) -> Int[Tensor, " marked"]:
    """Equal marks for all, so that places alone decide."""
    return torch.zeros(int(where.count_nonzero()), dtype=torch.int64, device=where.device)


def least(scores: Shaped[Tensor, "*size"], count: int, marked: MarksAt) -> Bool[Tensor, "*size"]:
    """Which ``count`` scores are smallest: exactly so many; of equal ones those with the smallest marks."""
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    limit = _kth(scores.reshape(-1), count)
    gone = scores <= limit
    if int(gone.count_nonzero()) > count:
        tied = scores == limit
        gone &= ~tied
        gone.masked_scatter_(tied, _first(marked(tied), count - int(gone.count_nonzero())))
    return gone


def least_by_row(scores: Shaped[Tensor, "row column"], count: int, marks: Marks) -> Bool[Tensor, "row column"]:
    """Which ``count`` scores, one for each weight, are the smallest of their rows, with equally many in each row.

    Where ``count`` is no multiple of the number of rows, those rows lose one more whose next score is smallest, as a
    share of the row's largest. Of equal scores those of weights that are zero already come first, and all of them.
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    each, more = divmod(count, len(scores))
    limits = scores.kthvalue(each + (more > 0), dim=1, keepdim=True).values
    relative = limits[:, 0] / scores.amax(1).clamp_min(torch.finfo(scores.dtype).tiny)
    gone = scores <= limits
    extra = gone.sum(1) - each - least(relative, more, marks.rows).long()
    cut = extra.nonzero()[:, 0]
    if len(cut):
        held, limits = scores[cut], limits[cut]
        tied = held == limits
        zero = tied & marks.zero(cut)
        short = tied.sum(1) - extra[cut] - zero.sum(1)
        tied &= ~zero & (short > 0)[:, None]
        fewer = (held < limits) | zero
        row, column = tied.nonzero().unbind(1)
        gone[cut] = fewer.masked_scatter_(tied, _first_by_row(marks.of(cut[row], column), row, short))
    return gone


def _first(marks: Int[Tensor, " marked"], count: int) -> Bool[Tensor, " marked"]:
    """Which ``count`` marks are smallest; of equal ones as a shuffle of their places says, that spreads them."""
    limit = _kth(marks, count)
    chosen = marks < limit
    equal = (marks == limit).nonzero()[:, 0]
    shuffled = _mixed(equal + 1)
    chosen[equal[shuffled <= _kth(shuffled, count - int(chosen.count_nonzero()))]] = True
    return chosen


def _first_by_row(
    marks: Int[Tensor, " marked"], rows: Int[Tensor, " marked"], counts: Int[Tensor, " row"]
) -> Bool[Tensor, " marked"]:
    """Which marks are among the smallest of their row; of equal ones the first. ``rows`` do not fall."""
    order = marks.argsort(stable=True)
    order = order[rows[order].argsort(stable=True)]
    starts = torch.searchsorted(rows, rows)
    rank = torch.arange(len(rows), device=rows.device) - starts
    chosen = torch.zeros_like(rows, dtype=torch.bool)
    chosen[order] = rank < counts[rows]
    return chosen


def _kth(values: Shaped[Tensor, " value"], count: int) -> Shaped[Tensor, ""]:
    """The ``count``-th smallest, counted from 1; of many it is looked for between two numbers of a sample."""
    if len(values) > 8 * _SAMPLE:
        sample = values[:: len(values) // _SAMPLE]
        at, slack = count * len(sample) // len(values), 4 * math.isqrt(len(sample))
        low = sample.kthvalue(max(1, at - slack)).values
        high = sample.kthvalue(min(len(sample), at + slack)).values
        near = values[(values >= low) & (values <= high)]
        rank = count - int((values < low).count_nonzero())
        if 0 < rank <= len(near):
            return near.kthvalue(rank).values
    return values.kthvalue(count).values
