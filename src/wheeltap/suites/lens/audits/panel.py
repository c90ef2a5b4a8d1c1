"""The raters of a benchmark's items: how far they agree, and what a model believed of the same items."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import Hypothesis, NoAnswer, without_interval
from wheeltap.core import seeds
from wheeltap.core.plain import fixed
from wheeltap.core.records import Estimate
from wheeltap.stats.clusters import Groups, clustered
from wheeltap.stats.crossed import FloatArray, crossed
from wheeltap.stats.effect import score_interval, without_point
from wheeltap.stats.sample import Sample
from wheeltap.suites.lens.stats.owen2007 import FEWEST, Ballots
from wheeltap.suites.lens.stats.votes import (
    LEVEL,
    Counts,
    PanelHalves,
    agreement,
    another,
    correlation,
    entropy,
    halves,
    js_distance,
    kappa,
    resampled,
    shares,
    soft_accuracy,
    splits_for,
    top,
    wasserstein,
)

FEW_FOR_ENTROPY: Final = 5
"""Votes up to which entropies are not compared: those of so few people say next to nothing of what all would say.

Source: arXiv:2605.29797: correlations of entropies need 20 to 50 votes an item."""

ENOUGH_FOR_ENTROPY: Final = 20
"""Votes below which a correlation of entropies is said to be too low."""

JS: Final = "nats, square root"
"""Unit of JS distances."""

_MOST: Final = {
    **dict.fromkeys(("probability", "share", "share of people"), 1.0),
    JS: math.sqrt(math.log(2.0)),
    "of 2": 2.0,
}
"""The largest number of a unit whose least is 0."""

ShareMeasure = Callable[[FloatArray, NDArray[np.integer]], FloatArray]
"""From shares of votes ``[..., label]`` and the items that they are of to ``[...]``."""

HalvesMeasure = Callable[[PanelHalves, NDArray[np.integer]], FloatArray]
"""From the people in two halves, and the items that they voted on, to ``[split, item]``."""

ItemValues = tuple[FloatArray, FloatArray]
"""A number of each item, and its table ``[rater, item]``: see ``Ballots.table``. One row where raters are not known."""

SUBJECT: Final = "people"
"""Who is said to have been measured."""

STRANGERS: Final = (
    "Who voted is not known: intervals suppose other people on every item. Where the same people vote on many items, "
    "those are too narrow."
)

SHARES: Final = (0.0, 0.5, 2 / 3, 1.0)
"""Shares of the people who must agree on an item for it to be kept; more than half, at .5."""

DRAWS: Final = 200
"""Of people, for what another draw would change: shares err by less than .04."""

_CELLS: Final = 40_000_000
_ROUNDING: Final = 1e-9

_EQUAL: Final = 0.8
"""Share of the people that those of unequal numbers of votes must count as, for nothing to be said of it."""

_ENOUGH: Final = 5.0
"""People below which they are said to be few."""

_WIDE: Final = " They are few, so that intervals are wide, and may be wider than 95 % need."


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
        groups: ``[item]``, what items share, where they come in groups.
    """

    votes: Counts
    rows: NDArray[np.intp]
    single: int
    ordinal: bool
    labels: tuple[str, ...]
    seed: int
    ballots: Ballots | None = None
    groups: Groups | None = None

    @cached_property
    def held(self) -> FloatArray:
        """Shares of all votes, ``[item, label]``."""
        return shares(self.votes)

    @cached_property
    def halves(self) -> PanelHalves:
        """The people in two halves."""
        items, labels = self.votes.shape
        rng = seeds.generator(self.seed, "disagreement", "halves")
        return halves(self.votes, splits=splits_for(items, labels), rng=rng)

    @property
    def people(self) -> str:
        """How many, in words."""
        sizes = self.votes.sum(1)
        few, most = int(sizes.min()), int(sizes.max())
        return f"{few}" if few == most else f"{few} to {most}"

    @property
    def typical(self) -> float:
        """Median number of votes of an item."""
        return float(np.median(self.votes.sum(1)))

    @cached_property
    def ceiling(self) -> tuple[Estimate, Estimate]:
        """How close half of the people is to the other half: JS distance, and share who chose its label."""
        far = self.by_halves(lambda split, _: js_distance(split.other, split.target))
        soft = self.by_halves(lambda split, _: soft_accuracy(split.target, split.other))
        return (
            self.mean(far, "JS distance of two halves", JS),
            self.mean(soft, "soft accuracy of the other half", "share of people"),
        )

    def by_shares(self, measure: ShareMeasure, values: FloatArray | None = None) -> ItemValues:
        """A measure of the shares of votes; ``values`` ``[item]`` where another estimate of it has no bias."""
        values = measure(self.held, np.arange(len(self.held))) if values is None else values
        return values, values[None, :] if self.ballots is None else self.ballots.of_shares(values, measure)

    def by_halves(self, measure: HalvesMeasure, *, fewest: int = FEWEST + 1) -> ItemValues:
        """A measure of the people in two halves, mean over splits; ``fewest``: see ``Ballots.table``."""
        values = measure(self.halves, np.arange(len(self.votes))).mean(0)
        if self.ballots is None:
            return values, values[None, :]
        return values, self.ballots.of_halves(values, measure, fewest=fewest)

    def mean(self, measured: ItemValues, name: str, unit: str) -> Estimate:
        """Mean over items, or over their groups; over raters as well, where they are known.

        Each item has people of its own: the interval holds for other people as well. It has none where all items gave
        the same number: that says nothing of what others would give. Of few items it is cut where no number can lie.
        """
        values, table = measured
        found = without_point(score_interval(values, bounded=False, groups=self.groups, name=name, unit=unit))
        if self.ballots is not None and found.low is not None:
            cells = clustered(table, self.groups)
            value, low, high = float(cells.mean()), None, None
            method = f"no interval: {'too few people' if len(table) < FEWEST else f'{len(self.votes)} items'}"
            if min(cells.shape) > 1:
                half = float(crossed(cells).half_width(1.0 - LEVEL))
                low, high = value - half, value + half
                method = f"two-way bootstrap over {self.ballots.raters} raters x {cells.shape[1]} items, Student's t"
            found = Estimate(
                name=name, value=value, low=low, high=high, level=LEVEL, n=len(self.votes), unit=unit, method=method
            )
        largest = _MOST.get(unit)
        if largest is None or found.low is None or found.high is None:
            return found
        return msgspec.structs.replace(found, low=max(found.low, 0.0), high=min(found.high, largest))

    def sample(self, measured: ItemValues, *, bound: float | None = 1.0) -> Sample:
        """What a tested mean over items is the mean of: with raters as draws, where they are known."""
        cells, groups = measured[1], self.groups
        if self.ballots is not None and len(cells) == 1:  # as of one group: nothing says how other people would differ
            groups = np.zeros(cells.shape[1], dtype=np.int64)
        largest = None if bound is None else max(bound, float(np.abs(cells).max()))
        return Sample(cells, largest, groups=groups)

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

        def half(moved: ShareMeasure) -> float:
            """Half the interval of the mean of a measure of entropies of votes, and of the items these are of."""
            made = self.mean(self.by_shares(lambda held, at: moved(entropy(held), at)), "moved", "1")
            return math.inf if made.low is None or made.high is None else (made.high - made.low) / 2.0

        found = correlation(own, theirs, name="correlation of entropies", over=half)
        found = found if self.groups is None else without_interval(found)
        less = self.by_shares(lambda held, at: own[at] - entropy(held))
        gap = self.mean(less, "entropy less that of votes (EntCE)", "nats")
        if self.typical >= ENOUGH_FOR_ENTROPY or found.value is None:
            return (gap, found), ""
        few = (
            f"With {self.typical:g} votes an item the correlation of entropies, {found}, is lower than with all people."
        )
        return (gap, found), few


