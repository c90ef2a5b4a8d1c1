"""The people who voted, and what a model believed of the same items."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import Unanswered, without_interval
from wheeltap.core import seeds
from wheeltap.core.records import Estimate
from wheeltap.stats.clusters import Groups, clustered
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.effect import score_interval, without_point
from wheeltap.stats.sample import Sample
from wheeltap.suites.lens.record import SystemScore
from wheeltap.suites.lens.stats.disagreement import entropy, js_distance, shares, soft_accuracy
from wheeltap.suites.lens.stats.panels import Counts, Halves, correlation, halves, splits_for
from wheeltap.suites.lens.stats.raters import FEWEST, Ballots, mean_over

FEW_FOR_ENTROPY: Final = 5
"""Votes up to which entropies are not compared: those of so few people say next to nothing of what all would say.

Source: arXiv:2605.29797: correlations of entropies need 20 to 50 votes an item."""

ENOUGH_FOR_ENTROPY: Final = 20
"""Votes below which a correlation of entropies is said to be too low."""


@final
@dataclass(frozen=True, eq=False)
class Panel:
    """Votes on the items that two people or more voted on.

    Attributes:
        votes: ``[item, label]``.
        rows: Which items of the task these are.
        single: How many items have one vote, and are left out.
        ordinal: Whether the labels are in an order.
        labels: Their names; none where they have none.
        seed: Of splits.
        ballots: Who chose what; ``None`` where that is not known.
        raters: Names of the people, by their number; none where they have none.
        groups: ``[item]``, what items share, where they come in groups.
    """

    votes: Counts
    rows: NDArray[np.intp]
    single: int
    ordinal: bool
    labels: tuple[str, ...]
    seed: int
    ballots: Ballots | None = None
    raters: tuple[str, ...] = ()
    groups: Groups | None = None

    @cached_property
    def held(self) -> FloatArray:
        """Shares of all votes, ``[item, label]``."""
        return shares(self.votes)

    @cached_property
    def halves(self) -> Halves:
        """The people in two halves."""
        items, labels = self.votes.shape
        rng = seeds.generator(self.seed, "disagreement", "halves")
        return halves(self.votes, splits=splits_for(items, labels), rng=rng)

    @property
    def sizes(self) -> tuple[int, int]:
        """Fewest and most votes of an item."""
        people = self.votes.sum(1)
        return int(people.min()), int(people.max())

    @property
    def people(self) -> str:
        """How many, in words."""
        few, most = self.sizes
        return f"{few}" if few == most else f"{few} to {most}"

    @property
    def typical(self) -> float:
        """Median number of votes of an item."""
        return float(np.median(self.votes.sum(1)))

    @cached_property
    def ceiling(self) -> tuple[Estimate, Estimate]:
        """How close half of the people is to the other half: JS distance, and share who chose its label."""
        return (
            self.of_halves(lambda split, _: js_distance(split.other, split.target), "JS distance of two halves",
                           "nats, square root"),
            self.of_halves(lambda split, _: soft_accuracy(split.target, split.other), "soft accuracy of the other half",
                           "share of people"),
        )  # fmt: skip

    def mean(self, values: FloatArray, name: str, unit: str, *, table: Callable[[Ballots], FloatArray]) -> Estimate:
        """Mean over items; over raters as well, where they are known: ``table`` says what each of them moves."""
        made = mean_of(values, name, unit, self.groups)
        if self.ballots is None or made.low is None:
            return made
        return _cut(mean_over(clustered(table(self.ballots), self.groups), name=name, unit=unit, n=len(values)))

    def of_halves(
        self, measure: Callable[[Halves, NDArray[np.integer]], FloatArray], name: str, unit: str, *, alone: int = FEWEST
    ) -> Estimate:
        """Mean of a measure ``[split, item]`` of the people in two halves, and of the items these are of."""
        values = measure(self.halves, np.arange(len(self.votes))).mean(0)
        return self.mean(values, name, unit, table=lambda known: known.halved(values, measure, alone=alone))

    def of_shares(
        self, measure: Callable[[FloatArray, NDArray[np.integer]], FloatArray], name: str, unit: str
    ) -> Estimate:
        """Mean of a measure of shares ``[..., label]`` and the items they are of."""
        values = measure(self.held, np.arange(len(self.held)))
        return self.mean(values, name, unit, table=lambda known: known.counting(values, measure))

    def sample(
        self, values: FloatArray, table: Callable[[Ballots], FloatArray], *, bound: float | None = 1.0
    ) -> Sample:
        """What a tested mean over items is the mean of: with raters as draws, where they are known.

        Args:
            values: ``[item]``.
            table: See ``Ballots.crossed``.
            bound: Of a value; see ``Sample``.
        """
        cells, groups = values[None, :] if self.ballots is None else table(self.ballots), self.groups
        if self.ballots is not None and len(cells) == 1:  # as of one group: nothing says how other people would differ
            groups = np.zeros(len(values), dtype=np.int64)
        most = None if bound is None else max(bound, float(np.abs(cells).max()))
        return Sample(cells, most, groups=groups)

    def _half(self, moved: Callable[[FloatArray, NDArray[np.integer]], FloatArray]) -> float:
        """Half the interval of the mean of a measure of entropies of votes, and of the items these are of."""
        made = self.of_shares(lambda held, at: moved(entropy(held), at), "moved", "1")
        return math.inf if made.low is None or made.high is None else (made.high - made.low) / 2.0

    @property
    def refused(self) -> str:
        """Why entropies are not compared; empty where they are."""
        if self.typical > FEW_FOR_ENTROPY:
            return ""
        return (
            f"Entropies are not compared: with {self.typical:g} votes an item they say little of what all people would "
            f"say (more than {FEW_FOR_ENTROPY} are needed)."
        )

    def entropies(self, p: FloatArray) -> tuple[tuple[Estimate, ...], str]:
        """How a model's entropies compare with those of votes, or why they do not."""
        if self.refused:
            return (), self.refused
        own, theirs = entropy(p), entropy(self.held)
        found = correlation(own, theirs, name="correlation of entropies", over=self._half)
        found = found if self.groups is None else without_interval(found)
        gap = self.of_shares(lambda held, at: own[at] - entropy(held), "entropy less that of votes (EntCE)", "nats")
        if self.typical >= ENOUGH_FOR_ENTROPY or found.value is None:
            return (gap, found), ""
        few = (
            f"With {self.typical:g} votes an item the correlation of entropies, {found}, is lower than with all people."
        )
        return (gap, found), few


