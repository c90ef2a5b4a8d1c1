"""The procedures of arXiv:2505.11581 that only its published numbers need: changes of fixed size, and of none."""

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
from wheeltap.suites.pictures.engine import Evaluation, FloatArray, Moves

STILL = 1e-6
"""Root mean square change up to which a response counts as none: rounding, in single precision."""

DELTAS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 3.0)
"""Sizes of the published procedure, each with both signs."""

BINS: Final = (0.01, 0.03, 0.06, 0.12, 0.25, 0.6)
"""Edges of its bins of RMSE."""

STEP: Final = 1e-6
"""Of a central difference: exact to about 1e-9 in double precision, kinks of the colours aside."""


def at_fixed_deltas(
    picture: Evaluation, moves: Moves, *, deltas: Sequence[float] = DELTAS, bins: Sequence[float] = BINS
) -> list[ClusterMean]:
    """Mean S of responses to the same changes of every weight, pooled and sorted into bins of effect.

    A weight falls into a bin with several of its deltas, so intervals take weights for the sample.

    Args:
        picture: To be disturbed.
        moves: The weights.
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
    (mean,) = cluster_means(symmetry, np.arange(len(kept)), bins=np.where(kept, 0, -1), count=1)
    return Slopes(moves, rmse, symmetry, kept, mean)