@final
@dataclass(frozen=True, eq=False)
class Beliefs:
    """What one model believed.

    Attributes:
        p: Probabilities ``[item, label]`` of the panel's items.
    """

    name: str
    panel: Panel
    p: FloatArray


def panel_of(read: Arrays, *, labels: tuple[str, ...], seed: int, groups: Groups | None = None) -> Panel:
    """The panel that a reading of votes holds.

    Raises:
        NoAnswer: If fewer than two items have two votes.
    """
    votes = read["votes"].astype(np.int64)
    rows = np.flatnonzero(votes.sum(1) > 1)
    if len(rows) < 2:
        why = f"{len(rows)} of {len(votes)} items have two votes: how people agree needs two people on an item."
        raise NoAnswer("not_applicable", why)
    named, known = labels if len(labels) == votes.shape[1] else (), None
    groups = None if groups is None else groups[rows]
    if "ballots" in read:  # who chose what, on these items
        place = np.full(len(votes), -1)
        place[rows] = np.arange(len(rows))
        item, rater, label = read["ballots"].astype(np.int64).T
        kept = place[item] >= 0
        known = Ballots(place[item[kept]], rater[kept], label[kept], votes[rows], groups, seed)
    return Panel(votes[rows], rows, len(votes) - len(rows), bool(read["ordinal"]), named, seed, known, groups)


