"""Differences and ratios of members' means, by Student's t with the true number of members."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import final

import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.stats._scipy import root, t_beyond, t_quantile, t_share
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.members import skewed
from wheeltap.stats.members.base import Law, MemberTest
from wheeltap.stats.members.over import NumberScale, Single, checked
from wheeltap.stats.members.unseen import MemberValues, UnseenMembers

NO_SPREAD = "members without any spread: no interval over members"
"""Why nothing is tested where all numbers are the same: the next member may differ all the same."""

_LIKE, _MANY = 1.5, 8
"""Ratio of cohorts' sizes up to which they are alike; members from which Welch's test holds of any."""

_LEAST = math.log(1e-300)
"""Logarithm of the least p-value that is distinguished from 0."""

_ROUNDING = 1e-12
"""Standard error, as a share of the largest number, at or below which a spread is that of rounding."""


@final
@dataclass(frozen=True)
class Spread:
    """How far an estimated location may be off.

    Attributes:
        parts: Standard errors of which its error is made, with the degrees of freedom of each. Each keeps its own
            quantile: see ``half``.
        members: True number of resampling units.
        among: The same with another number of members.
        reference: How far such a location is off where members are skewed, in standard errors; see ``skewed``.
    """

    parts: tuple[tuple[float, float], ...]
    members: int
    among: "Callable[[int], Spread]" = field(compare=False)
    reference: Callable[[], FloatArray] = field(compare=False)

    @property
    def error(self) -> float:
        """The standard error, of all parts."""
        return math.hypot(*(error for error, _ in self.parts))

    @property
    def df(self) -> float:
        """Degrees of freedom of the error.

        Source: Satterthwaite (1946), eq. 17.
        """
        whole = self.error  # of shares: squares of a tiny variance would be rounded to nothing
        rough = sum((error / whole) ** 4 / df for error, df in self.parts) if whole > 0.0 else 0.0
        return 1.0 / rough if rough > 0.0 else math.inf

    def half(self, alpha: float) -> float:
        """Half of the interval of level ``1 - alpha``.

        With one quantile for all parts, of Satterthwaite's number, members that happen to agree make it too short: at
        an alpha of .0036, 2 against 12 members are falsely found to differ 16 times as often, 3 against 12 five times.

        Source: Graybill & Wang (1980), "Confidence intervals on nonnegative linear combinations of variances".
        """
        return math.hypot(*(t_quantile(alpha, df) * error for error, df in self.parts))


def welch(variances: Sequence[float], counts: Sequence[int]) -> Spread:
    """Of a sum of means of independent cohorts, or of the mean of one.

    Cohorts of like size, or of 8 members or more, have one number of degrees of freedom: at an alpha of .0036 that is
    false at most 2.3 times as often (3 against 3 members), and at most 1.4 times with 8 or more.

    Args:
        variances: From member to member, of each cohort.
        counts: Members of each cohort, two or more.

    Source: Welch (1947).
    """
    parts = tuple((math.sqrt(v / n), n - 1.0) for v, n in zip(variances, counts, strict=True))
    alike = max(counts) <= _LIKE * min(counts) or min(counts) >= _MANY
    spread = Spread(
        parts, sum(counts),
        among=lambda members: welch(variances, in_proportion(counts, members)),
        # Of the smaller cohort, since only one of the two may vary.
        reference=partial(skewed.reference, min(counts)),
    )  # fmt: skip
    return replace(spread, parts=((spread.error, spread.df),)) if alike else spread


def in_proportion(counts: Sequence[int], members: int) -> list[int]:
    """Members of each cohort, two or more, of so many in all."""
    return [max(2, math.ceil(n * members / sum(counts))) for n in counts]


def prediction(variance: float, count: int, *, own: float, own_df: int | None) -> Spread:
    """Of one more member's distance from the mean of the others, with an error of its own.

    Args:
        variance: From member to member.
        count: Of the others.
        own: The one member's squared standard error.
        own_df: Degrees of freedom of that; ``None`` where it is known.

    Source: Hahn & Meeker (1991), "Statistical Intervals", sec. 4.7.
    """
    whole, df = variance * (1.0 + 1.0 / count) + own, float(count - 1)
    if own_df is not None and own > 0.0:
        # Never more than the others have: Satterthwaite's number alone covers 92 % with 3 others.
        df = min(1.0 / ((1.0 - own / whole) ** 2 / (count - 1) + (own / whole) ** 2 / own_df), df)
    return Spread(
        ((math.sqrt(whole), df),), count,
        among=lambda members: prediction(variance, max(2, members), own=own, own_df=own_df),
        reference=partial(skewed.reference, count, prediction=True),
    )  # fmt: skip


@final
@dataclass(frozen=True)
class LocationScale:
    """The scale on which a location is estimated.

    Attributes:
        to: From the true number to that scale.
        back: From there.
        span: What the true number can be.
    """

    to: Callable[[float], float]
    back: Callable[[float], float]
    span: tuple[float, float]


PLAIN = LocationScale(float, float, (-math.inf, math.inf))
LOG = LocationScale(math.log, lambda x: math.exp(max(-700.0, min(x, 700.0))), (0.0, math.inf))


@final
@dataclass(frozen=True)
class LocationLaw(Law):
    """A location whose estimate errs by Student's t, or by what that would be of skewed members, if that is more.

    Attributes:
        centre: The estimate, on the scale of ``link``.
        spread: Of it, on that scale.
        link: That scale.
        skewed: Whether members may have a long tail on that scale. They have it on one side, which is not known; so
            that side has all of an interval's alpha, and Student's t half of it.
        unseen: What members that were not made may add. It is part of p-values and power, not of the interval, which
            is of members such as were made. No effect is 0 on that scale.
    """

    centre: float
    spread: Spread
    link: LocationScale = PLAIN
    skewed: bool = False
    unseen: UnseenMembers | None = None

    @property
    def members(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """True number of resampling units."""
        return self.spread.members

    @property
    def span(self) -> tuple[float, float]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What the true number can be."""
        return self.link.span

    def at_most(self, x: float) -> float:
        """One-sided p-value of "the true number is at most ``x``"."""
        return self._share(x, toward=1.0)

    def at_least(self, x: float) -> float:
        """One-sided p-value of "the true number is at least ``x``"."""
        return self._share(x, toward=-1.0)

    def interval(self, alpha: float) -> tuple[float, float]:
        """Student's, on the scale of ``link``."""
        half = self._half(alpha)
        return self.link.back(self.centre - half), self.link.back(self.centre + half)

    def rejects(self, x: float, *, truth: float, alpha: float) -> float:
        """By the noncentral t distribution."""
        error, edge, true = self.spread.error, self.link.to(x), self.link.to(truth)
        half, toward = self._half(alpha), 1.0 if true >= edge else -1.0
        if self.unseen is not None:
            missing = self.unseen.half(alpha, toward=-toward, margin=abs(edge), found=toward * edge >= 0.0)
            half = max(half, missing)
        return t_beyond(half / error, self.spread.df, abs(true - edge) / error) if math.isfinite(half) else 0.0

    def among(self, members: int) -> "LocationLaw":
        """The same with another number of members."""
        counted = None if self.unseen is None else self.unseen.among(in_proportion(self.unseen.counts, members))
        return replace(self, spread=self.spread.among(members), unseen=counted)

    def _share(self, x: float, *, toward: float) -> float:
        """Of the t distribution, from its far end to ``x``; beyond what the true number can be, none or all."""
        if not self.span[0] < x < self.span[1]:
            return float((x >= self.span[1]) == (toward > 0.0))
        edge = self.link.to(x)
        distance = toward * (self.centre - edge)
        p = self._beyond(abs(distance))
        if distance <= 0.0:
            return 1.0 - p
        if self.unseen is not None:
            found = toward * edge >= 0.0
            p = max(p, self.unseen.p_value(distance, toward=-toward, margin=abs(edge), found=found))
        if not self.skewed:
            return p
        error, df = self.spread.error, self.spread.df
        return max(p, skewed.beyond(distance / error, self.spread.reference(), df) / 2.0)

    def _beyond(self, distance: float) -> float:
        """The share on one side that is farther away; members are not skewed."""
        parts, spread = self.spread.parts, self.spread
        if len(parts) == 1:
            [(error, df)] = parts
            return t_share(-distance / error, df)
        if distance >= spread.half(math.exp(_LEAST)):
            return math.exp(_LEAST) / 2.0
        return math.exp(root(lambda log: spread.half(math.exp(log)) - distance, _LEAST, 0.0)) / 2.0

    def _half(self, alpha: float) -> float:
        """How far away the end of an interval is."""
        spread = self.spread
        half = spread.half(alpha)
        return max(half, skewed.reach(alpha, spread.reference(), spread.df) * spread.error) if self.skewed else half


