"""How far a distribution over labels is from the votes of people: distances, by item, each by its full name."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.stats.crossed import FloatArray

Counts = NDArray[np.int64]

FLOOR: Final = 1e-15
"""Least probability of a label in a KL divergence, as ChaosNLI takes it: without one a vote can make it infinite."""

FURTHEST: Final = float(np.sqrt(np.log(2.0)))
"""JS distance of two distributions without a label in common."""

NEAR: Final = 1e-3
"""How far probabilities may be from a sum of 1, as files round them."""


def shares(votes: NDArray[np.integer]) -> FloatArray:
    """Share of the people who chose each label, ``[..., label]``.

    Raises:
        DataError: If a count is negative, or nobody voted on an item.
    """
    counts = np.asarray(votes, dtype=np.float64)
    sums = counts.sum(-1, keepdims=True)
    if counts.ndim < 1 or (counts < 0).any() or (sums <= 0).any():
        raise DataError(
            "Votes cannot be made shares.",
            expected="counts of at least 0 that sum to 1 or more for each item",
            got=f"{int((sums <= 0).sum())} items without votes, the least count {counts.min(initial=0.0):.3g}",
        )
    return counts / sums


def probabilities(given: NDArray[np.floating]) -> FloatArray:
    """Probabilities ``[item, label]`` as they sum to 1 in double precision.

    Raises:
        DataError: If they are negative or sum to something else.
    """
    p = np.asarray(given, dtype=np.float64)
    sums = p.sum(-1, keepdims=True)
    if not ((p >= 0.0).all() and (np.abs(sums - 1.0) <= NEAR).all()):
        raise DataError(
            "Probabilities do not sum to 1.",
            expected=f"numbers of at least 0 with a sum of 1, within {NEAR}",
            got=f"sums from {sums.min():.4g} to {sums.max():.4g}, the least {p.min():.4g}",
        )
    return p / sums


def js_distance(one: FloatArray, two: FloatArray) -> FloatArray:
    """Jensen-Shannon distance ``[...]`` of two distributions over labels: the square root of the divergence in nats.

    From 0 to .833 (``FURTHEST``). ChaosNLI's "JSD" is this distance; the divergence is its square.

    Source: Endres & Schindelin (2003), eq. 2; scipy.spatial.distance.jensenshannon.
    """
    middle = (one + two) / 2.0
    divergence = (_relative(one, middle) + _relative(two, middle)) / 2.0
    return np.sqrt(np.clip(divergence, 0.0, None))


def kl_divergence(people: FloatArray, model: FloatArray) -> FloatArray:
    """KL(people || model) in nats ``[...]``; the model's probabilities are at least ``FLOOR``."""
    return _relative(people, np.maximum(model, FLOOR))


def manhattan(one: FloatArray, two: FloatArray) -> FloatArray:
    """Manhattan distance ``[...]``, from 0 to 2: the sum of absolute differences, as LeWiDi 2025 scores soft labels."""
    return np.abs(one - two).sum(-1)


def total_variation(one: FloatArray, two: FloatArray) -> FloatArray:
    """Total variation ``[...]``, from 0 to 1: half the Manhattan distance.

    Against people it is DistCE, the calibration error of one item.

    Source: Baan et al. (2022), arXiv:2210.16133, sec. 4.
    """
    return manhattan(one, two) / 2.0


def squared_to_all(votes: NDArray[np.integer], model: FloatArray) -> FloatArray:
    """Squared Euclidean distance ``[item]`` to what all people would say, without bias, from the votes of a few.

    The distance to the votes, less what the votes themselves scatter: so it may fall below 0 on an item. Alone among
    the distances here it depends on no number of votes, and no other model is closer on average than all people are.

    Args:
        votes: ``[item, label]``, at least 2 for each item.
        model: Probabilities ``[item, label]``.

    Source: Brier (1950), eq. 2; the variance of a share, p (1 - p) / n, without bias.
    """
    held, people = shares(votes), np.asarray(votes).sum(-1)
    return np.square(model - held).sum(-1) - (held * (1.0 - held)).sum(-1) / (people - 1.0)


def wasserstein(one: FloatArray, two: FloatArray) -> FloatArray:
    """Wasserstein distance ``[...]`` in steps between ordered labels: how far people would have to be moved."""
    return np.abs(np.cumsum(one - two, axis=-1)[..., :-1]).sum(-1)


def entropy(p: FloatArray) -> FloatArray:
    """Entropy of a distribution over labels ``[...]``, in nats."""
    return -_times_log(p, p)


def top(p: NDArray[np.floating] | NDArray[np.integer]) -> FloatArray:
    """The most likely label ``[..., label]``: 1 where it is one label, shared evenly where several are equal.

    A collapse to one label has to choose among equals; this is its expectation where it chooses at random.
    """
    best = p == p.max(-1, keepdims=True)
    return best / best.sum(-1, keepdims=True)


def soft_accuracy(people: FloatArray, model: FloatArray) -> FloatArray:
    """Share of the people who chose the label that the model finds most likely, ``[...]``."""
    return (people * top(model)).sum(-1)


def _times_log(weight: FloatArray, ratio: FloatArray) -> FloatArray:
    """Sum over labels of weight times log(ratio); nothing where the weight is nothing."""
    return (weight * np.log(np.where(weight > 0.0, ratio, 1.0))).sum(-1)


def _relative(one: FloatArray, two: FloatArray) -> FloatArray:
    return _times_log(one, one / np.where(two > 0.0, two, 1.0))
