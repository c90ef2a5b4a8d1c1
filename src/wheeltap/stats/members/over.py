"""Numbers of members as a sample: their checks, their mean and where one more would lie."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import t_quantile


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
class NumberScale:
    """The unit of a number, how finely it is counted, and whether its ratios are what is comparable.

    Attributes:
        unit: Of the number.
        grain: Step in which it is counted; 0 where it is not. The variance of rounding to it is added to the spread,
            so that nets that happen to have the same count are not called all alike.
        log: Whether members are compared by ratios and not by differences. Of positive numbers with a long tail
            (losses, norms, errors) the logarithms are nearer to normal, which tests of few members rest on.
        bounded: Whether the numbers lie between two ends (shares, correlations).
        ends: These, where it is.
        normal: Whether members are known to be near normal, as means over many examples are: Student's t alone is used.
            Trained nets are not. A few seeds fail, or have a long tail that few members do not show, and tests allow
            for both.
    """

    unit: str
    grain: float = 0.0
    log: bool = False
    bounded: bool = False
    ends: tuple[float, float] = (-1.0, 1.0)
    normal: bool = False

    @property
    def limits(self) -> tuple[float, float]:
        """Least and largest possible number, as it is compared; infinite where there is none."""
        return self.ends if self.bounded and not self.log else (-math.inf, math.inf)


def over_nets(values: Sequence[float], *, name: str, scale: NumberScale, level: float = 0.95) -> Estimate:
    """Mean over nets made alike, with Student's interval; none from one net, or where all gave the same number.

    Raises:
        UsageError: If there is no net.
        DataError: If a value is not finite.
    """
    x = checked(values)
    low, high, method = None, None, "one net: no interval over nets"
    if len(x) > 1:
        half = t_quantile(1 - level, len(x) - 1) * np.sqrt(variance(x, scale) / len(x))
        method = "t over nets" if half > 0.0 else f"no interval: the same number in all {len(x)} nets"
        low, high = (float(x.mean() - half), float(x.mean() + half)) if half > 0.0 else (None, None)
    return Estimate(
        name=name, value=float(x.mean()), low=low, high=high, level=level, n=len(x), unit=scale.unit, method=method
    )


def next_net(values: Sequence[float], *, scale: NumberScale, level: float = 0.95) -> tuple[float, float] | None:
    """Where one more net made alike will lie with probability ``level``; ``None`` as in ``over_nets``.

    Source: the prediction interval of normal samples; Hahn & Meeker (1991), "Statistical Intervals", sec. 4.7.
    """
    x = checked(values)
    if len(x) < 2:
        return None
    half = t_quantile(1 - level, len(x) - 1) * np.sqrt(variance(x, scale) * (1 + 1 / len(x)))
    return (float(x.mean() - half), float(x.mean() + half)) if half > 0.0 else None


def variance(x: NDArray[np.float64], scale: NumberScale) -> float:
    """Variance from net to net, with that of rounding to the grain."""
    return float(x.var(ddof=1)) + scale.grain**2 / 12


def checked(values: Sequence[float]) -> NDArray[np.float64]:
    """One finite number of each net, at least one.

    Raises:
        UsageError: If there is no net.
        DataError: If a value is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x):
        raise UsageError("There is no net to take numbers from.", expected="one number per net", got=str(list(x.shape)))
    if not np.isfinite(x).all():
        raise DataError("A number of a net is not finite.", where=f"net {int(np.flatnonzero(~np.isfinite(x))[0]) + 1}")
    return x
