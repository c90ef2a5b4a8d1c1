"""Responses where every weight changes the picture equally much."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.engine.inside.matching import Search, match
from wheeltap.stats.clusters import ClusterMean, cluster_means
from wheeltap.suites.pictures.engine.moves import Moves
from wheeltap.suites.pictures.engine.responses import STILL, Evaluation, FloatArray, Responses

TARGETS: Final = (0.02, 0.045, 0.09, 0.18, 0.35)
"""Effects inside the bins of the published procedure."""

BOUND: Final = 3.0
"""Largest change of a weight that is tried to reach an effect: as large as the published procedure's."""

_START: Final = 0.05
_TOLERANCE: Final = 0.01


@final
@dataclass(frozen=True, kw_only=True)
class Level:
    """Responses of about one size: of a bin of effects, or at an effect that was sought.

    Attributes:
        low: Smallest RMSE.
        high: Largest.
        symmetry: Mean S, clusters being weights.
        regions: Mean effective number of regions.
        unreached: Changes (weight and sign) that have no such effect within the bound; 0 for a bin.
    """

    low: float
    high: float
    symmetry: ClusterMean
    regions: ClusterMean
    unreached: int = 0


@final
@dataclass(frozen=True, eq=False)
class Swept:
    """Responses to changes, level by level.

    Attributes:
        moves: What was changed.
        responses: All of them, ``[move, delta]``; at equal effect the deltas are ``[target x sign]``.
        levels: Means of each bin or target.
        reached: Which responses have the effect that was sought, ``[move, delta]``; all, where none was.
    """

    moves: Moves
    responses: Responses
    levels: tuple[Level, ...]
    reached: NDArray[np.bool_]


def at_equal_effect(
    picture: Evaluation, moves: Moves, *, targets: Sequence[float] = TARGETS, bound: float = BOUND
) -> Swept:
    """Responses where every weight, and each of its signs, changes the picture equally much.

    Args:
        picture: To be disturbed.
        moves: Weights or directions.
        targets: Root mean square changes sought; each is met within 1 %.
        bound: Largest change tried. What has too little effect there is counted as unreached.
    """
    rows, signs = np.repeat(np.arange(len(moves)), 2), np.tile([1.0, -1.0], len(moves))

    def effect(index: NDArray[np.int64], size: FloatArray) -> FloatArray:
        return picture.respond(moves.part(rows[index]), (signs[index] * size)[:, None]).rmse[:, 0]

    sizes, reached = np.zeros((len(moves), 2 * len(targets))), np.zeros((len(moves), 2 * len(targets)), dtype=np.bool_)
    guesses = np.full(len(rows), min(_START, bound))
    for at, target in enumerate(targets):
        met = match(effect, guesses, Search(target=target, bound=bound, tolerance=_TOLERANCE))
        sizes[:, 2 * at : 2 * at + 2] = (signs * met.size).reshape(-1, 2)
        reached[:, 2 * at : 2 * at + 2] = met.reached.reshape(-1, 2)
        if at + 1 < len(targets):
            ahead = np.clip(targets[at + 1] / np.maximum(met.effect, STILL), 0.25, 4.0)
            guesses = np.minimum(met.size * ahead, bound)
    found = picture.respond(moves, sizes)
    places = np.where(reached, np.arange(sizes.shape[1]) // 2, -1)
    levels = tuple(
        Level(
            low=target * (1 - _TOLERANCE),
            high=target * (1 + _TOLERANCE),
            symmetry=s,
            regions=r,
            unreached=int((~reached[:, 2 * at : 2 * at + 2]).sum()),
        )
        for at, (target, (s, r)) in enumerate(zip(targets, level_means(found, places, len(targets)), strict=True))
    )
    return Swept(moves, found, levels, reached)


def level_means(found: Responses, places: NDArray[np.int64], count: int) -> list[tuple[ClusterMean, ...]]:
    """Means of S and of regions in each bin, clusters being moves."""
    clusters = np.repeat(np.arange(len(places)), places.shape[1])
    each = [
        cluster_means(values.ravel(), clusters, bins=places.ravel(), count=count)
        for values in (found.symmetry, found.regions)
    ]
    return list(zip(*each, strict=True))
