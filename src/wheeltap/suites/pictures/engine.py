"""How a net's picture answers to changes of weights, and what its hidden units hold.

Single weights are compared where they change the picture equally much.
Below a changed layer nothing changes, in it one unit does, and the next layer's sums change by a product of two
vectors; only from there on is the net evaluated again, for many disturbed copies at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Any, Final, NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.readings.symmetry import match
from wheeltap.models.cppn import ACTIVATIONS, Cppn, Layout, colour, coordinates, folded, grid
from wheeltap.stats.clusters import ClusterMean, cluster_means
from wheeltap.suites.pictures import stats
from wheeltap.suites.pictures.nets.pictures import turned
from wheeltap.suites.pictures.specs import MovedSettings, NumbersSettings

FloatArray = NDArray[np.float64]

BOUND: Final = 3.0
"""Largest change of a weight that is tried to reach an effect: as large as the published procedure's."""

FINE: Final = 128
"""Side of the square on which feature maps are compared: the published numbers are of this size."""

SPARSE: Final = 0.5
"""Share of weights that are 0 from which a net counts as a sparse genome: only its true links are weights then."""

_COPIES: Final = 4
"""Disturbed copies of the net evaluated at once: enough to share the cost of a call, few enough for the cache. Even,
so that both signs of a step come together."""

_START: Final = 0.05
_TOLERANCE: Final = 0.01
"""Relative error of the effect that is close enough."""

# ---- which weights are moved ----------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, eq=False)
class Moves:
    """Single weights that are changed, each by several amounts (deltas).

    Attributes:
        layer: Kernel of each move, ``[move]``, from 0 (which the inputs enter).
        source: Unit whose outgoing weight changes, ``[move]``.
        target: Unit whose incoming weight changes, ``[move]``.
        ids: Published id of the weight, ``[move]``.
    """

    layer: NDArray[np.int64]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    ids: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.layer)

    def part(self, index: NDArray[np.integer[Any]]) -> "Moves":
        """The moves ``index`` alone, in that order."""
        return Moves(self.layer[index], self.source[index], self.target[index], self.ids[index])


def single_weights(layout: Layout, ids: Sequence[int] | NDArray[np.int64]) -> Moves:
    """The weights with these published ids, each moved alone.

    Raises:
        UsageError: If there is no such weight.
    """
    places = np.array([layout.address(int(one)) for one in ids], dtype=np.int64).reshape(-1, 3)
    layer, source, target = places.T
    return Moves(layer, source, target, np.array(ids, dtype=np.int64))


def is_sparse(net: Cppn) -> bool:
    """Whether so many weights are 0 that only true links are weights."""
    return float((net.flat_parameters() == 0.0).mean()) >= SPARSE


def chosen_weights(net: Cppn, how: MovedSettings, *, root: int) -> Moves:
    """All true links of a sparse genome (at most ``links``, at random), else some of all weights, whatever their value.

    They are the same places in every dense net of one layout.
    """
    rng = seeds.generator(root, "fer", "weights")
    if not is_sparse(net):
        total = net.layout.parameters
        return single_weights(net.layout, rng.choice(total, min(how.weights, total), replace=False))
    true = net.links()
    return single_weights(
        net.layout, true if len(true) <= how.links else np.sort(rng.choice(true, how.links, replace=False))
    )


# ---- responses ------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, eq=False)
class Responses:
    """What each change did to the picture; all ``[move, delta]``.

    Attributes:
        delta: Change of the weight.
        rmse: Root mean square change over pixels and channels.
        symmetry: S = ||P dI||^2 / ||dI||^2, P the projection onto the symmetric changes; 0 where nothing changed, and
            everywhere where no symmetry was given.
    """

    delta: FloatArray
    rmse: FloatArray
    symmetry: FloatArray