def one_of(one: Single, others: Sequence[float], *, name: str = "gap", scale: NumberScale) -> MemberTest:
    """How far one net lies from the mean of nets made alike, with the p-value of "it is one of them".

    Its interval and test are those of a prediction: they allow for the spread from net to net, so that few nets never
    make a small difference certain. The net's own standard error is added to that: where the others were measured with
    as much error it is counted twice, on the safe side. It rests on the tails of a normal distribution, which no mean
    makes better: in tables of six rules on lognormal numbers with a deviation of .5, one is falsely found in 11 to 15 %
    of tables at an alpha of .05, and in 2 to 3 % with ``NumberScale.log`` (``benchmarks.members``).

    Args:
        one: The net in question.
        others: One number of each other net.
        name: Of the estimate.
        scale: Unit and grain of the numbers; with ``log`` it is the ratio to the others' geometric mean.

    Raises:
        UsageError: If there is no other net.
        DataError: If a value is not finite, or not positive though the scale is one of ratios.
    """
    x, rounding = _on(scale, checked(others), which="others")
    place, _ = _on(scale, checked((one.value,)), which="the net in question")
    error = float(checked((one.se,))[0]) / (one.value if scale.log else 1.0)
    test = _test(
        scale, float(place[0] - x.mean()), name=name, count=len(x),
        method=f"prediction t, 1 net against {len(x)}",
    )  # fmt: skip
    if len(x) < 2:
        return replace(test, method="one net against one: no interval")
    spread = prediction(float(x.var(ddof=1)) + rounding, len(x), own=error**2, own_df=one.df)
    # Whether it is one of them rests on where one more would lie, not on their mean.
    unseen = UnseenMembers.of(MemberValues(x, -1.0, scale.limits), when_found=False)
    return with_spread(test, spread, scale=scale, of=(place, x), unseen=unseen)


