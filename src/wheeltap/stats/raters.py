"""Raters as a sample beside items: the same few people vote on many items, and others would vote otherwise.

A number that is a mean over items has an interval over fresh items with fresh people only where every item has people
of its own. Where raters are known, a table ``[rater, item]`` is made of what each of them moves; its rows and columns
are both samples, as draws and examples are elsewhere (``crossed``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core import seeds
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import t_quantile
from wheeltap.stats.crossed import FloatArray, crossed
from wheeltap.stats.disagreement import shares
from wheeltap.stats.effect import exceeds, mean_effect
from wheeltap.stats.panels import Halves, agreement, kappa

Counts = NDArray[np.int64]

MOST: Final = 200
"""Raters that are kept apart; more are put together at random in so many groups, which only widens intervals."""

_MORE: Final = 0.1
"""Weight that is moved to one rater."""

FEWEST: Final = 2
"""Votes of one rater beside others, below which nothing is said of that rater."""


@final
@dataclass(frozen=True, eq=False)
class Ballots:
    """Who chose what: each rater has one vote on an item at most.

    Attributes:
        item: ``[ballot]``, row of ``votes``.
        rater: ``[ballot]``, from 0.
        label: ``[ballot]``, column of ``votes``.
        votes: ``[item, label]``, how many chose it; two or more on each item.
    """

    item: Counts
    rater: Counts
    label: Counts
    votes: Counts

    @cached_property
    def others(self) -> Counts:
        """Votes of the others on the same item, ``[ballot, label]``."""
        left = self.votes[self.item].copy()
        left[np.arange(len(left)), self.label] -= 1
        return left

    @cached_property
    def agreed(self) -> FloatArray:
        """Share of the others who chose the same, ``[ballot]``."""
        return self.others[np.arange(len(self.label)), self.label] / self.others.sum(1)

    def followed(self, chosen: FloatArray) -> FloatArray:
        """Share of the others who chose a system's label, ``[ballot]``; ``chosen`` is ``[item, label]``, of sum 1."""
        return (self.others * chosen[self.item]).sum(1) / self.others.sum(1)

    @cached_property
    def raters(self) -> int:
        """How many people voted."""
        return len(np.unique(self.rater))

    def without(self, rater: int) -> "Ballots":
        """The same without a rater, on items that two or more of the others voted on."""
        kept = self.rater != rater
        votes = np.zeros_like(self.votes)
        np.add.at(votes, (self.item[kept], self.label[kept]), 1)
        kept &= votes.sum(1)[self.item] >= FEWEST
        return Ballots(self.item[kept], self.rater[kept], self.label[kept], votes)

    def crossed(self, values: FloatArray, moved: FloatArray) -> FloatArray:
        """A table ``[rater, item]`` of a mean over items: its columns have the means ``values``, its rows the raters.

        With every rater on every item it is what each of them gives there.

        Args:
            values: ``[item]``.
            moved: ``[ballot]``, the item's value if its people were all like this rater; only how ballots of one item
                differ counts.

        Source: Owen (2007), "The pigeonhole bootstrap", sec. 3.
        """
        people = np.bincount(self.item, minlength=len(values))
        mean = np.bincount(self.item, weights=moved, minlength=len(values)) / people
        groups = self._groups
        table = np.tile(values, (int(groups.max()) + 1, 1))
        pull = (len(table) - 1) * (moved - mean[self.item]) / (people[self.item] - 1)
        np.add.at(table, (groups, self.item), pull)
        return table

    @cached_property
    def _groups(self) -> Counts:
        """``[ballot]``, the row of its rater."""
        _, place = np.unique(self.rater, return_inverse=True)
        if self.raters <= MOST:
            return place
        return (seeds.generator(0, "raters").permutation(self.raters) % MOST)[place]

    def counting(self, values: FloatArray, measure: Callable[[FloatArray, Counts], FloatArray]) -> FloatArray:
        """The table of a measure of shares of votes, by counting each rater a little more on each item.

        Args:
            values: ``[item]``.
            measure: From shares ``[ballot, label]`` and items ``[ballot]`` to ``[ballot]``.

        Source: Efron (1982), "The Jackknife, the Bootstrap and Other Resampling Plans", ch. 6 (infinitesimal one).
        """
        return self.crossed(values, measure(self._more(shares(self.votes)), self.item) / _MORE)

    def halved(
        self, values: FloatArray, measure: Callable[[FloatArray, FloatArray, Counts], FloatArray], split: Halves
    ) -> FloatArray:
        """The table of a measure of two halves of the people: each rater counts a little more in either.

        Args:
            values: ``[item]``, means over splits.
            measure: From shares of the smaller and of the larger half, ``[ballot, label]`` each, and items to
                ``[ballot]``.
            split: The halves.
        """
        moved = np.zeros(len(self.item))
        for one, two in zip(split.target, split.other, strict=True):
            moved += measure(self._more(one), two[self.item], self.item)
            moved += measure(one[self.item], self._more(two), self.item)
        return self.crossed(values, moved / _MORE / len(split.one))

    def _more(self, held: FloatArray) -> FloatArray:
        """Shares ``[ballot, label]`` in which the rater of the ballot counts a little more."""
        moved = (1.0 - _MORE) * held[self.item]
        moved[np.arange(len(moved)), self.label] += _MORE
        return moved


