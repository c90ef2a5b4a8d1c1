"""What the maps of a net's hidden units look like: whether their span is symmetric, and how many are distinct.

A map is what one unit gives at every pixel. Maps are centred and divided by their standard deviation first, and units
that give the same everywhere are left out: a gaussian unit that nothing reaches is the constant 1, not a feature.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wheeltap.stats.crossed import FloatArray, Values

LIVE: Final = 1e-4
"""Standard deviation over the pixels above which a unit counts as live."""

CUT: Final = 1e-4
"""Directions of a layer with a smaller share of its variance than this are left out: they are rounding."""

Group = NDArray[np.integer[Any]]
"""A finite group acting on the pixels: ``[element, pixel]``, element g turns f into f[group[g]]; the identity first."""


def live(maps: Values) -> NDArray[np.bool_]:
    """Which units ``[unit]`` are not constant: standard deviation over pixels above ``LIVE``.

    Args:
        maps: ``[pixel, unit]``.
    """
    return np.asarray(maps, dtype=np.float64).std(0) > LIVE


def z_scored(maps: Values) -> FloatArray:
    """The live maps ``[pixel, live unit]``, with mean 0 and standard deviation 1 over pixels."""
    x = np.asarray(maps, dtype=np.float64)
    x = x[:, live(x)]
    x = x - x.mean(0)
    return x / x.std(0)


def projected(maps: FloatArray, group: Group) -> FloatArray:
    """The part of ``maps`` ``[pixel, unit]`` that every element of the group leaves as it is."""
    total = maps.copy()
    for element in group[1:]:
        total += maps[element]
    return total / len(group)


def directions(maps: Values, group: Group) -> FloatArray:
    """How the span of a layer's live maps splits, whatever linear mixture of them the units are (M3).

    The directions v solve C_e v = mu C v, with C = F'F of the z-scored maps and C_e of their invariant parts, on
    the eigen-directions of C with more than ``CUT`` of its trace. For a mirror the shares mu are those of even energy;
    their mean of ``|2 mu - 1|`` is 1 if and only if the span is a sum of even and odd functions.

    Args:
        maps: ``[pixel, unit]`` of one layer.
        group: ``[element, pixel]``.

    Returns:
        Invariant share of the energy of each direction, ``[direction]``, ascending.
    """
    scored = z_scored(maps)
    if not scored.shape[1]:
        return np.zeros(0)
    energy, basis = np.linalg.eigh(scored.T @ scored)
    kept = energy > CUT * energy.sum()
    even = projected(scored, group) @ (basis[:, kept] / np.sqrt(energy[kept]))
    shares = np.asarray(np.linalg.eigvalsh(even.T @ even), dtype=np.float64)
    return np.clip(shares, 0.0, 1.0)


def distinct(maps: Values, *, threshold: float) -> int:
    """Live maps that are accepted one by one: those that correlate less than ``threshold`` with all before (M4).

    Args:
        maps: ``[pixel, unit]``, in order of layers.
        threshold: Of the absolute correlation.
    """
    x = z_scored(maps)
    close = np.abs(x.T @ x / len(x)) >= threshold
    barred, accepted = np.zeros(len(close), dtype=np.bool_), 0
    for unit, others in enumerate(close):
        if not barred[unit]:
            accepted += 1
            barred |= others
    return accepted
