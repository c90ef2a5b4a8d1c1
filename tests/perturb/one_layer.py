"""One layer of any layout, and its weight after a perturbation."""

from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.layer import Layer, LayerKind
from wheeltap.core.records import Scalar
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Known, Weights

SHAPES: dict[LayerKind, tuple[int, ...]] = {
    "linear": (5, 12),
    "transposed": (12, 5),
    "conv": (5, 3, 2, 2),
    "embedding": (9, 6),
    "attention": (12, 4),
}


def layer(kind: LayerKind, shape: tuple[int, ...]) -> Layer:
    return Layer(name="x", kind=kind, weight="x.weight", bias="x.bias", shape=shape)


def disturbed(
    name: str,
    weight: Tensor,
    dose: float,
    *,
    kind: LayerKind = "linear",
    known: Known | None = None,
    seed: int = 0,
    **settings: Scalar,
) -> Tensor:
    made = create(name, settings)
    made.require_dose(dose)
    return made.replace(layer(kind, tuple(weight.shape)), Weights(weight), dose, Draw(0, seed, known)).weight


def rows_of(kind: LayerKind, array: NDArray[Any]) -> NDArray[Any]:
    """A view with one row for each output unit, or for each token."""
    return array.T if kind == "transposed" else array.reshape(len(array), -1)
