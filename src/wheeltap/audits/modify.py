"""What a modification of the weights costs: rounding (WT103), pruning (WT104), flipped bits (WT106), at one dose."""

import math
from abc import abstractmethod
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Audit, Case, Count, Hypothesis, Margin, NoAnswer, Verdict, keeps_less, pair
from wheeltap.audits.case import Values
from wheeltap.audits.claims import LOSS, PAIR
from wheeltap.audits.losses import Losses, ends_of, remarks, shipped
from wheeltap.audits.schemes import Scheme
from wheeltap.audits.schemes import scheme as ready
from wheeltap.core.records import Curve, Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import SMALL, Settings
from wheeltap.plans.plan import Plan
from wheeltap.stats.clusters import Groups, clustered, one_group
from wheeltap.stats.curve import Response, band, band_ends, half_dose
from wheeltap.stats.mogstad2024 import rank_intervals
from wheeltap.stats.rare import allowing_band, inner, where_it_falls

_WORST = (1.0, 4.0, 16.0)
"""Weights of each layer whose worst bit is flipped, where the worst are taken first."""

_SLOPES = 3.0
"""Passes that reading slopes takes: one forward, and one backward, which counts as two."""


class ModifySettings(Settings, frozen=True, kw_only=True):
    """Doses and thresholds.

    Attributes:
        doses: Doses measured, mildest first.
        tested: The dose the verdict is about.
        margin: Smallest loss of score of interest; the plan's, where it is not given.
        draws: Draws of what is random; those of a plan's effort are of noise alone.
        others: Whether the family's other ways of doing it are measured beside the one that is judged.
    """

    doses: tuple[float, ...]
    tested: float
    margin: Margin | None = None
    draws: Count = 4
    others: bool = True


@dataclass(frozen=True)
class DoseScores:
    """What one subject keeps under one scheme, along its ladder.

    Attributes:
        trials: ``[dose][draw]``.
        scores: ``[dose, draw, example]``, of the examples that are scored.
        clean: ``[example]``, undisturbed.
        on: ``[example]`` of the whole task: which ones are scored.
    """

    scheme: Scheme
    trials: list[list[Trial]]
    scores: Values
    clean: Values
    on: NDArray[np.bool_]

    def groups(self, case: Case) -> Groups | None:
        """Of the examples that are scored."""
        return None if case.groups is None else case.groups[self.on]

    def at(self, case: Case, dose: float) -> Losses:
        """The same at one dose."""
        at = self.scheme.ladder.index(dose)
        return Losses(case, self.trials[at], self.scores[at], self.clean, self.on, self.scheme.rare)


