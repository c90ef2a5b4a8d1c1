"""Points of a painted picture with known, independent factors, and nets that paint it, after Picbreeder's.

A compositional pattern-producing network reads where a point is and says what is there; its units compute sines,
Gaussians and sigmoids of their sums. Four things are known of each point: the column and the row it is in, whether it
is on a stripe, and whether it is on a ring. All points of some blocks of the picture are held out of training, so that
a net is asked to paint what it has not seen.
"""

from collections.abc import Mapping
from typing import Final, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor
from wheeltap.models.cppn import ACTIVATIONS
from wheeltap.suites.decodable.nets.factored import Joint, Labels, World

FACTORS: Final[Mapping[str, int]] = {"column": 3, "row": 3, "stripe": 2, "ring": 2}
"""Thirds of the picture, from the left and from below; on a stripe or between two; on a ring or between two."""

_STRIPES: Final = 3.0  # across the picture's diagonal, to each side of its middle
_RINGS: Final = 2.5  # from the picture's middle to its edge


def drawn(labels: Labels, rng: np.random.Generator) -> Tensor:
    """Points ``[example, (x, y, distance)]`` with these values; x and y are from -1 to 1."""
    points = np.zeros((len(labels), 2))
    missing = np.arange(len(labels))
    while len(missing):
        third = (labels[missing, :2] + rng.random((len(missing), 2))) / 3.0
        points[missing] = 2.0 * third - 1.0
        missing = missing[(_found(points[missing]) != labels[missing, 2:]).any(1)]
    return to_tensor(np.column_stack([points, np.hypot(*points.T)]).astype(np.float32))


def _found(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each point is on a stripe, and on a ring, ``[example, 2]``."""
    waves = (_STRIPES * points.sum(1) / 2.0, _RINGS * np.hypot(*points.T))
    return np.column_stack([np.sin(2.0 * np.pi * wave) > 0.0 for wave in waves])


@final
class Painted(nn.Module):
    """Each value by one of a picture's functions.

    Args:
        name: Of the function, among those of Picbreeder.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, sums: Tensor) -> Tensor:
        """``[example, unit]``."""
        return ACTIVATIONS[self.name](sums)


def net(units: int) -> nn.Sequential:
    """A net of two hidden layers that answers all factors, with ``units`` for each factor in each of them."""
    width = units * len(FACTORS)
    first = nn.Linear(3, width)
    nn.init.normal_(first.weight, std=4.0)  # so that its sines go round several times over the picture
    last = nn.Linear(width, sum(FACTORS.values()))
    return nn.Sequential(first, Painted("sin"), nn.Linear(width, width), Painted("gaussian"), last, Joint(FACTORS))


POINTS: Final = World(
    name="points",
    factors=FACTORS,
    held=(("column", 0, "row", 0), ("stripe", 1, "ring", 1)),
    examples=600,
    drawn=drawn,
    net=net,
)


def task() -> Task:
    """Points that nets are measured on."""
    return POINTS.task()
