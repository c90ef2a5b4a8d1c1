"""Ridge logistic regressions that are fitted to some items and score all of them.

Source: le Cessie & van Houwelingen (1992), sec. 2, for the ridge penalty.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from wheeltap.stats.crossed import FloatArray

RIDGE: Final = 1.0
"""Penalty on the squared coefficients of standardized features, beside a log-likelihood that is summed over items."""

_STEPS: Final = 100
_TOLERANCE: Final = 1e-8
_LONGEST: Final = 5.0  # Newton's steps are cut to this length: far from the optimum a whole one may overshoot


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
