"""WT701: what do shifted inputs cost, and does that say the same as disturbed weights?"""

from dataclasses import dataclass, replace
from typing import ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Case, Count, Hypothesis, Margin, NoAnswer, Verdict, keeps_less
from wheeltap.audits.case import Arrays, Values
from wheeltap.audits.claims import LOSS
from wheeltap.audits.reading_audit import ReadingAudit
from wheeltap.core.records import Curve, Estimate, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.input_shift import FITTING, INPUT_SHIFT, LADDERS, InputShiftSettings
from wheeltap.stats.curve import band, band_ends
from wheeltap.stats.delong1988 import mean_ranks
from wheeltap.stats.sample import Sample

DOSES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.2, 1.6)
"""Relative noise in the weights, among which the one of matched loss is looked for."""

_FEWEST = 4
"""Subjects from which their order is reported."""

_LIMITS = (
    "These disturbances are declared, synthetic ones: losses under them do not predict the loss under another shift. "
    "Of text, tokens are changed; spelling, case and paraphrases are not."
)


class ShiftAuditSettings(InputShiftSettings, frozen=True, kw_only=True):
    """What is disturbed, and thresholds.

    Attributes:
        level: Which dose of each ladder is tested, mildest first, from 0.
        weight_draws: Draws of noise in the weights at each dose.
        margin: Smallest loss of score of interest; the plan's, where it is not given.
        min_effect: Loss that the null control must have been able to see.
    """

    level: int = msgspec.field(default=1)
    weight_draws: Count = 8
    margin: Margin | None = None
    min_effect: Margin = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.level < len(LADDERS["noise"]):
            raise ValueError(f"`level` {self.level} is none of 0 to {len(LADDERS['noise']) - 1}")


@dataclass(frozen=True)
class _ShiftLosses:
    """Losses of score, positive where worse, in the measure's unit.

    Attributes:
        by_shift: Of each disturbance, ``[level, draw, example]``.
        under_noise: Under relative noise, ``[dose, draw, example]``.
    """

    subject: SubjectRecord
    by_shift: dict[str, Values]
    under_noise: Values

    def at(self, level: int) -> Values:
        """Mean over disturbances at a level, ``[draw, example]``."""
        return np.mean([losses[level] for losses in self.by_shift.values()], axis=0)

    def matched(self, level: int) -> int:
        """Place of the dose of noise whose mean loss is nearest to that of the disturbances."""
        wanted = float(self.at(level).mean())
        return int(np.abs(self.under_noise.mean((1, 2)) - wanted).argmin())

    def is_matched(self, at: int, level: int, margin: float) -> bool:
        """Whether a dose of noise costs as much as the disturbances do, but for a margin."""
        return abs(float(self.under_noise[at].mean()) - float(self.at(level).mean())) <= margin


