"""All numbers of one net: how its picture answers to changes of weights, and what its hidden units hold."""

from dataclasses import dataclass
from functools import cached_property
from math import isqrt
from typing import Final, cast, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import measure, seeds
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.models.cppn import Cppn, coordinates, grid
from wheeltap.stats.clusters import ClusterMean
from wheeltap.suites.pictures.engine.moves import Moves, chosen_weights, random_directions
from wheeltap.suites.pictures.engine.noise import respond
from wheeltap.suites.pictures.engine.procedures import Level, Swept, at_equal_effect
from wheeltap.suites.pictures.engine.responses import Evaluation
from wheeltap.suites.pictures.nets.pictures import turned
from wheeltap.suites.pictures.specs import MovedSettings, NumbersSettings
from wheeltap.suites.pictures.stats import feature_maps
from wheeltap.suites.pictures.stats.net_modularity import net_modularity

FINE: Final = 128
"""Side of the square on which feature maps are compared: the published numbers are of this size."""


@final
@dataclass(frozen=True)
class Number:
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
        groups = task.annotations.behaviors
        regions = None
        if groups is not None:
            owner = groups.numpy()
            regions = cast("NDArray[np.bool_]", owner == np.unique(owner)[:, None])
        if folds:
            return cls(size, *turned(size, folds), regions)
        return cls(size, None, task.annotations.symmetry, regions)

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
    responses, maps = _responses(net, sight, how, root), _maps(net, sight)
    return {**responses, **maps, **_modular(net, how, root), **_noise(net, sight, how, root)}


def _modular(net: Cppn, how: NumbersSettings, root: int) -> dict[str, Number]:
    """Q beyond rewired graphs, at as many links as are asked for."""
    kernels = net.kernels()
    if not 0 < how.strongest <= sum(int(np.count_nonzero(kernel)) for kernel in kernels):
        return {}
    rng = seeds.generator(root, "fer", "rewirings")
    found = net_modularity(kernels, links=how.strongest, rewirings=how.rewirings, rng=rng).found
    return {"modularity": _over(found.value - found.rewired)}


def weights_moved(net: Cppn, how: MovedSettings, *, root: int) -> Moves:
    """The single weights that are moved; the same places in every dense net of one layout."""
    rng = seeds.generator(root, "fer", "weights")
    return chosen_weights(net, how.weights, links=how.links, rng=rng)


def swept(net: Cppn, sight: Sight, how: MovedSettings, *, root: int) -> Swept:
    """The net's single weights, each moved to the wanted effect in both directions."""
    regions = None if sight.regions is None or not sight.on_square else to_tensor(sight.regions)
    picture = Evaluation(net, sight.inputs, symmetry=sight.symmetry, regions=regions)
    return at_equal_effect(picture, weights_moved(net, how, root=root), targets=(how.effect,))


def _responses(net: Cppn, sight: Sight, how: NumbersSettings, root: int) -> dict[str, Number]:
    found: dict[str, Number] = {}
    level = swept(net, sight, how, root=root).levels[0]
    if sight.symmetry is not None:
        found |= _sampled("response_symmetry", level, level.symmetry)
        rng = seeds.generator(root, "fer", "directions")
        moves = random_directions(net, how.directions, rng=rng)
        picture = Evaluation(net, sight.inputs, symmetry=sight.symmetry)
        along = at_equal_effect(picture, moves, targets=(how.effect,)).levels[0]
        found |= _sampled("direction_symmetry", along, along.symmetry)
    if sight.regions is not None:
        if not sight.on_square:
            level = swept(net, Sight(sight.size, regions=sight.regions), how, root=root).levels[0]
        found |= _sampled("regions", level, level.regions)
    return found


def _sampled(key: str, level: Level, mean: ClusterMean) -> dict[str, Number]:
    """Nothing where fewer than two reached the effect: of a single one the spread is unknown."""
    return {} if mean.clusters < 2 else {key: Number(mean.value, mean.se, mean.clusters, level.unreached)}


def _maps(net: Cppn, sight: Sight) -> dict[str, Number]:
    """Of hidden units, copies and dead ones aside."""
    kept = ~net.layout.carried
    with torch.no_grad():
        square = [to_array(layer)[:, kept] for layer in net.maps(grid(FINE))]
    pooled = np.concatenate(square, 1)
    rough = feature_maps.roughness(pooled, size=FINE)
    if not len(rough):
        return {}
    found = {
        "distinct_maps": Number(float(feature_maps.distinct(pooled, threshold=0.9))),
        "effective_rank": Number(feature_maps.effective_rank(pooled)),
        "roughness": _over(rough),
    }
    if sight.symmetry is None or sight.symmetry.order != 2:
        # In a larger group a map that knows nothing has a small invariant part, and would look nearly pure.
        return found
    with torch.no_grad():
        layers = [to_array(layer)[:, kept] for layer in net.maps(sight.inputs)]
    group = sight.symmetry.examples.numpy()
    spans = [feature_maps.directions(layer, group) for layer in layers]
    found["feature_symmetry"] = _over(np.array([span.purity for span in spans if len(span.shares)]))
    found["unit_parity"] = _over(np.concatenate([feature_maps.purities(layer, group) for layer in layers]))
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
    if sight.symmetry is not None:
        task = task.with_symmetry(sight.symmetry)
    try:
        found = respond(Subject(net), task, "function", effect=how.effect, draws=how.draws, root=root)
    except ModelError:  # too few points for the layers' moments
        return {}
    if int(found.reached.sum()) < 2:
        return {}
    short = int((~found.reached).sum())
    known = {
        key: values[np.isfinite(values)]
        for key, values in (("noise_dose", found.dose), ("noise_symmetry", found.symmetry))
    }
    return {key: _over(values, short=short) for key, values in known.items() if len(values)}


def reordered(net: Cppn, *, seed: int) -> Cppn:
    """A copy whose units are in another order within each block of each layer; it computes the same function."""
    rng = seeds.generator(seed, "fer", "reordered")
    kernels = net.kernels()
    for layer in range(net.layout.layers):
        order = np.concatenate([start + rng.permutation(end - start) for _, start, end in net.layout.spans])
        kernels[layer] = kernels[layer][:, order]
        kernels[layer + 1] = kernels[layer + 1][order]
    return Cppn.of(net.layout, kernels, fold=net.fold)
