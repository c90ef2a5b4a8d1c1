"""What a study is: cohorts of nets, numbers of each, and rules that were fixed before the first net was made."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, final

import msgspec

from wheeltap.audits.base import Audit
from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer, Verdict
from wheeltap.core.records import Control, Finding, Instrument, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section
from wheeltap.core.settings import checked
from wheeltap.core.study import Cohort, CohortSpec, Member, Metric, MetricRow, Rule, StudyRecord, StudySpec
from wheeltap.plans.plan import Plan
from wheeltap.stats.members import Single
from wheeltap.studies import rules
from wheeltap.studies.measures import AuditMetric
from wheeltap.studies.table import MemberTable, Numbers

Size = Literal["small", "full"]

VOID = "VOID: a control failed, so this study proves nothing about these nets."


@final
@dataclass(frozen=True, kw_only=True)
class StudyAnswer:
    """What a study says beside its findings.

    Attributes:
        headline: The result in one sentence.
        about: What the nets have in common.
        notes: How to read the numbers together.
        caveats: What the numbers cannot say.
    """

    headline: str
    about: str = ""
    notes: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()


class Study(Audit):
    """A question about kinds of nets.

    Its subjects are the members of its cohorts, made when a trial first asks for them. A study declares who they are,
    which numbers each has and how they are judged; asking, judging, correction and report are those of every audit.

    Attributes:
        version: Raised whenever the same settings would measure or decide otherwise.
        caveats: What its numbers cannot say.
        small: Settings of a small study that are not the defaults.
        checks: Controls that are made from the table alone.
    """

    noun = "study"
    version: ClassVar[int] = 1
    caveats: ClassVar[tuple[str, ...]] = ()
    small: ClassVar[dict[str, Scalar]] = {}
    checks: ClassVar[tuple[Callable[[MemberTable], Control], ...]] = ()

    @final
    @classmethod
    @checked
    def sized(cls, size: Size) -> dict[str, Scalar]:
        """The settings of a small study (minutes on two cores) or of a full one, which has the defaults."""
        return dict(cls.small) if size == "small" else {}

    @property
    def question(self) -> str:
        """What it asks, in one sentence."""
        return self.title

    @property
    @abstractmethod
    def examples(self) -> str:
        """What members are measured on, by its spec: ``digits``, a data file, or ``module:callable`` for a task."""

    @property
    def training(self) -> str:
        """Other examples, by their spec, for members whose recipe trains on what it is given; empty where none are."""
        return ""

    @property
    def held_out(self) -> float:
        """Share of the examples that members are measured on, where they are trained on the others; 0 where all are."""
        return 0.0

    @abstractmethod
    def cast(self) -> tuple[CohortSpec, ...]:
        """Who the members are, cohort by cohort, the one that is asked about first."""

    @abstractmethod
    def metrics(self) -> tuple[Metric, ...]:
        """The numbers, in the order in which they are shown."""

    @abstractmethod
    def rules(self) -> tuple[Rule, ...]:
        """How they are judged: fixed by the settings alone."""

    def measures(self) -> tuple[AuditMetric, ...]:
        """Audits whose number of each member is one of the metrics."""
        return ()

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """The trials that a member's numbers rest on, given what is known; ``case`` is of this member alone."""
        return [trial for measure in self.measures() for trial in measure.ask(case)]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """A member's numbers.

        Raises:
            NoAnswer: If it has none.
        """
        found, gaps = dict[str, Single](), list[str]()
        for measure in self.measures():
            try:
                found |= measure.numbers(case, member)
            except NoAnswer as gap:
                gaps.append(f"{measure.key}: {gap.because}")
        if not found:
            raise NoAnswer("not_applicable", " ".join(gaps))
        return found

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """Checks on the instruments whose right answer is known beforehand."""
        return [check(table) for check in self.checks]

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """What it says of the settled findings of a study that is not void."""
        return StudyAnswer(headline=rules.headline(self.rules(), findings), caveats=self.caveats)

    def shown(self, case: Case, table: MemberTable) -> tuple[tuple[Member, ...], tuple[MetricRow, ...]]:
        """Every net, with what it draws where it draws something, and the table."""
        return members_of(table), table.rows()

    def sections(self, case: Case, table: MemberTable) -> list[Section]:
        """What its page shows beside its table."""
        return []

    def spec(self) -> StudySpec:
        """The study as a plan keeps it."""
        cohorts = tuple(
            Cohort(name=cast.name, members=tuple(one.name for one in cast.members), role=cast.role, about=cast.about)
            for cast in self.cast()
        )
        every: dict[str, Scalar | None] = msgspec.to_builtins(self.settings)
        given = {name: value for name, value in every.items() if value is not None}
        return StudySpec(
            name=self.name, version=self.version, settings=given, cohorts=cohorts, metrics=self.metrics(),
            rules=self.rules(),
        )  # fmt: skip

    # ---- what every study has of an audit ---------------------------------------------------------------------

    def instruments(self) -> tuple[Instrument, ...]:
        """One for each code of its rules."""
        words = {metric.key: metric for metric in self.metrics()}
        return tuple(
            Instrument(code=rule.code, name=rule.title, reads=words[rule.metric].reads, asks="structure")
            for rule in self.rules()
        )

    def ask(self, case: Case) -> list[Trial]:
        """The trials of every member: two clean passes, as of every model that is audited by itself, and its own."""
        asked: list[Trial] = []
        for member in case.plan.subjects:
            alone = case.on(member)
            asked += [*alone.plan.baselines(), *self.ask_of(alone, member)]
        return asked

    def most(self, plan: Plan) -> int:
        """Upper bound on the number of trials it may ask for."""
        most = 0
        for member in plan.subjects:
            case = Case(plan, lambda _: None).on(member)
            own = sum(measure.made().most(case.plan) for measure in self.measures())
            most += len(case.plan.baselines()) + max(own, len(self.ask_of(case, member)))
        return most

    def judge(self, case: Case) -> Verdict:
        """One draft for each rule, by the rules of the plan and not by those of today's code."""
        table = self.table(case)
        planned = _planned(case)
        drafts = [rules.draft(rule, table, among=len(planned.rules), alpha=case.plan.alpha) for rule in planned.rules]
        controls = [*rules.left_out(table, planned.rules), *self.controls(case, table)]
        answered = partial(self._answered, case, table)
        return Verdict(drafts=drafts, controls=controls, answered=answered, sections=self.sections(case, table))

    def table(self, case: Case) -> MemberTable:
        """Every member's numbers; of those that have none, why."""
        numbers: dict[str, Numbers] = {}
        lost: dict[str, str] = {}
        there = {subject.name for subject in case.plan.subjects}
        for member in case.whole.subjects:
            if member.name not in there:
                lost[member.name] = _why(case, member)
                continue
            try:
                numbers[member.name] = self.numbers(case.on(member), member)
            except NoAnswer as gap:
                lost[member.name] = gap.because
        planned = _planned(case)
        metrics = planned.metrics
        if case.plan.task.bounded:
            # A score that is a share of right answers, or a loss of one, has two ends; its study need not say so.
            metrics = tuple(
                msgspec.structs.replace(one, ends=(-1.0, 1.0)) if one.of_score and one.ends == (None, None) else one
                for one in metrics
            )
        return MemberTable(cohorts=planned.cohorts, metrics=metrics, numbers=numbers, lost=lost)

    def _answered(
        self, case: Case, table: MemberTable, findings: Sequence[Finding], void: bool
    ) -> tuple[str, StudyRecord]:
        planned = _planned(case)
        said = StudyAnswer(headline=VOID, caveats=self.caveats) if void else self.said(case, table, findings)
        members, rows = self.shown(case, table)
        record = StudyRecord(
            name=planned.name, question=self.question, about=said.about, cohorts=planned.cohorts, rules=planned.rules,
            members=members, rows=rules.with_verdicts(rows, planned.rules, findings), notes=said.notes,
            caveats=said.caveats,
        )  # fmt: skip
        return said.headline, record


def members_of(table: MemberTable) -> tuple[Member, ...]:
    """Every member, with what became of it."""
    return tuple(
        Member(
            name=name, cohort=cohort.name, status="left out" if name in table.lost else "done",
            because=table.lost.get(name, ""),
        )
        for cohort in table.cohorts
        for name in cohort.members
    )  # fmt: skip


def _planned(case: Case) -> StudySpec:
    planned = case.whole.study
    assert planned is not None, "a study is judged by its plan"
    return planned


def _why(case: Case, member: SubjectRecord) -> str:
    """Why a member was not made."""
    outcome = case.outcome(case.plan.make(member))
    if outcome is None:
        return "It is not made yet."
    return outcome.because or f"Its making ended as {outcome.status}."
