"""What scores add to cheaper ones for telling two labels apart, in AUC, always on items that no fit has seen.

Whoever claims that disturbing weights *detects* something must beat what costs less: scores of the plain output, and
noise on the input. A combination of scores is a ridge logistic regression. One that contains another fits its own items
better whatever is added, so the gain is taken on held-out items alone.

Source: Demler, Pencina & D'Agostino (2012), for why nested models are not compared on the items they were fitted to;
Airola et al. (2011), for comparing only items that one and the same fit has not seen; le Cessie & van Houwelingen
(1992), sec. 2, for the ridge penalty.
"""

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.delong1988 import placements

RIDGE: Final = 1.0
"""Penalty on the squared coefficients of standardized features, beside a log-likelihood that is summed over items."""

_STEPS: Final = 100
_TOLERANCE: Final = 1e-8
_LONGEST: Final = 5.0  # Newton's steps are cut to this length: far from the optimum a whole one may overshoot


@final
@dataclass(frozen=True, kw_only=True)
class AddedValue:
    """How well scores separate the items of one net, and what the scores in question add to that.

    Attributes:
        without: AUC of the cheap scores together, each item scored by a fit to the other folds.
        with_score: AUC of the cheap scores and those in question together, likewise.
        gain: The second less the first.
        se: Standard error of the gain over items, given the fits; never less than one pair of items would move it.
    """

    without: float
    with_score: float
    gain: float
    se: float


def added(cheap: FloatArray, score: FloatArray, labels: FloatArray, *, groups: NDArray[np.intp]) -> AddedValue:
    """AUC that ``score`` adds to ``cheap`` over the items of one net, cross-fitted over folds.

    Items are compared within a fold alone: scores of two fits have no common zero.

    Args:
        cheap: [item, k], scores of the plain output and of input noise, say.
        score: [item, m], what is added to them.
        labels: [item], 0 or 1.
        groups: [item], the fold of each item; see ``folds``. There are at least two.

    Raises:
        DataError: If lengths differ, a score is not finite, a label is neither 0 nor 1, or a fold has fewer than two
            items of a label.

    Source: DeLong, DeLong & Clarke-Pearson (1988), eq. 5, for the error of a difference of correlated AUCs.
    """
    _require(cheap, score, labels, groups)
    parts = [held_out(features, labels, groups=groups) for features in (cheap, np.hstack([cheap, score]))]
    pairs, aucs, variance = 0.0, np.zeros(2), 0.0
    for fold in np.unique(groups):
        one, two = ((groups == fold) & (labels == label) for label in (1.0, 0.0))
        (a, b), (c, d) = (placements(part[one], part[two]) for part in parts)
        here = float(len(a) * len(b))
        pairs, aucs = pairs + here, aucs + here * np.array([a.mean(), c.mean()])
        variance += here**2 * float((c - a).var(ddof=1) / len(a) + (d - b).var(ddof=1) / len(b))
    without, whole = (float(area) for area in aucs / pairs)
    return AddedValue(without=without, with_score=whole, gain=whole - without, se=max(math.sqrt(variance), 1.0) / pairs)


def folds(labels: FloatArray, *, count: int = 10) -> NDArray[np.intp]:
    """A fold for each item: items of a label go to the folds in turn, so that every fold has its share of both."""
    dealt = np.zeros(len(labels), dtype=np.intp)
    for label in np.unique(labels):
        mine = np.flatnonzero(labels == label)
        dealt[mine] = np.arange(len(mine)) % count
    return dealt


def held_out(features: FloatArray, labels: FloatArray, *, groups: NDArray[np.intp]) -> FloatArray:
    """Log-odds ``[item]`` of label 1, each from a fit to the items of other groups alone.

    Args:
        features: [item, feature].
        labels: [item], 0 or 1.
        groups: [item], the group of each item: all items of a group are scored by one fit.
    """
    _, group = np.unique(groups, return_inverse=True)
    seen = group != np.arange(int(group.max()) + 1)[:, None]
    return log_odds(features, labels, seen=seen)[group, np.arange(len(labels))]


