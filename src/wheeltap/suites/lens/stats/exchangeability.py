"""Whether a given order, or the first of two versions, is likelier than chance would make it: exact tests.

Nothing is assumed of the numbers but what exchangeability says: had the model never seen the items in this order, the
given order of a shard would be as good as any other; were the two versions of an item drawn alike, either could be
the first.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from wheeltap.stats._scipy import binomial_share, t_share
from wheeltap.stats.crossed import FloatArray

DRAWS: Final = 20_000
"""Random assignments of a test: the least p-value is one over one more."""

_BLOCK: Final = 2_000
"""Assignments at a time: memory."""

_SAME: Final = 1e-9
"""Share of the statistic's scale within which two values are a tie, which counts against the observed one."""


@final
@dataclass(frozen=True, eq=False)
class Order:
    """How much likelier the given order is.

    Attributes:
        p: Exact one-sided p-value: the share of assignments of one arrangement to each shard that are as likely.
        p_t: One-sided p-value of Student's t over shards, as published; an approximation.
        gains: Log-likelihood of the given order less the mean over shuffles, ``[shard]``.
    """

    p: float
    p_t: float
    gains: FloatArray


def order_test(likelihoods: FloatArray, rng: np.random.Generator, *, draws: int = DRAWS) -> Order:
    """Tests that the given order of the items of each shard is no likelier than shuffles of them.

    Given the likelihoods of all arrangements of a shard, each is as likely to be that of the given order; and shards
    do not depend on each other. So any arrangement may take the place of the given one, shard by shard. Each shard
    counts in units of the spread among its arrangements.

    Args:
        likelihoods: ``[shard, arrangement]``: log-likelihoods, the first that of the given order.
        rng: Of the assignments.
        draws: How many.

    Source: Oren et al. (2024), "Proving test set contamination in black box language models" (arXiv:2310.17623),
    the sharded test; Hemerik & Goeman (2018), "Exact testing with random permutations",
    theorem 2, for the p-value.
    """
    shards, arrangements = likelihoods.shape
    centered = likelihoods - likelihoods.mean(axis=1, keepdims=True)
    scale = centered.std(axis=1, keepdims=True)
    scores = np.divide(centered, scale, out=np.zeros_like(centered), where=scale > _SAME * np.abs(likelihoods).max())
    seen = float(scores[:, 0].sum())

    def assigned(count: int) -> FloatArray:
        chosen = rng.integers(0, arrangements, (shards, count))
        return np.take_along_axis(scores, chosen, axis=1).sum(axis=0)

    p = _as_large(assigned, seen - _SAME * shards, draws)
    gains = likelihoods[:, 0] - likelihoods[:, 1:].mean(axis=1)
    error = gains.std(ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else 0.0
    p_t = 1.0 if error == 0.0 else 1.0 - t_share(float(gains.mean() / error), len(gains) - 1)
    return Order(p, p_t, gains)


def flipped(gaps: FloatArray, rng: np.random.Generator, *, draws: int = DRAWS) -> float:
    """Exact one-sided p-value that gaps ``[item]`` are not above 0: were versions alike, each sign were a coin's.

    Source: Fisher (1935), "The design of experiments", sec. 21; Hemerik & Goeman (2018), theorem 2.
    """

    def assigned(count: int) -> FloatArray:
        return (2.0 * rng.integers(0, 2, (count, len(gaps)), dtype=np.int8) - 1.0) @ gaps

    return _as_large(assigned, float(gaps.sum() - _SAME * np.abs(gaps).sum()), draws)


def _as_large(assigned: Callable[[int], FloatArray], least: float, draws: int) -> float:
    """P-value: share of random assignments, the observed one among them, whose statistic is at least ``least``."""
    counts = (min(_BLOCK, draws - start) for start in range(0, draws, _BLOCK))
    return (1 + sum(int((assigned(count) >= least).sum()) for count in counts)) / (1 + draws)


def more_often(one: FloatArray, two: FloatArray) -> float:
    """Exact one-sided p-value that ``one`` is not above ``two`` more often than below, ``[item]``; ties say nothing.

    Source: McNemar (1947), by the binomial distribution.
    """
    above, below = int((one > two).sum()), int((one < two).sum())
    # At least so many of the items that differ: by symmetry, at most so few on the other side.
    return binomial_share(below, above + below, 0.5) if above + below else 1.0
