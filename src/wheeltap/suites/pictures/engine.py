"""How a net's picture answers to changes of weights, and what its hidden units hold.

Single weights, random directions and noise in all weights are compared where they change the picture equally much.
Below a changed layer nothing changes, in it one unit does, and the next layer's sums change by a product of two
vectors; only from there on is the net evaluated again, for many disturbed copies at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from math import isqrt
from typing import Any, Final, NamedTuple, cast, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import measure, seeds
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.apply import Disturbance, verified_restoration
from wheeltap.engine.needs.gather import gather
from wheeltap.engine.readings.symmetry import match
from wheeltap.models.cppn import ACTIVATIONS, Cppn, Layout, colour, coordinates, folded, grid
from wheeltap.perturb import create
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

WIDEST: Final = 8.0
"""Largest dose of noise tried; noise as large as eight times the signal changes any picture that noise can change."""

_COPIES: Final = 4
"""Disturbed copies of the net evaluated at once: enough to share the cost of a call, few enough for the cache. Even,
so that both signs of a step come together."""

_START: Final = 0.05
_TOLERANCE: Final = 0.01
"""Relative error of the effect that is close enough."""

_HALVINGS: Final = 30
"""Bound on the evaluations after a dose of noise has been bracketed; it takes about five."""

# ---- which weights are moved ----------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, eq=False)
class Moves:
    """Changes of the outgoing weights of single units; each is made at several sizes (deltas).

    Attributes:
        layer: Kernel of each move, ``[move]``, from 0 (which the inputs enter).
        source: Unit whose outgoing weights change, ``[move]``.
        target: Unit whose incoming weight changes, ``[move]``; -1 where several do.
        ids: Published id of the weight, ``[move]``; -1 where several change.
        direction: Unit vector over the targets, ``[move, target]``, 0 beyond the layer's width; ``None`` for single
            weights.
    """

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
        return Moves(*places, direction)


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


def random_directions(net: Cppn, count: int, *, rng: np.random.Generator) -> Moves:
    """Random directions: a kernel, a unit it leaves and a unit vector over that unit's outgoing weights, at random.

    Source: Kumar et al. 2025, arXiv:2505.11581, App. F.
    """
    shapes = net.layout.shapes
    layer = rng.integers(len(shapes), size=count)
    sizes: NDArray[np.int64] = np.array(shapes, dtype=np.int64)[layer]
    source = np.floor(rng.random(count) * sizes[:, 0]).astype(np.int64)
    width = max(width for _, width in shapes)
    drawn: NDArray[np.float64] = rng.standard_normal((count, width)) * (np.arange(width) < sizes[:, 1:])
    direction: NDArray[np.float64] = drawn / np.sqrt(np.square(drawn).sum(1, keepdims=True))
    none = np.full(count, -1, dtype=np.int64)
    return Moves(layer, source, none, none, direction)


# ---- responses ------------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, eq=False)
class Responses:
    """What each change did to the picture; all ``[move, delta]``.

    Attributes:
        delta: Size of the change of the weight (or along the direction).
        rmse: Root mean square change over pixels and channels.
        symmetry: S = ||P dI||^2 / ||dI||^2, P the projection onto the symmetric changes; 0 where nothing changed, and
            everywhere where no symmetry was given.
        regions: exp(entropy) of the regions' mean squared changes, from 1 to their number; 0 likewise.
    """

    delta: FloatArray
    rmse: FloatArray
    symmetry: FloatArray
    regions: FloatArray


@final
class Evaluation:
    """A net and its inputs, ready to be disturbed often.

    Args:
        net: The net.
        inputs: ``[pixel, 4]``; any points, in any order.
        symmetry: Acts on these pixels; S is 0 without one.
        regions: ``[region, pixel]``, which pixels belong to each; none overlap, each has one.
        dtype: Of the computation.

    Raises:
        DataError: If the symmetry or the regions do not fit the inputs.
    """

    def __init__(
        self,
        net: Cppn,
        inputs: Float[Tensor, "pixel 4"],
        *,
        symmetry: Symmetry | None = None,
        regions: Bool[Tensor, "region pixel"] | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        pixels = len(inputs)
        if symmetry is not None and symmetry.size != pixels:
            raise DataError(
                "The symmetry does not fit the picture.",
                where=symmetry.name,
                expected=f"a group acting on {pixels} pixels",
                got=f"one acting on {symmetry.size}",
            )
        if regions is not None and (regions.shape[1] != pixels or not bool(regions.any(1).all())):
            raise DataError(
                "The regions do not fit the picture.",
                expected=f"masks [region, {pixels}], a pixel in each",
                got=f"{list(regions.shape)}, the smallest of {int(regions.sum(1).min())} pixels",
            )
        self._spans = net.layout.spans
        self._symmetry = symmetry
        self._regions = None if regions is None else (regions.double() / regions.sum(1, keepdim=True)).to(dtype)
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
            moves: The weights or directions.
            deltas: ``[move, delta]``, or ``[delta]`` for the same ones everywhere.
        """
        sizes = np.broadcast_to(np.atleast_2d(deltas), (len(moves), np.shape(deltas)[-1])).astype(np.float64)
        rows = np.repeat(np.arange(len(moves)), sizes.shape[1])
        flat = np.zeros((3, sizes.size))
        for index, change in self.changes(moves, rows, sizes.ravel()):
            flat[:, index] = self._measured(change)
        return Responses(sizes, *flat.reshape(3, *sizes.shape))

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
        if moves.direction is None and layer < len(self._weights) - 1:
            return self._onwards(layer + 1, self._one_unit(layer, to_tensor(moves.target[rows]), arriving))
        width = len(self._sums[layer])
        if moves.direction is None:
            spread = torch.zeros(width, len(rows), 1, dtype=source.dtype)
            spread[to_tensor(moves.target[rows]), torch.arange(len(rows)), 0] = 1.0
        else:
            spread = to_tensor(moves.direction[rows, :width].T.copy(), like=source)[:, :, None]
        return self._onwards(layer, torch.addcmul(self._sums[layer][:, None], spread, arriving[None]))

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
        """Size, symmetry and regions of each change, ``[3, copy]``."""
        pixels = change.square().sum(0)
        energy, copies = pixels.sum(1), change.shape[1]
        found = torch.zeros(3, copies, dtype=change.dtype)
        found[0] = (energy / (3 * change.shape[2])).sqrt()
        if self._symmetry is not None:
            found[1] = self._symmetry.share(change.permute(1, 2, 0), energy=energy)
        if self._regions is not None:
            means = pixels @ self._regions.T
            share = means / means.sum(1, keepdim=True).clamp_min(torch.finfo(change.dtype).tiny)
            found[2] = torch.exp(-torch.xlogy(share, share).sum(1)) * (energy > 0)
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
        regions: Mean effective number of regions.
    """

    moves: Moves
    responses: Responses
    reached: NDArray[np.bool_]
    symmetry: ClusterMean
    regions: ClusterMean

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
    symmetry, regions = (
        cluster_means(values.ravel(), rows, bins=bins, count=1)[0] for values in (found.symmetry, found.regions)
    )
    return Sweep(moves, found, met.reached.reshape(-1, 2), symmetry, regions)


# ---- noise in all weights -------------------------------------------------------------------------------------------


def noise_responses(
    subject: Subject, task: Task, perturbation: str, *, effect: float, draws: int, root: int
) -> tuple[FloatArray, FloatArray]:
    """The dose of each draw whose change of the outputs has the root mean square ``effect``; that change's symmetry.

    Args:
        subject: The net; it comes back bit-identical.
        task: Its inputs; with a symmetry, the share of the change that has it is measured too.
        perturbation: Name of a kind of noise.
        effect: In units of the outputs.
        draws: Of noise.
        root: Root seed.

    Returns:
        Dose ``[draw]``, in the perturbation's unit, NaN where none was enough; symmetric share of the change
        ``[draw]``, NaN likewise, and where no symmetry is asked for.

    Raises:
        ModelError: If the noise is not defined on this net.
    """
    noise = create(perturbation)
    known = gather(noise.needs, subject, task) if noise.needs else None
    clean = task.scores(subject.model)
    symmetry, found = task.annotations.symmetry, list[tuple[float, float]]()
    with verified_restoration(subject), Disturbance(subject, noise, WHOLE, known) as disturbance:

        def change(seed: int, dose: float) -> Tensor:
            disturbance.apply(dose, root=root, seed=seed)
            return task.scores(subject.model) - clean

        found.extend(_at_effect(partial(change, seed), effect, symmetry) for seed in range(draws))
    dose, share = np.array(found).T
    return dose, share


def _at_effect(change: Callable[[float], Tensor], effect: float, symmetry: Symmetry | None) -> tuple[float, float]:
    """Dose and symmetric share where the change first has the wanted size: bracketed, then halved in ratios."""
    low, high, moved = 0.0, 1e-3, change(1e-3)
    while _size(moved) < effect:
        if high >= WIDEST:
            return float("nan"), float("nan")
        low, high = high, min(2.0 * high, WIDEST)
        moved = change(high)
    dose = high
    for _ in range(_HALVINGS):
        if abs(_size(moved) / effect - 1.0) <= _TOLERANCE:
            break
        dose = float(np.sqrt(low * high)) if low else high / 2.0
        moved = change(dose)
        low, high = (dose, high) if _size(moved) < effect else (low, dose)
    if abs(_size(moved) / effect - 1.0) > _TOLERANCE:  # the change jumps over the wanted one
        return float("nan"), float("nan")
    return dose, float("nan") if symmetry is None else float(symmetry.share(moved.double()))


def _size(change: Tensor) -> float:
    size = float(change.double().square().mean().sqrt())
    return size if np.isfinite(size) else float("inf")


# ---- all numbers of one net -----------------------------------------------------------------------------------------


@final
class Number(NamedTuple):
    """A number of one net.

    Attributes:
        value: The number.
        se: Standard error within the net.
        sampled: What that is over; 0 where the number is exact.
        short: Changes or draws that did not reach the effect.
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
        regions: ``[region, pixel]`` of the square, where parts are known.
    """

    size: int
    points: Float[Tensor, "point 2"] | None = None
    symmetry: Symmetry | None = None
    regions: Bool[NDArray[np.bool_], "region pixel"] | None = None

    @classmethod
    def of(cls, task: BaseTask, *, folds: int) -> "Sight":
        """Of a task that is a square picture: its symmetry, and its groups as parts of it.

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
        owner = None if task.annotations.behaviors is None else task.annotations.behaviors.numpy()
        regions = None if owner is None else cast("NDArray[np.bool_]", owner == np.unique(owner)[:, None])
        points, symmetry = turned(size, folds) if folds else (None, task.annotations.symmetry)
        return cls(size, points, symmetry, regions)

    @cached_property
    def inputs(self) -> Float[Tensor, "point 4"]:
        """What a net reads where symmetry is measured; on the square where there is none."""
        return grid(self.size) if self.points is None else coordinates(self.points.float())

    @property
    def on_square(self) -> bool:
        """Whether symmetry and regions can be measured on the same points."""
        return self.points is None or torch.equal(self.inputs, grid(self.size))


