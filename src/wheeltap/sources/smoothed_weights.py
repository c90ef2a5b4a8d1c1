"""Weights that were smoothed before they were packed, as AWQ and SmoothQuant do.

The columns of a map are multiplied by factors, and what feeds it is divided by them: the gains of a norm, or the rows
of the map before it. That computes the same function, so it is no damage; where nothing undoes a factor, it is.

Sources: Lin et al. 2024, AWQ, eq. 4 (https://arxiv.org/abs/2306.00978); Xiao et al. 2023, SmoothQuant, eq. 3.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from torch import Tensor

from wheeltap.core.typed import to_array, to_tensor
from wheeltap.sources.shipped import Array, Piece

_LOOKED: Final = 64
"""Rows by which it is seen whether a matrix is the original's."""

_OFF: Final = 2.0
"""Error from which it is not, in that of the nearest rounding, and one that passes in any case."""
_PASSED: Final = 2.0**-8

_SPREAD: Final = 0.05
"""Least spread of the logarithms of factors of rows: below it they are what rounding leaves."""

_READERS: Final = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Maps of one module that read the same norm: where one is smoothed by it, all must be."""

_APART, _MEAN = 0.1, 0.03
"""Spread and mean of the logarithms of a factor times what undoes it: factors fitted to 4 bits are off by 1 %."""


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
    """The same pieces; those that were smoothed are expected so, where all of it is undone within their layer.

    Args:
        pieces: Of a packed folder.
        own: Parameters of the original.
    """
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
    fits, vectors = dict[str, _Fit](), dict[str, Array]()
    off = [piece for piece in pieces if _off(piece, to_array(own[piece.parameter]))]
    for piece in off:
        if piece.shape[0] == 1:
            weight, stored = to_array(own[piece.parameter]).reshape(-1), piece.read(0, 1)[0]
            vectors[piece.name] = np.divide(stored, weight, out=np.ones_like(weight), where=weight != 0.0)
    for piece in off:
        if piece.shape[0] > 1 and (fit := _fit(piece, to_array(own[piece.parameter]), vectors)) is not None:
            fits[piece.name] = fit

    def undone(factor: Array, others: Sequence[Array]) -> bool:
        pairs = (np.log(np.maximum(factor * other, 1e-9)) for other in others if other.shape == factor.shape)
        return any(one.std() < _APART and abs(one.mean()) < _MEAN for one in pairs)

    fitted = [fit.columns for fit in fits.values() if not fit.vector and (fit.columns != 1.0).any()]
    rows = [fit.rows for fit in fits.values() if (fit.rows != 1.0).any()]
    right = {
        name: fit
        for name, fit in fits.items()
        if (fit.vector or (fit.columns == 1.0).all() or undone(fit.columns, rows))
        and ((fit.rows == 1.0).all() or undone(fit.rows, fitted))
    }
    right = {name: fit for name, fit in right.items() if not fit.vector or _by_all(name, fit, pieces, own)}
    used = {fit.vector for fit in right.values()}
    biases = {name: factor for name, factor in vectors.items() if any(undone(1.0 / factor, [one]) for one in rows)}
    return right | {
        name: _Fit(columns=factor, rows=np.ones(1, np.float32))
        for name, factor in vectors.items()
        if name in used or name in biases
    }


def _by_all(name: str, fit: _Fit, pieces: Sequence[Piece], own: Mapping[str, Tensor]) -> bool:
    """Whether all maps that read the norm of one were smoothed by it; one that was not reads wrong inputs."""
    parent, _, last = name.removesuffix(".weight").rpartition(".")
    readers = {f"{parent}.{one}.weight" for group in _READERS if last in group for one in group}
    alike = _Fit(columns=fit.columns, rows=np.ones(1, np.float32), vector=fit.vector)
    weights = [(piece, to_array(own[piece.parameter])) for piece in pieces if piece.name in readers - {name}]
    return all(_off(piece, weight) or not _off(_expected(piece, alike), weight) for piece, weight in weights)


def _off(piece: Piece, weight: Array) -> bool:
    """Whether the first rows are further from the original than rounding takes them."""
    if piece.ours is None or weight.size != piece.shape[0] * piece.shape[1]:
        return False
    stop = min(piece.shape[0], _LOOKED)
    original = piece.beside(to_tensor(weight))[:stop]
    if original.shape[1] != piece.shape[1]:
        return False
    gap, own = (np.linalg.norm(one - original) for one in (piece.read(0, stop), piece.ours(original, 0)))
    return bool(gap > max(max(piece.most, _OFF) * own, _PASSED * np.linalg.norm(original)))


def _fit(piece: Piece, weight: Array, vectors: Mapping[str, Array]) -> _Fit | None:
    """The factors that bring the original nearest to what is stored; none where no factors do."""
    stored = to_array(
        piece.placed(to_tensor(piece.read(0, piece.shape[0])).reshape(piece.laid(to_tensor(weight)).shape))
    )

    def along(axis: int, base: Array) -> Array:
        size = np.square(base).sum(axis)
        return np.divide((stored * base).sum(axis), size, out=np.ones_like(size), where=size > 0.0)

    ones = np.ones_like(weight[0])
    tried = [
        (name, np.reciprocal(one)) for name, one in vectors.items() if (one > 0.0).all() and one.shape == ones.shape
    ]
    for vector, columns in (*tried, ("", ones), ("", along(0, weight))):  # what is fitted to all fits best: last
        rows = along(1, weight * columns)
        if min(rows.min(), columns.min()) > 0.0:
            rows = np.ones_like(rows) if np.log(rows).std() < _SPREAD else rows
            fit = _Fit(columns=columns, rows=rows, vector=vector)
            if not _off(_expected(piece, fit), weight):
                return fit
    return None


def _expected(piece: Piece, fit: _Fit) -> Piece:
    """A piece of which the original is smoothed first."""
    columns, rows = to_tensor(fit.columns), to_tensor(fit.rows)

    def laid(weight: Tensor) -> Tensor:
        return piece.laid(weight * columns * rows[:, None] if weight.ndim > 1 else weight * columns)

    return replace(piece, laid=laid, format=f"{piece.format} smoothed", most=max(piece.most, _OFF))
