"""Studies of nets with a planted answer: what ``python -m benchmarks.locks`` and ``benchmarks.relearning`` run."""

from wheeltap.audits.base import Audit
from wheeltap.audits.case import Case
from wheeltap.audits.settle import settle
from wheeltap.core.records import Finding


def found(audit: Audit, case: Case) -> dict[str, Finding]:
    """What an audit that is run by itself would find, by member or pair of members."""
    return {one.subject: one for one in settle(audit.judge(case).drafts, alpha=case.plan.alpha)}
