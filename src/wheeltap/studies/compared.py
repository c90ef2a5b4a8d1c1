"""Comparisons as measures: what audits find of a member beside another one, judged as ``wheeltap compare`` does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from wheeltap.audits.base import Audit, create, pair, sparing
from wheeltap.audits.case import Case
from wheeltap.audits.settle import covered, settle
from wheeltap.core.records import Finding, Scalar, Trial
from wheeltap.plans.plan import AuditSpec, Plan

AuditSettings = dict[str, Scalar | list[int | float]]

ANSWERED = ("found", "excluded", "inconclusive", "measured")
"""Statuses of a finding that rests on a number."""


@final
@dataclass(frozen=True)
class Compared:
    """Several audits of two members, with one correction over all that they find.

    Attributes:
        audits: Which, each with its settings.
    """

    audits: tuple[AuditSpec, ...]

    @classmethod
    def usual(cls, names: Sequence[str], plan: Plan, settings: Mapping[str, AuditSettings]) -> "Compared":
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
        settled = settle(drafts, alpha=case.plan.alpha)
        whole = settled
        if not case.plan.partial:
            whole = [covered(finding, draft.reach) for finding, draft in zip(settled, drafts, strict=True)]
        both = pair(*case.plan.subjects)
        return {one.code: one for one in reversed(whole) if one.subject == both}
