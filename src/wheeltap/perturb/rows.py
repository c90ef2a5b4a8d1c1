"""Weights seen as rows that hardware stores and scales together."""

from jaxtyping import Shaped
from torch import Tensor
from torch.nn import functional

from wheeltap.core.layer import Layer


def to_rows(layer: Layer, weight: Tensor) -> Shaped[Tensor, "row in"]:
    """The weight as one row per output unit, or per token for an embedding; a view where the layout allows."""
    return weight.reshape(weight.shape[0], -1) if layer.kind == "embedding" else layer.matrix(weight)


def from_rows(layer: Layer, rows: Shaped[Tensor, "row in"]) -> Tensor:
    """The inverse of ``to_rows``: back to the layout that the module stores."""
    return rows if layer.kind == "embedding" else layer.stored(rows)


def grouped(rows: Shaped[Tensor, "row in"], size: int) -> Shaped[Tensor, "group size"]:
    """Every ``size`` consecutive numbers of a row as a row of their own; the last of each is filled up with zeros."""
    short = -rows.shape[1] % size
    return (functional.pad(rows, (0, short)) if short else rows).reshape(-1, size)


def ungrouped(groups: Shaped[Tensor, "group size"], *, like: Shaped[Tensor, "row in"]) -> Shaped[Tensor, "row in"]:
    """The inverse of ``grouped``, in the shape of ``like``."""
    return groups.reshape(len(like), -1)[:, : like.shape[1]]


def at_least_single(rows: Tensor) -> Tensor:
    """``rows`` in single precision where they are in half: there the step of a row of small weights would be zero."""
    return rows.float() if rows.dtype.itemsize < 4 else rows
