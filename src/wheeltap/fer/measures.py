"""All numbers of one net: how its picture answers to changes of weights, and what its hidden units hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import measure, seeds
from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import Task
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.fer.moves import Moves, chosen_weights, random_directions
from wheeltap.fer.noise import respond
from wheeltap.fer.procedures import Level, Swept, at_equal_effect
from wheeltap.fer.responses import Evaluation
from wheeltap.models.cppn import Cppn, coordinates, grid
from wheeltap.stats import feature_maps
from wheeltap.stats.clusters import ClusterMean
from wheeltap.stats.cohorts import Single
from wheeltap.stats.net_modularity import net_modularity

FINE: Final = 128
"""Side of the square on which feature maps are compared: the published numbers are of this size."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How much of each net is looked at.

    Attributes:
        weights: Single weights moved, of a dense net.
        links: True links moved, at most, of a sparse one.
        directions: Random directions moved.
        draws: Draws of noise.
        effect: Root mean square change of the picture at which responses are compared, in colour from 0 to 1.
        rewirings: Graphs with the same degrees that each net's strongest links are compared with.
        root: Root seed.
    """

    weights: int = 64
    links: int = 300
    directions: int = 48
    draws: int = 10
    effect: float = 0.09
    rewirings: int = 8
    root: int = 0


@final
@dataclass(frozen=True, eq=False)
class Sight:
    """Where a picture is looked at.

    Attributes:
        size: Side of the square.
        points: ``[point, 2]`` on which the symmetry acts, where there is one.
        symmetry: Of the picture.
        regions: ``[region, pixel]`` of the square, where parts are known.
        links: Strongest weights that make up each net's graph: as many as the net under study has.
    """

    size: int
    points: Float[Tensor, "point 2"] | None = None
    symmetry: Symmetry | None = None
    regions: Bool[NDArray[np.bool_], "region pixel"] | None = None
    links: int = 0

    @cached_property
    def inputs(self) -> Float[Tensor, "point 4"]:
        """What a net reads where symmetry is measured; on the square where there is none."""
        return grid(self.size) if self.points is None else coordinates(self.points.float())

    @property
    def on_square(self) -> bool:
        """Whether symmetry and regions can be measured on the same points."""
        return self.points is None or torch.equal(self.inputs, grid(self.size))


def measured(net: Cppn, sight: Sight, sampling: Sampling) -> dict[str, Single]:
    """Every metric of a net, by key; those that the picture or the net does not allow are left out."""
    responses, maps = _responses(net, sight, sampling), _maps(net, sight)
    return {**responses, **maps, **_modular(net, sight, sampling), **_noise(net, sight, sampling)}


def _modular(net: Cppn, sight: Sight, sampling: Sampling) -> dict[str, Single]:
    """Q beyond rewired graphs, at as many links as the net under study has."""
    kernels = net.kernels()
    if not 0 < sight.links <= sum(int(np.count_nonzero(kernel)) for kernel in kernels):
        return {}
    rng = seeds.generator(sampling.root, "fer", "rewirings")
    found = net_modularity(kernels, links=sight.links, rewirings=sampling.rewirings, rng=rng).found
    return {"modularity": _over(found.value - found.rewired, "rewired graphs")}


def weights_moved(net: Cppn, sampling: Sampling) -> Moves:
    """The single weights that are moved; the same places in every dense net of one layout."""
    rng = seeds.generator(sampling.root, "fer", "weights")
    return chosen_weights(net, sampling.weights, links=sampling.links, rng=rng)


def swept(net: Cppn, sight: Sight, sampling: Sampling) -> Swept:
    """The net's single weights, each moved to the wanted effect in both directions."""
    regions = None if sight.regions is None or not sight.on_square else to_tensor(sight.regions)
    picture = Evaluation(net, sight.inputs, symmetry=sight.symmetry, regions=regions)
    return at_equal_effect(picture, weights_moved(net, sampling), targets=(sampling.effect,))


