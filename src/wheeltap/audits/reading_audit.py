"""Audits that judge what one reading gave of each subject: all that these have in common."""

from abc import abstractmethod
from dataclasses import replace
from functools import partial
from typing import ClassVar, Generic, TypeVar

import msgspec

from wheeltap.audits.base import RECODED, Audit, Case, Hypothesis, NoAnswer, Verdict, pair
from wheeltap.audits.case import Arrays
from wheeltap.audits.claims import PAIR
from wheeltap.audits.controls import Check, Plants, controls_of, found_planted, plant_level, silent, surely, twin_of
from wheeltap.audits.power import Gap, PowerData
from wheeltap.core.records import Control, Estimate, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings import ReadingSpec
from wheeltap.stats._scipy import t_quantile
from wheeltap.stats.missing import missed_by

Read = TypeVar("Read")

_AGAIN = 1
"""Seed of a second reading of a plant, which tells how surely it should have been found."""


class SingleReadingAudit(Audit, Generic[Read]):
    """Reads each subject once and judges what was read; no subject is compared with another.

    Its settings inherit those of the reading, or hold fields of the same names.

    Attributes:
        reading: The spec of the reading.
    """

    reading: ClassVar[ReadingSpec]

    # ---- what an audit says -----------------------------------------------------------------------------------

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """What one reading of a subject costs at most, in passes over the task; one, by default."""
        return 1.0

    @abstractmethod
    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> Read:
        """What the arrays of a reading say.

        Raises:
            NoAnswer: If they answer nothing.
        """

    @abstractmethod
    def singles(self, case: Case, subject: SubjectRecord, read: Read) -> list[Hypothesis]:
        """What is claimed of one subject.

        Raises:
            NoAnswer: If nothing can be.
        """

    def more_controls(self, case: Case) -> list[Control]:
        """Checks of its own."""
        return []

    # ---- asking -----------------------------------------------------------------------------------------------

    def trial(self, plan: Plan, subject: SubjectRecord, *, seed: int = 0, **changed: Scalar) -> Trial:
        """The reading of a subject, with this audit's settings but for what is ``changed``.

        Another ``seed`` makes every choice at random again: which examples, which units.
        """
        fields = (one.name for one in msgspec.structs.fields(self.reading.settings_type))
        given = {name: value for name in fields if (value := getattr(self.settings, name, None)) is not None}
        return plan.reading(subject, self.reading.name, {**given, **changed}, seed=seed)

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Every reading wanted of a subject."""
        return [self.trial(plan, subject)]

    def read_subjects(self, plan: Plan) -> tuple[SubjectRecord, ...]:
        """Which subjects and copies are read."""
        return plan.subjects

    def ask(self, case: Case) -> list[Trial]:
        """The readings of every subject and copy."""
        if not case.known(case.plan.baselines()):
            return []
        return [trial for subject in self.read_subjects(case.plan) for trial in self.readings(case.plan, subject)]

    def most(self, plan: Plan) -> int:
        """One reading each, or as many as ``readings`` says."""
        return sum(len(self.readings(plan, subject)) for subject in self.read_subjects(plan))

    def most_passes(self, plan: Plan) -> float:
        """What each of them costs."""
        return float(sum(len(self.readings(plan, one)) * self.passes(plan, one) for one in self.read_subjects(plan)))

    # ---- judging ----------------------------------------------------------------------------------------------

    def read(self, case: Case, subject: SubjectRecord, *, seed: int = 0) -> Read:
        """What was read of a subject.

        Raises:
            NoAnswer: If nothing was.
        """
        return self.parsed(case, subject, case.reading(self.trial(case.plan, subject, seed=seed)))

    def judge(self, case: Case) -> Verdict:
        """What is claimed of each subject; its own checks as controls."""
        drafts = list[Hypothesis]()
        for subject in case.plan.subjects:
            trials = self.readings(case.plan, subject)
            try:
                claims = self.singles(case, subject, self.read(case, subject))
            except NoAnswer as gap:
                drafts += [self.unanswered(subject.name, gap, title=title) for title in self.titles()]
            else:
                drafts += [self.draft(case, subject.name, claim, trials) for claim in claims]
        return Verdict(drafts, self.more_controls(case))

    def titles(self) -> tuple[str, ...]:
        """Of the claims on one subject that are answered together or not at all."""
        return (self.title,)


class ReadingAudit(SingleReadingAudit[Read]):
    """Also compares what was read between subjects, and checks on a reparametrized copy that nothing is seen there.

    Attributes:
        reads_twin: Whether that copy is read.
    """

    reads_twin: ClassVar[bool] = True
    copies: ClassVar[tuple[str, ...]] = RECODED

    @abstractmethod
    def compared(self, case: Case, rival: SubjectRecord, one: Read, two: Read) -> Hypothesis:
        """What is claimed of the reference (``one``) and a rival (``two``).

        Raises:
            NoAnswer: If nothing can be.
        """

    def null(self, case: Case, one: Read, two: Read) -> Hypothesis:
        """How the twin (``two``) differs from the reference; by default what a comparison says of the two.

        It must not be by more than the claim's margin, with the confidence of its interval, or the run is void.

        Raises:
            NoAnswer: If they cannot be compared.
        """
        gap = self.compared(case, twin_of(case.plan), one, two)
        words = (
            f"A copy that computes the same must not look different: it differs by {gap.effect}; the audit is void if "
        )
        return replace(gap, found=f"{words}it is shown to differ by more than {gap.margin:.2g}.")

    def read_subjects(self, plan: Plan) -> tuple[SubjectRecord, ...]:
        """The subjects, and the twin."""
        return plan.subjects if plan.twin is None or not self.reads_twin else (*plan.subjects, plan.twin)

    def judge(self, case: Case) -> Verdict:
        """Also what is claimed of each pair; the twin as a control."""
        verdict = super().judge(case)
        verdict.drafts += [self._pair(case, rival) for rival in case.rivals]
        verdict.controls = [*controls_of(*self._checks(case)), *verdict.controls]
        return verdict

    def _pair(self, case: Case, rival: SubjectRecord) -> Hypothesis:
        plan, title = case.plan, f"{self.title}: difference"
        name = pair(plan.reference, rival)
        try:
            claim = self.compared(case, rival, self.read(case, plan.reference), self.read(case, rival))
        except NoAnswer as gap:
            return self.unanswered(name, gap, title=title)
        trials = [self.trial(plan, subject) for subject in (plan.reference, rival)]
        return self.draft(case, name, replace(claim, words=PAIR), trials, title=title)

    def _checks(self, case: Case) -> list[Check]:
        """Those on copies."""
        null: Check = (f"{self.code} reparametrized copy", "null", partial(self._null, case))
        return [null] if self.reads_twin else []

    def _null(self, case: Case, name: str) -> Control:
        twin = twin_of(case.plan)
        gap = self.null(case, self.read(case, case.plan.reference), self.read(case, twin))
        found = silent(name, gap.effect, margin=gap.margin, min_effect=gap.min_effect, because=gap.found)
        return surely(found, gap.effect)


class PlantedReadingAudit(ReadingAudit[Read]):
    """Also checks on a copy with a planted defect that it is found, and on graded ones how small a defect is."""

    copies: ClassVar[tuple[str, ...]] = (*RECODED, "cancel")

    @abstractmethod
    def plant(self, case: Case, planted: Read, *, level: float) -> Hypothesis:
        """What must be found of the planted copy: an effect above 0, with an interval of this ``level``."""

    def read_subjects(self, plan: Plan) -> tuple[SubjectRecord, ...]:
        """The subjects, twin and graded copies, and the first plant."""
        return (*super().read_subjects(plan), *plan.plants[:1], *plan.graded)

    def ask(self, case: Case) -> list[Trial]:
        """Also the stronger plants, where the weaker are not found; and the strongest again, where none is."""
        wanted = super().ask(case)
        plants = case.plan.plants
        if not wanted or not plants:
            return wanted
        for at in range(len(plants)):
            wanted += [case.plan.clean(plants[at]), self.trial(case.plan, plants[at])] if at else []
            if not case.known(wanted) or self._sees(case, at):
                return wanted
        # Where a budget left but one strength, there is no more to spend on it.
        return [*wanted, self.trial(case.plan, plants[-1], seed=_AGAIN)] if len(plants) > 1 else wanted

    def most(self, plan: Plan) -> int:
        """And the stronger plants, each with a clean pass; the strongest twice."""
        return super().most(plan) + 2 * len(plan.stronger) + bool(plan.stronger)

    def most_passes(self, plan: Plan) -> float:
        """And what they cost."""
        readings = len(plan.stronger) + bool(plan.stronger)
        return super().most_passes(plan) + readings * self.passes(plan, plan.reference) + len(plan.stronger)

    def _checks(self, case: Case) -> list[Check]:
        name = f"{self.code} planted cancelling units"
        return [*super()._checks(case), (name, "planted", partial(self._plant, case))]

    def _sees(self, case: Case, at: int) -> bool:
        """Whether a plant is found, or cannot be looked at."""
        try:
            return self._planted(case, at).found
        except NoAnswer:
            return True

    def _planted(self, case: Case, at: int) -> Plants:
        plants, missed = case.plan.plants, None
        level = plant_level(len(plants))
        effect = self.plant(case, self.read(case, plants[at]), level=level).effect
        strongest = at == len(plants) - 1
        if strongest and case.known([self.trial(case.plan, plants[at], seed=_AGAIN)]):
            again = self.plant(case, self.read(case, plants[at], seed=_AGAIN), level=level).effect
            missed = _missed(again)
        return Plants(effect=effect, copy=plants[at], weaker=at, missed=missed)

    def _plant(self, case: Case, name: str) -> Control:
        plants = case.plan.plants
        if not plants:
            raise NoAnswer("skipped", case.plan.no_controls)
        at = next((at for at in range(len(plants)) if self._sees(case, at)), len(plants) - 1)
        claim = self.plant(case, self.read(case, plants[at]), level=plant_level(len(plants)))
        return found_planted(name, self._planted(case, at), because=claim.found)

    def judge(self, case: Case) -> Verdict:
        """Also what graded copies show."""
        verdict = super().judge(case)
        verdict.graded = self._graded(case)
        return verdict

    def _graded(self, case: Case) -> PowerData:
        """What a comparison would find of fewer planted units."""
        gaps, margin = list[Gap](), 0.0
        for copy in case.plan.graded:
            try:
                gap = self.compared(case, copy, self.read(case, case.plan.reference), self.read(case, copy))
            except NoAnswer:
                continue
            margin = gap.margin
            gaps.append(Gap.of(copy, gap.effect))
        return PowerData(self.code, margin, gaps)


def _missed(again: Estimate) -> float | None:
    """Probability that a reading does not show what another one measured; ``None`` where that has no interval."""
    if again.value is None or again.low is None or again.high is None:
        return None
    half, df = (again.high - again.low) / 2.0, max(again.n - 1, 1)
    return missed_by(again.value, half / t_quantile(1.0 - again.level, df), df=df, level=again.level)
