"""What the order of members' numbers says: correlation of two metrics, and separation of two cohorts."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from typing import final

import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.stats import delong1988
from wheeltap.stats._scipy import normal_quantile, normal_share, root, t_quantile, t_share
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.delong1988 import mean_ranks
from wheeltap.stats.members.base import Law, MemberTest
from wheeltap.stats.members.over import checked

_FEW = 5
"""Members of the smaller cohort from which an AUC's interval is as wide as it has to be on average. With fewer, where
its coverage jumps from .85 to 1 between neighbouring AUCs, it is made wider so that it does not fall below .97."""

_ORDERS = 8
"""Members up to which every order is looked at; of more, Student's t is as good."""

_NOTHING = 1e-9
"""Share of a metric's spread at or below which nothing is left of it beyond others."""


@cache
def _of_orders(members: int) -> FloatArray:
    """Rank correlations of all orders of so many members with one order."""
    places = np.arange(members) - (members - 1) / 2.0
    return np.array(list(permutations(places))) @ places / (places @ places)


@final
@dataclass(frozen=True)
class RankCorrelation(Law):
    """A rank correlation, by Fisher's z with Bonett and Wright's error; of no correlation, by the order of the members.

    Members in perfect order are no proof of a perfect correlation: with 5 members that happens to one of .9 in every
    fourth sample. They count as half a step short of it where smaller correlations are tested.

    Attributes:
        correlation: Of the ranks.
        members: How many there are.
        used: Numbers that were fitted beside it: other metrics, and cohorts less one.

    Source: Bonett & Wright (2000), "Sample size requirements for estimating Pearson, Kendall and Spearman
    correlations", eq. 3; chosen after Bishara & Hittner (2017). Hotelling & Pabst (1936) for the exact test.
    """

    correlation: float
    members: int
    used: int = 0
    span = (-1.0, 1.0)

    def at_most(self, x: float) -> float:
        """One-sided p-value of "the true number is at most ``x``"."""
        if x >= 1.0 or (x >= -1.0 and self.correlation < -self._most):
            return 1.0
        if x <= -1.0:
            return 0.0
        p = normal_share((math.atanh(x) - math.atanh(self._short)) / self._error(self._short))
        return max(p, self._by_order) if x >= 0.0 else p

    def at_least(self, x: float) -> float:
        """One-sided p-value of "the true number is at least ``x``"."""
        return replace(self, correlation=-self.correlation).at_most(-x)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Both ends."""
        half = -normal_quantile(alpha / 2.0) * self._error(self._short)
        low = -1.0 if self.correlation < -self._most else math.tanh(math.atanh(self._short) - half)
        high = 1.0 if self.correlation > self._most else math.tanh(math.atanh(self._short) + half)
        if self._by_order > alpha / 2.0:
            low = min(low, 0.0)
        if replace(self, correlation=-self.correlation)._by_order > alpha / 2.0:
            high = max(high, 0.0)
        return low, high

    def rejects(self, x: float, *, truth: float, alpha: float) -> float:
        """By the normal approximation, with the error that the true number has."""
        sign = 1.0 if truth >= x else -1.0
        edge, true = math.atanh(sign * x), math.atanh(sign * truth)
        quantile = -normal_quantile(alpha / 2.0)
        best = replace(self, correlation=1.0)
        if best.at_most(sign * x) > alpha / 2.0:
            return 0.0
        # The smallest correlation that is found: its own size sets its error.
        least = root(lambda r: math.atanh(r) - quantile * self._error(r) - edge, sign * x, self._most)
        return normal_share((true - math.atanh(least)) / self._error(truth))

    def among(self, members: int) -> "RankCorrelation":
        """The same with another number of members."""
        return replace(self, members=max(members, self.used + 4))

    @property
    def _free(self) -> int:
        return self.members - self.used

    @property
    def _by_order(self) -> float:
        """One-sided p-value of "there is no correlation": how often members in any order have as much of one."""
        if self._free > _ORDERS:
            free = self._free - 2
            return t_share(-self._short * math.sqrt(free / (1.0 - self._short**2)), free)
        return float((_of_orders(self._free) >= self.correlation - _NOTHING).mean())

    @property
    def _most(self) -> float:
        """Halfway between a perfect order and one with two neighbours swapped."""
        return 1.0 - 6.0 / (self._free * (self._free**2 - 1))

    @property
    def _short(self) -> float:
        return max(-self._most, min(self.correlation, self._most))

    def _error(self, correlation: float) -> float:
        return math.sqrt((1.0 + correlation**2 / 2.0) / (self._free - 3))


@final
@dataclass(frozen=True)
class SeparationLaw(Law):
    """The probability that a member of one cohort has more than one of another, by a score interval with Student's t.

    Attributes:
        share: Of pairs in which the first has more, ties half.
        counts: Members of both cohorts.

    Source: Newcombe (2006), "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part
    2", method 5; his normal quantile covers as little as 85 % with 3 against 3, so Student's is used here.
    """

    share: float
    counts: tuple[int, int]
    span = (0.0, 1.0)

    @property
    def members(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True number of resampling units."""
        return sum(self.counts)

    def at_most(self, x: float) -> float:
        """One-sided p-value of "the true number is at most ``x``"."""
        if x >= 1.0 or (x >= 0.0 and self.share == 0.0):
            return 1.0
        if x <= 0.0:
            return 0.0
        return t_share((x - self.share) / self._error(x), self._df)

    def at_least(self, x: float) -> float:
        """One-sided p-value of "the true number is at least ``x``"."""
        return replace(self, share=1.0 - self.share).at_most(1.0 - x)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Both ends."""
        low, high = self._end(alpha), replace(self, share=1.0 - self.share)._end(alpha)
        return low, 1.0 - high

    def rejects(self, x: float, *, truth: float, alpha: float) -> float:
        """By the normal approximation, with the error that the true number has."""
        edge, true = (x, truth) if truth >= x else (1.0 - x, 1.0 - truth)
        least = edge + t_quantile(alpha, self._df) * self._error(edge)
        return 0.0 if least > 1.0 else t_share((true - least) / self._error(true), self._df)

    def among(self, members: int) -> "SeparationLaw":
        """The same with another number of members."""
        one, two = (max(2, math.ceil(n * members / self.members)) for n in self.counts)
        return replace(self, counts=(one, two))

    @property
    def _df(self) -> float:
        fewest = min(self.counts)
        return (2.0 if fewest < _FEW else 4.0) * (fewest - 1)

    def _error(self, x: float) -> float:
        """Standard error if the true probability were ``x``, with numbers between normal and exponential ones."""
        one, two = self.counts
        beyond = (one + two) / 2.0 - 1.0
        return math.sqrt(x * (1.0 - x) / (one * two) * (1.0 + beyond * ((1.0 - x) / (2.0 - x) + x / (1.0 + x))))

    def _end(self, alpha: float) -> float:
        """Lower end."""
        if self.share == 0.0:
            return 0.0
        return root(lambda x: self.at_most(x) - alpha / 2.0, 0.0, self.share)


def association(
    x: Sequence[float],
    y: Sequence[float],
    *,
    beyond: Sequence[Sequence[float]] = (),
    groups: Sequence[Hashable] = (),
    name: str = "rank correlation",
) -> MemberTest:
    """Spearman's correlation of two metrics over members; partial, where other metrics or cohorts are held fixed.

    Pearson's interval covers 95 % of normal numbers with 4 members already, but only 88 to 92 % of correlated lognormal
    ones with 10 or 30, and this one's 95 % of both; 87 to 89 % of strong correlations that no change of scale makes
    normal (``benchmarks.members``). With 4 members no test by order finds anything at an alpha of .05.

    Args:
        x: One number of each member.
        y: Another number of each, in the same order.
        beyond: Other metrics of the members, each in the same order: their ranks are fitted and removed.
        groups: A label of each member: each label's mean rank is removed, for the correlation within cohorts.
        name: Of the estimate.

    Raises:
        UsageError: If there is no member.
        DataError: If a value is not finite, or the sequences differ in length.
    """
    several = [checked(values) for values in (x, y, *beyond)]
    members = len(several[0])
    lengths = [len(values) for values in several] + ([len(groups)] if groups else [])
    if set(lengths) != {members}:
        raise DataError(
            "Metrics of members cannot be paired.",
            expected=f"{members} numbers each, in the same order of members",
            got=", ".join(str(length) for length in lengths),
        )
    held = _held([mean_ranks(values) for values in several[2:]], groups, members=members)
    used = int(np.linalg.matrix_rank(held)) - 1
    given = f", given {used} other number{'s' if used > 1 else ''}" if used else ""
    test = MemberTest(
        name=name, unit="correlation", value=None, count=members,
        method=f"Spearman, {members} members{given}; Fisher's z with Bonett and Wright's error, and order",
    )  # fmt: skip
    a, b = (_beyond(mean_ranks(values), held) for values in several[:2])
    if a is None or b is None:
        return replace(test, method="a metric without any spread over members: no correlation")
    value = max(-1.0, min(float(a @ b), 1.0))
    if members - used < 4:
        return replace(test, value=value, method=f"{members} members{given}: no interval over members")
    return replace(test, value=value, law=RankCorrelation(value, members, used))


def auc(a: Sequence[float], b: Sequence[float], *, name: str = "AUC") -> MemberTest:
    """Probability that a member of ``a`` has more than one of ``b`` (ties half); no effect is .5.

    The interval assumes cohorts that vary about as much as each other, or are about as large. Where the smaller of two
    unequal cohorts varies three times as much as the larger, it covers as little as 87 % (``benchmarks.members``).

    Raises:
        UsageError: If there is no member.
        DataError: If a value is not finite.
    """
    x, y = checked(a), checked(b)
    share, counts = delong1988.auc(x, y), (len(x), len(y))
    test = MemberTest(
        name=name, unit="probability", value=share, null=0.5, count=sum(counts),
        method=f"AUC, {counts[0]} against {counts[1]} members; Newcombe's score interval with Student's t",
    )  # fmt: skip
    if min(counts) < 2:
        return replace(test, method=f"{counts[0]} against {counts[1]} members: no interval over members")
    return replace(test, law=SeparationLaw(share, counts))


def _held(beyond: Sequence[FloatArray], groups: Sequence[Hashable], *, members: int) -> FloatArray:
    """What is held fixed, one column each: a constant, other metrics' ranks, and which cohort a member is of."""
    labels = list(dict.fromkeys(groups))[1:]
    cohorts = [np.array([float(label == other) for other in groups]) for label in labels]
    return np.stack([np.ones(members), *(ranks / members for ranks in beyond), *cohorts], axis=1)


def _beyond(ranks: FloatArray, held: FloatArray) -> FloatArray | None:
    """What is left of the ranks beyond what is held fixed, of length 1; ``None`` where nothing is."""
    rest = ranks - held @ np.linalg.lstsq(held, ranks, rcond=None)[0]
    length, whole = float(np.linalg.norm(rest)), float(np.linalg.norm(ranks))
    return None if length <= _NOTHING * whole else rest / length