def log_odds(
    features: FloatArray, labels: FloatArray, *, seen: NDArray[np.bool_], ridge: float = RIDGE, intercept: bool = True
) -> FloatArray:
    """Log-odds ``[..., item]`` of label 1 for every item, by ridge logistic regressions that saw some of them each.

    Features are standardized by the items seen, so that their units do not matter; one that is constant says nothing.

    Args:
        features: [..., item, feature].
        labels: [item], 0 or 1.
        seen: [..., item], which items each regression is fitted to.
        ridge: See ``RIDGE``; positive, so that separable labels have finite coefficients.
        intercept: Whether there is a constant, without penalty. Differences of two items have none: where they are
            exchanged, the odds are inverted.
    """
    weight = seen.astype(np.float64)[..., None]
    count = weight.sum(axis=-2, keepdims=True)
    centre = (features * weight).sum(axis=-2, keepdims=True) / count * intercept
    spread = np.sqrt((np.square(features - centre) * weight).sum(axis=-2, keepdims=True) / count)
    scaled = (features - centre) / np.where(spread > _TOLERANCE * (1.0 + np.abs(centre)), spread, np.inf)
    penalty = np.full(scaled.shape[-1], ridge)
    if intercept:
        scaled = np.concatenate([scaled, np.ones_like(scaled[..., :1])], axis=-1)
        penalty = np.append(penalty, 0.0)
    return (scaled @ _coefficients(scaled, labels, weight, penalty)[..., None])[..., 0]


def _coefficients(design: FloatArray, labels: FloatArray, weight: FloatArray, penalty: FloatArray) -> FloatArray:
    """The maximum ``[..., column]`` of the penalized log-likelihood, by Newton's method."""
    weighted = np.swapaxes(design * weight, -1, -2)
    found = np.zeros((*weighted.shape[:-2], design.shape[-1]))
    for _ in range(_STEPS):
        chance = 0.5 + 0.5 * np.tanh((design @ found[..., None])[..., 0] / 2.0)  # no overflow
        slope = (weighted @ (labels - chance)[..., None])[..., 0] - penalty * found
        curvature = (weighted * (chance * (1.0 - chance))[..., None, :]) @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, slope[..., None])[..., 0]
        length = np.abs(step).max(axis=-1, keepdims=True, initial=0.0)
        found = found + step * np.minimum(1.0, _LONGEST / np.maximum(length, _TOLERANCE))
        if float(length.max(initial=0.0)) < _TOLERANCE:
            break
    return found


def _require(cheap: FloatArray, score: FloatArray, labels: FloatArray, groups: NDArray[np.intp]) -> None:
    """Raises ``DataError`` if there is nothing that could be compared."""
    lengths = [len(labels), len(cheap), len(score), len(groups)]
    if len(set(lengths)) > 1:
        got = ", ".join(map(str, lengths))
        raise DataError("Labels, scores and folds differ in number of items.", expected="one each per item", got=got)
    if not (np.isfinite(cheap).all() and np.isfinite(score).all()):
        raise DataError("A score is not finite.", expected="a number per item", got="NaN or infinity")
    if not np.isin(labels, (0.0, 1.0)).all():
        raise DataError("The labels cannot be used.", expected="0 or 1 per item", got="other values")
    each = [int(((groups == fold) & (labels == label)).sum()) for fold in np.unique(groups) for label in (0.0, 1.0)]
    if len(each) < 4 or min(each) < 2:
        raise DataError(
            "There are too few items of a label to compare.",
            expected="two folds or more, with two items or more of either label in each",
            got=f"{len(each) // 2} folds, and one with {min(each, default=0)} items of a label",
            do="Give more examples of the rarer label, or deal them into fewer folds.",
        )
