"""Nets as the sample: what a number is over nets made alike, and whether one net stands apart from them.

A net trained from five seeds is five observations, whatever the number of weights that were swept in each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import t_quantile, t_two_sided


@dataclass(frozen=True)
class Single:
    """A number of one net alone.

    Attributes:
        value: The number.
        se: Standard error within that net (over the weights that were swept, say); 0 where it is exact.
        method: How that error was found.
        df: Degrees of freedom of that error; ``None`` where it is exact or nearly normal.
    """

    value: float
    se: float = 0.0
    method: str = "exact for this net"
    df: int | None = None


@dataclass(frozen=True)
class Scale:
    """In what a number is told, and how finely.

    Attributes:
        unit: Of the number.
        grain: Step in which it is counted; 0 where it is not. The variance of rounding to it is added to the spread,
            so that nets that happen to have the same count are not called all alike.
    """

    unit: str
    grain: float = 0.0


def over_nets(values: Sequence[float], *, name: str, scale: Scale, level: float = 0.95) -> Estimate:
    """Mean over nets made alike, with Student's interval; no interval from a single net.

    Raises:
        DataError: If there is no net, or a value is not finite.
    """
    x = _checked(values)
    low, high = None, None
    if len(x) > 1:
        half = t_quantile(1 - level, len(x) - 1) * _spread(x, scale) / np.sqrt(len(x))
        low, high = float(x.mean() - half), float(x.mean() + half)
    method = "t over nets" if len(x) > 1 else "one net: no interval over nets"
    return Estimate(
        name=name, value=float(x.mean()), low=low, high=high, level=level, n=len(x), unit=scale.unit, method=method
    )


def next_net(values: Sequence[float], *, scale: Scale, level: float = 0.95) -> tuple[float, float] | None:
    """Where one more net made alike will lie with probability ``level``; ``None`` from a single net.

    Source: the prediction interval of normal samples; Hahn & Meeker (1991), "Statistical Intervals", sec. 4.7.
    """
    x = _checked(values)
    if len(x) < 2:
        return None
    half = t_quantile(1 - level, len(x) - 1) * _spread(x, scale) * np.sqrt(1 + 1 / len(x))
    return float(x.mean() - half), float(x.mean() + half)


def apart(one: Single, values: Sequence[float], *, name: str, scale: Scale, level: float = 0.95) -> Estimate:
    """How far one net lies from the mean of nets made alike, with the p-value of "it is one of them".

    Its interval and test are those of a prediction: they allow for the spread from net to net, so that few nets never
    make a small difference certain. Without spread, or from a single net, there is neither.

    Args:
        one: The number of the net in question.
        values: The same number of each of the others, ``[net]``.
        name: Name of the estimate.
        scale: Unit and grain of the numbers.
        level: Confidence level.

    Raises:
        DataError: If there is no other net, or a value is not finite.
    """
    x = _checked(values)
    gap, low, high, p = one.value - float(x.mean()), None, None, None
    if len(x) > 1:
        spread = float(np.sqrt(_spread(x, scale) ** 2 * (1 + 1 / len(x)) + one.se**2))
        half = t_quantile(1 - level, len(x) - 1) * spread
        low, high = gap - half, gap + half
        p = t_two_sided(gap / spread, len(x) - 1) if spread > 0.0 else None
    method = f"prediction t, 1 net against {len(x)}" if len(x) > 1 else "one net against one: no interval"
    return Estimate(
        name=name, value=gap, low=low, high=high, level=level, n=len(x), unit=scale.unit, method=method, p=p
    )


def _spread(x: NDArray[np.float64], scale: Scale) -> float:
    """Standard deviation from net to net, with that of rounding to the grain."""
    return float(np.sqrt(x.var(ddof=1) + scale.grain**2 / 12))


def _checked(values: Sequence[float]) -> NDArray[np.float64]:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x):
        raise UsageError("There is no net to take numbers from.", expected="one number per net", got=str(list(x.shape)))
    if not np.isfinite(x).all():
        raise DataError("A number of a net is not finite.", where=f"net {int(np.flatnonzero(~np.isfinite(x))[0]) + 1}")
    return x
