"""The procedures of arXiv:2505.11581 that only its published numbers need: changes of fixed size, and of none.

Beside them its metrics of hidden maps, all of a net at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.symmetry import Symmetry
from wheeltap.models.cppn import Cppn
from wheeltap.stats.clusters import ClusterMean, cluster_means
from wheeltap.stats.crossed import Values
from wheeltap.suites.pictures import stats
from wheeltap.suites.pictures.engine import Evaluation, FloatArray, Moves
from wheeltap.suites.pictures.stats import Group

STILL = 1e-6
"""Root mean square change up to which a response counts as none: rounding, in single precision."""

DELTAS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 3.0)
"""Sizes of the published procedure, each with both signs."""

BINS: Final = (0.01, 0.03, 0.06, 0.12, 0.25, 0.6)
"""Edges of its bins of RMSE."""

STEP: Final = 1e-6
"""Of a central difference: exact to about 1e-9 in double precision, kinks of the colours aside."""

PURE: Final = 0.05
"""A direction is pure if its invariant share is this near to 0 or to 1."""


def at_fixed_deltas(
    picture: Evaluation, moves: Moves, *, deltas: Sequence[float] = DELTAS, bins: Sequence[float] = BINS
) -> list[ClusterMean]:
    """Mean S of responses to the same changes of every weight, pooled and sorted into bins of effect.

    A weight falls into a bin with several of its deltas, so intervals take weights for the sample.

    Args:
        picture: To be disturbed.
        moves: Weights or directions.
        deltas: Sizes, each taken with both signs.
        bins: Edges of the bins of RMSE.
    """
    found = picture.respond(moves, np.array([*deltas, *(-size for size in deltas)]))
    places = np.digitize(found.rmse, bins) - 1
    clusters = np.repeat(np.arange(len(places)), places.shape[1])
    return list(cluster_means(found.symmetry.ravel(), clusters, bins=places.ravel(), count=len(bins) - 1))


@torch.no_grad()
def changes(picture: Evaluation, moves: Moves, deltas: FloatArray) -> Float[Tensor, "move pixel 3"]:
    """The changed picture minus the clean one, for one delta ``[move]`` of each move."""
    parts = list(picture.changes(moves, np.arange(len(moves)), deltas))
    found = torch.cat([change.permute(1, 2, 0) for _, change in parts])
    return found[np.argsort(np.concatenate([index for index, _ in parts]))]


@final
@dataclass(frozen=True, eq=False)
class Slopes:
    """Responses in the limit of small changes.

    Attributes:
        moves: What would be changed.
        rmse: Root mean square derivative, ``[move]``.
        symmetry: S of the derivative, ``[move]``; 0 where it is dropped.
        kept: Which derivatives are larger than ``STILL``, ``[move]``.
        mean: Mean S of the kept ones.
    """

    moves: Moves
    rmse: FloatArray
    symmetry: FloatArray
    kept: NDArray[np.bool_]
    mean: ClusterMean

    @property
    def dropped(self) -> int:
        """Derivatives that are 0 within rounding."""
        return int((~self.kept).sum())


def at_no_effect(net: Cppn, inputs: torch.Tensor, group: Symmetry, moves: Moves) -> Slopes:
    """S of the derivative of the picture by each weight: central differences in double precision."""
    picture = Evaluation(net, inputs, dtype=torch.float64)
    up, down = (changes(picture, moves, np.full(len(moves), step)) for step in (STEP, -STEP))
    change = (up - down) / (2 * STEP)
    energy = change.square().sum((1, 2))
    rmse = (energy / change[0].numel()).sqrt().numpy()
    kept = rmse > STILL
    symmetry = np.where(kept, group.share(change, energy=energy).numpy(), 0.0)
    (mean,) = cluster_means(symmetry[kept], np.flatnonzero(kept))
    return Slopes(moves, rmse, symmetry, kept, mean)


def pure_share(shares: FloatArray) -> float:
    """Share of directions that are invariant or have no invariant part; 0 without a direction."""
    return float((np.abs(2.0 * shares - 1.0) > 1.0 - 2.0 * PURE).mean()) if len(shares) else 0.0


def purity(shares: FloatArray) -> float:
    """1 if a span splits exactly into invariant directions and others, whatever the basis; 0 without a direction."""
    return float(np.abs(2.0 * shares - 1.0).mean()) if len(shares) else 0.0


@dataclass(frozen=True, kw_only=True)
class MapMetrics:
    """All numbers of a net's hidden maps.

    Attributes:
        units: Units looked at.
        live: Those that are not constant.
        distinct_99: Live maps of which no two correlate by .99 or more (N_.99).
        distinct_90: The same for .9 (N_.9).
        effective_rank: exp(entropy) of the spectrum of all live maps pooled.
        purity: Mean over live units of how nearly each is invariant or free of an invariant part (M2).
        basis_free: Mean over layers of the same for the layer's span (M3).
        pure_directions: Mean over layers of the share of directions that are pure.
        roughness: Mean spectral centroid in cycles per image (M5).
    """

    units: int
    live: int
    distinct_99: int
    distinct_90: int
    effective_rank: float
    purity: float
    basis_free: float
    pure_directions: float
    roughness: float


def map_metrics(
    layers: Sequence[Values], group: Group, *, size: int, excluded: NDArray[np.bool_] | None = None
) -> MapMetrics:
    """All metrics of the maps of a net's hidden layers.

    Args:
        layers: Maps ``[pixel, unit]`` of each hidden layer.
        group: Action on the pixels, ``[element, pixel]``.
        size: Side of the picture, in pixels.
        excluded: ``[unit]``, units of every layer that are left out (copies of earlier units, say).
    """
    kept = [np.asarray(maps) if excluded is None else np.asarray(maps)[:, ~excluded] for maps in layers]
    spans = [stats.directions(maps, group) for maps in kept if stats.live(maps).any()]
    pooled = np.concatenate(kept, 1)
    return MapMetrics(
        units=sum(maps.shape[1] for maps in kept),
        live=int(stats.live(pooled).sum()),
        distinct_99=stats.distinct(pooled, threshold=0.99),
        distinct_90=stats.distinct(pooled, threshold=0.90),
        effective_rank=stats.effective_rank(pooled),
        purity=float(stats.purities(pooled, group).mean()),
        basis_free=float(np.mean([purity(span) for span in spans])),
        pure_directions=float(np.mean([pure_share(span) for span in spans])),
        roughness=float(stats.roughness(pooled, size=size).mean()),
    )
