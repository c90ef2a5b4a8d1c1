"""WT201: are there large parts that cancel each other, so that losing one costs what losing both does not?"""

from dataclasses import dataclass
from typing import ClassVar, final

import numpy as np

from wheeltap.audits.base import Case, Hypothesis, Margin
from wheeltap.audits.case import Arrays, Values
from wheeltap.audits.controls import NULL_LEVEL
from wheeltap.audits.reading_audit import PlantedReadingAudit
from wheeltap.core.records import Estimate, SubjectRecord
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.cancellation import CANCELLATION, CancellationSettings
from wheeltap.stats.clusters import Groups
from wheeltap.stats.sample import Sample

_OPPOSING, _RANDOM = 0, 1
_BOTH = 2

_PLANT_MARGIN = 0.5
"""Difference by which the planted copy's share must be smaller than that of random pairs for its control to fail."""

_NULL_MARGIN = 0.1
"""Difference of the copy's share beyond which the null control fails."""


class RedundancySettings(CancellationSettings, frozen=True, kw_only=True):
    """Thresholds. Shares are of what ablating each unit of a pair changes.

    Attributes:
        margin: Share undone, beyond that of random pairs, that does not matter yet.
        min_effect: Share that the null control must have been able to see.
        difference: Difference of shares between two subjects that does not matter.
    """

    margin: Margin = 0.5
    min_effect: Margin = 1.0
    difference: Margin = 0.25


def undone(moved: Values) -> Values:
    """Share of what ablating each unit of a pair changes that is undone by ablating both, ``[pair, example]``.

    A pair's mean over examples is ``1 - both / (one + two)`` of its means: 1 where the units cancel, 0 where they have
    nothing to do with each other, -1 where they do the same. What an example differs from it by is its influence on
    that ratio, so the mean's spread over examples is that of the ratio.

    Args:
        moved: ``[pair, way, example]``: squared change of the scores without the first, the second, both.
    """
    alone, both = moved[:, :_BOTH].sum(1), moved[:, _BOTH]
    whole = alone.mean(1, keepdims=True)
    safe = np.where(whole > 0.0, whole, 1.0)
    share = 1.0 - both.mean(1, keepdims=True) / safe
    return np.where(whole > 0.0, share + (alone * (1.0 - share) - both) / safe, 0.0)


@dataclass(frozen=True)
class _PairEffects:
    """What a reading gave of one subject, and the groups of the examples that it measured."""

    values: Arrays
    groups: Groups | None

    def undone(self, which: int) -> Values:
        return undone(self.values["moved"][which])

    def rescued(self, name: str) -> Values:
        """What ablating the units of a pair one by one costs more than ablating both, ``[pair, example]``."""
        cost = self.values[name][_OPPOSING]
        return cost[:, :_BOTH].sum(1) - cost[:, _BOTH]


@final
class RedundancyAudit(PlantedReadingAudit[_PairEffects]):
    """Cancelling pairs of hidden units, by exact ablation; cancellation and copies in each layer beside nulls."""

    name = "redundancy"
    code = "WT201"
    title = "Units that cancel each other"
    brief = "Redundancy and cancellation"
    reads = (
        "Pairs of units whose contributions nearly cancel are ablated one by one and together. Where each ablation "
        "hurts and both together do not, the function is written as a difference of large numbers."
    )
    asks = "structure"
    shows = True
    settings_type = RedundancySettings
    spares: ClassVar[dict[str, int]] = {"pairs": 3}
    reading = CANCELLATION

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """On one half contributions and shuffles, on the other the clean pass, means, and each pair's three ways."""
        return 0.5 * (1 + self.settings.shuffles + 2 + 2 * 3 * self.settings.pairs)

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> _PairEffects:
        """The arrays as they are."""
        return _PairEffects(read, case.groups_of(read["rows"].astype(np.intp)))

    def singles(self, case: Case, subject: SubjectRecord, read: _PairEffects) -> list[Hypothesis]:
        """Whether ablating both units of a pair undoes more than in random pairs."""
        how, name = self.settings, subject.name
        tested = _beyond_random(read).effect(margin=how.margin, name="share_undone", unit="share")
        share = f"ablating both of a pair undoes {tested} more than in random pairs"
        rest = f"{_words(read, case.plan.task.measure)}{_not_in(subject, read.values['beside'])}"
        claim = Hypothesis(
            test=tested, margin=how.margin, evidence=_beyond_random(read),
            beside=self._more(case, read), one_sided=True,
            found=f"Hidden units of {name} cancel each other: {share}. {rest} So the function depends on their "
            "balance; noise in the weights shows how much (WT101).",
            otherwise=f"Hidden units of {name} are not shown to cancel each other: {share}, not shown to be more than "
            f"{how.margin:g}. {rest} Pairs do not show cancellation that takes three or more units.",
        )  # fmt: skip
        return [claim]

    def compared(self, case: Case, rival: SubjectRecord, one: _PairEffects, two: _PairEffects) -> Hypothesis:
        """In which of the two ablating both undoes more."""
        margin = self.settings.difference
        sample = _more_undone(one, two)
        gap = sample.effect(margin=margin, name="share_difference", unit="share")
        words = (
            f"In the most opposing pairs, ablating both units undoes {gap} more of what ablating each changes in "
            f"{rival.name} than in {case.plan.reference.name}."
        )
        return Hypothesis(
            test=gap, margin=margin, evidence=sample, min_effect=self.settings.min_effect,
            found=words,
            otherwise=f"{words} Not shown to be more than {margin:g} either way.",
        )  # fmt: skip

    def null(self, case: Case, one: _PairEffects, two: _PairEffects) -> Hypothesis:
        """Permuted and rescaled units cancel as much."""
        level, margin = NULL_LEVEL, _NULL_MARGIN
        gap = _more_undone(one, two).effect(level=level, margin=margin, name="share_difference", unit="share")
        return Hypothesis(
            test=gap, margin=margin, min_effect=self.settings.min_effect,
            found=f"A copy with permuted and rescaled units must not look different: its share undone differs by "
            f"{gap} ({level:.1%} interval); the run is void if it is shown to differ by more than {margin:.2g}.",
        )  # fmt: skip

    def plant(self, case: Case, planted: _PairEffects, *, level: float) -> Hypothesis:
        """Units that cancel by construction."""
        margin = _PLANT_MARGIN
        share = _beyond_random(planted).effect(level=level, margin=margin, name="share_undone", unit="share")
        return Hypothesis(
            test=share, margin=margin,
            found=f"Cancelling units that were added to a copy must be found: ablating both undoes {share} more than "
            f"in random pairs ({level:.1%} interval).",
        )  # fmt: skip

    def _more(self, case: Case, read: _PairEffects) -> tuple[Estimate, ...]:
        """What else was measured; only the first estimate of a finding is tested."""
        shares = [
            Sample(read.undone(which), groups=read.groups).effect(name=name, unit="share")
            for which, name in ((_OPPOSING, "share_undone_opposing"), (_RANDOM, "share_undone_random"))
        ]
        units = {"lost": case.plan.task.measure, "nll": "nats"}
        rescues = [
            Sample(read.rescued(name), groups=read.groups).effect(name=f"{name}_rescued", unit=unit)
            for name, unit in units.items()
            if name in read.values
        ]
        return (*shares, *rescues, _cancellation(read.values), _copies(read.values))