def paired(a: Sequence[float], b: Sequence[float], *, name: str = "difference", scale: NumberScale) -> MemberTest:
    """Mean of ``a - b`` over pairs of members: the same seed in both cohorts, say, in the same order.

    Args:
        a: One number of each member.
        b: Of the partner of each, in the same order.
        name: Of the estimate.
        scale: Unit and grain of the numbers; with ``log`` it is the geometric mean of ``a / b``.

    Raises:
        UsageError: If there is no member.
        DataError: If the cohorts are not of equal size, or a value is not finite, or not positive though the scale is
            one of ratios.
    """
    (x, one), (y, two) = _on(scale, checked(a), which="first cohort"), _on(scale, checked(b), which="second cohort")
    if len(x) != len(y):
        raise DataError(
            "Members cannot be paired.",
            expected="cohorts of equal size, in the same order",
            got=f"{len(x)} and {len(y)} members",
            do="Compare them as independent cohorts, or name pairs alone.",
        )
    gaps = x - y
    test = _test(
        scale, float(gaps.mean()), name=name, count=len(gaps),
        method=f"paired t, {len(gaps)} pairs of members",
    )  # fmt: skip
    if len(gaps) < 2:
        return replace(test, method="one pair of members: no interval")
    spread = welch((float(gaps.var(ddof=1)) + one + two,), (len(gaps),))
    low, high = scale.limits
    pairs = MemberValues(gaps, 1.0, (low - high, high - low))
    return with_spread(test, spread, scale=scale, of=(x, y), unseen=UnseenMembers.of(pairs))


