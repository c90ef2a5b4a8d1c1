"""Responses at changes of fixed size, at equal effect, and in the limit of none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.engine.inside.matching import Search, match
from wheeltap.fer.moves import Moves
from wheeltap.fer.responses import STILL, Evaluation, FloatArray, Responses
from wheeltap.stats.clusters import ClusterMean, cluster_means

DELTAS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 3.0)
"""Sizes of the published procedure, each with both signs."""

BINS: Final = (0.01, 0.03, 0.06, 0.12, 0.25, 0.6)
"""Edges of its bins of RMSE."""

TARGETS: Final = (0.02, 0.045, 0.09, 0.18, 0.35)
"""Effects inside those bins."""

BOUND: Final = 3.0
"""Largest change of a weight that is tried to reach an effect: as large as the largest of ``DELTAS``."""

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
        participation: Mean share of pixels that change.
        unreached: Changes (weight and sign) that have no such effect within the bound; 0 for a bin.
    """

    low: float
    high: float
    symmetry: ClusterMean
    regions: ClusterMean
    participation: ClusterMean
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


def at_fixed_deltas(
    picture: Evaluation, moves: Moves, *, deltas: Sequence[float] = DELTAS, bins: Sequence[float] = BINS
) -> Swept:
    """Responses to the same changes of every weight, pooled and sorted into bins of effect.

    A weight falls into a bin with several of its deltas, so intervals take weights for the sample.

    Args:
        picture: To be disturbed.
        moves: Weights or directions.
        deltas: Sizes, each taken with both signs.
        bins: Edges of the bins of RMSE.
    """
    found = picture.respond(moves, np.array([*deltas, *(-size for size in deltas)]))
    places = np.digitize(found.rmse, bins) - 1
    means = _means(found, places, len(bins) - 1)
    levels = tuple(
        Level(low=low, high=high, symmetry=s, regions=r, participation=p)
        for low, high, (s, r, p) in zip(bins[:-1], bins[1:], means, strict=True)
    )
    return Swept(moves, found, levels, np.ones(found.rmse.shape, dtype=np.bool_))


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
            participation=p,
            unreached=int((~reached[:, 2 * at : 2 * at + 2]).sum()),
        )
        for at, (target, (s, r, p)) in enumerate(zip(targets, _means(found, places, len(targets)), strict=True))
    )
    return Swept(moves, found, levels, reached)


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


def at_no_effect(picture: Evaluation, moves: Moves) -> Slopes:
    """S of the derivative of the picture by each weight.

    Args:
        picture: In double precision: the derivative is a difference quotient.
        moves: Weights or directions.

    Raises:
        UsageError: If the picture is not in double precision.
    """
    found = picture.slopes(moves)
    rmse = found.rmse[:, 0]
    kept = rmse > STILL
    symmetry = np.where(kept, found.symmetry[:, 0], 0.0)
    (mean,) = cluster_means(symmetry[kept], np.flatnonzero(kept))
    return Slopes(moves, rmse, symmetry, kept, mean)


def _means(found: Responses, places: NDArray[np.int64], count: int) -> list[tuple[ClusterMean, ...]]:
    """Means of S, regions and participation in each bin, clusters being moves."""
    clusters = np.repeat(np.arange(len(places)), places.shape[1])
    each = [
        cluster_means(values.ravel(), clusters, bins=places.ravel(), count=count)
        for values in (found.symmetry, found.regions, found.participation)
    ]
    return list(zip(*each, strict=True))