@final
class InputShiftAudit(ReadingAudit[_ShiftLosses]):
    """Score lost under declared disturbances of the inputs, beside noise in the weights at matched loss."""

    name = "input-shift"
    code = "WT701"
    title = "Input shift"
    reads = (
        "The inputs are disturbed in declared ways (noise, blur, occlusion, contrast; feature noise; changed tokens) "
        "and the loss of score is measured, beside noise in the weights that costs as much. Where the two affect "
        "different "
        "examples, or rank networks in another order, one of them shows what the other cannot."
    )
    axis = "dose of the disturbance"
    settings_type = ShiftAuditSettings
    spares: ClassVar[dict[str, int]] = {"shift_draws": 2, "weight_draws": 2}
    reading = INPUT_SHIFT

    # ---- asking -----------------------------------------------------------------------------------------------

    def ask(self, case: Case) -> list[Trial]:
        """The readings, and every dose and draw of noise."""
        readings = super().ask(case)
        if not readings:
            return []
        noise = [t for subject in self.read_subjects(case.plan) for row in self._noise(case.plan, subject) for t in row]
        return [*readings, *noise]

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """Of the noise in the weights."""
        return tuple(("relative", dose) for dose in DOSES)

    def most(self, plan: Plan) -> int:
        """A reading, and every dose and draw of noise, of every subject and the twin."""
        return super().most(plan) + len(self.read_subjects(plan)) * len(DOSES) * self.settings.weight_draws

    def most_passes(self, plan: Plan) -> float:
        """One for each trial; in a reading, one for each disturbance, dose and draw."""
        return super().most_passes(plan) + len(self.read_subjects(plan)) * len(DOSES) * self.settings.weight_draws

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """As if the inputs were of the kind with most disturbances."""
        named = self.settings.named
        count = len(named) or max(map(len, FITTING.values()))
        return 1.0 + count * len(LADDERS["noise"]) * self.settings.shift_draws

    def _noise(self, plan: Plan, subject: SubjectRecord) -> list[list[Trial]]:
        draws = range(self.settings.weight_draws)
        return [[plan.trial(subject, "relative", dose=dose, seed=seed) for seed in draws] for dose in DOSES]

    # ---- judging ----------------------------------------------------------------------------------------------

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> _ShiftLosses:
        """Losses, disturbance by disturbance; and under noise in the weights."""
        sign, clean = case.plan.task.sign, case.clean(subject)
        above = sign * (float(clean.mean()) - case.chance)
        if above < case.scaled(self.settings.min_effect):
            why = f"{subject.name} is only {above:.3f} above chance: there is nothing to lose."
            raise NoAnswer("not_applicable", why)
        lost = sign * (clean - read["score"])
        levels, draws = int(read["level"].max()) + 1, int(read["draw"].max()) + 1
        shifts = read["shift"].astype(int)
        by_shift = {
            self.reading.meant("shift", number): lost[shifts == number].reshape(levels, draws, -1)
            for number in dict.fromkeys(shifts.tolist())
        }
        return _ShiftLosses(subject, by_shift, sign * (clean - case.table(self._noise(case.plan, subject))))

    def singles(self, case: Case, subject: SubjectRecord, read: _ShiftLosses) -> list[Hypothesis]:
        """Whether the inputs' disturbances cost more than the margin, and which; the noise that costs as much."""
        how, level = self.settings, self.settings.level
        margin = case.margin(how.margin)
        lost = self._sample(case, read.at(level), most=1.0)
        tested = lost.effect(margin=margin, name="loss under input shift", unit=case.plan.task.measure)
        each = [
            self._loss(case, losses[level], f"loss under {name} {LADDERS[name][level]:g}")
            for name, losses in read.by_shift.items()
        ]
        worst = max(each, key=lambda one: one.value or 0.0)
        at = read.matched(level)
        noise = self._loss(case, read.under_noise[at], f"loss under relative noise {DOSES[at]:g}")
        alike = _alike(read.at(level).mean(0), read.under_noise[at].mean(0), grouped=case.groups is not None)
        agree = "the two losses cannot be correlated" if alike.value is None else f"the two losses correlate at {alike}"
        words = f"{subject.name} loses {case.plan.task.loss_text(tested)} under declared input shift"
        noise_words = f"relative noise of {DOSES[at]:g} in the weights"
        costs = (
            f"{noise_words[0].upper()}{noise_words[1:]} costs about as much ({noise})"
            if read.is_matched(at, level, case.way(how.margin))
            else f"No dose of relative noise that was tried costs as much; {noise_words} is nearest ({noise})"
        )
        rest = (
            f"Most is lost under {worst.name.removeprefix('loss under ')}: {worst}. {costs}; over examples {agree}. "
            f"{_LIMITS}"
        )
        claim = Hypothesis(
            test=tested, margin=margin, evidence=lost, words=LOSS, one_sided=True,
            beside=(*each, noise, alike),
            found=f"{words}, more than {margin:.2g}. {rest}",
            trials=tuple(trial for row in self._noise(case.plan, subject) for trial in row),
            otherwise=f"{words}: not shown to be more than {margin:.2g}. {rest}",
        )  # fmt: skip
        return [claim]

    def compared(self, case: Case, rival: SubjectRecord, one: _ShiftLosses, two: _ShiftLosses) -> Hypothesis:
        """Who loses more, under the same changed inputs."""
        how, margin = self.settings, case.margin(self.settings.margin)
        more = self._sample(case, two.at(how.level) - one.at(how.level), most=2.0)
        gap = more.effect(margin=margin, name="loss_difference", unit=case.plan.task.measure)
        lost_text = case.plan.task.loss_text(gap, more=True)
        words = f"{rival.name} loses {lost_text} under input shift than {one.subject.name}"
        return Hypothesis(
            test=gap, margin=margin, evidence=more, min_effect=case.scaled(how.min_effect), found=f"{words}. {_LIMITS}",
            otherwise=f"{words}: not shown to be more than {margin:.2g} either way. {_LIMITS}",
            brief=keeps_less(self.title, one.subject, rival, gap),
        )  # fmt: skip

    def judge(self, case: Case) -> Verdict:
        """Also whether shifted inputs and disturbed weights rank the subjects alike; and the curves."""
        verdict = super().judge(case)
        for subject in case.plan.subjects:
            try:
                verdict.curves += self._curves(case, self.read(case, subject))
            except NoAnswer:
                continue  # its finding says why
        if len(case.plan.subjects) >= _FEWEST:
            verdict.drafts = self._ranked(case, verdict.drafts)
        return verdict

    def _ranked(self, case: Case, drafts: list[Hypothesis]) -> list[Hypothesis]:
        """Adds to each subject's finding how alike shifted inputs and disturbed weights rank all of them.

        It is no test: the few subjects that a plan has cannot show that two orders differ.
        """
        try:
            reads = [self.read(case, subject) for subject in case.plan.subjects]
        except NoAnswer:
            return drafts  # a finding says why
        at = reads[0].matched(self.settings.level)
        shifted, noisy = (
            np.array([float(lost.mean()) for lost in losses])
            for losses in ([read.at(self.settings.level) for read in reads], [read.under_noise[at] for read in reads])
        )
        tau = _tau(shifted, noisy)
        if tau is None or not reads[0].is_matched(at, self.settings.level, case.way(self.settings.margin)):
            return drafts  # all lose the same, or no dose of noise costs as much: there is nothing to compare
        ranked = Estimate(
            name="rank agreement of all subjects", value=tau, low=None, high=None, level=0.95, n=len(reads),
            unit="Kendall's tau-b",
            method=f"input shift beside relative noise {DOSES[at]:g}, over {len(reads)} subjects",
        )  # fmt: skip
        words = (
            f" Input shift and relative noise of {DOSES[at]:g} rank the {len(reads)} subjects with Kendall's tau "
            f"{tau:.2f}: 1 is the same order, -1 the opposite one; with so few models this is weak evidence."
        )
        names = {subject.name for subject in case.plan.subjects}
        for at, draft in enumerate(drafts):
            if draft.finding.subject in names:
                estimates = (*draft.finding.estimates, ranked)
                finding = msgspec.structs.replace(
                    draft.finding, estimates=estimates, because=draft.finding.because + words
                )
                drafts[at] = replace(draft, finding=finding, otherwise=draft.otherwise + words)
        return drafts

    def _sample(self, case: Case, lost: Values, *, most: float) -> Sample:
        """Losses ``[draw, example]``; ``most`` is the largest there can be of a share of right answers.

        Each example of a draw is disturbed by itself: no draw is hard for all of them, as draws of weights are.
        """
        return Sample(lost, most if case.plan.task.bounded else None, groups=case.groups)

    def _loss(self, case: Case, lost: Values, name: str) -> Estimate:
        """Mean of ``[draw, example]`` that stands beside the tested one: without a p-value."""
        found = self._sample(case, lost, most=1.0).effect(name=name, unit=case.plan.task.measure)
        return msgspec.structs.replace(found, p=None)

    def _curves(self, case: Case, read: _ShiftLosses) -> list[Curve]:
        task, sign, clean = case.plan.task, case.plan.task.sign, case.clean(read.subject)
        found: list[Curve] = []
        for at, (name, losses) in enumerate(read.by_shift.items()):
            mean, low, high = band(clean - sign * losses, bounded=task.bounded, groups=case.groups)
            found.append(
                Curve(
                    code=self.code,
                    title=self.title,
                    subject=read.subject.name,
                    role=read.subject.role,
                    unit=name,
                    measure=task.measure,
                    chance=case.chance,
                    level=0.95,
                    doses=LADDERS[name],
                    score=tuple(map(float, mean)),
                    low=band_ends(low),
                    high=band_ends(high),
                    variant=name if at else "",
                )
            )
        return found


