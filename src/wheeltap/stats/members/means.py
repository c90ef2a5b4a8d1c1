"""The mean of one cohort against 0, by Student's t with the true number of members."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np

from wheeltap.stats.members.base import MemberTest
from wheeltap.stats.members.over import NumberScale, Single, checked, variance
from wheeltap.stats.members.student import LocationLaw, Spread, with_spread


@final
@dataclass(frozen=True)
class SharedSampleSpread(Spread):
    """Of the mean of members that were all measured on one sample: its error is theirs together, however many they are.

    Attributes:
        variance: From member to member.
        count: Members.
        own: Mean square of their own standard errors, taken to be the same error in all of them: on the safe side.
    """

    variance: float
    count: int
    own: float

    @property
    def error(self) -> float:
        """Standard error."""
        return math.sqrt(self.variance / self.count + self.own)

    @property
    def df(self) -> float:
        """Degrees of freedom, by Satterthwaite (1946), eq. 17; the own errors are known."""
        part = self.variance / self.count
        return (part + self.own) ** 2 / (part**2 / (self.count - 1)) if part > 0.0 else math.inf

    @property
    def members(self) -> int:
        """True number of resampling units."""
        return self.count

    def among(self, members: int) -> "SharedSampleSpread":
        """The same with another number of members."""
        return replace(self, count=max(2, members))


@final
@dataclass(frozen=True)
class Own(Spread):
    """Of one member, from what was sampled within it: more members are not foreseen.

    Attributes:
        one: That member.
    """

    one: Single

    @property
    def error(self) -> float:
        """Standard error."""
        return self.one.se

    @property
    def df(self) -> float:
        """Degrees of freedom."""
        return math.inf if self.one.df is None else float(self.one.df)

    @property
    def members(self) -> int:
        """True number of resampling units."""
        return 1

    def among(self, members: int) -> "Own":
        """The same: how members differ is not known."""
        return self


def mean(singles: Sequence[Single], *, name: str = "mean", scale: NumberScale, level: float = 0.95) -> MemberTest:
    """Mean over members, against 0, by Student's t; of one member alone its number, with its own standard error.

    Own standard errors are those of examples that all members share, so they do not average out: t over members alone
    covers 42 to 79 % of true gains in AUC that 3 to 10 nets show on the same examples, with them 95 to 100 %.

    Raises:
        UsageError: If there is no member.
        DataError: If a value is not finite.
    """
    x, count = checked([single.value for single in singles]), len(singles)
    test = MemberTest(
        name=name, unit=scale.unit, value=float(x.mean()), count=count, level=level, method=f"t over {count} members"
    )  # fmt: skip
    if count > 1:
        own = float(np.mean(np.square(checked([single.se for single in singles]))))
        return with_spread(
            test, SharedSampleSpread(variance(x, scale), count, own), scale=replace(scale, log=False), of=(x,)
        )
    [own] = singles
    test = replace(test, method=f"one member: {own.method}, which says nothing of others")
    return replace(test, law=LocationLaw(own.value, Own(own))) if float(checked((own.se,))[0]) > 0.0 else test
