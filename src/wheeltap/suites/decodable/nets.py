"""Examples with known, independent factors, some pairs of whose values are held out of training, and nets for them.

Small images, and points of a painted picture. A net is asked all factors at once: each combination of values is one
option, whose score is the sum of its values' scores.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor
from wheeltap.models.cppn import ACTIVATIONS
from wheeltap.models.mlp import mlp

TRAINED: Final = 0
"""Group of the examples whose combination of values is one of training."""

SHIFTED: Final = 1
"""Group of those with a held-out pair."""

Labels = NDArray[np.int64]
"""Values of factors, ``[example, factor]``."""

Pair = tuple[str, int, str, int]
"""A factor and one of its values, another factor and one of its."""


@final
@dataclass(frozen=True, kw_only=True)
class World:
    """Where examples come from, and which nets answer them.

    Attributes:
        name: Of its task and its random numbers.
        factors: How many values each has.
        held: Pairs of values that never go together in training; each value alone is in every net's lesson.
        examples: Of each group, that nets are measured on.
        drawn: Inputs ``[example, ...]`` with given values; what is no factor is drawn.
        net: An untrained net of so many units for each factor. In its linear layers after the first, an equal number
            of units in a row belongs to each factor; the last one gives the scores of all factors' values. Initialized
            from torch's global generator, so seed that first.
    """

    name: str
    factors: Mapping[str, int]
    held: tuple[Pair, ...]
    examples: int
    drawn: Callable[[Labels, np.random.Generator], Tensor]
    net: Callable[[int], nn.Module]

    def held_out(self, labels: Labels) -> NDArray[np.bool_]:
        """Which rows of values have a pair that never goes together in training, ``[example]``."""
        names, found = list(self.factors), np.zeros(len(labels), dtype=np.bool_)
        for one, first, two, second in self.held:
            found |= (labels[:, names.index(one)] == first) & (labels[:, names.index(two)] == second)
        return found

    def options(self, labels: Labels) -> Tensor:
        """The option that is right for each row of values, ``[example]``."""
        found = np.zeros(len(labels), dtype=np.int64)
        for column, count in zip(labels.T, self.factors.values(), strict=True):
            found = found * count + column
        return to_tensor(found)

    def lesson(self, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Inputs to train a net with, ``[example, ...]``, and their options; none has a held-out pair."""
        rng, every = seeds.generator(seed, self.name, "lesson"), combinations(self.factors)
        seen = every[~self.held_out(every)]
        labels = seen[rng.integers(len(seen), size=count)]
        return self.drawn(labels, rng), self.options(labels)

    def task(self) -> Task:
        """What nets are measured on: as many examples with combinations of training as with held-out pairs.

        Groups are ``TRAINED`` and ``SHIFTED``; the factors are known.
        """
        rng, every = seeds.generator(0, self.name, "task"), combinations(self.factors)
        apart = self.held_out(every)
        labels = np.concatenate([part[np.arange(self.examples) % len(part)] for part in (every[~apart], every[apart])])
        made = Task(self.drawn(labels, rng), self.options(labels), name=self.name)
        made = made.with_behaviors(np.repeat([TRAINED, SHIFTED], self.examples))
        return made.with_factors({name: labels[:, at] for at, name in enumerate(self.factors)})


def combinations(factors: Mapping[str, int]) -> Labels:
    """Every combination of values, ``[option, factor]``, in the order of a net's options."""
    return np.array(list(product(*(range(count) for count in factors.values()))), dtype=np.int64)


@final
class Joint(nn.Module):
    """From the scores of all factors' values, ``[example, value]``, to those of every combination: their sums."""

    table: Tensor

    def __init__(self, factors: Mapping[str, int]) -> None:
        super().__init__()
        columns = zip(factors.values(), combinations(factors).T, strict=True)
        parts = [torch.eye(count)[to_tensor(column)] for count, column in columns]
        self.register_buffer("table", torch.cat(parts, 1).T.contiguous(), persistent=False)

    def forward(self, scores: Tensor) -> Any:
        """Sums of the scores of the values that each option stands for, ``[example, option]``."""
        return scores @ self.table


# ---- small images ---------------------------------------------------------------------------------------------------

SIDE: Final = 12
"""Pixels of a side."""

_IMAGE: Final[Mapping[str, int]] = {"shape": 4, "place": 3, "ground": 3, "slope": 2}
_HEIGHTS: Final = (1.5, 1.5, 0.5, 0.5)  # of shape, spot, stripes and slope
_VARIES: Final = 0.3  # each height by up to this share, from image to image
_NOISE: Final = 0.15  # standard deviation, of each pixel
_RADIUS: Final = 3.0
_SPOTS: Final = ((-4.0, -4.0), (4.0, -4.0), (4.0, 4.0))


