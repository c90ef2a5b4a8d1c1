"""Which weights of a CPPN are moved: true links, weights at random, or random directions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import UsageError
from wheeltap.models.cppn import Cppn, Layout

SPARSE: Final = 0.5
"""Share of weights that are 0 from which a net counts as a sparse genome: only its true links are weights then."""


@final
@dataclass(frozen=True, eq=False)
class Moves:
    """Changes of the outgoing weights of single units; each is made at several sizes (deltas).

    Attributes:
        name: What was chosen, and out of how many.
        layer: Kernel of each move, ``[move]``, from 0 (which the inputs enter).
        source: Unit whose outgoing weights change, ``[move]``.
        target: Unit whose incoming weight changes, ``[move]``; -1 where several do.
        ids: Published id of the weight, ``[move]``; -1 where several change.
        direction: Unit vector over the targets, ``[move, target]``, 0 beyond the layer's width; ``None`` for single
            weights.
    """

    name: str
    layer: NDArray[np.int64]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    ids: NDArray[np.int64]
    direction: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.layer)

    def part(self, index: NDArray[np.integer[Any]]) -> "Moves":
        """The moves ``index`` alone, in that order."""
        direction = None if self.direction is None else self.direction[index]
        places = (self.layer[index], self.source[index], self.target[index], self.ids[index])
        return Moves(self.name, *places, direction)


def single_weights(layout: Layout, ids: Sequence[int] | NDArray[np.int64], *, name: str = "") -> Moves:
    """The weights with these published ids, each moved alone.

    Raises:
        UsageError: If there is no such weight.
    """
    places = np.array([layout.address(int(one)) for one in ids], dtype=np.int64).reshape(-1, 3)
    layer, source, target = places.T
    return Moves(name or f"{len(places)} weights as given", layer, source, target, np.array(ids, dtype=np.int64))


def true_links(net: Cppn) -> Moves:
    """Every true link: weights other than 0, without copies and the last kernel."""
    ids = net.links()
    return single_weights(net.layout, ids, name=f"all {len(ids)} true links")


def random_weights(net: Cppn, count: int, *, rng: np.random.Generator) -> Moves:
    """``count`` of all weights without replacement, whatever their value; all of them where there are fewer."""
    total = net.layout.parameters
    ids = rng.choice(total, min(count, total), replace=False)
    return single_weights(net.layout, ids, name=f"{len(ids)} of all {total:,} weights at random")


def is_sparse(net: Cppn) -> bool:
    """Whether so many weights are 0 that only true links are weights."""
    return float((net.flat_parameters() == 0.0).mean()) >= SPARSE


def chosen_weights(net: Cppn, count: int, *, links: int, rng: np.random.Generator) -> Moves:
    """All true links of a sparse genome (at most ``links``, at random), else ``count`` of all weights at random."""
    if not is_sparse(net):
        return random_weights(net, count, rng=rng)
    true = net.links()
    if len(true) <= links:
        return true_links(net)
    ids = np.sort(rng.choice(true, links, replace=False))
    return single_weights(net.layout, ids, name=f"{links} of {len(true)} true links at random")


def random_directions(net: Cppn, count: int, *, rng: np.random.Generator) -> Moves:
    """Random directions: a kernel, a unit it leaves and a unit vector over that unit's outgoing weights, at random.

    Raises:
        UsageError: If ``count`` is not positive.

    Source: Kumar et al. 2025, arXiv:2505.11581, App. F.
    """
    if count < 1:
        raise UsageError("There is no direction to move in.", expected="1 or more", got=str(count))
    shapes = net.layout.shapes
    layer = rng.integers(len(shapes), size=count)
    sizes: NDArray[np.int64] = np.array(shapes, dtype=np.int64)[layer]
    source = np.floor(rng.random(count) * sizes[:, 0]).astype(np.int64)
    width = max(width for _, width in shapes)
    drawn: NDArray[np.float64] = rng.standard_normal((count, width)) * (np.arange(width) < sizes[:, 1:])
    direction: NDArray[np.float64] = drawn / np.sqrt(np.square(drawn).sum(1, keepdims=True))
    none = np.full(count, -1, dtype=np.int64)
    return Moves(f"{count} random directions", layer, source, none, none, direction)