def measured(net: Cppn, sight: Sight, how: NumbersSettings, *, root: int) -> dict[str, Number]:
    """Every metric of a net, by key; those that the picture or the net does not allow are left out."""
    found, kernels = {**_responses(net, sight, how, root), **_maps(net, sight)}, net.kernels()
    if 0 < how.strongest <= sum(int(np.count_nonzero(kernel)) for kernel in kernels):
        rng = seeds.generator(root, "fer", "rewirings")
        graph = stats.net_modularity(kernels, links=how.strongest, rewirings=how.rewirings, rng=rng)
        found["modularity"] = _over(graph.value - graph.rewired)
    return {**found, **_noise(net, sight, how, root)}


def swept(net: Cppn, sight: Sight, how: MovedSettings, *, root: int) -> Sweep:
    """The net's single weights, each moved to the wanted effect in both directions."""
    regions = None if sight.regions is None or not sight.on_square else to_tensor(sight.regions)
    picture = Evaluation(net, sight.inputs, symmetry=sight.symmetry, regions=regions)
    return at_equal_effect(picture, chosen_weights(net, how, root=root), effect=how.effect)


def _responses(net: Cppn, sight: Sight, how: NumbersSettings, root: int) -> dict[str, Number]:
    sampled: dict[str, tuple[Sweep, ClusterMean]] = {}
    level = swept(net, sight, how, root=root)
    if sight.symmetry is not None:
        sampled["response_symmetry"] = level, level.symmetry
        moves = random_directions(net, how.directions, rng=seeds.generator(root, "fer", "directions"))
        picture = Evaluation(net, sight.inputs, symmetry=sight.symmetry)
        along = at_equal_effect(picture, moves, effect=how.effect)
        sampled["direction_symmetry"] = along, along.symmetry
    if sight.regions is not None:
        if not sight.on_square:
            level = swept(net, Sight(sight.size, regions=sight.regions), how, root=root)
        sampled["regions"] = level, level.regions
    # Nothing where fewer than two reached the effect: of a single one the spread is unknown.
    return {
        key: Number(mean.value, mean.se, mean.clusters, sweep.unreached)
        for key, (sweep, mean) in sampled.items()
        if mean.clusters > 1
    }