def in_words(one: Estimate) -> str:
    """An estimate in a sentence, with the reason where it has no interval."""
    if one.value is None or one.low is not None or one.high is not None:
        return str(one)
    return f"{one.value:.3f} ({one.method if one.method.startswith('no interval') else 'no interval'})"


def among_people(panel: Panel) -> Hypothesis:
    """How far people agree, and how far one half of them is from the other: the ceiling of any score by votes."""
    far, soft = panel.ceiling
    alike = agreement(panel.votes)
    table = alike[None, :] if panel.ballots is None else panel.ballots.table(alike, agreement(panel.ballots.others))
    same = panel.mean((alike, table), "agreement of two people", "probability")
    beyond = _kappa(panel)
    more = list[Estimate]()
    if not panel.refused:
        more.append(panel.mean(panel.by_shares(lambda held, _: entropy(held)), "entropy of votes", "nats"))
    if panel.ordinal:
        steps = panel.by_halves(lambda split, _: wasserstein(split.other, split.target))
        more.append(panel.mean(steps, "Wasserstein distance of two halves", "steps"))
    known = "undefined: nobody disagrees" if beyond.value is None else in_words(beyond)
    said = (
        f"Two people agree on an item with probability {in_words(same)} (kappa {known}); half of them is "
        f"{in_words(far)} from the other half (JS distance, nats, square root), and {in_words(soft)} of it chose the "
        "label that most of the other half chose."
    )
    left = f" {panel.single:,} items with one vote are left out." if panel.single else ""
    who = f" {STRANGERS if panel.ballots is None else _raters(panel.ballots)}"
    return Hypothesis(
        test=None, status="measured", title="Agreement of people", found=f"{said}{left}{who}", brief=said,
        beside=(same, beyond, far, soft, *more),
    )  # fmt: skip


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class OneLabel:
    """What one label an item hides.

    Attributes:
        items: With two votes or more.
        labels: Names, where they have any.
        systems: Whose scores the thresholds hold.
        thresholds: Of the share of the people who must agree, ascending: how many items that keeps, and each system's
            share of right answers on these, the label that most people chose being right.
        redrawn: Share of the labels that most people chose which another draw of as many would change.
        halves: Share of the items of which two halves of the people choose different labels.
        order: Share of pairs of systems whose order by score another draw of people would change.
        best: Share of draws in which another system has the best score.
        reordered: Share of pairs of systems that score and distance to people order differently.
    """

    items: int
    labels: tuple[str, ...]
    systems: tuple[str, ...]
    thresholds: tuple[tuple[float, int, tuple[float, ...]], ...]
    redrawn: float
    halves: float
    order: float | None
    best: float | None
    reordered: float | None


def one_label(panel: Panel, held: Sequence[Beliefs], scored: Mapping[str, FloatArray], *, seed: int) -> OneLabel:
    """What is lost where items must have one label: items, labels that other people would change, orders of systems.

    Systems are ``held`` with their probabilities, or ``scored`` ``[item]`` where these are not known.
    """
    collapsed = top(panel.votes)
    right = {one.name: (top(one.p) * collapsed).sum(1) for one in held} | dict(scored)
    agreed, thresholds = panel.held.max(1), list[tuple[float, int, tuple[float, ...]]]()
    for share in SHARES:
        # As benchmarks do it: a majority is more than half of the votes.
        kept = agreed > share + _ROUNDING if share in (0.0, 0.5) else agreed >= share - _ROUNDING
        scores = np.array([values[kept].mean() for values in right.values()]) if kept.any() else np.zeros(0)
        thresholds.append((share, int(kept.sum()), tuple(map(float, scores))))
    redrawn, order, best = _redrawn(panel, held, seed=seed)
    # Pairs that the score by one label and the distance to people order differently.
    by_label = np.array([right[one.name].mean() for one in held])
    reordered = _flips(by_label, np.array([-js_distance(one.p, panel.held).mean() for one in held]))
    two = panel.halves
    return OneLabel(
        items=len(panel.votes), labels=panel.labels, systems=tuple(right), thresholds=tuple(thresholds),
        redrawn=redrawn, order=order, best=best, reordered=reordered,
        halves=float(another(top(two.one), top(two.two)).mean()),
    )  # fmt: skip


