"""How far Student's t strays where members are skewed: of few members nobody can see whether they are."""

from functools import cache
from typing import Final

import numpy as np

from wheeltap.core import seeds
from wheeltap.stats.crossed import FloatArray

_SAMPLES: Final = 100_000
_SIZES: Final = (*range(2, 13), 16, 24, 32, 64)
"""Members of the samples that are drawn; other numbers are treated as the next smaller one, which is safe."""


def reference(members: int, *, prediction: bool = False) -> FloatArray:
    """Distances of means below the true one, in standard errors, ascending: lognormal, deviation 1 of the log.

    The long tail that a sample happens to lack makes its mean too small and its spread too: Student's t then excludes
    the truth in 16 to 19 % of samples of 3 to 8, at an alpha of .05.

    Args:
        members: Of the sample.
        prediction: Distances of one more number above the mean of the others, in standard errors of a prediction.
    """
    return _reference(max(size for size in _SIZES if size <= max(members, _SIZES[0])), prediction)


@cache
def _reference(size: int, prediction: bool) -> FloatArray:
    members, what = size + prediction, "predictions" if prediction else "means"
    x = np.exp(seeds.generator(0, "skewed", what, members).standard_normal((_SAMPLES, members)))
    others = x[:, 1:] if prediction else x
    spread, mean = others.std(axis=1, ddof=1), others.mean(axis=1)
    if prediction:
        return np.sort((x[:, 0] - mean) / (spread * np.sqrt(1.0 + 1.0 / size)))
    return np.sort((np.exp(0.5) - mean) / (spread / np.sqrt(size)))


def beyond(distance: float, reference: FloatArray, df: float) -> float:
    """Share of the reference that is at least so far; beyond its end the tail falls as that of Student's t."""
    most, whole = float(reference[-1]), len(reference)
    if distance >= most:
        return float((most / distance) ** df) / whole
    at = max(int(np.searchsorted(reference, distance, side="right")), 1)  # from the place before to that at ``at``
    below, above = reference[at - 1], reference[at]
    return float(whole - at + (above - distance) / (above - below)) / whole


def reach(share: float, reference: FloatArray, df: float) -> float:
    """Distance beyond which so small a share lies: the inverse of ``beyond``."""
    most, whole = float(reference[-1]), len(reference)
    if share * whole <= 1.0:
        return most * (share * whole) ** (-1.0 / df)
    below = min(int(place := whole - share * whole), whole - 2)
    return float(reference[below] + (place - below) * (reference[below + 1] - reference[below]))