def mean_over(table: FloatArray, *, name: str, unit: str, level: float = 0.95) -> Estimate:
    """Mean over raters and items, both taken as samples; ``n`` counts items.

    Returns:
        Of one rater an estimate without an interval.
    """
    raters, items = table.shape
    shape = f"over {raters} raters (or groups of them) x {items} items, crossed t"
    value = float(table.mean())
    if raters < 2 or items < 2:
        return Estimate(
            name=name, value=value, low=None, high=None, level=level, n=items, unit=unit,
            method=f"no interval: {raters} rater{'' if raters == 1 else 's'}, {items} items",
        )  # fmt: skip
    spread, alpha = crossed(table), 1.0 - level
    # What is neither of raters nor of items is in both mean squares: it is counted with items, of which there are more.
    alone = max(float(spread.draw - spread.residual), 0.0)
    half = math.hypot(t_quantile(alpha, spread.example_df) * math.sqrt(float(spread.example)),
                      t_quantile(alpha, spread.draw_df) * math.sqrt(alone))  # fmt: skip
    return Estimate(
        name=name, value=value, low=value - half, high=value + half, level=level, n=items, unit=unit, method=shape
    )


def kappa_of(ballots: Ballots, *, level: float = 0.95) -> Estimate:
    """Fleiss' kappa as ``panels.kappa`` has it, with an interval over raters and items."""
    over_items = kappa(ballots.votes, level=level)
    if over_items.value is None:
        return over_items
    held, same = shares(ballots.votes), agreement(ballots.votes)
    common = held.mean(0)
    rest = 1.0 - float(common @ common)
    tilt = (float(same.mean()) - 1.0) / rest**2 * 2.0 * common
    values = over_items.value + (same - same.mean()) / rest + (held - common) @ tilt
    table = ballots.crossed(values, 2.0 * ballots.agreed / rest + tilt[ballots.label])
    found = mean_over(table, name=over_items.name, unit="1", level=level)
    return msgspec.structs.replace(
        found, value=over_items.value, high=None if found.high is None else min(found.high, 1.0)
    )


@final
@dataclass(frozen=True)
class Offset:
    """How one rater differs from the others on the same items.

    Attributes:
        rater: From 0.
        label: The label that is chosen more or less often; ``None`` where labels are ordered, and it is in steps.
        gap: With an interval that holds for all raters (and labels) at once; ``None`` of a rater of too few votes.
        votes: Of the rater, beside others.
    """

    rater: int
    label: int | None
    gap: Estimate | None
    votes: int

    @property
    def sure(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.gap is not None and exceeds(self.gap, 0.0)

    @property
    def size(self) -> float:
        """Of the gap, either way; 0 where it is not known."""
        return 0.0 if self.gap is None else abs(self.gap.value or 0.0)


def offsets(ballots: Ballots, *, ordinal: bool, level: float = 0.95) -> tuple[Offset, ...]:
    """Of every rater: the ordered labels' steps, or the label with the largest gap, less what the others chose.

    The rater who surely differs most comes first and is no longer one of the others, and so on: else all others would
    seem to differ from people of whom one is odd. The others are taken as they are. Intervals are over items, by
    Bonferroni's rule for as many raters (times labels) as there are.
    """
    labels, found, rest = ballots.votes.shape[1], list[Offset](), ballots
    tests = ballots.raters * (labels if not ordinal and labels > 2 else 1)  # the gaps of two labels are one
    while True:
        gaps: FloatArray = np.eye(labels)[rest.label] - rest.others / rest.others.sum(1, keepdims=True)
        if ordinal:
            gaps = (gaps @ np.linspace(0.0, 1.0, labels))[:, None]
        left = [_offset(int(who), gaps[rest.rater == who], ordinal, (1.0 - level) / tests)
                for who in np.unique(rest.rater)]  # fmt: skip
        odd = [one for one in left if one.sure]
        if not odd or len(left) <= 2:
            return (*found, *left)
        most = max(odd, key=lambda one: one.size)
        found.append(most)
        rest = rest.without(most.rater)


def _offset(rater: int, gaps: FloatArray, ordinal: bool, alpha: float) -> Offset:
    if len(gaps) < FEWEST:
        return Offset(rater, None, None, len(gaps))
    label = int(np.abs(gaps.mean(0)).argmax())
    gap = mean_effect(
        gaps[:, label][None, :], level=1.0 - alpha, bounded=True, name="less the others on the same items",
        unit="of the scale" if ordinal else "share of items",
    )  # fmt: skip
    return Offset(rater, None if ordinal else label, gap, len(gaps))
