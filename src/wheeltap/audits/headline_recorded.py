"""The answer of recorded answers in a few lines: what was found of each system and pair, then what stays open."""

from collections.abc import Sequence

from wheeltap.core.records import Finding
from wheeltap.plans.plan import Plan


def of_recorded(plan: Plan, findings: Sequence[Finding]) -> str:
    """What was found first, then what was excluded, or else what was measured; then what is undecided."""
    found = [f"{finding.subject}: {finding.said}" for finding in findings if finding.status == "found"]
    measured = [f"{finding.subject}: {finding.said}" for finding in findings if finding.status == "measured"]
    # The sentence for a headline is of what was found: of what was excluded, the reason begins with it.
    less = [f"{finding.because.split('. ')[0].rstrip('.')}." for finding in findings if finding.status == "excluded"]
    still = [f"{finding.title} ({finding.subject})" for finding in findings if finding.status == "inconclusive"]
    said = [*found, *less] or measured
    if still:
        said = [*said, f"Cannot tell: {'; '.join(still)}."]
    return "\n".join(said) or f"Nothing was asked of {', '.join(one.name for one in plan.subjects)}."