def _beyond_random(read: _PairEffects) -> Sample:
    """How much more is undone in the most opposing pairs than in random ones, ``[pair, example]``."""
    return Sample(read.undone(_OPPOSING) - read.undone(_RANDOM), groups=read.groups)


def _more_undone(one: _PairEffects, two: _PairEffects) -> Sample:
    """How much larger the share undone is in ``two``, ``[pair, example]``; pairs by rank."""
    a, b = one.undone(_OPPOSING), two.undone(_OPPOSING)
    shared = min(len(a), len(b))
    return Sample(b[:shared] - a[:shared], groups=one.groups)


def _words(read: _PairEffects, measure: str) -> str:
    """What stands beside the tested share."""
    values = read.values
    cost = values["lost"][_OPPOSING]
    one, both = float(cost[:, :_BOTH].mean()), float(cost[:, _BOTH].mean())
    ratio, null, layer = _worst_ratio(values)
    copies, living = int(values["duplicates"].sum()), int(values["living"].sum())
    return (
        f"In the {len(values['layer'])} most opposing pairs, ablating both undoes "
        f"{float(read.undone(_OPPOSING).mean()):.2f} of what ablating each changes; in random pairs, "
        f"{float(read.undone(_RANDOM).mean()):.2f}. Ablating one costs {one:.2g} of {measure}, ablating both "
        f"{both:.2g}. In hidden layer {layer + 1} the contributions are {ratio:.1f} times as large as their sum "
        f"({null:.1f} with outgoing weights permuted). {copies} of {living} living units have a copy "
        f"({float(values['duplicates_null'].mean(1).sum()):.1f} with values shuffled)."
    )


def _not_in(subject: SubjectRecord, beside: Values) -> str:
    """What was not looked at: the layers without such units, the largest first."""
    left = sorted((-float(size), name) for name, size in zip(subject.layers, beside, strict=True) if size)
    if not left:
        return ""
    share = -sum(size for size, _ in left) / subject.parameters
    named = ", ".join(name for _, name in left[:_NAMED])
    more = f" and {len(left) - _NAMED} more" if len(left) > _NAMED else ""
    return f" It did not look inside the other layers, with {share:.0%} of the weights: {named}{more}."


_NAMED = 4
"""Layers that are named, the largest first."""


def _worst_ratio(values: Arrays) -> tuple[float, float, int]:
    """The layer whose contributions cancel most beside permuted ones: its ratio, theirs, its index."""
    null = values["ratio_null"].mean(1)
    layer = int(np.argmax(values["ratio"] / null))
    return float(values["ratio"][layer]), float(null[layer]), layer


def _cancellation(values: Arrays) -> Estimate:
    ratio, _, layer = _worst_ratio(values)
    null = values["ratio_null"]
    larger = (null >= values["ratio"][:, None]).sum(1)
    # The layer was picked among several, so its p-value counts for all of them.
    p = min(1.0, len(null) * float(1 + larger[layer]) / (1 + null.shape[1]))
    return Estimate(
        name="cancellation_ratio", value=ratio, low=None, high=None, level=0.95, n=null.shape[1], unit="times",
        method=f"hidden layer {layer + 1}; p over all layers, {null.shape[1]} permutations of outgoing weights", p=p,
    )  # fmt: skip


def _copies(values: Arrays) -> Estimate:
    null = values["duplicates_null"].sum(0)
    return Estimate(
        name="units_with_a_copy", value=float(values["duplicates"].sum()), low=None, high=None, level=0.95, n=len(null),
        unit="units", method=f"at most {float(null.max()):g} in {len(null)} shuffles of each unit's values",
    )  # fmt: skip
