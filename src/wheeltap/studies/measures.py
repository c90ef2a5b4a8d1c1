"""Audits as measures of the members of a study: each alone, or each against another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import final

from wheeltap.audits.base import Audit, create, pair, sparing
from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.settle import covered, settle
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.stats._scipy import normal_quantile
from wheeltap.stats.members import Single


@final
@dataclass(frozen=True)
class AuditMetric:
    """One number of an audit.

    Attributes:
        key: The metric that it is.
        audit: Name of the audit.
        settings: Of the audit.
        scheme: Which of its findings on a member, where each is about a deployment scheme.
        estimate: Name of the estimate; the first one where empty.
    """

    key: str
    audit: str
    settings: dict[str, Scalar | list[int | float]] = field(default_factory=dict[str, Scalar | list[int | float]])
    scheme: str = ""
    estimate: str = ""

    def made(self) -> Audit:
        """The audit with its settings.

        Raises:
            UnknownName: If there is none of this name.
            UsageError: If a setting cannot be used.
        """
        return create(self.audit, dict(self.settings))

    def ask(self, case: Case) -> list[Trial]:
        """The trials it rests on; ``case`` is of the member alone."""
        return self.made().ask(case)

    def numbers(self, case: Case, member: SubjectRecord) -> dict[str, Single]:
        """What the audit found of the member; of a loss of score, with the score before and after it.

        Raises:
            NoAnswer: If it found nothing, or has no such number.
        """
        finding = self._finding(case, member)
        found = single_of(self._estimate(finding))
        if self.estimate or self.made().number != "loss":
            return {self.key: found}
        lost = case.plan.task.sign * found.value
        known = [one.value for one in finding.estimates if one.name == "score" and one.value is not None]
        after = known[0] if known else float(case.clean(member).mean()) - lost
        return {self.key: found, score_before(self.key): Single(after + lost), score_after(self.key): Single(after)}

    def _finding(self, case: Case, member: SubjectRecord) -> Finding:
        drafts = self.made().judge(case).drafts
        mine = [one.finding for one in drafts if one.finding.subject == member.name]
        chosen = [finding for finding in mine if not self.scheme or finding.scheme == self.scheme]
        if not chosen:
            known = sorted({finding.scheme for finding in mine if finding.scheme})
            raise UsageError(
                "The audit has no such finding on a member.",
                where=f"metric {self.key}, audit {self.audit}",
                expected=", ".join(known) or "a finding on each member",
                got=f"scheme {self.scheme!r}" if self.scheme else "none",
            )
        return chosen[0]

    def _estimate(self, finding: Finding) -> Estimate:
        if finding.status in ("error", "not_applicable", "skipped") or not finding.estimates:
            raise NoAnswer("error" if finding.status == "error" else "not_applicable", finding.because)
        if not self.estimate:
            return finding.estimates[0]
        named = [one for one in finding.estimates if one.name == self.estimate]
        if not named:
            raise UsageError(
                "The audit gives no such number.",
                where=f"metric {self.key}, audit {self.audit}",
                expected=", ".join(one.name for one in finding.estimates),
                got=self.estimate,
            )
        return named[0]


def score_before(key: str) -> str:
    """Key of the score before a loss."""
    return f"{key}, score before"


def score_after(key: str) -> str:
    """Key of the score after a loss."""
    return f"{key}, score after"


def single_of(estimate: Estimate) -> Single:
    """A number of one member with the standard error that its interval stands for."""
    if estimate.value is None:
        raise NoAnswer("error", f"{estimate.name} has no value.")
    if estimate.low is None or estimate.high is None or estimate.level >= 1.0:
        return Single(estimate.value)
    half = (estimate.high - estimate.low) / 2.0
    return Single(estimate.value, half / normal_quantile((1.0 + estimate.level) / 2.0), estimate.method)


AuditSettings = dict[str, Scalar | list[int | float]]

ANSWERED = ("found", "excluded", "inconclusive", "measured")
"""Statuses of a finding that rests on a number."""


@final
@dataclass(frozen=True)
class PairMetrics:
    """Several audits of two members, with one correction over all that they find.

    Attributes:
        audits: Which, each with its settings.
    """

    audits: tuple[AuditSpec, ...]

    @classmethod
    def usual(cls, names: Sequence[str], plan: Plan, settings: Mapping[str, AuditSettings]) -> "PairMetrics":
        """Audits by name, with the settings that ``wheeltap compare`` has for models of this size.

        Args:
            names: Of audits.
            plan: Of the two.
            settings: Of some of them, that differ.
        """
        largest = max(subject.parameters for subject in plan.subjects)
        return cls(
            tuple(AuditSpec(name=name, settings={**sparing(name, largest), **settings.get(name, {})}) for name in names)
        )

    def made(self) -> list[Audit]:
        """The audits with their settings.

        Raises:
            UnknownName: If there is none of a name.
            UsageError: If a setting cannot be used.
        """
        return [create(spec.name, dict(spec.settings)) for spec in self.audits]

    def ask(self, case: Case) -> list[Trial]:
        """The trials they rest on, given what is known; ``case`` is of the two: see ``Case.on``."""
        return [*case.plan.baselines(), *(trial for audit in self.made() for trial in audit.ask(case))]

    def most(self, plan: Plan) -> int:
        """Upper bound on the number of trials that they ask for."""
        return len(plan.baselines()) + sum(audit.most(plan) for audit in self.made())

    def findings(self, case: Case) -> dict[str, Finding]:
        """What was found of the pair, by code: the first finding of each."""
        drafts = [draft for audit in self.made() for draft in audit.judge(case).drafts]
        found = settle(drafts, alpha=case.plan.alpha)
        if not case.plan.partial:
            found = [covered(finding, draft.reach) for finding, draft in zip(found, drafts, strict=True)]
        both = pair(*case.plan.subjects)
        return {one.code: one for one in reversed(found) if one.subject == both}