def _maps(net: Cppn, sight: Sight) -> dict[str, Number]:
    """The numbers of hidden units' maps, copies and dead units aside."""
    kept = ~net.layout.carried
    with torch.no_grad():
        square = [to_array(layer)[:, kept] for layer in net.maps(grid(FINE))]
    pooled = np.concatenate(square, 1)
    rough = stats.roughness(pooled, size=FINE)
    if not len(rough):
        return {}
    found = {
        "distinct_maps": Number(float(stats.distinct(pooled, threshold=0.9))),
        "effective_rank": Number(stats.effective_rank(pooled)),
        "roughness": _over(rough),
    }
    if sight.symmetry is None or sight.symmetry.order != 2:
        # In a larger group a map that knows nothing has a small invariant part, and would look nearly pure.
        return found
    with torch.no_grad():
        layers = [to_array(layer)[:, kept] for layer in net.maps(sight.inputs)]
    group = sight.symmetry.examples.numpy()
    spans = [stats.directions(layer, group) for layer in layers]
    found["feature_symmetry"] = _over(np.array([np.abs(2.0 * shares - 1.0).mean() for shares in spans if len(shares)]))
    found["unit_parity"] = _over(np.concatenate([stats.purities(layer, group) for layer in layers]))
    return found


def _over(values: NDArray[np.float64], *, short: int = 0) -> Number:
    n = len(values)
    if n < 2:
        return Number(float(values.mean()))
    return Number(float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)), n, short)


def _noise(net: Cppn, sight: Sight, how: NumbersSettings, root: int) -> dict[str, Number]:
    with torch.no_grad():
        target = net(sight.inputs)
    task = Task(sight.inputs, target, measure=measure.squared_error, batch=len(target))
    task = task if sight.symmetry is None else task.with_symmetry(sight.symmetry)
    try:
        dose, share = noise_responses(Subject(net), task, "function", effect=how.effect, draws=how.draws, root=root)
    except ModelError:  # too few points for the layers' moments
        return {}
    short = int(np.isnan(dose).sum())
    if len(dose) - short < 2:
        return {}
    pairs = (("noise_dose", dose), ("noise_symmetry", share))
    known = {key: values[np.isfinite(values)] for key, values in pairs}
    return {key: _over(values, short=short) for key, values in known.items() if len(values)}
