"""Before the first member is made: whether any outcome at all could trip a rule."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

from wheeltap.core.errors import UsageError
from wheeltap.core.study import Direction, Statistic
from wheeltap.stats.crossed import checked_alpha
from wheeltap.stats.members.adding import FEWEST, gained
from wheeltap.stats.members.base import Law
from wheeltap.stats.members.counts import BinomialShare
from wheeltap.stats.members.ranks import RankCorrelation, SeparationLaw

Ends = tuple[float | None, float | None]

_FEWEST: Mapping[Statistic, int] = {
    "one_of": 2, "paired": 2, "difference": 2, "mean": 1, "association": 4, "auc": 2,
    "added": FEWEST, "exact": 1,
}  # fmt: skip
"""Members of the smallest cohort with which there is an interval; of ``one_of``, of the others."""


@final
@dataclass(frozen=True, kw_only=True)
class PlannedTest:
    """A rule's test before there is any number.

    Attributes:
        statistic: Which.
        counts: Members of each cohort: of ``one_of`` of the others alone, of ``paired`` the pairs, of ``added`` within
            pairs too, of ``association`` and ``exact`` all.
        margin: Smallest effect of interest.
        direction: Which effects it is about.
        ends: Least and most of the metric; ``None`` where it has no end.
        share: What ``exact`` is tested against.
        used: Other metrics, and cohorts less one, that ``association`` holds fixed.
    """

    statistic: Statistic
    counts: tuple[int, ...]
    margin: float = 0.0
    direction: Direction = "either"
    ends: Ends = (None, None)
    share: float = 0.5
    used: int = 0


def dead_because(asked: PlannedTest, *, alpha: float) -> str | None:
    """Why no outcome at all could be ``found`` at this alpha; ``None`` where one could.

    Args:
        asked: The rule.
        alpha: Of the strictest test, after correction.

    Raises:
        UsageError: If ``alpha``, the counts or the margin cannot be used.
    """
    checked_alpha(alpha)
    if not asked.counts or min(asked.counts) < 0 or not asked.margin >= 0.0:
        got = f"{asked.counts} members, a margin of {asked.margin}"
        raise UsageError("A rule cannot be planned.", expected="counts and a margin of 0 or more", got=got)
    fewest, got = _FEWEST[asked.statistic] + asked.used, min(asked.counts)
    if got < fewest:
        return f"{asked.statistic} needs at least {fewest} members, and there {'is' if got == 1 else 'are'} {got}"
    farthest = _farthest(asked)
    if farthest <= asked.margin:
        return f"the margin is {asked.margin:g}, and no effect can be more than {farthest:g}"
    smallest = _smallest_p(asked)
    if smallest > alpha:
        many = " + ".join(str(count) for count in asked.counts)
        return f"the clearest outcome of {many} members has p = {smallest:.2g}, and alpha is {alpha:.2g}"
    return None


def _farthest(asked: PlannedTest) -> float:
    """Largest possible effect in the rule's direction."""
    low, high = (math.inf * sign if end is None else end for sign, end in zip((-1.0, 1.0), asked.ends, strict=True))
    if asked.statistic == "mean":
        more, less = high, -low
    elif asked.statistic in ("association", "auc", "added", "exact"):
        more, less = {"association": (1.0, 1.0), "auc": (0.5, 0.5), "added": (1.0, 1.0)}.get(
            asked.statistic, (1.0 - asked.share, asked.share)
        )
    else:
        more = less = high - low
    return {"more": more, "less": less, "either": max(more, less)}[asked.direction]


def _smallest_p(asked: PlannedTest) -> float:
    """Of the clearest outcome: of numbers that may vary as little as they like, 0."""
    best: tuple[Law, Law] | None = None
    null = 0.0
    if asked.statistic == "association":
        count = asked.counts[0]
        best = RankCorrelation(1.0, count, asked.used), RankCorrelation(-1.0, count, asked.used)
    elif asked.statistic == "auc":
        null, counts = 0.5, (asked.counts[0], asked.counts[-1])
        best = SeparationLaw(1.0, counts), SeparationLaw(0.0, counts)
    elif asked.statistic == "added":
        best = gained(1.0, asked.counts), gained(-1.0, asked.counts)
    elif asked.statistic == "exact":
        null, count = asked.share, asked.counts[0]
        best = BinomialShare(count, count), BinomialShare(0, count)
    if best is None:
        return 0.0
    more, less = best[0].at_most(null + asked.margin), best[1].at_least(null - asked.margin)
    return min(1.0, 2.0 * {"more": more, "less": less, "either": min(more, less)}[asked.direction])