def _responses(net: Cppn, sight: Sight, sampling: Sampling) -> dict[str, Single]:
    found: dict[str, Single] = {}
    level = swept(net, sight, sampling).levels[0]
    if sight.symmetry is not None:
        found |= _sampled("response_symmetry", level, level.symmetry, "weights")
        rng = seeds.generator(sampling.root, "fer", "directions")
        moves = random_directions(net, sampling.directions, rng=rng)
        picture = Evaluation(net, sight.inputs, symmetry=sight.symmetry)
        along = at_equal_effect(picture, moves, targets=(sampling.effect,)).levels[0]
        found |= _sampled("direction_symmetry", along, along.symmetry, "directions")
    if sight.regions is not None and sight.on_square:
        found |= _sampled("regions", level, level.regions, "weights")
    elif sight.regions is not None:
        square = Sight(sight.size, regions=sight.regions)
        level = swept(net, square, sampling).levels[0]
        found |= _sampled("regions", level, level.regions, "weights")
    return found


def _sampled(key: str, level: Level, mean: ClusterMean, what: str) -> dict[str, Single]:
    """Nothing where fewer than two reached the effect: of a single one the spread is unknown."""
    if mean.clusters < 2:
        return {}
    method = f"bootstrap over {mean.clusters} {what} of this net; {level.unreached} changes up or down fell short"
    return {key: Single(mean.value, mean.se, method, mean.clusters - 1)}


def _maps(net: Cppn, sight: Sight) -> dict[str, Single]:
    """Of hidden units, copies and dead ones aside."""
    kept = ~net.layout.carried
    with torch.no_grad():
        square = [to_array(layer)[:, kept] for layer in net.maps(grid(FINE))]
    pooled = np.concatenate(square, 1)
    rough = feature_maps.roughness(pooled, size=FINE)
    if not len(rough):
        return {}
    found = {
        "distinct_maps": Single(float(feature_maps.distinct(pooled, threshold=0.9))),
        "effective_rank": Single(feature_maps.effective_rank(pooled)),
        "roughness": _over(rough, "units"),
    }
    if sight.symmetry is None or sight.symmetry.order != 2:
        # In a larger group a map that knows nothing has a small invariant part, and would look nearly pure.
        return found
    with torch.no_grad():
        layers = [to_array(layer)[:, kept] for layer in net.maps(sight.inputs)]
    group = sight.symmetry.examples.numpy()
    spans = [feature_maps.directions(layer, group) for layer in layers]
    found["feature_symmetry"] = _over(np.array([span.purity for span in spans if len(span.shares)]), "layers")
    found["unit_parity"] = _over(np.concatenate([feature_maps.purities(layer, group) for layer in layers]), "units")
    return found


def _over(values: NDArray[np.float64], what: str) -> Single:
    if len(values) < 2:
        return Single(float(values.mean()))
    n = len(values)
    return Single(float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)), f"over {n} {what}", n - 1)


def _noise(net: Cppn, sight: Sight, sampling: Sampling) -> dict[str, Single]:
    with torch.no_grad():
        target = net(sight.inputs)
    task = Task(sight.inputs, target, measure=measure.squared_error, batch=len(target))
    if sight.symmetry is not None:
        task = task.with_symmetry(sight.symmetry)
    try:
        found = respond(
            Subject(net), task, "function", effect=sampling.effect, draws=sampling.draws, root=sampling.root
        )
    except ModelError:  # too few points for the layers' moments
        return {}
    numbers: Mapping[str, NDArray[np.float64]] = {"noise_dose": found.dose, "noise_symmetry": found.symmetry}
    if int(found.reached.sum()) < 2:
        return {}
    short = int((~found.reached).sum())
    what = f"draws; {short} more fell short at any dose" if short else "draws"
    known = {key: values[np.isfinite(values)] for key, values in numbers.items()}
    return {key: _over(values, what) for key, values in known.items() if len(values)}
