"""One weight of a picture's net moved in steps: what is drawn meanwhile."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.models.cppn import Cppn
from wheeltap.suites.pictures.engine.procedures import Swept

NAMED = 6
"""Named weights shown, at most."""


def strip(net: Cppn, *, weight: tuple[int, int, int], steps: Sequence[float], size: int) -> NDArray[np.float32]:
    """Pictures ``[step, row, column, 3]`` of a net as one weight moves; the net comes back as it was.

    Args:
        net: The net.
        weight: Kernel, unit it comes from, unit it leads to.
        steps: Added to the weight.
        size: Pixels of a picture's side.
    """
    layer, source, target = weight
    held = net.dense[layer].weight
    before = held.detach().clone()
    drawn: list[NDArray[np.float32]] = []
    try:
        for step in steps:
            with torch.no_grad():
                held.copy_(before)
                held[target, source] += step
            drawn.append(net.render(size))
    finally:
        with torch.no_grad():
            held.copy_(before)
    return np.stack(drawn)


def chosen(swept: Swept, *, named: Sequence[int], count: int) -> list[int]:
    """Rows of the moves shown: the named weights, then ``count`` at even steps from the least to the most symmetric."""
    upwards = np.flatnonzero(swept.reached[:, 0])
    ranked = upwards[np.argsort(swept.responses.symmetry[upwards, 0], kind="stable")]
    steps = np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(int)
    first = [int(row) for row in upwards if int(swept.moves.ids[row]) in named][:NAMED]
    return list(dict.fromkeys([*first, *(int(ranked[at]) for at in steps)]))