def _images(labels: Labels, rng: np.random.Generator) -> Tensor:
    """Images ``[example, pixel]`` with these values.

    Four things are added up in each: a shape in the middle, a spot at a place, stripes and a slope of brightness, each
    with a strength of its own, and noise.
    """
    shape, place, ground, slope = (column[:, None, None] for column in labels.T)
    line, one = np.arange(SIDE) - (SIDE - 1) / 2.0, (len(labels), 1, 1)
    y, x = line[None, :, None], line[None, None, :]
    middle = rng.integers(-1, 2, size=(2, *one))
    across, down = (np.array(side)[place] for side in zip(*_SPOTS, strict=True))
    along = np.choose(ground, [y + 0.0 * x, x + 0.0 * y, (x + y) / np.sqrt(2.0)])
    # A square, a diamond, a plus or a frame, by the pixels' distances from its middle.
    left, up = np.abs(x - middle[0]), np.abs(y - middle[1])
    far, near = np.maximum(left, up), np.minimum(left, up)
    square = far <= _RADIUS
    kinds = (square, left + up <= 1.2 * _RADIUS, square & (near <= 0.35 * _RADIUS), square & (far > _RADIUS - 1.3))
    parts = (
        np.select([shape == at for at in range(len(kinds))], kinds).astype(np.float64),
        np.exp(-((x - across) ** 2 + (y - down) ** 2) / 3.0),
        np.sin(2.0 * np.pi * (along / 4.0 + rng.random(one))),
        np.where(slope == 0, 1.0, -1.0) * x / SIDE * 2.0,
    )
    image = _NOISE * rng.standard_normal((len(labels), SIDE, SIDE))
    for height, part in zip(_HEIGHTS, parts, strict=True):
        image = image + height * rng.uniform(1.0 - _VARIES, 1.0 + _VARIES, one) * part
    return to_tensor(image.reshape(len(labels), -1).astype(np.float32))


def _relu_net(units: int) -> nn.Module:
    """A ReLU net of two hidden layers."""
    width = units * len(_IMAGE)
    return nn.Sequential(*mlp((SIDE * SIDE, width, width, sum(_IMAGE.values()))), Joint(_IMAGE))


SHAPES: Final = World(
    name="shapes",
    factors=_IMAGE,
    held=(("shape", 0, "place", 0), ("shape", 1, "place", 1), ("place", 2, "ground", 2)),
    examples=600,
    drawn=_images,
    net=_relu_net,
)

shapes: Final = SHAPES.task
"""Images that nets are measured on."""


# ---- points of a painted picture ------------------------------------------------------------------------------------

_POINT: Final[Mapping[str, int]] = {"column": 3, "row": 3, "stripe": 2, "ring": 2}
"""Thirds of the picture, from the left and from below; on a stripe or between two; on a ring or between two."""

_STRIPES: Final = 3.0  # across the picture's diagonal, to each side of its middle
_RINGS: Final = 2.5  # from the picture's middle to its edge


def _points(labels: Labels, rng: np.random.Generator) -> Tensor:
    """Points ``[example, (x, y, distance)]`` with these values; x and y are from -1 to 1."""
    points = np.zeros((len(labels), 2))
    missing = np.arange(len(labels))
    while len(missing):
        third = (labels[missing, :2] + rng.random((len(missing), 2))) / 3.0
        points[missing] = new = 2.0 * third - 1.0
        waves = (_STRIPES * new.sum(1) / 2.0, _RINGS * np.hypot(*new.T))
        found = np.column_stack([np.sin(2.0 * np.pi * wave) > 0.0 for wave in waves])
        missing = missing[(found != labels[missing, 2:]).any(1)]
    return to_tensor(np.column_stack([points, np.hypot(*points.T)]).astype(np.float32))


@final
class Activation(nn.Module):
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


def _painter(units: int) -> nn.Module:
    """A compositional pattern-producing network of two hidden layers, after Picbreeder's: sines, then Gaussians."""
    width = units * len(_POINT)
    first = nn.Linear(3, width)
    nn.init.normal_(first.weight, std=4.0)  # so that its sines go round several times over the picture
    last = nn.Linear(width, sum(_POINT.values()))
    return nn.Sequential(first, Activation("sin"), nn.Linear(width, width), Activation("gaussian"), last, Joint(_POINT))


POINTS: Final = World(
    name="points",
    factors=_POINT,
    held=(("column", 0, "row", 0), ("stripe", 1, "ring", 1)),
    examples=600,
    drawn=_points,
    net=_painter,
)
"""All points of some blocks of the picture are held out, so that a net is asked to paint what it has not seen."""

points: Final = POINTS.task
"""Points that nets are measured on."""
