"""What scores add to cheaper ones for predicting a number of each item, in share of its variance, on items unseen.

A regression that contains another fits its own items better whatever is added, so errors are those of fits to the other
folds alone.

Source: Hoerl & Kennard (1970), eq. 2.1, ridge regression; Stone (1974), sec. 2, cross-validated prediction.
"""

from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.stats.crossed import FloatArray

RIDGE: Final = 1.0
"""Penalty on the squared coefficients of standardized features, beside squared errors of a standardized number."""

_TOLERANCE: Final = 1e-8


@final
@dataclass(frozen=True, eq=False)
class ExplainedVariance:
    """How much of the variance of a number is predicted on items that no fit has seen.

    Attributes:
        without: Share, by the cheap scores; below 0 where they predict worse than the mean.
        with_score: Share, by those in question as well.
        cells: ``[item]``, by how much the added scores lower its squared error, in shares of the variance: their mean
            is the gain.
    """

    without: float
    with_score: float
    cells: FloatArray


def explained(
    cheap: FloatArray, score: FloatArray, wanted: FloatArray, *, groups: NDArray[np.intp]
) -> ExplainedVariance:
    """Share of the variance of ``wanted`` that ``score`` adds to ``cheap``.

    Args:
        cheap: ``[item, k]``.
        score: ``[item, m]``.
        wanted: ``[item]``.
        groups: ``[item]``, the fold of each item; two or more.

    Raises:
        DataError: If lengths differ, numbers are not finite, or the wanted number is the same everywhere.
    """
    lengths = {len(wanted), len(cheap), len(score), len(groups)}
    whole = float(np.var(wanted)) if len(wanted) else 0.0
    finite = all(np.isfinite(values).all() for values in (cheap, score, wanted))
    if len(lengths) > 1 or not finite or whole <= _TOLERANCE:
        raise DataError(
            "There is nothing that could be explained.",
            expected="as many finite scores as wanted numbers, which differ from item to item",
            got=f"{sorted(lengths)} items, a variance of {whole:.3g}, {'all' if finite else 'not all'} finite",
        )
    errors = [
        np.square(wanted - held_out(features, wanted, groups=groups)) / whole
        for features in (cheap, np.hstack([cheap, score]))
    ]
    return ExplainedVariance(1.0 - float(errors[0].mean()), 1.0 - float(errors[1].mean()), errors[0] - errors[1])


def held_out(features: FloatArray, wanted: FloatArray, *, groups: NDArray[np.intp], ridge: float = RIDGE) -> FloatArray:
    """Predictions ``[item]``, each by a ridge regression on the items of the other groups alone.

    Args:
        features: ``[item, feature]``; standardized by the items of each fit.
        wanted: ``[item]``.
        groups: ``[item]``.
        ridge: See ``RIDGE``.
    """
    found = np.zeros(len(wanted))
    for group in np.unique(groups):
        seen = groups != group
        centre, spread = features[seen].mean(0), features[seen].std(0)
        scale = np.where(spread > _TOLERANCE * (1.0 + np.abs(centre)), spread, np.inf)
        design, mean, size = (features - centre) / scale, wanted[seen].mean(), wanted[seen].std()
        inner = design[seen].T @ design[seen] + ridge * np.eye(features.shape[1])
        if size > _TOLERANCE:
            outer: FloatArray = design[seen].T @ ((wanted[seen] - mean) / size)
            slope = np.asarray(np.linalg.solve(inner, outer), dtype=np.float64)
            found[~seen] = size * (design[~seen] @ slope)
        found[~seen] += mean
    return found