class ModifyAudit(Audit):
    """Score against dose for every way of a family; a verdict on the loss at one dose of the first.

    Attributes:
        unit: Unit of the doses.
    """

    unit: ClassVar[str]
    number = "loss"
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {"draws": 2}
    spares: ClassVar[dict[str, int]] = {"draws": 4}

    @abstractmethod
    def family(self) -> tuple[Scheme, ...]:
        """The family: the one that is judged first."""

    @abstractmethod
    def label(self, scheme: Scheme, dose: float) -> str:
        """What was done, in words that name the estimate."""

    def severity(self, dose: float) -> float:
        """A positive number that rises with the damage: what half doses are interpolated on."""
        return dose

    def dose_of(self, severity: float) -> float:
        """The inverse of ``severity``."""
        return severity

    def ask(self, case: Case) -> list[Trial]:
        """Every dose and draw of every scheme on every subject."""
        if not case.known(case.plan.baselines()):
            return []
        return [
            trial
            for subject in case.plan.subjects
            for scheme in self._wanted_of(subject)
            for row in self._trials(case, subject, scheme)
            for trial in row
        ]

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """The doses of every scheme."""
        return tuple((scheme.perturbation, dose) for scheme in self._wanted() for dose in scheme.ladder)

    def most(self, plan: Plan) -> int:
        """All doses and draws of every subject."""
        return sum(len(one.ladder) * one.draws for subject in plan.subjects for one in self._wanted_of(subject))

    def most_passes(self, plan: Plan) -> float:
        """One for each trial, and what is read of every subject first."""
        needed = [
            (subject.name, scheme.needs)
            for subject in plan.subjects
            for scheme in self._wanted_of(subject)
            if scheme.needs
        ]
        # Of small subjects what was read for one way of doing it is still known for the next.
        read = needed if plan.reference.parameters >= SMALL else set(needed)
        return self.most(plan) + sum(_SLOPES if what == "slopes" else plan.sizes.moments for _, what in read)

    def judge(self, case: Case) -> Verdict:
        """One finding per subject about its own loss, one per pair about whose loss is larger; every curve."""
        verdict = Verdict()
        for subject in case.plan.subjects:
            verdict.drafts.append(self._single(case, subject))
            for scheme in self._wanted_of(subject):
                with suppress(NoAnswer):  # not defined on this subject: the others are shown
                    verdict.curves.append(self._curve(case, subject, self._read(case, subject, scheme)))
        for rival in case.rivals:
            verdict.drafts.append(self._pair(case, rival))
        self._rank(case, verdict)
        return verdict

    def _rank(self, case: Case, verdict: Verdict) -> None:
        """Adds to each subject's finding its rank by what it loses at the tested dose, where there are several."""
        subjects = case.plan.subjects
        if len(subjects) < 2:
            return
        sign = case.plan.task.sign
        try:
            reads = [self._read(case, subject, self.family()[0]) for subject in subjects]
        except NoAnswer:
            return
        groups = reads[0].groups(case)
        if one_group(groups) or any(not np.array_equal(read.on, reads[0].on) for read in reads):
            return
        at = reads[0].scheme.ladder.index(self.settings.tested)
        kept = np.stack([sign * (read.scores[at] - read.clean[None, :]) for read in reads])
        ends = [ends_of(case, float(read.clean.mean()), sign) for read in reads]
        ranks = rank_intervals(clustered(kept, groups), rare=ends if reads[0].scheme.rare else None)
        for place, rank in enumerate(ranks):
            named = msgspec.structs.replace(
                rank, name="rank by what is kept", unit=f"of {len(subjects)}, 1 loses least"
            )
            draft = verdict.drafts[place]
            finding = msgspec.structs.replace(draft.finding, estimates=(*draft.finding.estimates, named))
            verdict.drafts[place] = replace(draft, finding=finding)

    def _listed(self) -> tuple[float, ...]:
        """The doses of the settings, with the tested one among them, mildest first."""
        listed = {*self.settings.doses, self.settings.tested}
        return tuple(sorted(listed, key=self.severity))

    def _wanted(self) -> tuple[Scheme, ...]:
        return self.family() if self.settings.others else self.family()[:1]

    def _wanted_of(self, subject: SubjectRecord) -> list[Scheme]:
        return [scheme for scheme in self._wanted() if scheme.fits(subject)]

    def _trials(self, case: Case, subject: SubjectRecord, scheme: Scheme) -> list[list[Trial]]:
        return [
            [
                case.plan.trial(subject, scheme.perturbation, settings=scheme.settings, dose=dose, seed=seed)
                for seed in range(scheme.draws)
            ]
            for dose in scheme.ladder
        ]

    def scored(self, case: Case, trials: list[list[Trial]]) -> NDArray[np.bool_]:
        """Which examples count, ``[example]``: all of them, here."""
        return np.ones(case.plan.task.examples, dtype=bool)

    def _read(self, case: Case, subject: SubjectRecord, scheme: Scheme) -> DoseScores:
        case.require_above_chance(subject)
        trials = self._trials(case, subject, scheme)
        table = case.table(trials)
        on = self.scored(case, trials)
        return DoseScores(scheme, trials, table[:, :, on], case.clean(subject)[on], on)

    # ---- one subject ------------------------------------------------------------------------------------------

    def _single(self, case: Case, subject: SubjectRecord) -> Hypothesis:
        try:
            read = self._read(case, subject, self.family()[0])
        except NoAnswer as gap:
            return self.unanswered(subject.name, gap)
        scheme, there = read.scheme, read.at(case, self.settings.tested)
        edge = there.edge(subject, own=self.settings.margin)
        losses = {dose: read.at(case, dose).loss(self.label(scheme, dose), edge=edge) for dose in scheme.ladder}
        tested = losses.pop(self.settings.tested)
        words = f"{subject.name} loses {case.plan.task.loss_text(tested)} at {tested.name}{there.diverged}"
        left = there.no_better
        rest = f"{remarks(edge, left)}{self.shipped(there, subject)}"
        claim = Hypothesis(
            test=tested, margin=edge.value, evidence=there.sample(edge=edge), one_sided=True, words=LOSS,
            beside=(there.score, *there.expected(subject), *losses.values(), *(() if left is None else (left,))),
            found=f"{words}: more than {edge.value:.2g}. {rest}",
            otherwise=f"{words}: not shown to be more than {edge.value:.2g}. {rest}",
        )  # fmt: skip
        return self.draft(case, subject.name, claim, (trial for row in read.trials for trial in row))

    def shipped(self, there: Losses, subject: SubjectRecord) -> str:
        """What to expect of it when it is shipped so, in words."""
        return shipped(there.expected(subject))

    def _curve(self, case: Case, subject: SubjectRecord, read: DoseScores) -> Curve:
        task, scheme = case.plan.task, read.scheme
        # Doses are kept ascending, whichever way damage grows.
        order = sorted(range(len(scheme.ladder)), key=scheme.ladder.__getitem__)
        level = inner(0.95) if scheme.rare else 0.95
        groups = read.groups(case)
        mean, low, high = band(read.scores[order], bounded=task.bounded, level=level, groups=groups)
        if scheme.rare:
            low, high = allowing_band((low, high), read.scores[order].mean(2), ends_of(case, 0.0, 1.0))
        return Curve(
            code=self.code, title=self.title, subject=subject.name, role=subject.role, unit=scheme.unit or self.unit,
            measure=task.measure, chance=case.chance, level=0.95, doses=tuple(scheme.ladder[i] for i in order),
            score=tuple(map(float, mean)), low=band_ends(low), high=band_ends(high),
            half=self._half(case, read), variant=scheme.label,
            norms=tuple(case.norm(read.trials[i]) for i in order),
        )  # fmt: skip

    def _half(self, case: Case, read: DoseScores) -> Estimate:
        """The dose at which half of the above-chance score is lost, between the doses tried."""
        severities = np.array([self.severity(dose) for dose in read.scheme.ladder])
        response = Response(
            values=read.scores, clean=read.clean, doses=severities, chance=case.chance, groups=read.groups(case)
        )
        found = half_dose(response, unit=self.unit)
        found = self._half_allowing(case, read, found) if read.scheme.rare else found
        ends = [None if end is None else self.dose_of(end) for end in (found.low, found.high)]
        if self.dose_of(1.0) > self.dose_of(2.0):
            ends.reverse()
        value = None if found.value is None else self.dose_of(found.value)
        return msgspec.structs.replace(found, value=value, low=ends[0], high=ends[1])

    def _half_allowing(self, case: Case, read: DoseScores, found: Estimate) -> Estimate:
        """The half dose with an interval that allows for draws harder, or milder, than any that were made."""
        sign = case.plan.task.sign
        bounded, groups = case.plan.task.bounded and sign > 0, read.groups(case)
        _, low, high = band(sign * read.scores, bounded=bounded, level=inner(0.95), groups=groups)
        ends = allowing_band((low, high), sign * read.scores.mean(2), ends_of(case, 0.0, sign))
        target = sign * (case.chance + float(read.clean.mean())) / 2.0
        first, last = where_it_falls(np.array([self.severity(dose) for dose in read.scheme.ladder]), ends, target)
        return msgspec.structs.replace(
            found,
            low=None if found.low is None or first is None else min(found.low, first),
            high=None if found.high is None or last is None else max(found.high, last),
            method=f"{found.method}; allowing for draws that were not made",
        )

    # ---- pairs ------------------------------------------------------------------------------------------------

    def _pair(self, case: Case, rival: SubjectRecord) -> Hypothesis:
        plan, scheme = case.plan, self.family()[0]
        name, title = pair(plan.reference, rival), f"{self.title}: difference"
        try:
            reads = [self._read(case, subject, scheme) for subject in (plan.reference, rival)]
            if not np.array_equal(reads[0].on, reads[1].on):
                raise NoAnswer("error", "All training of one of the two diverged: they are scored on other examples.")
            one, two = (read.at(case, self.settings.tested) for read in reads)
            edge = two.edge(plan.reference, rival, own=self.settings.margin)
            gap = two.loss("loss_difference", beyond=one, edge=edge)
        except NoAnswer as missing:
            return self.unanswered(name, missing, title=title)
        kept = [
            msgspec.structs.replace(there.kept, name=f"share kept by {subject.name}")
            for subject, there in zip((plan.reference, rival), (one, two), strict=True)
        ]
        lost_text = plan.task.loss_text(gap, more=True)
        words = (
            f"At {self.label(scheme, self.settings.tested)}, {rival.name} loses {lost_text} than "
            f"{plan.reference.name}. Of what is above chance, {plan.reference.name} keeps {kept[0]} and {rival.name} "
            f"{kept[1]}: where the clean scores differ, compare these."
        )
        claim = Hypothesis(
            test=gap, margin=edge.value, evidence=two.sample(one, edge=edge), words=PAIR,
            beside=(*kept, one.score, two.score), found=words, otherwise=words,
            brief=keeps_less(self.title, plan.reference, rival, gap),
        )  # fmt: skip
        return self.draft(case, name, claim, (*one.trials, *two.trials), title=title)


