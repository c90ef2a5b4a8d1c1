"""Bands that hold a whole curve at once: means over items at many points, by the largest deviation of them all."""

from dataclasses import dataclass
from typing import Final, final

import numpy as np

from wheeltap.stats.clusters import Groups, clustered
from wheeltap.stats.crossed import FloatArray, checked, checked_alpha, within

DRAWS: Final = 100_000
"""Of the largest deviation: its quantile errs by less than .01 standard errors."""

FEWEST: Final = 20
"""Items below which there is no band: what few items show alike, others may not."""

_CHUNK: Final = 10_000
_TINY: Final = 1e-12


@final
@dataclass(frozen=True, eq=False)
class Band:
    """A mean curve and the band that holds the true one everywhere, with probability ``level``.

    Attributes:
        mean: ``[point]``.
        low: ``[point]``; -inf where there is no band.
        high: ``[point]``; inf where there is no band.
        critical: Standard errors from the center to the band; 0 where there is none.
    """

    mean: FloatArray
    low: FloatArray
    high: FloatArray
    critical: float


def band(
    values: FloatArray,
    *,
    level: float = 0.95,
    difference: bool = False,
    groups: Groups | None = None,
    draws: int = DRAWS,
    rng: np.random.Generator,
) -> Band:
    """Mean over items of shares at each point, with a simultaneous band that lies where shares can.

    Items are the sample: samples within an item are averaged before. The largest studentized deviation over all points
    is drawn from the multivariate t distribution with the points' correlation over items. With many items that is the
    sup-t band of Gaussian multipliers; with few, Student's tails make it as wide as it has to be.

    Two imaginary items are added, one at each end of what an item can give at every point. Without them a band near 1,
    where one item in a hundred decides, holds the whole curve in 25 to 45 % of samples.

    Args:
        values: ``[item, point]``, shares, or differences of two.
        level: Of the whole band.
        difference: Whether they are differences: an item gives -1 at least, and not 0.
        groups: ``[item]``, the cluster of each; these are the sample then.
        draws: Of the largest deviation.
        rng: For them.

    Returns:
        Of fewer than ``FEWEST`` items (or clusters) a band without ends.

    Raises:
        DataError: If there is no item, or values are not finite or no shares.

    Source: Montiel Olea & Plagborg-Moller (2019), sec. 2 (sup-t band); Hothorn, Bretz & Westfall (2008) for t; Agresti
    & Caffo (2000) for the two added items.
    """
    least = -1.0 if difference else 0.0
    x = within(checked(values, ("item", "point"), what="values"), least, 1.0, what="values")
    alpha, mean = checked_alpha(level), x.mean(axis=0)
    x = clustered(x.T, groups).T
    if len(x) < FEWEST:
        return Band(mean, np.full_like(mean, -np.inf), np.full_like(mean, np.inf), 0.0)
    points = x.shape[1]
    both = np.vstack([x, np.full(points, least), np.ones(points)])
    center, spread = both.mean(axis=0), both.std(axis=0, ddof=1)
    critical = float(np.quantile(_largest((both - center) / spread, draws, rng), 1.0 - alpha))
    half = critical * spread / np.sqrt(len(both))
    low, high = np.maximum(center - half, least), np.minimum(center + half, 1.0)
    return Band(mean, np.minimum(low, mean), np.maximum(high, mean), critical)


def _largest(standard: FloatArray, draws: int, rng: np.random.Generator) -> FloatArray:
    """Draws of the largest absolute deviation over points, ``[draw]``."""
    df = len(standard) - 1
    variances, axes = np.linalg.eigh(standard.T @ standard / df)
    kept = variances > _TINY * variances.max()
    root = axes[:, kept] * np.sqrt(variances[kept])
    found: list[FloatArray] = []
    for begun in range(0, draws, _CHUNK):
        size = min(_CHUNK, draws - begun)
        scale = np.sqrt(rng.chisquare(df, size=size) / df)
        drawn = np.abs(rng.standard_normal((size, int(kept.sum()))) @ root.T).max(axis=1)
        found.append(drawn / scale)
    return np.concatenate(found)
