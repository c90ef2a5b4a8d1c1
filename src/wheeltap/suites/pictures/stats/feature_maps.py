"""What the maps of a net's hidden units look like: how symmetric, how many different ones, how rough.

A map is what one unit gives at every pixel. Maps are centred and divided by their standard deviation first, and units
that give the same everywhere are left out: a gaussian unit that nothing reaches is the constant 1, not a feature.
"""

from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from scipy import fft  # type: ignore[import-untyped]

from wheeltap.core.errors import DataError
from wheeltap.stats.crossed import FloatArray, Values

LIVE: Final = 1e-4
"""Standard deviation over the pixels above which a unit counts as live."""

CUT: Final = 1e-4
"""Directions of a layer with a smaller share of its variance than this are left out: they are rounding."""

_AT_ONCE: Final = 64
"""Maps that are transformed at once, to bound memory."""

Group = NDArray[np.integer[Any]]
"""A finite group acting on the pixels: ``[element, pixel]``, element g turns f into f[group[g]]; the identity first."""


@dataclass(frozen=True)
class Directions:
    """How far the span of a layer's maps splits into an invariant part and the rest.

    Attributes:
        shares: Invariant share of the energy of each direction, ``[direction]``, ascending.
    """

    shares: FloatArray

    @property
    def purity(self) -> float:
        """Mean of ``|2 share - 1|``: 1 if the span splits exactly, whatever the basis; 0 without a direction."""
        return float(np.abs(2.0 * self.shares - 1.0).mean()) if len(self.shares) else 0.0


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


def purities(maps: Values, group: Group) -> FloatArray:
    """Parity purity of each live map, ``[live unit]``: |2 E_j - 1|, 1 if even or odd and nothing between (M2)."""
    scored = z_scored(maps)
    share = np.square(projected(scored, group)).sum(0) / len(scored)
    return np.abs(2.0 * share - 1.0)


def projected(maps: FloatArray, group: Group) -> FloatArray:
    """The part of ``maps`` ``[pixel, unit]`` that every element of the group leaves as it is."""
    total = maps.copy()
    for element in group[1:]:
        total += maps[element]
    return total / len(group)


def directions(maps: Values, group: Group) -> Directions:
    """How the span of a layer's live maps splits, whatever linear mixture of them the units are (M3).

    The directions v solve C_e v = mu C v, with C = F'F of the z-scored maps and C_e of their invariant parts, on
    the eigen-directions of C with more than ``CUT`` of its trace. For a mirror the shares mu are those of even energy;
    the purity is 1 if and only if the span is a sum of even and odd functions.

    Args:
        maps: ``[pixel, unit]`` of one layer.
        group: ``[element, pixel]``.
    """
    scored = z_scored(maps)
    if not scored.shape[1]:
        return Directions(np.zeros(0))
    energy, basis = np.linalg.eigh(scored.T @ scored)
    kept = energy > CUT * energy.sum()
    even = projected(scored, group) @ (basis[:, kept] / np.sqrt(energy[kept]))
    shares = np.asarray(np.linalg.eigvalsh(even.T @ even), dtype=np.float64)
    return Directions(np.clip(shares, 0.0, 1.0))


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


def effective_rank(maps: Values) -> float:
    """exp(entropy) of the eigenvalues of the live maps' correlation matrix: from 1 to the number of live maps.

    Source: Roy & Vetterli (2007), "The effective rank: a measure of effective dimensionality".
    """
    x = z_scored(maps)
    spectrum = np.maximum(np.linalg.eigvalsh(x.T @ x / len(x)), 0.0)
    share = spectrum[spectrum > 0.0] / spectrum.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def roughness(maps: Values, *, size: int) -> FloatArray:
    """Spectral centroid of each live map, ``[live unit]``, in cycles per image (M5).

    Mean of the frequency sqrt(u^2 + v^2) weighted by the power of the two-dimensional Fourier transform, without the
    mean. Zero-centred frequencies; the picture is taken as it is, without a window.

    Args:
        maps: ``[pixel, unit]``, pixels row by row.
        size: Side of the picture, in pixels.

    Raises:
        DataError: If there are not ``size`` x ``size`` pixels.
    """
    scored = z_scored(maps)
    if len(scored) != size * size:
        raise DataError("The maps are no square picture.", expected=f"{size} x {size} pixels", got=str(len(scored)))
    frequency = np.fft.fftfreq(size, 1.0 / size)
    radius = np.hypot(frequency[:, None], frequency[None, : size // 2 + 1])
    # A real picture's spectrum is symmetric: the columns left out count through their mirror images.
    twice = np.full(size // 2 + 1, 2.0)
    twice[0] = 1.0
    if size % 2 == 0:
        twice[-1] = 1.0
    parts: list[FloatArray] = [np.zeros(0)]
    for start in range(0, scored.shape[1], _AT_ONCE):
        pictures = scored[:, start : start + _AT_ONCE].T.reshape(-1, size, size)
        power = np.square(np.abs(cast("NDArray[np.complex128]", fft.rfft2(pictures)))) * twice  # pyright: ignore[reportUnknownMemberType]
        power[:, 0, 0] = 0.0
        parts.append((power * radius).sum((1, 2)) / power.sum((1, 2)))
    return np.concatenate(parts)