WITH_HEADS = ("o_proj", "c_attn", "q_proj", "query_key_value", "query", "q")
"""Layers by which attention whose heads are known is recognized from a plan alone: each has one of them."""


class QuantizationSettings(ModifySettings, frozen=True, kw_only=True):
    """Bits per weight."""

    doses: tuple[float, ...] = (8, 6, 4, 3, 2)
    tested: float = 4


class PruningSettings(ModifySettings, frozen=True, kw_only=True):
    """Share of weights removed from each layer."""

    doses: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    tested: float = 0.3


class BitFlipSettings(ModifySettings, frozen=True, kw_only=True):
    """Share of stored bits that flip: a memory's bit error rate.

    Few draws flip a bit that matters, so those of the format that is judged are many.
    """

    doses: tuple[float, ...] = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
    tested: float = 1e-6
    draws: Count = 64


@final
class QuantizationAudit(ModifyAudit):
    """Score lost when every weight is rounded to a grid of fewer bits."""

    name = "quantization"
    code = "WT103"
    title = "Rounding to fewer bits"
    brief = "Quantization"
    reads = (
        "The weights are rounded to fewer and fewer bits, as a smaller deployment would do. The bit width at "
        "which the score falls says how far this network can be compressed by plain rounding."
    )
    axis = "bits per weight (fewer to the right)"
    asks = "deployment"
    settings_type = QuantizationSettings
    unit = "bits"

    def family(self) -> tuple[Scheme, ...]:
        """Per channel first; then a coarser grid, finer ones, 4-bit formats, and large inputs spared."""
        doses = self._listed()
        few = tuple(dose for dose in doses if dose <= 4) or doses
        return (
            ready("int4").along(doses),
            ready("int4-tensor").along(doses, "one grid per tensor"),
            ready("int4-g128").along(few, "groups of 128"),
            ready("int4-g32").along(few, "groups of 32"),
            ready("nf4").along((4,), "NF4, groups of 64"),
            ready("fp4").along((4,), "FP4, groups of 64"),
            ready("int4-g128-aware").along(few, "large inputs spared, groups of 128"),
        )

    def severity(self, dose: float) -> float:
        """The step of the grid, as a share of the largest weight."""
        return 2.0**-dose

    def dose_of(self, severity: float) -> float:
        """Bits."""
        return -math.log2(severity)

    def label(self, scheme: Scheme, dose: float) -> str:
        """Bits and grid."""
        return f"{dose:g} bits {scheme.label or 'per channel'}"


