"""Pictures for the page: what nets draw, the maps of their units, and strips of one weight moving."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core.typed import to_array
from wheeltap.models.cppn import Cppn, grid
from wheeltap.report import png

Picture = NDArray[np.float32]

PICTURE: Final = 192
"""Pixels of a picture's side on the page."""

MAP: Final = 32
"""Pixels of a feature map's side."""

STRIP: Final = 96
"""Pixels of the side of each picture in a strip."""

_STOPS: Final = np.array(
    [[0.65, 0.06, 0.12], [0.92, 0.52, 0.40], [1.0, 1.0, 1.0], [0.42, 0.60, 0.85], [0.11, 0.22, 0.55]]
)
"""Red, white, blue, as the paper has them: the ends are as dark as each other, and tell apart where red and green do
not."""


def picture(net: Cppn) -> bytes:
    """What a net draws, as a PNG file."""
    return png.encode(net.render(PICTURE))


def diverging(values: NDArray[np.floating]) -> Picture:
    """Colours ``[..., 3]`` of values from -1 (red) over 0 (white) to 1 (blue); what lies beyond is clipped."""
    place = (np.clip(values, -1.0, 1.0) + 1.0) / 2.0 * (len(_STOPS) - 1)
    below = np.minimum(place.astype(np.int64), len(_STOPS) - 2)
    share = (place - below)[..., None]
    return (_STOPS[below] * (1.0 - share) + _STOPS[below + 1] * share).astype(np.float32)


def maps(net: Cppn) -> bytes:
    """Every hidden unit's map as a PNG file: a row for each layer from the inputs on, a column for each unit."""
    with torch.no_grad():
        layers = net.maps(grid(MAP).to(net.dense[0].weight))
    cells = [[to_array(layer[:, unit]).reshape(MAP, MAP) for unit in range(layer.shape[1])] for layer in layers]
    rows = [side_by_side([diverging(cell) for cell in row]) for row in cells]
    return png.encode(_stacked(rows))


def side_by_side(pictures: Sequence[Picture], *, gap: int = 1) -> Picture:
    """Pictures of one height from left to right, with white between them."""
    between = np.ones((len(pictures[0]), gap, 3), dtype=np.float32)
    parts = [part for one, _ in pairwise([*pictures, pictures[-1]]) for part in (one, between)]
    return np.concatenate(parts[:-1], 1)


def _stacked(rows: Sequence[Picture], *, gap: int = 1) -> Picture:
    between = np.ones((gap, rows[0].shape[1], 3), dtype=np.float32)
    return np.concatenate([part for row in rows for part in (row, between)][:-1], 0)


def strip(net: Cppn, *, weight: tuple[int, int, int], steps: Sequence[float]) -> bytes:
    """Pictures of a net as one weight moves, from left to right, as a PNG file; the net comes back as it was.

    Args:
        net: The net.
        weight: Kernel, unit it comes from, unit it leads to.
        steps: Added to the weight.
    """
    layer, source, target = weight
    held = net.dense[layer].weight
    before = held.detach().clone()
    drawn: list[Picture] = []
    try:
        for step in steps:
            with torch.no_grad():
                held.copy_(before)
                held[target, source] += step
            drawn.append(net.render(STRIP))
    finally:
        with torch.no_grad():
            held.copy_(before)
    return png.encode(side_by_side(drawn, gap=3))
