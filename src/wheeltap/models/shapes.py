"""Small images with known, independent factors, drawn by code; some pairs of values are held out of training.

Each image is 12 x 12 pixels, and four things are added up in it: a shape in the middle, a spot at a place, stripes and
a slope of brightness, each with a strength of its own, and noise. A net is asked all four at once: each combination of
values is one option, whose score is the sum of its values' scores.
"""

from collections.abc import Mapping
from itertools import product
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor
from wheeltap.models.mlp import mlp

SIDE: Final = 12
"""Pixels of a side."""

FACTORS: Final[Mapping[str, int]] = {"shape": 4, "place": 3, "ground": 3, "slope": 2}
"""Factors, and how many values each has."""

HELD: Final = (("shape", 0, "place", 0), ("shape", 1, "place", 1), ("place", 2, "ground", 2))
"""Pairs of values that never go together in training; each value alone is in every net's lesson."""

TRAINED: Final = 0
"""Group of the examples whose combination of values is one of training."""

SHIFTED: Final = 1
"""Group of those with a held-out pair."""

EXAMPLES: Final = 600
"""Of each group, that nets are measured on."""

_HEIGHTS: Final = (1.5, 1.5, 0.5, 0.5)  # of shape, spot, stripes and slope
_VARIES: Final = 0.3  # each height by up to this share, from image to image
_NOISE: Final = 0.15  # standard deviation, of each pixel
_RADIUS: Final = 3.0
_SPOTS: Final = ((-4.0, -4.0), (4.0, -4.0), (4.0, 4.0))

_Labels = NDArray[np.int64]
_Floats = NDArray[np.float64]


def combinations() -> _Labels:
    """Every combination of values, ``[option, factor]``, in the order of a net's options."""
    return np.array(list(product(*(range(count) for count in FACTORS.values()))), dtype=np.int64)


def held_out(labels: _Labels) -> NDArray[np.bool_]:
    """Which rows of values, ``[example, factor]``, have a pair that never goes together in training."""
    names, found = list(FACTORS), np.zeros(len(labels), dtype=np.bool_)
    for one, first, two, second in HELD:
        found |= (labels[:, names.index(one)] == first) & (labels[:, names.index(two)] == second)
    return found


def drawn(labels: _Labels, rng: np.random.Generator) -> Tensor:
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


def _inside(shape: _Labels, x: _Floats, y: _Floats) -> _Floats:
    """1 in a square, a diamond, a plus or a frame, by the pixels' distances from its middle."""
    far, near = np.maximum(x, y), np.minimum(x, y)
    square = far <= _RADIUS
    kinds = (square, x + y <= 1.2 * _RADIUS, square & (near <= 0.35 * _RADIUS), square & (far > _RADIUS - 1.3))
    return np.select([shape == at for at in range(len(kinds))], kinds).astype(np.float64)


def options(labels: _Labels) -> Tensor:
    """The option that is right for each row of values, ``[example]``."""
    found = np.zeros(len(labels), dtype=np.int64)
    for column, count in zip(labels.T, FACTORS.values(), strict=True):
        found = found * count + column
    return to_tensor(found)


def lesson(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Images to train a net with, ``[example, pixel]``, and their options; none has a held-out pair."""
    rng, every = seeds.generator(seed, "shapes", "lesson"), combinations()
    seen = every[~held_out(every)]
    labels = seen[rng.integers(len(seen), size=count)]
    return drawn(labels, rng), options(labels)


def task() -> Task:
    """What nets are measured on: as many images with combinations of training as with held-out pairs.

    Groups are ``TRAINED`` and ``SHIFTED``; the factors are known.
    """
    rng, every = seeds.generator(0, "shapes", "task"), combinations()
    apart = held_out(every)
    labels = np.concatenate([part[np.arange(EXAMPLES) % len(part)] for part in (every[~apart], every[apart])])
    made = Task(drawn(labels, rng), options(labels), name="shapes")
    made = made.with_groups(np.repeat([TRAINED, SHIFTED], EXAMPLES))
    return made.with_factors({name: labels[:, at] for at, name in enumerate(FACTORS)})


@final
class Joint(nn.Module):
    """From the scores of all factors' values, ``[example, value]``, to those of every combination: their sums."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        columns = zip(FACTORS.values(), combinations().T, strict=True)
        parts = [torch.eye(count)[to_tensor(column)] for count, column in columns]
        self.register_buffer("table", torch.cat(parts, 1).T.contiguous(), persistent=False)

    def forward(self, scores: Tensor) -> Any:
        """Sums of the scores of the values that each option stands for, ``[example, option]``."""
        return scores @ self.table


def net(units: int) -> nn.Sequential:
    """A ReLU net of two hidden layers that answers all factors, with ``units`` for each factor in each of them.

    Initialised from torch's global generator, so seed that first.
    """
    width = units * len(FACTORS)
    return nn.Sequential(*mlp((SIDE * SIDE, width, width, sum(FACTORS.values()))), Joint())