@final
class PruningAudit(ModifyAudit):
    """Score lost when the smallest weights of every layer are removed."""

    name = "pruning"
    code = "WT104"
    title = "Pruning the smallest weights"
    brief = "Pruning"
    reads = (
        "The smallest weights are set to zero, a larger share at each step. Where the score falls says how much "
        "of the network plain pruning could remove."
    )
    axis = "share of weights set to zero"
    linear = True
    asks = "deployment"
    settings_type = PruningSettings
    unit = "share of weights removed"

    def family(self) -> tuple[Scheme, ...]:
        """By magnitude first; then by what is added to the output, in the 2:4 pattern, whole, and at random."""
        doses = self._listed()
        return (
            ready("prune30").along(doses),
            ready("wanda50").along(doses, "what adds least (Wanda)"),
            ready("prune-2:4").along((0.5,), "2 of every 4"),
            Scheme(label="whole units", perturbation="prune-units", ladder=doses[:3], needs="inputs"),
            Scheme(
                label="whole heads", perturbation="prune-heads", ladder=doses[:3], needs="heads", layers=WITH_HEADS,
                unit="share of each layer's heads removed, rounded to whole heads",
            ),
            Scheme(label="at random", perturbation="prune-random", ladder=doses[:3], draws=self.settings.draws),
        )  # fmt: skip

    def label(self, scheme: Scheme, dose: float) -> str:
        """Share and rule."""
        return f"{dose:.0%} pruned{f', {scheme.label}' if scheme.label else ''}"


