"""WT201: are there large parts that undo each other, so that losing one costs what losing both does not?"""

from dataclasses import dataclass
from typing import ClassVar, Literal, final

import numpy as np

from wheeltap.audits.base import Audit, AuditSettings, Case, Draft, Unanswered, Values, Verdict, pair
from wheeltap.audits.controls import shown, silent
from wheeltap.audits.limits import Count, Margin, Share
from wheeltap.audits.power import power_control
from wheeltap.core.records import Control, Estimate, Finding, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.effect import mean_effect, smallest_detectable

_OPPOSING, _RANDOM = 0, 1
_BOTH = 2
_SHUFFLES = 9
"""Of the reading, which are not a setting of the audit."""


class RedundancySettings(AuditSettings, frozen=True, kw_only=True):
    """Thresholds. Shares are of what losing each unit of a pair moves.

    Attributes:
        pairs: Pairs that are ablated, and as many random ones.
        to: What an ablated unit is set to, ``mean`` or ``zero``.
        margin: Share undone, beyond that of random pairs, that does not matter yet.
        worth: Smallest share that a ``not_found`` must have been able to see.
        difference: Difference of shares between two subjects that does not matter.
        plant_margin: The planted control fails if its share is below this with 95 % confidence.
        null_margin: The null control fails if the twin's share differs by more than this with ``null_level``.
        null_level: Confidence with which the twin must differ before the audit is void.
    """

    pairs: Count = 8
    to: Literal["mean", "zero"] = "mean"
    margin: Margin = 0.5
    worth: Margin = 1.0
    difference: Margin = 0.25
    plant_margin: Margin = 0.5
    null_margin: Margin = 0.1
    null_level: Share = 0.999