def _redrawn(panel: Panel, held: Sequence[Beliefs], *, seed: int) -> tuple[float, float | None, float | None]:
    """Labels, orders and best systems that another draw of as many people would change."""
    draws = int(np.clip(_CELLS // panel.votes.size, 10, DRAWS))
    collapsed, several = top(panel.votes), [top(one.p) for one in held]
    whole = np.array([(one * collapsed).sum(1).mean() for one in several])
    moved, orders, bests = 0.0, list[float](), list[float]()
    for label in resampled(panel.votes, draws=draws, rng=seeds.generator(seed, "disagreement", "redrawn")):
        moved += float(another(collapsed, label).mean()) / draws
        if len(several) > 1:
            scores = np.array([(one * label).sum(1).mean() for one in several])
            orders.append(_flips(whole, scores) or 0.0)
            bests.append(float(scores.argmax() != whole.argmax()))
    return (moved, float(np.mean(orders)), float(np.mean(bests))) if orders else (moved, None, None)


def _flips(one: FloatArray, two: FloatArray) -> float | None:
    """Share of pairs whose order differs; an equal pair counts half. ``None`` of fewer than two."""
    if not 1 < len(one) == len(two):
        return None
    at = np.triu_indices(len(one), 1)
    signs = [np.sign(np.round(x[at[0]] - x[at[1]], 12)) for x in (one, two)]
    return float((np.abs(signs[0] - signs[1]) / 2.0).mean())


def hidden(people: OneLabel) -> Hypothesis:
    """What one label an item hides, in words."""
    kept = {share: 1.0 - items / people.items for share, items, _ in people.thresholds}
    said = [
        f"{fixed(100 * kept[0.5], 1)} % of the items have no label that more than half chose, and on "
        f"{100 * kept[1.0]:.0f} % not all agree.",
        f"Of the labels that most chose, another draw of as many people changes {fixed(100 * people.redrawn, 1)} % "
        "(drawn from the votes: too few, where few voted).",
        f"Two halves of the people choose different labels for {fixed(100 * people.halves, 1)} %.",
    ]
    if people.order is not None and people.best is not None:
        said.append(
            f"It changes the order of {fixed(100 * people.order, 1)} % of the pairs of systems, and the best one in "
            f"{100 * people.best:.0f} % of draws."
        )
    if people.reordered is not None:
        said.append(f"Score and distance to people order {100 * people.reordered:.0f} % of the pairs differently.")
    return Hypothesis(test=None, status="measured", title="What one label an item hides", found=" ".join(said),
                  brief=said[0])  # fmt: skip


def _kappa(panel: Panel) -> Estimate:
    """Fleiss' kappa; where raters are known, with an interval over raters and items (or their groups).

    Then agreement by chance is that of two different raters: a few who have preferences of their own agree with
    themselves more than with others, and kappa would be too low.

    Source: Conger (1980), "Integration and generalization of kappas for multiple raters", eq. 10.
    """
    over_items, known = without_point(kappa(panel.votes)), panel.ballots
    if known is None or over_items.value is None:
        return over_items if panel.groups is None else without_interval(over_items)
    held, same = panel.held, agreement(panel.votes)
    common, observed = held.mean(0), float(same.mean())
    rest = 1.0 - known.chance_agreement
    if rest <= 0.0:
        return without_interval(over_items)
    # Linearized in the two means that it is made of.
    slope = (observed - 1.0) / rest**2 * 2.0 * common
    values = 1.0 + (observed - 1.0) / rest + (same - observed) / rest + (held - common) @ slope
    without = agreement(known.others) / rest + shares(known.others) @ slope
    found = panel.mean((values, known.table(values, without)), over_items.name, "1")
    if found.low is None or found.high is None:
        return found
    return msgspec.structs.replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def _raters(known: Ballots) -> str:
    """What the intervals are over, and what few raters, or raters with very different numbers of votes, mean."""
    said = f"{known.raters} people gave {len(known.item):,} votes; intervals are over people and items."
    alike = known.effective_raters
    unequal = f" They vote so unequally that they count as about {alike:.1f}." if alike < _EQUAL * known.raters else ""
    two = " Two people do not say how often others would agree." if known.raters == FEWEST else ""
    return f"{said}{unequal}{_WIDE if alike < _ENOUGH else ''}{two}"
