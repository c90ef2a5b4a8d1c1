"""What members that were not made may do to a mean: one seed in ten fails, and few members do not show it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import numpy as np

from wheeltap.stats._scipy import normal_share
from wheeltap.stats.crossed import FloatArray, unseen

SHARE: Final = 0.1
"""Share of members from which on a kind of them is never missed, however far it lies from the others."""

_MARGINS: Final = 10.0
"""Margins beyond an edge that a number without two ends may reach in members that were not made."""

_SCORES: Final = np.linspace(0.0, 12.0, 481)
"""Normal scores between which p-values are interpolated."""

_POLES: Final = np.logspace(3.0, -12.0, 240)
"""Distances of the saddle point's pole from the imaginary member, in ranges of the values."""


@final
@dataclass(frozen=True, eq=False)
class MemberValues:
    """Members whose mean is part of a statistic.

    Attributes:
        values: One number of each, on the scale of the test.
        sign: +1 where the statistic rises with their mean, -1 where it falls.
        ends: Least and largest possible number; infinite where there is none.
    """

    values: FloatArray
    sign: float
    ends: tuple[float, float]

    def room(self, toward: float) -> float:
        """How far beyond the mean a member may lie that moves the statistic ``toward`` (+1 up, -1 down)."""
        low, high = min(self.ends[0], self.values.min()), max(self.ends[1], self.values.max())
        mean = float(self.values.mean())
        return float(high - mean if toward * self.sign > 0.0 else mean - low)


@final
@dataclass(frozen=True, eq=False)
class UnseenMembers:
    """How far the members' mean may be off because a kind of member is missing among few.

    Members are weighed by random weights (exponential, scaled to sum to 1), one imaginary member among them: the
    p-value is the probability that their weighed mean reaches the edge. The imaginary member lies at the end of what
    the number can be, where the bound holds for every distribution; but no farther than 1 / ``SHARE`` times the
    distance to the edge. So a kind of member that is rarer than ``SHARE`` may be missed if it lies farther out, and
    with enough members to see the others, (1 - ``SHARE``)^n <= alpha / 2, the spread that they show decides. Two
    cohorts are combined by the distances of their limits.

    Attributes:
        cohorts: Members of each.
        counts: How many there are; others than in ``cohorts`` before they are made.
        when_found: Whether it also counts where an effect beyond the margin is to be shown, not only where one is to be
            excluded.

    Source: Gaffke (2005), "Three test statistics for a nonparametric one-sided hypothesis on the mean of a nonnegative
    variable", and Learned-Miller & Thomas (2020), arXiv:1905.06208, for the bound; Barndorff-Nielsen (1986) for its
    tail; Zou & Donner (2008), "Construction of confidence limits about effect measures", for two cohorts.
    """

    cohorts: tuple[MemberValues, ...]
    counts: tuple[int, ...]
    when_found: bool = True

    @classmethod
    def of(cls, *cohorts: MemberValues, when_found: bool = True) -> "UnseenMembers":
        """As they were made."""
        return cls(cohorts, tuple(len(cohort.values) for cohort in cohorts), when_found)

    def among(self, counts: Sequence[int]) -> "UnseenMembers":
        """The same with other numbers of members."""
        return replace(self, counts=tuple(counts))

    def p_value(self, distance: float, *, toward: float, margin: float, found: bool) -> float:
        """One-sided p-value of "the true statistic lies ``distance`` or more from what was seen, ``toward``".

        Args:
            distance: Above 0, on the scale of the test.
            toward: +1 up, -1 down.
            margin: Distance of the edge from no effect.
            found: Whether the edge lies between no effect and what was seen.
        """
        if found and not self.when_found:
            return 0.0
        shifts = [
            _shifts(cohort.sign * toward * (cohort.values - cohort.values.mean()), reach=reach)
            for cohort, reach in zip(self.cohorts, self._reaches(distance, toward=toward, margin=margin), strict=True)
        ]
        total = np.sqrt(np.sum(np.square(shifts), axis=0))
        # Where members all lie at the end there is nowhere to go, and the last score of all is interpolated to.
        return 0.5 if distance <= total[0] else normal_share(-float(np.interp(distance, total, _SCORES)))

    def half(self, alpha: float, *, toward: float, margin: float, found: bool) -> float:
        """How far from an edge members without a failure have to lie on average, at a two-sided ``alpha``."""
        shares = [unseen(count, alpha / 2.0) for count in self.counts]
        whole = math.hypot(*shares)
        if whole <= SHARE or (found and not self.when_found):
            return 0.0
        rooms = [cohort.room(toward) for cohort in self.cohorts]
        if all(math.isfinite(room) for room in rooms):
            return math.hypot(*(share * room for share, room in zip(shares, rooms, strict=True)))
        return math.inf if whole >= 1.0 else _MARGINS * margin * whole / (1.0 - whole)

    def _reaches(self, distance: float, *, toward: float, margin: float) -> list[float]:
        """How far from its mean each cohort's imaginary member lies."""
        rooms = [cohort.room(toward) for cohort in self.cohorts]
        rooms = [room if math.isfinite(room) else distance + _MARGINS * margin for room in rooms]
        return [min(room, distance / SHARE) for room in rooms]


def _shifts(values: FloatArray, *, reach: float) -> FloatArray:
    """How far the weighed mean lies above that of ``values``, which is 0, at each of ``_SCORES``."""
    top = max(reach, float(values.max()))
    span = top - float(values.min())
    if span <= 0.0:
        return np.zeros_like(_SCORES)
    poles = span * _POLES[:, None]
    gaps = np.append(top - values, 0.0) + poles  # to the pole; the imaginary member is the last
    points = np.append(values, top)
    means: FloatArray = (points / gaps).sum(1) / (1.0 / gaps).sum(1)
    square = 2.0 * np.log(gaps / (top - means[:, None] + poles)).sum(1)
    r = np.sqrt(np.maximum(square, 1e-12))
    u = np.sqrt(np.square((points - means[:, None]) / gaps).sum(1))
    scores: FloatArray = np.where(square < 1e-6, 0.0, r + np.log(np.maximum(u, 1e-300) / r) / r)
    return np.interp(_SCORES, np.sort(scores), means)