@final
class Evaluation:
    """A net and its inputs, ready to be disturbed often.

    Args:
        net: The net.
        inputs: ``[pixel, 4]``; any points, in any order.
        symmetry: Acts on these pixels, in their order; S is 0 without one.
        dtype: Of the computation.
    """

    def __init__(
        self,
        net: Cppn,
        inputs: Float[Tensor, "pixel 4"],
        *,
        symmetry: Symmetry | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._spans = net.layout.spans
        self._symmetry = symmetry
        self._weights = [layer.weight.detach().to(dtype) for layer in net.dense]
        # Units come first and pixels last, so that a block of units is one piece of memory.
        self._entering = [folded(inputs.to(dtype), net.fold).T.contiguous()]
        self._sums: list[Tensor] = []
        for weight in self._weights:
            self._sums.append(weight @ self._entering[-1])
            self._entering.append(self._activated(self._sums[-1].clone()))
        self._clean = colour(self._sums[-1].T).T.contiguous()

    @torch.no_grad()
    def respond(self, moves: Moves, deltas: FloatArray) -> Responses:
        """What each change does.

        Args:
            moves: The weights.
            deltas: ``[move, delta]``, or ``[delta]`` for the same ones everywhere.
        """
        sizes = np.broadcast_to(np.atleast_2d(deltas), (len(moves), np.shape(deltas)[-1])).astype(np.float64)
        rows = np.repeat(np.arange(len(moves)), sizes.shape[1])
        flat = np.zeros((2, sizes.size))
        for index, change in self.changes(moves, rows, sizes.ravel()):
            flat[:, index] = self._measured(change)
        return Responses(sizes, *flat.reshape(2, *sizes.shape))

    def changes(
        self, moves: Moves, rows: NDArray[np.int64], deltas: FloatArray
    ) -> Iterator[tuple[NDArray[np.int64], Float[Tensor, "3 copy pixel"]]]:
        """Changes of the picture, some copies of one layer at a time: which they are, and what they are."""
        layers = moves.layer[rows]
        for layer in np.unique(layers):
            members = np.flatnonzero(layers == layer)
            for start in range(0, len(members), _COPIES):
                index = members[start : start + _COPIES]
                hsv = self._from_layer(int(layer), moves, rows[index], deltas[index])
                yield index, colour(hsv.movedim(0, -1)).movedim(-1, 0) - self._clean[:, None]

    def _from_layer(self, layer: int, moves: Moves, rows: NDArray[np.int64], deltas: FloatArray) -> Tensor:
        """The last layer's sums ``[3, copy, pixel]`` where kernel ``layer`` is changed."""
        source = self._entering[layer][to_tensor(moves.source[rows])]
        arriving = to_tensor(deltas, like=source)[:, None] * source
        target = to_tensor(moves.target[rows])
        if layer < len(self._weights) - 1:
            return self._onwards(layer + 1, self._one_unit(layer, target, arriving))
        spread = torch.zeros(len(self._sums[layer]), len(rows), 1, dtype=source.dtype)
        spread[target, torch.arange(len(rows)), 0] = 1.0
        return torch.addcmul(self._sums[layer][:, None], spread, arriving[None])

    def _one_unit(self, layer: int, target: Tensor, arriving: Float[Tensor, "copy pixel"]) -> Tensor:
        """The next layer's sums ``[unit, copy, pixel]`` where one unit of each copy gets something more."""
        sums = self._sums[layer][target] + arriving
        for name, start, end in self._spans:
            inside = ((target >= start) & (target < end)).nonzero()[:, 0]
            if len(inside):
                sums[inside] = ACTIVATIONS[name](sums[inside])
        sums -= self._entering[layer + 1][target]
        following = self._weights[layer + 1][:, target]
        return torch.addcmul(self._sums[layer + 1][:, None], following[:, :, None], sums[None])

    def _onwards(self, layer: int, sums: Float[Tensor, "unit copy pixel"]) -> Tensor:
        """The last layer's sums, from those of ``layer`` (which are overwritten)."""
        shape = sums.shape[1:]
        flat = sums.flatten(1)
        for weight in self._weights[layer + 1 :]:
            flat = weight @ self._activated(flat)
        return flat.reshape(-1, *shape)

    def _activated(self, sums: Tensor) -> Tensor:
        """Each block of units ``[unit, ...]`` through its activation, in place."""
        for name, start, end in self._spans:
            part = sums[start:end]
            changed = ACTIVATIONS[name](part)
            if changed is not part:
                part.copy_(changed)
        return sums

    def _measured(self, change: Float[Tensor, "3 copy pixel"]) -> FloatArray:
        """Size and symmetry of each change, ``[2, copy]``."""
        energy = change.square().sum(0).sum(1)
        found = torch.zeros(2, change.shape[1], dtype=change.dtype)
        found[0] = (energy / (3 * change.shape[2])).sqrt()
        if self._symmetry is not None:
            found[1] = self._symmetry.share(change.permute(1, 2, 0), energy=energy)
        return found.double().numpy()


@final
@dataclass(frozen=True, eq=False)
class Sweep:
    """Responses where every weight, and each of its signs, changes the picture equally much.

    Attributes:
        moves: What was changed.
        responses: All of them, ``[move, sign]``.
        reached: Which have the effect that was sought, ``[move, sign]``; the others have too little at ``bound``.
        symmetry: Mean S of those, clusters being moves.
    """

    moves: Moves
    responses: Responses
    reached: NDArray[np.bool_]
    symmetry: ClusterMean

    @property
    def unreached(self) -> int:
        """Changes (weight and sign) that have no such effect within the bound."""
        return int((~self.reached).sum())


def at_equal_effect(picture: Evaluation, moves: Moves, *, effect: float, bound: float = BOUND) -> Sweep:
    """Responses at the change of each weight, up and down, that has the root mean square ``effect``, within 1 %."""
    rows, signs = np.repeat(np.arange(len(moves)), 2), np.tile([1.0, -1.0], len(moves))

    def effects(index: NDArray[np.int64], size: FloatArray) -> FloatArray:
        return picture.respond(moves.part(rows[index]), (signs[index] * size)[:, None]).rmse[:, 0]

    guesses = np.full(len(rows), min(_START, bound))
    met = match(effects, guesses, target=effect, bound=bound, tolerance=_TOLERANCE)
    found = picture.respond(moves, (signs * met.size).reshape(-1, 2))
    bins = np.where(met.reached, 0, -1)
    [symmetry] = cluster_means(found.symmetry.ravel(), rows, bins=bins, count=1)
    return Sweep(moves, found, met.reached.reshape(-1, 2), symmetry)


# ---- all numbers of one net -----------------------------------------------------------------------------------------


@final
class Number(NamedTuple):
    """A number of one net.

    Attributes:
        value: The number.
        se: Standard error within the net.
        sampled: What that is over; 0 where the number is exact.
        short: Changes that did not reach the effect.
    """

    value: float
    se: float = 0.0
    sampled: int = 0
    short: int = 0


@final
@dataclass(frozen=True, eq=False)
class Sight:
    """Where a picture is looked at.

    Attributes:
        size: Side of the square.
        points: ``[point, 2]`` on which the symmetry acts, where that is not the square.
        symmetry: Of the picture.
    """

    size: int
    points: Float[Tensor, "point 2"] | None = None
    symmetry: Symmetry | None = None

    @classmethod
    def of(cls, task: BaseTask, *, folds: int) -> "Sight":
        """Of a task that is a square picture, with its symmetry.

        Raises:
            DataError: If it is none.
        """
        size = isqrt(len(task.targets))
        square = grid(size) if size >= 2 else torch.zeros(0, 4)
        inputs = task.inputs if isinstance(task, Task) else None
        if not (isinstance(inputs, Tensor) and torch.equal(inputs.cpu(), square)):
            raise DataError(
                "The task is no square picture.",
                where=task.name,
                expected="a Task whose inputs are the pixels of a square: x, y, distance and 1, row by row",
                got=f"{type(task).__name__} of {len(task.targets)} examples",
            )
        points, symmetry = turned(size, folds) if folds else (None, task.annotations.symmetry)
        return cls(size, points, symmetry)

    @cached_property
    def inputs(self) -> Float[Tensor, "point 4"]:
        """What a net reads where symmetry is measured; on the square where there is none."""
        return grid(self.size) if self.points is None else coordinates(self.points.float())


def measured(net: Cppn, sight: Sight, how: NumbersSettings, *, root: int) -> dict[str, Number]:
    """Every metric of a net, by key; those that the picture or the net does not allow are left out."""
    numbers = dict[str, Number]()
    if sight.symmetry is not None:
        sweep = swept(net, sight, how, root=root)
        mean = sweep.symmetry
        if mean.clusters > 1:  # the spread of a single weight is unknown
            numbers["response_symmetry"] = Number(mean.value, mean.se, mean.clusters, sweep.unreached)
    return {**numbers, **_maps(net, sight)}


def swept(net: Cppn, sight: Sight, how: MovedSettings, *, root: int) -> Sweep:
    """The net's single weights, each moved to the wanted effect in both directions."""
    picture = Evaluation(net, sight.inputs, symmetry=sight.symmetry)
    return at_equal_effect(picture, chosen_weights(net, how, root=root), effect=how.effect)


def _maps(net: Cppn, sight: Sight) -> dict[str, Number]:
    """The numbers of hidden units' maps, copies and dead units aside."""
    kept = ~net.layout.carried
    with torch.no_grad():
        pooled = np.concatenate([to_array(layer)[:, kept] for layer in net.maps(grid(FINE))], 1)
    if not stats.live(pooled).any():
        return {}
    numbers = {"distinct_maps": Number(float(stats.distinct(pooled, threshold=0.9)))}
    if sight.symmetry is None or sight.symmetry.order != 2:
        # In a larger group a map that knows nothing has a small invariant part, and would look nearly pure.
        return numbers
    with torch.no_grad():
        layers = [to_array(layer)[:, kept] for layer in net.maps(sight.inputs)]
    group = sight.symmetry.examples.numpy()
    spans = [stats.directions(layer, group) for layer in layers]
    purities = np.array([np.abs(2.0 * shares - 1.0).mean() for shares in spans if len(shares)])
    n = len(purities)
    se, sampled = (float(purities.std(ddof=1) / np.sqrt(n)), n) if n > 1 else (0.0, 0)
    return {**numbers, "feature_symmetry": Number(float(purities.mean()), se, sampled)}
