"""The few scipy functions used here, with types: scipy ships none, and one file of casts is enough."""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special  # type: ignore[import-untyped]

_brentq = cast(Callable[..., float], optimize.brentq)  # pyright: ignore[reportUnknownMemberType]
_isotonic = cast(Callable[..., dict[str, NDArray[np.float64]]], optimize.isotonic_regression)


def _plain(function: Any) -> Callable[..., float]:
    """A function of numpy numbers as one of Python's."""
    return lambda *given: float(function(*given))


_stdtrit, _nctdtr, _nctdtrinc = map(_plain, (special.stdtrit, special.nctdtr, special.nctdtrinc))
_stdtr, _betaincinv = map(_plain, (special.stdtr, special.betaincinv))
normal_quantile: Callable[[float], float] = _plain(special.ndtri)
"""Quantile of the standard normal distribution."""
normal_share: Callable[[float], float] = _plain(special.ndtr)
"""Share of the standard normal distribution below a quantile."""
binomial_share: Callable[[int, int, float], float] = _plain(special.bdtr)
"""Probability of at most ``hits`` in so many ``trials`` that each hit with probability ``share``, in this order."""


def t_quantile(alpha: float, df: float) -> float:
    """Two-sided Student t quantile: |t| exceeds it with probability ``alpha``."""
    return -_stdtrit(df, alpha / 2.0)


def t_share(statistic: float, df: float) -> float:
    """Share of Student's t distribution below ``statistic``."""
    return _stdtr(df, statistic)


def t_beyond(statistic: float, df: float, shift: float) -> float:
    """Probability that a noncentral t is above ``statistic``: the power of a one-sided t test, ``shift`` in errors."""
    below = _nctdtr(df, shift, statistic)
    if math.isnan(below):
        # scipy has no number where a tail is all but empty. Abramowitz & Stegun 26.7.10 is good enough there.
        scale = math.sqrt(1.0 + statistic**2 / (2.0 * df))
        below = normal_share((statistic * (1.0 - 1.0 / (4.0 * df)) - shift) / scale)
    return 1.0 - below


def t_reach(alpha: float, df: int, power: float) -> float:
    """How many standard errors an effect must measure for the two-sided t test to find it with that ``power``.

    By the noncentral t distribution: the standard error that the test divides by is itself an estimate.
    """
    return _nctdtrinc(df, 1.0 - power, t_quantile(alpha, df))


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Quantile of the beta distribution."""
    return _betaincinv(a, b, probability)


def sign_test(part: int, whole: int) -> float:
    """Exact two-sided p-value that ``part`` of ``whole`` fair coins fall on one side."""
    return min(1.0, 2.0 * binomial_share(min(part, whole - part), whole, 0.5))


def fisher(first: tuple[int, int], second: tuple[int, int]) -> float:
    """Fisher's exact two-sided p-value that two shares, each as hits and misses, are the same."""
    from scipy import stats  # type: ignore[import-untyped]  # slow to import, and rarely needed

    return float(cast(Any, stats).fisher_exact([first, second])[1])


def root(function: Callable[[float], float], low: float, high: float) -> float:
    """Where ``function`` passes zero between two points at which its signs differ."""
    return float(_brentq(function, low, high, xtol=1e-10))


def ascending(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Closest non-decreasing sequence, by isotonic regression (pool adjacent violators)."""
    return np.asarray(_isotonic(values, increasing=True)["x"], dtype=np.float64)


def descending(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Closest non-increasing sequence, by isotonic regression (pool adjacent violators)."""
    return np.asarray(_isotonic(values, increasing=False)["x"], dtype=np.float64)