@final
class BitFlipAudit(ModifyAudit):
    """Score lost when stored bits flip, at random and worst first.

    Intervals allow for draws that hit harder than any that were made.
    """

    name = "bit-flips"
    code = "WT106"
    title = "Flipped bits"
    reads = (
        "Stored bits are flipped at random, as a faulty memory does, and then the worst ones on purpose. A "
        "floating-point weight can become enormous by one bit; an 8-bit whole number cannot."
    )
    axis = "share of stored bits flipped"
    asks = "deployment"
    settings_type = BitFlipSettings
    # The more weights, the more of them a rate hits.
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {
        "draws": 2, "doses": [1e-10, 1e-9, 1e-8, 1e-7], "tested": 1e-9,
    }  # fmt: skip
    unit = "share of bits flipped"

    def family(self) -> tuple[Scheme, ...]:
        """Any bit of float32 first; then bfloat16, int8, and the worst weights of int8."""
        doses, draws = self._listed(), self.settings.draws
        few = min(draws, 4)
        return (
            ready("flips1e-6").along(doses, draws=draws),
            ready("flips1e-6-bfloat16").along(doses, "stored as bfloat16", draws=few),
            ready("flips1e-6-int8").along(doses, "stored as int8", draws=few),
            Scheme(
                label="int8, worst weights first", perturbation="flip-worst", ladder=_WORST,
                settings={"format": "int8"}, unit="weights of each layer flipped", needs="slopes",
            ),
        )  # fmt: skip

    def label(self, scheme: Scheme, dose: float) -> str:
        """Error rate and format."""
        if scheme.perturbation == "flip-worst":
            return f"{dose:g} weights of each layer flipped, {scheme.label}"
        return f"{dose:.0e} of all bits flipped{f', {scheme.label}' if scheme.label else ' (float32)'}"
