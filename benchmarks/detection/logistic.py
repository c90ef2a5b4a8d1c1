"""Ridge logistic regression, and its scores of items whose group it has not seen."""

import numpy as np
from numpy.typing import NDArray

from wheeltap.stats.crossed import FloatArray

RIDGE = 1.0
"""Penalty on the squared coefficients of standardised features, beside a log-likelihood that is summed over items."""

FOLDS = 10
"""Groups are dealt into this many folds; with as many groups or fewer, each is left out by itself."""

_STEPS = 100
_TOLERANCE = 1e-8
_LONGEST = 5.0  # Newton's steps are cut to this length: far from the optimum a whole one may overshoot


def fit(features: FloatArray, labels: FloatArray, *, ridge: float = RIDGE) -> FloatArray:
    """Coefficients ``[feature + 1]`` of the log-odds of label 1, the intercept last and without penalty.

    Args:
        features: [item, feature], standardised.
        labels: [item], 0 or 1, both present.
        ridge: See ``RIDGE``; positive, so that separable labels have finite coefficients.

    Source: le Cessie & van Houwelingen (1992), sec. 2, by Newton's method.
    """
    design = np.column_stack([features, np.ones(len(features))])
    penalty = np.append(np.full(features.shape[1], ridge), 0.0)
    coefficients = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        chance = 0.5 + 0.5 * np.tanh(design @ coefficients / 2)  # the logistic function, without overflow
        slope = design.T @ (labels - chance) - penalty * coefficients
        curvature = (design.T * (chance * (1 - chance))) @ design + np.diag(penalty)
        step = np.linalg.solve(curvature, slope)
        length = float(np.abs(step).max())
        coefficients = coefficients + step * min(1.0, _LONGEST / max(length, _TOLERANCE))
        if length < _TOLERANCE:
            break
    return coefficients


def held_out(
    features: FloatArray, labels: FloatArray, *, groups: NDArray[np.intp], ridge: float = RIDGE, folds: int = FOLDS
) -> FloatArray:
    """Log-odds ``[item]`` of label 1, each from a fit to the items of other groups alone.

    Features are standardised by the items fitted to. All items of a group are scored by one fit.

    Args:
        features: [item, feature].
        labels: [item], 0 or 1.
        groups: [item], the index of each item's group, from 0.
        ridge: See ``RIDGE``.
        folds: See ``FOLDS``.
    """
    scores = np.empty(len(labels))
    fold = groups % folds
    for out in (fold == number for number in np.unique(fold)):
        seen = features[~out]
        centre, spread = seen.mean(axis=0), seen.std(axis=0)
        spread = np.where(spread > _TOLERANCE * (1 + np.abs(centre)), spread, np.inf)  # a constant says nothing
        coefficients = fit((seen - centre) / spread, labels[~out], ridge=ridge)
        scores[out] = (features[out] - centre) / spread @ coefficients[:-1] + coefficients[-1]
    return scores
