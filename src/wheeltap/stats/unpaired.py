"""Difference of two mean scores as if they were of different items: what a comparison that forgets the pairs prints."""

import math
from dataclasses import replace

import numpy as np

from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import normal_quantile, normal_share
from wheeltap.stats.clusters import Groups, spread_over
from wheeltap.stats.crossed import Values, checked

_LEVEL = 0.95


def unpaired_effect(
    one: Values,
    two: Values,
    *,
    groups: Groups | None = None,
    name: str = "difference",
    unit: str,
) -> Estimate:
    """Mean of ``one`` minus that of ``two``, with the normal interval and test of two independent samples.

    On the same items it is as a rule too wide: items that are hard for one are hard for the other.

    Args:
        one: [example].
        two: [example], perhaps of another length.
        groups: [example] of either, the cluster of each; Student's t over clusters is used then.
        name: Name of the estimate.
        unit: Unit of the values.

    Returns:
        Without ends or p-value where neither sample varies.

    Raises:
        DataError: If values are not finite.

    Source: Miller (2024), arXiv:2411.00640, eq. 6.
    """
    x, y = checked(one, ("example",), what="values"), checked(two, ("example",), what="values")
    alpha = 1.0 - _LEVEL
    value, method = float(x.mean() - y.mean()), "normal, two independent samples"
    if groups is not None:
        method = "t over groups, two independent samples"
        each = [spread_over(values[None, :], groups) for values in (x, y)]
        spread = replace(each[0], centre=np.asarray(value), example=each[0].example + each[1].example)
        half = float(spread.half_width(alpha))
        known = np.isfinite(half) and half > 0.0
        p = spread.p_value() if known else None
    else:
        several = len(x) > 1 and len(y) > 1
        error = math.sqrt(x.var(ddof=1) / len(x) + y.var(ddof=1) / len(y)) if several else 0.0
        half, known = normal_quantile(1.0 - alpha / 2.0) * error, error > 0.0
        p = 2.0 * normal_share(-abs(value) / error) if known else None
    low, high = (value - half, value + half) if known else (None, None)
    return Estimate(
        name=name, value=value, low=low, high=high, level=_LEVEL, n=min(len(x), len(y)), unit=unit, method=method, p=p
    )
