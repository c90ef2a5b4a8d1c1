"""How often k tries are enough, from n recorded tries at each item: pass@k and pass^k without bias."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError, UsageError
from wheeltap.stats.crossed import FloatArray

Counts = NDArray[np.integer]
Runs = tuple[tuple[int, int], ...]
"""Numbers of tries as runs, first and last of each."""

_LARGEST = 2**16
"""Samples of an item beyond which no curve is computed."""


def pass_at(right: Counts, samples: Counts, *, most: int) -> FloatArray:
    """Probability that at least one of k tries is right, ``[item, k]`` for k from 1 to ``most``.

    1 - C(n - c, k) / C(n, k), as a product of k factors: exact to rounding, and without overflow.

    Args:
        right: ``[item]``, right answers c.
        samples: ``[item]``, answers n of that item: never the number of items.
        most: Largest k; no item may have fewer samples.

    Raises:
        DataError: If an item has fewer samples than ``most``, or counts that cannot be.
        UsageError: If ``most`` cannot be used.

    Source: Chen et al. (2021), arXiv:2107.03374, eq. 1.
    """
    c, n = _checked(right, samples, most=most)
    return 1.0 - _none_of(n - c, n, most=most)


def pass_all(right: Counts, samples: Counts, *, most: int) -> FloatArray:
    """Probability that all of k tries are right, ``[item, k]``: C(c, k) / C(n, k).

    Args:
        right: ``[item]``.
        samples: ``[item]``.
        most: Largest k.

    Raises:
        DataError: As ``pass_at``.
        UsageError: As ``pass_at``.

    Source: Yao et al. (2024), arXiv:2406.12045, sec. 3.
    """
    c, n = _checked(right, samples, most=most)
    return _none_of(c, n, most=most)


def _none_of(some: FloatArray, whole: FloatArray, *, most: int) -> FloatArray:
    """Probability that k draws without replacement are all among ``some`` of the ``whole``."""
    drawn = np.arange(most, dtype=np.float64)
    ratios = np.clip(some[:, None] - drawn, 0.0, None) / (whole[:, None] - drawn)
    return np.asarray(np.cumprod(ratios, axis=1), dtype=np.float64)


def _checked(right: Counts, samples: Counts, *, most: int) -> tuple[FloatArray, FloatArray]:
    if not 1 <= most <= _LARGEST:
        raise UsageError("k cannot be used.", expected=f"1 to {_LARGEST:,}", got=str(most))
    c, n = np.asarray(right, dtype=np.float64), np.asarray(samples, dtype=np.float64)
    if c.shape != n.shape or c.ndim != 1 or not len(c):
        raise DataError("Counts do not fit.", expected="right answers and samples of each item", got=f"{c.shape}")
    _require(n >= most, f"at least k = {most:,} samples of each item", c, n)
    _require((c >= 0) & (c <= n), "0 <= right answers <= samples", c, n)
    return c, n


def _require(fine: NDArray[np.bool_], expected: str, c: FloatArray, n: FloatArray) -> None:
    bad = np.flatnonzero(~fine)
    if len(bad):
        named = ", ".join(f"item {at + 1} (c {c[at]:.0f}, n {n[at]:.0f})" for at in bad[:5])
        raise DataError(
            "pass@k is not defined for these items.",
            where=named,
            expected=expected,
            got=f"{len(bad)} items without",
            do="Take a smaller k, or leave these items out.",
        )


def runs_of(ks: Sequence[int], chosen: NDArray[np.bool_]) -> Runs:
    """The chosen ks as runs, first and last of each."""
    found: list[tuple[int, int]] = []
    before = False
    for k, now in zip(ks, chosen, strict=True):
        if now and before:
            found[-1] = (found[-1][0], k)
        elif now:
            found.append((k, k))
        before = bool(now)
    return tuple(found)
