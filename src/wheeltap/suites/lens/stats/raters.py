"""Raters as a sample beside items: the same few people vote on many items, and others would vote otherwise.

A number that is a mean over items has an interval over fresh items with fresh people only where every item has people
of its own. Where raters are known, a table ``[rater, item]`` is made of what each of them moves; its rows and columns
are both samples, as draws and examples are elsewhere (``crossed``).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, cast, final

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import special  # type: ignore[import-untyped]

from wheeltap.core import seeds
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import normal_quantile, root, t_quantile
from wheeltap.stats.clusters import Groups, clustered
from wheeltap.stats.crossed import FloatArray, crossed
from wheeltap.stats.effect import exceeds, mean_effect
from wheeltap.suites.lens.stats.panels import LEVEL, PanelHalves, agreement, halves, kappa, shares, splits_for

Counts = NDArray[np.int64]

MOST: Final = 200
"""Raters that are kept apart; more are put together at random in so many groups, which only widens intervals."""

_ALPHA: Final = 0.05
"""Of the interval by which few raters are made up for."""

_NODES: Final = 512

_ndtr = cast(Callable[[FloatArray], FloatArray], special.ndtr)
_gammaincinv = cast(Callable[[float, FloatArray], FloatArray], special.gammaincinv)

_NONE: Final = 1e-12

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

    @cached_property
    def alike(self) -> FloatArray:
        """Share of the pairs of others who chose the same, ``[ballot]``; 0 where there is no pair."""
        people = self.others.sum(1)
        return (self.others * (self.others - 1)).sum(1) / np.maximum(people * (people - 1), 1)

    def crossed(self, values: FloatArray, without: FloatArray, *, alone: int = FEWEST) -> FloatArray:
        """A table ``[rater, item]`` of a mean over items: ``values``, shifted by what each rater moves the mean.

        The shifts' spread is the jackknife's that leaves out one rater at a time. Where that leaves too few votes to
        say how a rater changes the item's value, the item is left out with the rater: others have it as it is. Of the
        spread is taken off what items alone make of it: that is in the columns, of which there are more.

        Args:
            values: ``[item]``.
            without: ``[ballot]``, the item's value if this rater had not voted on it; only how ballots of one item
                differ counts.
            alone: Most votes of an item of whose value ``without`` has not every part.

        Returns:
            One row where nothing says how other raters would differ: somebody voted on every item.

        Source: Efron & Stein (1981), "The jackknife estimate of variance"; Owen (2007), "The pigeonhole bootstrap",
        sec. 3, for raters crossed with items.
        """
        people = self.votes.sum(1)
        mean = np.bincount(self.item, weights=without, minlength=len(people)) / people
        pull = mean[self.item] - without
        for size in range(FEWEST, alone + 1):
            here = people[self.item] == size
            several = int(here.sum()) // size
            rest = np.where(people == size, values - mean, 0.0)
            if several == 0 or float(np.ptp(rest[people == size])) <= _NONE:
                continue
            voted = np.bincount(self.rater[here], minlength=int(self.rater.max()) + 1)
            if several == len(people) == int(voted.max()):
                return values[None, :]
            rest -= rest[people == size].mean()
            others = np.maximum(several - voted[self.rater], 1)
            pull += np.where(here, rest[self.item] * several / others, 0.0)
        return values + self._shifts(values, pull)[:, None]

    def _shifts(self, values: FloatArray, pull: FloatArray) -> FloatArray:
        """Of the mean over items, ``[rater]``: what is left where items alone would make raters' pulls differ.

        What raters add to the variance is a difference of two estimates. Few raters may seem alike by chance, and with
        the difference as it is intervals of 3 to 5 raters held in as little as 87 %. The generalized interval allows
        for every variance of raters that the pulls may come from, and held in up to 100 %. The shifts are as large as
        make the crossed t interval as wide as the mean of the two: that is no theorem, and `benchmarks.levels` has what
        holds.

        Source: Weerahandi (1993), "Generalized confidence intervals", for a mean with two sources of variance.
        """
        rows, items = int(self._groups.max()) + 1, len(values)
        of_item = np.bincount(self.item, weights=pull, minlength=items)
        mean = (np.bincount(self._groups, weights=pull) - of_item.sum() / rows) / items
        squares, (scale, freedom) = float(mean @ mean), self._design
        if squares <= 0.0 or items < 2 or rows < 2:
            return np.zeros(rows)
        by_items = (float(pull @ pull - of_item @ of_item / rows) - items * squares) / (items * (items - 1))
        example = float(values.var(ddof=1)) / items
        # Equally likely chi-squared numbers, over their freedom.
        drawn = _gammaincinv(freedom / 2.0, (np.arange(_NODES) + 0.5) / _NODES) / (freedom / 2.0)
        own = np.maximum(squares / drawn - by_items, 0.0)
        spread = np.sqrt(example + scale * own)
        most = float(spread.max()) * normal_quantile(1.0 - _ALPHA / 8.0)
        wide = root(lambda x: float(_ndtr(-x / spread).mean()) - _ALPHA / 2.0, 0.0, most)
        by_example = normal_quantile(1.0 - _ALPHA / 2.0) ** 2 * example
        narrow = by_example + t_quantile(_ALPHA, freedom) ** 2 * scale * max(squares - by_items, 0.0)
        left = max(((wide + math.sqrt(narrow)) / 2.0) ** 2 - by_example, 0.0)
        return mean * math.sqrt(left * rows * (rows - 1) / squares) / t_quantile(_ALPHA, rows - 1)

    @property
    def count_as(self) -> float:
        """So many raters who vote on equally many items would tell as much."""
        return self._design[1] + 1.0

    @cached_property
    def _design(self) -> tuple[float, float]:
        """By what the sum of squared pulls is the variance of a mean over new raters, in the same design; its freedom.

        Raters of independent offsets are followed through the table: what it makes of them, against their part in the
        mean, and the freedom that is left where some vote on many items and others on few, or only ever together. With
        every rater on every item it is 1 - 1 / raters, and one less than there are raters.

        Source: Bell & McCaffrey (2002), "Bias reduction in standard errors for linear regression with multi-stage
        samples", sec. 3.
        """
        people = self.votes.sum(1).astype(np.float64)
        rows = int(self._groups.max()) + 1
        if rows == 1:
            return 1.0, 0.0
        part, through = np.zeros(rows), np.zeros((rows, rows))
        for row in range(rows):
            on = np.bincount(self.item[self._groups == row], minlength=len(people)) / people
            beside = (on / (people - 1.0))[self.item]
            part[row], through[row] = on.sum(), -np.bincount(self._groups, weights=beside, minlength=rows)
            through[row, row] += float((on * people / (people - 1.0)).sum())
        made = through @ through
        found = float(np.trace(made))
        freedom = max(found**2 / float(np.square(made).sum()), 1.0)
        return float(part @ part) / found, freedom

    @cached_property
    def _groups(self) -> Counts:
        """``[ballot]``, the row of its rater."""
        _, place = np.unique(self.rater, return_inverse=True)
        if self.raters <= MOST:
            return place
        return (seeds.generator(0, "raters").permutation(self.raters) % MOST)[place]

    def counting(self, values: FloatArray, measure: Callable[[FloatArray, Counts], FloatArray]) -> FloatArray:
        """The table of a measure of shares of votes.

        What agreement among the people adds to such a measure is the less the fewer they are. Of one less it is too
        little: it is set right by what single votes give, in which there is none.

        Args:
            values: ``[item]``.
            measure: From shares ``[ballot, label]`` and items ``[ballot]`` to ``[ballot]``.

        Source: Schucany, Gray & Owen (1971), "On bias reduction in estimation", for measures of two sizes.
        """
        people = self.votes.sum(1)[self.item]
        more = np.where(people > FEWEST, (people - 1.0) ** 2 / (people * np.maximum(people - 2.0, 1.0)), 1.0)
        single = measure(np.eye(self.votes.shape[1])[self.label], self.item)
        summed = np.bincount(self.item, weights=single, minlength=len(self.votes))[self.item]
        rest = measure(shares(self.others), self.item)
        return self.crossed(values, more * rest + (1.0 - more) * (summed - single) / (people - 1.0))

    def halved(
        self, values: FloatArray, measure: Callable[[PanelHalves, Counts], FloatArray], *, alone: int = FEWEST
    ) -> FloatArray:
        """The table of a measure of two halves of the people.

        Args:
            values: ``[item]``, means over splits.
            measure: From the halves of the people of these items to ``[split, item]``.
            alone: See ``crossed``.
        """
        without, kept = np.zeros(len(self.item)), self.others.sum(1) >= FEWEST
        if kept.any():
            without[kept] = measure(self._halves, self.item[kept]).mean(0)
        return self.crossed(values, without, alone=alone)

    @cached_property
    def _halves(self) -> PanelHalves:
        """Of the others, for each ballot beside which there are two votes or more."""
        others = self.others[self.others.sum(1) >= FEWEST]
        return halves(others, splits=splits_for(*others.shape), rng=seeds.generator(0, "raters", "halves"))


def mean_over(table: FloatArray, *, name: str, unit: str, n: int) -> Estimate:
    """Mean over raters and items (or groups of items), both taken as samples.

    Args:
        table: See ``Ballots.crossed``.
        name: Of the estimate.
        unit: Of the values.
        n: How many items there are.

    Returns:
        Of one row an estimate without an interval.
    """
    raters, items = table.shape
    value, low, high = float(table.mean()), None, None
    method = f"no interval: {'too few people' if raters < 2 else f'{items} items'}"
    if raters > 1 and items > 1:
        half = float(crossed(table).half_width(1.0 - LEVEL))
        low, high = value - half, value + half
        method = f"over {raters} raters (or groups of them) x {items} items, crossed t"
    return Estimate(name=name, value=value, low=low, high=high, level=LEVEL, n=n, unit=unit, method=method)


def kappa_of(ballots: Ballots, groups: Groups | None = None) -> Estimate:
    """Fleiss' kappa as ``panels.kappa`` has it, with an interval over raters and items (or their groups)."""
    over_items = kappa(ballots.votes)
    if over_items.value is None:
        return over_items
    held, same = shares(ballots.votes), agreement(ballots.votes)
    common = held.mean(0)
    rest = 1.0 - float(common @ common)
    tilt = (float(same.mean()) - 1.0) / rest**2 * 2.0 * common
    values = over_items.value + (same - same.mean()) / rest + (held - common) @ tilt
    table = ballots.crossed(values, ballots.alike / rest + shares(ballots.others) @ tilt)
    found = mean_over(clustered(table, groups), name=over_items.name, unit="1", n=len(held))
    if found.low is None or found.high is None:
        return found
    return msgspec.structs.replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


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


def offsets(ballots: Ballots, *, ordinal: bool) -> tuple[Offset, ...]:
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
        left = [_offset(int(who), gaps[rest.rater == who], ordinal, (1.0 - LEVEL) / tests)
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
