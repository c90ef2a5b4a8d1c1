"""Small images with known, independent factors, drawn by code; some pairs of values are held out of training.

Each image is 12 x 12 pixels, and four things are added up in it: a shape in the middle, a spot at a place, stripes and
a slope of brightness, each with a strength of its own, and noise.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor
from wheeltap.models.mlp import mlp
from wheeltap.suites.decodable.nets.factored import Joint, Labels, World

SIDE: Final = 12
"""Pixels of a side."""

FACTORS: Final[Mapping[str, int]] = {"shape": 4, "place": 3, "ground": 3, "slope": 2}
"""Factors, and how many values each has."""

_HEIGHTS: Final = (1.5, 1.5, 0.5, 0.5)  # of shape, spot, stripes and slope
_VARIES: Final = 0.3  # each height by up to this share, from image to image
_NOISE: Final = 0.15  # standard deviation, of each pixel
_RADIUS: Final = 3.0
_SPOTS: Final = ((-4.0, -4.0), (4.0, -4.0), (4.0, 4.0))

_Floats = NDArray[np.float64]


def drawn(labels: Labels, rng: np.random.Generator) -> Tensor:
    """Images ``[example, pixel]`` with these values, ``[example, factor]``; what is no factor is drawn from ``rng``."""
    shape, place, ground, slope = (column[:, None, None] for column in labels.T)
    line, one = np.arange(SIDE) - (SIDE - 1) / 2.0, (len(labels), 1, 1)
    y, x = line[None, :, None], line[None, None, :]
    middle = rng.integers(-1, 2, size=(2, *one))
    across, down = (np.array(side)[place] for side in zip(*_SPOTS, strict=True))
    along = np.choose(ground, [y + 0.0 * x, x + 0.0 * y, (x + y) / np.sqrt(2.0)])
    parts = (
        _inside(shape, np.abs(x - middle[0]), np.abs(y - middle[1])),
        np.exp(-((x - across) ** 2 + (y - down) ** 2) / 3.0),
        np.sin(2.0 * np.pi * (along / 4.0 + rng.random(one))),
        np.where(slope == 0, 1.0, -1.0) * x / SIDE * 2.0,
    )
    image = _NOISE * rng.standard_normal((len(labels), SIDE, SIDE))
    for height, part in zip(_HEIGHTS, parts, strict=True):
        image = image + height * rng.uniform(1.0 - _VARIES, 1.0 + _VARIES, one) * part
    return to_tensor(image.reshape(len(labels), -1).astype(np.float32))


def _inside(shape: Labels, x: _Floats, y: _Floats) -> _Floats:
    """1 in a square, a diamond, a plus or a frame, by the pixels' distances from its middle."""
    far, near = np.maximum(x, y), np.minimum(x, y)
    square = far <= _RADIUS
    kinds = (square, x + y <= 1.2 * _RADIUS, square & (near <= 0.35 * _RADIUS), square & (far > _RADIUS - 1.3))
    return np.select([shape == at for at in range(len(kinds))], kinds).astype(np.float64)


def net(units: int) -> nn.Sequential:
    """A ReLU net of two hidden layers that answers all factors, with ``units`` for each factor in each of them."""
    width = units * len(FACTORS)
    return nn.Sequential(*mlp((SIDE * SIDE, width, width, sum(FACTORS.values()))), Joint(FACTORS))


SHAPES: Final = World(
    name="shapes",
    factors=FACTORS,
    held=(("shape", 0, "place", 0), ("shape", 1, "place", 1), ("place", 2, "ground", 2)),
    examples=600,
    drawn=drawn,
    net=net,
)


def task() -> Task:
    """Images that nets are measured on."""
    return SHAPES.task()