def difference(a: Sequence[float], b: Sequence[float], *, name: str = "difference", scale: NumberScale) -> MemberTest:
    """Difference of the means of two independent cohorts, by Welch's t.

    With ``NumberScale.log`` it is the ratio of their geometric means, by Welch's t on logarithms; no effect is a ratio
    of 1. Of cohorts whose numbers are distributed alike but for a factor it is the ratio of their means as well.
    Fieller's interval for the ratio of means covers 83 to 98% where this one covers 93 to 97%, since means of few
    skewed numbers are not normal (``benchmarks.members``).

    Raises:
        UsageError: If there is no member.
        DataError: If a value is not finite, or not positive though the scale is one of ratios.
    """
    (x, one), (y, two) = _on(scale, checked(a), which="first cohort"), _on(scale, checked(b), which="second cohort")
    counts = len(x), len(y)
    test = _test(
        scale, float(x.mean() - y.mean()), name=name, count=sum(counts),
        method=f"Welch's t, {counts[0]} against {counts[1]} members",
    )  # fmt: skip
    if min(counts) < 2:
        return replace(test, method=f"{counts[0]} against {counts[1]} members: no interval over members")
    spread = welch((float(x.var(ddof=1)) + one, float(y.var(ddof=1)) + two), counts)
    cohorts = MemberValues(x, 1.0, scale.limits), MemberValues(y, -1.0, scale.limits)
    return with_spread(test, spread, scale=scale, of=(x, y), unseen=UnseenMembers.of(*cohorts))


def _on(scale: NumberScale, values: FloatArray, *, which: str) -> tuple[FloatArray, float]:
    """The numbers as they are compared, and the variance of rounding there."""
    rounding = scale.grain**2 / 12
    if not scale.log:
        return values, rounding
    return logarithms(values, which=which), rounding / float(values.mean()) ** 2


def logarithms(values: FloatArray, *, which: str) -> FloatArray:
    """Of numbers that are compared by ratios.

    Raises:
        DataError: If one is not positive.
    """
    if values.min() <= 0.0:
        raise DataError(
            "A ratio needs positive numbers.",
            where=f"{which}, net {int(values.argmin()) + 1}",
            expected="more than 0",
            got=str(float(values.min())),
            do="Compare them by their difference.",
        )
    return np.log(values)


def _test(scale: NumberScale, gap: float, *, name: str, count: int, method: str) -> MemberTest:
    """What was seen, before it is tested."""
    if not scale.log:
        return MemberTest(name=name, unit=scale.unit, value=gap, count=count, method=method)
    return MemberTest(
        name=name, unit="ratio", value=LOG.back(gap), null=1.0, count=count,
        method=f"ratio of geometric means, on logarithms: {method}",
    )  # fmt: skip


def with_spread(
    test: MemberTest, spread: Spread, *, scale: NumberScale, of: Sequence[FloatArray], unseen: UnseenMembers
) -> MemberTest:
    """The test with this spread, unless the numbers that it is made of do not vary."""
    largest = max(float(np.abs(values).max()) for values in of)
    if spread.error <= _ROUNDING * largest:
        return replace(test, method=NO_SPREAD)
    assert test.value is not None, "a mean is always defined"
    link, long_tail = LOG if scale.log else PLAIN, not (scale.log or scale.normal)
    missing = None if scale.normal else unseen
    law = LocationLaw(link.to(test.value), spread, link, skewed=long_tail, unseen=missing)
    return replace(test, law=law, method=f"{test.method}{', allowing for skewed numbers' if long_tail else ''}")


def seen_alone(test: MemberTest) -> MemberTest:
    """The test without what unseen members may add: of a null control, which could never fail with few of them."""
    law = test.law
    return replace(test, law=replace(law, unseen=None)) if isinstance(law, LocationLaw) else test
