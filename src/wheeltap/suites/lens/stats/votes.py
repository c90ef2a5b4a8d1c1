"""Measures of votes: distances between distributions over labels, halves of the raters, agreement.

Few raters vote on an item, so the shares of its votes are far from those of all people: a distance to them is larger
than one to all people, the more so the fewer raters there are. Every measure here is about a fresh panel of the same
size (or half of it), of which the votes are an unbiased sample.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import normal_quantile
from wheeltap.stats.crossed import FloatArray

Counts = NDArray[np.int64]

FLOOR: Final = 1e-15
"""Least probability of a label in a KL divergence, as ChaosNLI takes it: without one a vote can make it infinite."""


def shares(votes: NDArray[np.integer]) -> FloatArray:
    """Share of the people who chose each label, ``[..., label]``; somebody voted on each item."""
    counts = np.asarray(votes, dtype=np.float64)
    return counts / counts.sum(-1, keepdims=True)


def js_distance(one: FloatArray, two: FloatArray) -> FloatArray:
    """Jensen-Shannon distance ``[...]`` of two distributions over labels: the square root of the divergence in nats.

    From 0 to .833. ChaosNLI's "JSD" is this distance; the divergence is its square.

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


LEVEL: Final = 0.95
"""Confidence of every interval here."""

_CELLS: Final = 4_000_000
"""Numbers of one array of draws, about 30 MB."""

_TINY: Final = 1e-12
_FEWEST_POINTS: Final = 10
"""Of a correlation, for its interval to mean anything."""


@final
@dataclass(frozen=True, eq=False)
class PanelHalves:
    """The people of each item in two halves, by several random splits.

    Attributes:
        one: ``[split, item, label]``, votes of the smaller half: of them a score is measured. Those of splits 2 i and
            2 i + 1 have nobody in common.
        two: ``[split, item, label]``, votes of the larger half.
    """

    one: Counts
    two: Counts

    @cached_property
    def target(self) -> FloatArray:
        """Shares of the smaller half."""
        return shares(self.one)

    @cached_property
    def other(self) -> FloatArray:
        """Shares of the larger half."""
        return shares(self.two)