def undone(moved: Values) -> Values:
    """Share of what losing each unit of a pair moves that is undone by losing both, ``[pair, example]``.

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
class _Read:
    """What a reading gave of one subject."""

    values: dict[str, Values]

    def undone(self, which: int) -> Values:
        return undone(self.values["moved"][which])

    def rescued(self, name: str) -> Values:
        """What losing the units of a pair one by one costs more than losing both, ``[pair, example]``."""
        cost = self.values[name][_OPPOSING]
        return cost[:, :_BOTH].sum(1) - cost[:, _BOTH]

    def cost(self, name: str) -> tuple[float, float]:
        """Mean cost of losing one unit of an opposing pair, and of losing both."""
        cost = self.values[name][_OPPOSING]
        return float(cost[:, :_BOTH].mean()), float(cost[:, _BOTH].mean())


@final
class RedundancyAudit(Audit):
    """Cancelling pairs of hidden units, by exact ablation; cancellation and copies in each layer beside nulls."""

    name = "redundancy"
    code = "WT201"
    title = "Units that undo each other"
    brief = "Redundancy and cancellation"
    reads = (
        "Pairs of units whose contributions nearly undo each other are ablated one by one and together. Where "
        "each loss hurts and both together do not, the function is written as a difference of large numbers."
    )
    asks = "structure"
    shows = True
    settings_type = RedundancySettings
    spares: ClassVar[dict[str, int]] = {"pairs": 3}

    def ask(self, case: Case) -> list[Trial]:
        """One reading of each subject and control."""
        if not case.known(case.plan.baselines()):
            return []
        return [self._trial(case, subject) for subject in (*case.plan.subjects, *case.plan.controls)]

    def most(self, plan: Plan) -> int:
        """One reading each."""
        return len(plan.subjects) + len(plan.controls)

    def most_passes(self, plan: Plan) -> float:
        """On one half contributions and shuffles, on the other the clean pass, means, and each pair's three ways."""
        return self.most(plan) * 0.5 * (1 + _SHUFFLES + 2 + 2 * 3 * self.settings.pairs)

    def _trial(self, case: Case, subject: SubjectRecord) -> Trial:
        settings = {"pairs": self.settings.pairs, "to": self.settings.to}
        return case.plan.reading(subject, "cancellation", settings)

    def _read(self, case: Case, subject: SubjectRecord) -> _Read:
        return _Read(case.reading(self._trial(case, subject)))

    def judge(self, case: Case) -> Verdict:
        """One finding per subject, one per pair; the re-coded twin and the planted copy as controls."""
        verdict = Verdict()
        for subject in case.plan.subjects:
            verdict.drafts.append(self._single(case, subject))
        for rival in case.rivals:
            verdict.drafts.append(self._pair(case, rival))
        verdict.controls += [self._null(case), self._plant(case), self._power(case)]
        return verdict

    def _beyond_random(self, read: _Read) -> Estimate:
        beyond = read.undone(_OPPOSING) - read.undone(_RANDOM)
        return mean_effect(beyond, margin=self.settings.margin, name="share_undone", unit="share")

    def _single(self, case: Case, subject: SubjectRecord) -> Draft:
        try:
            read = self._read(case, subject)
        except Unanswered as gap:
            return self.unanswered(subject.name, gap)
        tested = self._beyond_random(read)
        words = self._words(case, subject, read, tested)
        finding = Finding(
            code=self.code, title=self.title, status="found", subject=subject.name,
            estimates=(tested, *self._more(case, read)), trials=(self._trial(case, subject).key,),
            smallest_detectable=smallest_detectable(tested, alpha=case.plan.alpha, margin=self.settings.margin),
            because=f"{words} So these units are there to undo each other, and the function hangs by their balance; "
            "how much hangs by it, noise in the weights tells (WT101).",
        )  # fmt: skip
        return Draft(
            finding,
            test=tested,
            worth=self.settings.worth,
            one_sided=True,
            otherwise=f"{words} Not shown to be more than {self.settings.margin:g}. Parts that cancel only three or "
            "more at a time are not seen by pairs.",
        )

    def _words(self, case: Case, subject: SubjectRecord, read: _Read, tested: Estimate) -> str:
        (score, scores), measure = read.cost("lost"), case.plan.task.measure
        ratio, null, layer = _worst_ratio(read.values)
        copies, living = int(read.values["duplicates"].sum()), int(read.values["living"].sum())
        return (
            f"In the {len(read.values['layer'])} most opposing pairs of {subject.name}'s hidden units, losing both "
            f"undoes {float(read.undone(_OPPOSING).mean()):.2f} of what losing each moves the scores "
            f"({float(read.undone(_RANDOM).mean()):.2f} in random pairs; difference {tested}). Losing one costs "
            f"{score:.2g} of {measure}, losing both {scores:.2g}. In hidden layer {layer + 1} the contributions are "
            f"{ratio:.1f} times as large as their sum ({null:.1f} with outgoing weights permuted). "
            f"{copies} of {living} living units have a copy ({float(read.values['duplicates_null'].mean(1).sum()):.1f} "
            "with values shuffled)."
        )

    def _more(self, case: Case, read: _Read) -> tuple[Estimate, ...]:
        """What else was measured; only the first estimate of a finding is tested."""
        shares = [
            mean_effect(read.undone(which), name=name, unit="share")
            for which, name in ((_OPPOSING, "share_undone_opposing"), (_RANDOM, "share_undone_random"))
        ]
        units = {"lost": case.plan.task.measure, "nll": "nats"}
        rescues = [
            mean_effect(read.rescued(name), name=f"{name}_rescued", unit=unit)
            for name, unit in units.items()
            if name in read.values
        ]
        return (*shares, *rescues, _cancellation(read.values), _copies(read.values))

    def _pair(self, case: Case, rival: SubjectRecord) -> Draft:
        plan, title = case.plan, f"{self.title}: difference"
        name = pair(plan.reference, rival)
        try:
            one, two = self._read(case, plan.reference), self._read(case, rival)
        except Unanswered as gap:
            return self.unanswered(name, gap, title=title)
        gap = self._gap(one, two, margin=self.settings.difference)
        words = (
            f"In the most opposing pairs, losing both undoes {gap} more of what losing each moves in {rival.name} than "
            f"in {plan.reference.name}."
        )
        finding = Finding(
            code=self.code, title=title, status="found", subject=name, estimates=(gap,), because=words,
            smallest_detectable=smallest_detectable(gap, alpha=plan.alpha, margin=self.settings.difference),
            trials=tuple(self._trial(case, subject).key for subject in (plan.reference, rival)),
        )  # fmt: skip
        otherwise = f"{words} Not shown to be more than {self.settings.difference:g} either way."
        return Draft(finding, test=gap, worth=self.settings.worth, otherwise=otherwise)

    def _gap(self, one: _Read, two: _Read, *, margin: float, level: float = 0.95) -> Estimate:
        """How much larger the share undone is in ``two``, on the same examples; pairs by rank."""
        a, b = one.undone(_OPPOSING), two.undone(_OPPOSING)
        shared = min(len(a), len(b))
        return mean_effect(b[:shared] - a[:shared], level=level, margin=margin, name="share_difference", unit="share")

    def _null(self, case: Case) -> Control:
        name, twin = f"{self.code} re-coded twin", case.plan.twin
        if twin is None:
            return Control(name=name, kind="null", status="skipped", because=case.plan.no_controls)
        level, margin = self.settings.null_level, self.settings.null_margin
        try:
            reads = self._read(case, case.plan.reference), self._read(case, twin)
        except Unanswered as gap:
            return Control(name=name, kind="null", status="skipped", because=gap.because)
        gap = self._gap(*reads, margin=margin, level=level)
        return silent(
            name, gap, margin=margin, worth=self.settings.worth,
            because=f"A copy with permuted and rescaled units must not look different: its share undone differs by "
            f"{gap} ({level:.1%} interval); the audit is void if it surely differs by more than {margin:.2g}.",
        )  # fmt: skip

    def _plant(self, case: Case) -> Control:
        name, planted = f"{self.code} planted cancelling units", case.plan.planted
        if planted is None:
            return Control(name=name, kind="planted", status="skipped", because=case.plan.no_controls)
        try:
            share = self._beyond_random(self._read(case, planted))
        except Unanswered as gap:
            return Control(name=name, kind="planted", status="skipped", because=gap.because)
        return shown(
            name, share, margin=self.settings.plant_margin,
            because=f"Cancelling units that were added to a copy must be found: losing both undoes {share} more than "
            "in random pairs (95% interval).",
        )  # fmt: skip

    def _power(self, case: Case) -> Control:
        """What a comparison would find of fewer planted units."""
        gaps: list[tuple[SubjectRecord, Estimate]] = []
        for graded in case.plan.graded:
            try:
                one, two = self._read(case, case.plan.reference), self._read(case, graded)
            except Unanswered:
                continue
            gaps.append((graded, self._gap(one, two, margin=self.settings.difference)))
        return power_control(case.plan, self.code, gaps, margin=self.settings.difference)