def _tau(one: Values, two: Values) -> float | None:
    """Kendall's tau-b of two rankings, which allows for ties; ``None`` where one of them ranks nothing."""
    first, second = (np.sign(np.subtract.outer(values, values)) for values in (one, two))
    scale = float(np.sqrt(np.abs(first).sum() * np.abs(second).sum()))
    return float((first * second).sum()) / scale if scale else None


def _alike(one: Values, two: Values, *, grouped: bool) -> Estimate:
    """Spearman's rank correlation over examples; no number where either loss is the same of every example.

    Without an interval where examples come in groups.

    Source: interval of Bonett & Wright (2000), Psychometrika 65, "Sample size requirements for estimating Pearson,
    Kendall and Spearman correlations", eq. 5.
    """
    a, b = (mean_ranks(np.asarray(values, dtype=np.float64)) - (len(values) + 1) / 2 for values in (one, two))
    scale = float(np.sqrt((a @ a) * (b @ b)))
    value = low = high = None
    if scale > 0.0:
        value = float(np.clip(a @ b / scale, -1.0, 1.0))
        spread = np.sqrt((1.0 + value**2 / 2.0) / max(len(one) - 3, 1))
        low, high = (
            (None, None)
            if grouped
            else (float(np.tanh(np.arctanh(np.clip(value, -1 + 1e-9, 1 - 1e-9)) + z * spread)) for z in (-1.96, 1.96))
        )
    return Estimate(
        name="correlation with the losses under noise", value=value, low=low, high=high, level=0.95, n=len(one),
        unit="rank correlation", method="Spearman over examples, interval of Bonett and Wright (2000)",
    )  # fmt: skip