@final
@dataclass(frozen=True, eq=False)
class Believed:
    """What one model believed.

    Attributes:
        name: Of the model.
        panel: The people.
        p: Probabilities ``[item, label]`` of the panel's items.
    """

    name: str
    panel: Panel
    p: FloatArray


def panel_of(
    read: Arrays, *, labels: tuple[str, ...], seed: int, groups: Groups | None = None, raters: tuple[str, ...] = ()
) -> Panel:
    """The panel that a reading of votes holds.

    Raises:
        Unanswered: If fewer than two items have two votes.
    """
    votes = read["votes"].astype(np.int64)
    rows = np.flatnonzero(votes.sum(1) > 1)
    if len(rows) < 2:
        why = f"{len(rows)} of {len(votes)} items have two votes: how people agree needs two people on an item."
        raise Unanswered("not_applicable", why)
    named = labels if len(labels) == votes.shape[1] else ()
    return Panel(
        votes[rows], rows, len(votes) - len(rows), bool(read["ordinal"]), named, seed, _known(read, rows), raters,
        None if groups is None else groups[rows],
    )  # fmt: skip


def _known(read: Arrays, rows: NDArray[np.intp]) -> Ballots | None:
    """Who chose what, on these items."""
    if "ballots" not in read:
        return None
    place = np.full(len(read["votes"]), -1)
    place[rows] = np.arange(len(rows))
    item, rater, label = read["ballots"].astype(np.int64).T
    kept = place[item] >= 0
    return Ballots(place[item[kept]], rater[kept], label[kept], read["votes"].astype(np.int64)[rows])


def mean_of(values: FloatArray, name: str, unit: str, groups: Groups | None = None) -> Estimate:
    """Mean over items, or over their groups. Each has people of its own: its interval holds for other people as well.

    It has none where all items gave the same number: that says nothing of what others would give. Of few items the t
    interval is cut where no number can lie.
    """
    return _cut(without_point(score_interval(values, bounded=False, groups=groups, name=name, unit=unit)))


def _cut(found: Estimate) -> Estimate:
    most = _MOST.get(found.unit)
    if most is None or found.low is None or found.high is None:
        return found
    return msgspec.structs.replace(found, low=max(found.low, 0.0), high=min(found.high, most))


_MOST: Final = {
    "probability": 1.0,
    "share": 1.0,
    "share of people": 1.0,
    "nats, square root": math.sqrt(math.log(2.0)),
    "of 2": 2.0,
}
"""The largest number of a unit whose least is 0."""


def in_words(one: Estimate) -> str:
    """An estimate in a sentence, with the reason where it has no interval."""
    if one.value is None or one.low is not None or one.high is not None:
        return str(one)
    return f"{one.value:.3f} ({one.method if one.method.startswith('no interval') else 'no interval'})"


def shown(subject: str, one: Estimate) -> SystemScore:
    """An estimate as tables hold it."""
    return SystemScore(subject=subject, value=one.value or 0.0, low=one.low, high=one.high)
