"""Weights that were smoothed before they were packed, as AWQ and SmoothQuant do.

The columns of a map are multiplied by factors, and what feeds it is divided by them: the gains of a norm, or the rows
of the map before it. That computes the same function, so it is no damage; where nothing undoes a factor, it is.

Sources: Lin et al. 2024, AWQ, eq. 4 (https://arxiv.org/abs/2306.00978); Xiao et al. 2023, SmoothQuant, eq. 3.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from torch import Tensor

from wheeltap.core.typed import to_array, to_tensor
from wheeltap.plans.shipped import TensorRow
from wheeltap.sources.shipped import Array, Piece, row_of

_LOOKED: Final = 256
"""Rows by which it is seen whether a matrix is the original's."""

_READERS: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Maps of one module that read the same norm: where one is smoothed by it, all must be."""

_APART, _MEAN = 0.05, 0.006
"""Spread and mean of the logarithms of a factor times what undoes it: fitted to 4 bits, each is off by 1 %."""

_BETTER, _ROUNDED = 0.97, 1.02
"""Error that more factors must leave at most, in that of fewer; and that from which no more are tried, in that of our
own rounding."""

_ROUNDS: Final = 4
"""Times that factors are fitted: the grid of AWQ cuts large values, so that the first ones are too small."""


@dataclass(frozen=True, kw_only=True)
class _Fit:
    """Factors by which a stored matrix is the original's, in the layout of the original.

    Attributes:
        columns: Of its columns; fitted, where no vector is named.
        rows: Of its rows.
        vector: What undoes the factors of its columns: the name of a vector that was divided by them.
    """

    columns: Array
    rows: Array
    vector: str = ""


def smoothed(pieces: Sequence[Piece], own: Mapping[str, Tensor]) -> list[Piece]:
    """The pieces of a packed folder; those that were smoothed are expected so, where their layer undoes all of it."""
    layers = dict[str, list[Piece]]()
    for piece in pieces:
        found = re.match(r".*?\.\d+\.", piece.parameter)
        layers.setdefault(found[0] if found else "", []).append(piece)
    factors = dict[str, _Fit]()
    for layer in layers.values():
        factors |= _of_layer(layer, own)
    return [_expected(piece, factors[piece.name]) if piece.name in factors else piece for piece in pieces]


def _of_layer(pieces: Sequence[Piece], own: Mapping[str, Tensor]) -> dict[str, _Fit]:
    """What is undone in one layer, by the names of its pieces."""
    weights = {piece.name: to_array(own[piece.parameter]) for piece in pieces}
    off = [piece for piece in pieces if _left(piece, weights[piece.name]) is None]
    vectors = dict[str, Array]()
    for piece in off:
        if piece.shape[0] == 1:
            weight, stored = weights[piece.name].reshape(-1), piece.read(0, 1)[0]
            vectors[piece.name] = np.divide(stored, weight, out=np.ones_like(weight), where=weight != 0.0)
    matrices = [piece for piece in pieces if off and piece.shape[0] > 1]
    found = ((piece.name, _fit(piece, weights[piece.name], vectors)) for piece in matrices)
    fits = {name: fit for name, fit in found if fit is not None}

    def undone(factor: Array, others: Sequence[Array]) -> bool:
        pairs = (np.log(np.maximum(factor * other, 1e-9)) for other in others if other.shape == factor.shape)
        return any(one.std() < _APART and abs(one.mean()) < _MEAN for one in pairs)

    def by_all(name: str, vector: str) -> bool:
        """Whether all maps that read the norm of one were smoothed by it; one that was not reads wrong inputs."""
        parent, _, last = name.removesuffix(".weight").rpartition(".")
        readers = {f"{parent}.{one}.weight" for group in _READERS if last in group for one in group}
        return all(fits[one].vector == vector for one in readers & fits.keys())

    fitted = [fit.columns for fit in fits.values() if not fit.vector and (fit.columns != 1.0).any()]
    rows = [fit.rows for fit in fits.values() if (fit.rows != 1.0).any()]
    right = {
        name: fit
        for name, fit in fits.items()
        if (fit.rows != 1.0).any() or (fit.columns != 1.0).any()
        if (by_all(name, fit.vector) if fit.vector else (fit.columns == 1.0).all() or undone(fit.columns, rows))
        if (fit.rows == 1.0).all() or undone(fit.rows, fitted)
    }
    used = {fit.vector for fit in right.values()}
    return right | {
        name: _Fit(columns=factor, rows=np.ones(1, np.float32))
        for name, factor in vectors.items()
        if name in used or any(undone(1.0 / factor, [one]) for one in rows)  # biases are divided as rows are
    }


def _left(piece: Piece, weight: Array) -> TensorRow | None:
    """The first rows of a piece beside the original; none where they are not what its format makes of that."""
    if piece.ours is None or weight.size != piece.shape[0] * piece.shape[1]:
        return TensorRow(name=piece.name, format=piece.format)
    rows = min(piece.shape[0], _LOOKED)

    def laid(held: Tensor) -> Tensor:
        return piece.laid(held)[:rows]

    few = replace(piece, shape=(rows, piece.shape[1]), laid=laid) if piece.shape[0] > 1 else piece
    row = row_of(few, few.beside(to_tensor(weight)))
    return row if row.fault in ("sound", "shape") else None


def _fit(piece: Piece, weight: Array, vectors: Mapping[str, Array]) -> _Fit | None:
    """The factors that bring the original nearest to what is stored; none where no factors do."""

    def placed(values: Array) -> Array:
        return to_array(piece.placed(to_tensor(values).reshape(piece.laid(to_tensor(weight)).shape)))

    def fitted(axis: int, fit: _Fit) -> _Fit:
        """With factors along one axis: by least squares, then so that our own rounding, which cuts, gives them back."""
        for at in range(_ROUNDS):
            base = weight * fit.columns * fit.rows[:, None]
            laid = _expected(piece, fit).beside(to_tensor(weight))
            made = placed(piece.ours(laid, 0)) if at and piece.ours is not None else base
            held, own = ((one * base).sum(axis) for one in (stored, made))
            factor = np.divide(held, own, out=np.ones_like(own), where=own > 0.0)
            fit = replace(fit, columns=fit.columns * factor) if axis == 0 else replace(fit, rows=fit.rows * factor)
        return fit

    stored = placed(piece.read(0, piece.shape[0]))
    plain = _Fit(columns=np.ones_like(weight[0]), rows=np.ones_like(weight[:, 0]))
    first = [
        replace(plain, columns=np.reciprocal(one), vector=name)
        for name, one in vectors.items()
        if (one > 0.0).all() and one.shape == plain.columns.shape
    ]

    def candidates() -> Iterator[_Fit]:
        simple = (plain, *first)
        yield from simple
        yield from (fitted(1, one) for one in simple)
        columns = fitted(0, plain)
        yield from (columns, fitted(1, columns))

    best, least = None, np.inf
    for fit in candidates():
        fits = min(fit.rows.min(), fit.columns.min()) > 0.0
        row = _left(_expected(piece, fit), weight) if fits else None
        if row is not None and row.error < _BETTER * least:
            best, least = fit, row.error
        if row is not None and row.error <= _ROUNDED * row.expected:
            break
    return best


def _expected(piece: Piece, fit: _Fit) -> Piece:
    """A piece of which the original is smoothed first."""
    columns, rows = to_tensor(fit.columns), to_tensor(fit.rows)

    def laid(weight: Tensor) -> Tensor:
        return piece.laid(weight * columns * rows[:, None] if weight.ndim > 1 else weight * columns)

    return replace(piece, laid=laid, format=f"{piece.format} smoothed")
