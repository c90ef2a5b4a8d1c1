"""Shares of right answers with Wilson's interval: of n independent answers, and of answers that come by items."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import normal_quantile, t_quantile
from wheeltap.stats.clusters import Groups, spread_over
from wheeltap.stats.crossed import Values, checked_alpha

Flags = NDArray[np.bool_]

_LEVEL = 0.95

_NONE = 1e-12
"""Variance of a mean that is rounding in single precision."""


def wilson(right: int, n: int, *, level: float = 0.95, name: str = "share", unit: str = "share") -> Estimate:
    """Share of ``n`` independent answers that are right, in ``unit``, with Wilson's score interval.

    Args:
        right: How many are right.
        n: How many there are, 1 or more.
        level: Confidence level.
        name: Name of the estimate.
        unit: Unit of the share.

    Raises:
        DataError: If there are fewer than none right, more than all, or no answers.

    Source: Wilson (1927), eq. 3; Brown, Cai & DasGupta (2001), eq. 4.
    """
    if not 0 <= right <= n or n < 1:
        raise DataError("A share needs counts.", where=name, expected="0 <= right <= n, n >= 1", got=f"{right} of {n}")
    low, high = _ends(right / n, float(n), normal_quantile(1.0 - checked_alpha(level) / 2.0))
    return Estimate(name=name, value=right / n, low=low, high=high, level=level, n=n, unit=unit, method="Wilson")


def wilson_of_items(right: Flags, items: NDArray[np.integer[Any]], *, name: str = "share") -> Estimate:
    """Share of answers that are right, several to an item, with Wilson's interval of as many as they are worth.

    Answers to one item are alike: n of them are worth n / deff, where deff is the variance of the share over items
    against that of as many independent answers. It is never taken to be below 1. The normal quantile is widened to
    Student's of the items that there are, at a level of .95.

    Args:
        right: ``[answer]``.
        items: ``[answer]``, which item it is of: any whole numbers.
        name: Name of the estimate.

    Returns:
        Its ``n`` is the number of items. Without ends where there is one item alone.

    Raises:
        DataError: If there are no answers, or lengths differ.

    Source: Kish (1965), sec. 5.4 and 8.2 (ratio estimate, design effect); Wilson's interval at the effective number:
    Kott & Carr (1997), sec. 3; Dean & Pagano (2015), sec. 2.
    """
    if not len(right) or right.shape != items.shape:
        raise DataError("A share needs answers, each of an item.", where=name, expected=f"items {right.shape}",
                        got=str(items.shape))  # fmt: skip
    answers, share = len(right), float(right.mean())
    _, member = np.unique(items, return_inverse=True)
    count = int(member.max()) + 1
    if count == 1:
        return Estimate(name=name, value=share, low=None, high=None, level=_LEVEL, n=1, unit="share",
                        method=f"no interval: {answers} answers to one item")  # fmt: skip
    rest = np.asarray(np.bincount(member, weights=right - share), dtype=np.float64)
    over_items = count / (count - 1) * float((rest**2).sum()) / answers**2
    alone = share * (1.0 - share) / answers
    effect = max(over_items / alone, 1.0) if alone > 0.0 else answers / count  # all alike
    low, high = _ends(share, answers / effect, t_quantile(checked_alpha(_LEVEL), count - 1))
    worth = f"Wilson, {answers:,} answers worth {answers / effect:,.0f}"
    return Estimate(name=name, value=share, low=low, high=high, level=_LEVEL, n=count, unit="share", method=worth)


def wilson_of_statistic(
    values: Values, *, worth: float, ends: tuple[float, float], groups: Groups | None = None, name: str
) -> Estimate:
    """A statistic of all examples with Wilson's interval of as many answers as vary as much as it does.

    Args:
        values: ``[example]``, linearized: their mean is the statistic.
        worth: How many answers it is worth where all values are the same.
        ends: The least and the most that it can be.
        groups: ``[example]``, the cluster of each.
        name: Name and unit of the estimate.

    Source: as ``wilson_of_items``; that linearized values tell the variance: Hampel (1974).
    """
    (least, most), x = ends, np.asarray(values, dtype=np.float64)
    share, spread = (float(x.mean()) - least) / (most - least), spread_over(x[None, :], groups)
    if spread.example_df == 0:
        return Estimate(name=name, value=float(x.mean()), low=None, high=None, level=_LEVEL, n=len(x), unit=name,
                        method="no interval: one example")  # fmt: skip
    share = min(max(share, 0.0), 1.0)  # rounding
    variance = float(spread.example) / (most - least) ** 2
    count = share * (1.0 - share) / variance if variance > _NONE and 0.0 < share < 1.0 else worth
    low, high = _ends(share, count, t_quantile(checked_alpha(_LEVEL), spread.example_df))
    return Estimate(
        name=name, value=float(x.mean()), low=least + low * (most - least), high=least + high * (most - least),
        level=_LEVEL, n=len(x), unit=name, method=f"linearized, Wilson of about {count:,.0f} answers",
    )  # fmt: skip


def _ends(share: float, n: float, z: float) -> tuple[float, float]:
    """Both ends of the score interval; exactly 0 or 1 where all answers are alike."""
    middle = (share + z * z / (2.0 * n)) / (1.0 + z * z / n)
    half = z / (1.0 + z * z / n) * float(np.sqrt(share * (1.0 - share) / n + z * z / (4.0 * n * n)))
    return (0.0 if share == 0.0 else max(middle - half, 0.0)), (1.0 if share == 1.0 else min(middle + half, 1.0))