def _worst_ratio(values: dict[str, Values]) -> tuple[float, float, int]:
    """The layer whose contributions cancel most beside permuted ones: its ratio, theirs, its index."""
    null = values["ratio_null"].mean(1)
    layer = int(np.argmax(values["ratio"] / null))
    return float(values["ratio"][layer]), float(null[layer]), layer


def _cancellation(values: dict[str, Values]) -> Estimate:
    ratio, _, layer = _worst_ratio(values)
    null = values["ratio_null"]
    larger = (null >= values["ratio"][:, None]).sum(1)
    # The layer was picked among several, so its p-value counts for all of them.
    p = min(1.0, len(null) * float(1 + larger[layer]) / (1 + null.shape[1]))
    return Estimate(
        name="cancellation_ratio", value=ratio, low=None, high=None, level=0.95, n=null.shape[1], unit="times",
        method=f"hidden layer {layer + 1}; p over all layers, {null.shape[1]} permutations of outgoing weights", p=p,
    )  # fmt: skip


def _copies(values: dict[str, Values]) -> Estimate:
    null = values["duplicates_null"].sum(0)
    return Estimate(
        name="units_with_a_copy", value=float(values["duplicates"].sum()), low=None, high=None, level=0.95, n=len(null),
        unit="units", method=f"at most {float(null.max()):g} in {len(null)} shuffles of each unit's values",
    )  # fmt: skip
