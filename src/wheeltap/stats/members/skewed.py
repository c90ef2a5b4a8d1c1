"""How far Student's t strays where members are skewed: of few members nobody can see whether they are."""

from functools import cache
from typing import Final

import numpy as np

from wheeltap.core import seeds
from wheeltap.stats.crossed import FloatArray

_SAMPLES: Final = 100_000
_SIZES: Final = (*range(2, 13), 16, 24, 32, 64)
"""Members of the samples that are drawn; other numbers are treated as the next smaller one, which is safe."""


def of_means(members: int) -> FloatArray:
    """Distances of means below the true one, in standard errors, ascending: lognormal, deviation 1 of the log.

    The long tail that a sample happens to lack makes its mean too small and its spread too: Student's t then excludes
    the truth in 16 to 19 % of samples of 3 to 8, at an alpha of .05.
    """
    return _means(_size(members))


@cache
def _means(members: int) -> FloatArray:
    x = _drawn(members, "means")
    return np.sort((np.exp(0.5) - x.mean(axis=1)) / (x.std(axis=1, ddof=1) / np.sqrt(x.shape[1])))


def of_predictions(members: int) -> FloatArray:
    """Distances of one more number above the mean of ``members`` others, in standard errors of a prediction."""
    return _predictions(_size(members))


@cache
def _predictions(members: int) -> FloatArray:
    x = _drawn(members + 1, "predictions")
    others = x[:, 1:]
    error = others.std(axis=1, ddof=1) * np.sqrt(1.0 + 1.0 / others.shape[1])
    return np.sort((x[:, 0] - others.mean(axis=1)) / error)


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
    return float(np.interp(whole - share * whole, np.arange(whole), reference))


def _size(members: int) -> int:
    return max(size for size in _SIZES if size <= max(members, _SIZES[0]))


def _drawn(members: int, what: str) -> FloatArray:
    return np.exp(seeds.generator(0, "skewed", what, members).standard_normal((_SAMPLES, members)))