def splits_for(items: int, labels: int) -> int:
    """How many splits fit into the memory that is meant for them: 4 to 20."""
    return int(np.clip(_CELLS // max(items * labels, 1), 4, 20))


def halves(votes: Counts, *, splits: int, rng: np.random.Generator) -> PanelHalves:
    """The people of each item at random in two halves; of an odd number the larger has one more.

    Args:
        votes: ``[item, label]``, at least 2 for each item.
        splits: How often; one more where the number is odd.
        rng: For them.
    """
    several = np.broadcast_to(np.asarray(votes, dtype=np.int64), ((splits + 1) // 2, *votes.shape))
    size = several.sum(-1) // 2
    first = _some(several, size, rng)
    second = _some(several - first, size, rng)
    one = np.stack([first, second], axis=1).reshape(-1, *votes.shape)
    return PanelHalves(one, np.repeat(several, 2, axis=0) - one)


def _some(votes: Counts, size: Counts, rng: np.random.Generator) -> Counts:
    """Votes of so many of the people, drawn without replacement."""
    drawn = np.zeros(votes.shape, dtype=np.int64)
    left, rest = size, votes.sum(-1)
    for label in range(votes.shape[-1]):
        rest = rest - votes[..., label]
        drawn[..., label] = rng.hypergeometric(votes[..., label], rest, left)
        left = left - drawn[..., label]
    return drawn


def resampled(votes: Counts, *, draws: int, rng: np.random.Generator) -> Iterator[FloatArray]:
    """Labels ``[item, label]`` that most would have chosen, had as many people been drawn from those who voted."""
    held, people = shares(votes), np.asarray(votes).sum(1)
    for _ in range(draws):
        yield top(rng.multinomial(people, held))


def another(one: FloatArray, two: FloatArray) -> FloatArray:
    """Probability ``[...]`` that two collapses to one label choose different ones; ties are broken at random."""
    return 1.0 - (one * two).sum(-1)


def agreement(votes: Counts) -> FloatArray:
    """Probability ``[item]`` that two raters of an item chose the same label, without bias; 0 where there is one rater.

    Source: Fleiss (1971), eq. 2.
    """
    counts = np.asarray(votes, dtype=np.float64)
    people = counts.sum(1)
    return (counts * (counts - 1.0)).sum(1) / np.maximum(people * (people - 1.0), 1.0)


def kappa(votes: Counts) -> Estimate:
    """Agreement beyond chance (Fleiss' kappa): 0 where people agree as if they had not read the items, 1 at most.

    Items count alike, however many people voted on them. The interval is over items, by the delta method.

    Source: Fleiss (1971), eq. 7; for the interval, the influence of each item on the two means in it.
    """
    held, same = shares(votes), agreement(votes)
    common, observed, n = held.mean(0), float(same.mean()), len(held)
    by_chance = float((common**2).sum())
    name, method = "Fleiss' kappa", "delta method over items"
    if 1.0 - by_chance < _TINY:
        return Estimate(name=name, value=None, low=None, high=None, level=LEVEL, n=n, unit="1", method=method)
    value = (observed - by_chance) / (1.0 - by_chance)
    moved = (same - observed) / (1.0 - by_chance)
    moved += (observed - 1.0) / (1.0 - by_chance) ** 2 * 2.0 * ((held - common) @ common)
    half = normal_quantile(1.0 - (1.0 - LEVEL) / 2.0) * float(np.sqrt(moved.var(ddof=1) / n)) if n > 1 else None
    ends = (None, None) if half is None else (value - half, min(value + half, 1.0))
    return Estimate(name=name, value=value, low=ends[0], high=ends[1], level=LEVEL, n=n, unit="1", method=method)


Moved = Callable[[FloatArray, NDArray[np.integer]], FloatArray]
"""From numbers ``[...]`` and the items that these are of to ``[...]``."""


def correlation(x: FloatArray, y: FloatArray, *, name: str, over: Callable[[Moved], float] | None = None) -> Estimate:
    """Pearson's correlation over items, with an interval that does not take the numbers to be normal.

    By the influence of each item on Fisher's z.

    Args:
        x: ``[item]``.
        y: ``[item]``.
        name: Of the estimate.
        over: Half the interval of the mean of the influence, which another ``y`` of an item changes; by default that of
            independent items.

    Source: Hampel (1974), sec. 4, influence of the correlation coefficient; Fisher (1921).
    """
    n, method = len(x), "Fisher's z, influence over items"
    if n < _FEWEST_POINTS or min(x.std(), y.std()) < _TINY:
        return Estimate(name=name, value=None, low=None, high=None, level=LEVEL, n=n, unit="1", method=method)
    u, v = ((one - one.mean()) / one.std() for one in (x, y))
    r = float((u * v).mean())
    if abs(r) > 1.0 - _TINY:
        return Estimate(name=name, value=r, low=None, high=None, level=LEVEL, n=n, unit="1", method=method)

    def moved(other: FloatArray, at: NDArray[np.integer]) -> FloatArray:
        w = (other - y.mean()) / y.std()
        return (u[at] * w - r * (u[at] ** 2 + w * w) / 2.0) / (1.0 - r * r)

    if over is None:
        error = float(np.sqrt(np.square(moved(y, np.arange(n))).mean() / n))
        half = normal_quantile(1.0 - (1.0 - LEVEL) / 2.0) * error
    else:
        half = over(moved)
    low, high = np.tanh(np.arctanh(r) - half), np.tanh(np.arctanh(r) + half)
    return Estimate(name=name, value=r, low=float(low), high=float(high), level=LEVEL, n=n, unit="1", method=method)


def among(values: FloatArray, chosen: NDArray[np.bool_] | FloatArray) -> tuple[FloatArray, float]:
    """Numbers ``[item]`` whose mean is that of the chosen values, and how many items were chosen.

    Each item counts by the share of splits in which it was chosen; the ratio of the two sums is written as a mean, so
    that a test of a mean over items holds for it.

    Args:
        values: ``[split, item]``.
        chosen: ``[split, item]``, which of them.

    Source: Cochran (1977), sec. 2.11: a ratio of two means, linearized.
    """
    weight = np.asarray(chosen, dtype=np.float64)
    counted = weight.mean(0)
    summed, whole = (np.broadcast_to(values, weight.shape) * weight).mean(0), float(counted.mean())
    if whole <= 0.0:
        return np.zeros(0), 0.0
    ratio = float(summed.mean()) / whole
    return ratio + (summed - ratio * counted) / whole, float(counted.sum())
