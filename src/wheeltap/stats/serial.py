"""Examples that depend on those before them in the file, as the rows of one patient do: blocks of these are groups."""

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from wheeltap.stats.clusters import Groups
from wheeltap.stats.crossed import FloatArray

_FEWEST, _BLOCKS = 50, 10  # examples from which their order tells something; blocks that there must be
_WINDOWS: Final = (1, 4, 12, 40)  # lags that are summed: runs of 2 to about 50 examples
_SUSPECT, _SHUFFLES = 2.5, 199  # standard errors from which the test is made, at a level of 1 in 200
_LONGER: Final = 1.25  # factor from one length of blocks to the next
_STRATUM, _SEVERAL = 20, 5  # examples of nearly equal targets that are no classes; of a stratum on average, at least


def strata_of(targets: NDArray[Any], labels: Iterable[NDArray[Any]] = ()) -> NDArray[np.intp]:
    """Return a number ``[example]`` for each class, or nearly equal numbers: files are often sorted by these.

    Labels ``[example]`` divide strata further, as long as these have several examples each.
    """
    strata = np.zeros(len(targets), dtype=np.intp)
    if targets.ndim == 1 and targets.dtype.kind == "f":
        strata = targets.argsort(kind="stable").argsort(kind="stable") // _STRATUM
    for values in (*labels, *([targets] if targets.ndim == 1 and targets.dtype.kind != "f" else [])):
        divided = np.unique(np.stack([strata, values]), axis=1, return_inverse=True)[1].reshape(-1)
        strata = divided if len(targets) >= _SEVERAL * (divided.max() + 1) else strata
    return strata


def serial_groups(values: FloatArray, strata: NDArray[np.intp]) -> Groups | None:
    """Return blocks of the file as groups ``[example]``, long enough that their means do not depend on each other.

    Sums of autocorrelations, which fall with the lag (Bartlett's weights), are compared with those of shuffled
    examples.

    Args:
        values: ``[measure, example]`` in the order of the file.
        strata: ``[example]``; what examples of a stratum have in common is no dependence.

    Returns:
        ``None`` where no measure depends on the order (1 in 200 files of independent examples is taken to), or over
        more than a tenth of the file.

    Source: Bartlett (1946), "On the theoretical specification and sampling properties of autocorrelated time-series";
    Künsch (1989), "The jackknife and the bootstrap for general stationary observations" (blocks).
    """
    count = values.shape[1]
    if count < _FEWEST:
        return None
    table = np.array([_residuals(row, strata) for row in values])
    table = table[np.abs(table).max(1) > 0.0]
    if not len(table) or (sizes := _sizes(table)).max() < _SUSPECT:
        return None
    rng = np.random.default_rng(0)
    if any(_sizes(table[:, rng.permutation(count)]).max() >= sizes.max() for _ in range(_SHUFFLES)):
        return None
    row, length = table[int(sizes.argmax())], 2.0
    while _depend(row, int(length)):
        length *= _LONGER
        if int(length) > count // _BLOCKS:  # a trend, or a file that is sorted by a few kinds of examples
            return None
    return np.asarray(np.arange(count) // int(length), dtype=np.int64)


def _residuals(row: FloatArray, strata: NDArray[np.intp]) -> FloatArray:
    """Ranks, which no example far away decides, in units of their spread within the stratum."""
    _, place, counts = np.unique(row, return_inverse=True, return_counts=True)
    ranks = ((np.cumsum(counts) - counts / 2.0) / len(row))[place]
    sizes = np.bincount(strata)
    scores = ranks - (np.bincount(strata, ranks) / np.maximum(sizes, 1))[strata]
    spread = np.sqrt(np.bincount(strata, np.square(scores)) / np.maximum(sizes, 1))[strata]
    return np.divide(scores, spread, out=np.zeros_like(scores), where=spread > 1e-9)


def _sizes(table: FloatArray) -> FloatArray:
    """Largest sum of autocorrelations of each row, in standard errors of independent examples."""
    lags = min(max(_WINDOWS), table.shape[1] // 4)
    at_lag = np.array([np.einsum("ij,ij->i", table[:, lag:], table[:, :-lag]) for lag in range(1, lags + 1)])
    at_lag /= np.square(table).sum(1)
    weights = np.array([np.maximum(1.0 - np.arange(1, lags + 1) / (window + 1.0), 0.0) for window in _WINDOWS])
    errors = np.sqrt(np.square(weights).sum(1) / table.shape[1])
    return np.asarray((weights @ at_lag / errors[:, None]).max(0), dtype=np.float64)


def _depend(row: FloatArray, length: int) -> bool:
    """Whether means of neighboring blocks are more alike than by one standard error."""
    blocks = len(row) // length
    means = row[: blocks * length].reshape(blocks, length).mean(1)
    means = means - means.mean()
    return float(means[1:] @ means[:-1]) * np.sqrt(blocks) > float(means @ means)
