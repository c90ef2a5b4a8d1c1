"""The answer on a circuit in one line: is it evidence, and of what."""

from collections.abc import Sequence
from typing import Final

from wheeltap.core.records import Finding, FindingStatus, SubjectRecord
from wheeltap.core.section import Section

TITLES: Final = ("Circuit is sufficient", "Circuit is necessary", "Circuit beats its nulls", "Circuit is stable")
"""How the titles of what is claimed begin, audit by audit."""

_SILENT: Final = ("error", "not_applicable", "skipped")


def lines(subjects: Sequence[SubjectRecord], findings: Sequence[Finding], sections: Sequence[Section]) -> list[str]:
    """A line for each model whose circuit was judged."""
    known = {section.subject: section.brief for section in sections if section.brief}
    mine = {one.name: [finding for finding in findings if finding.subject == one.name] for one in subjects}
    return [of_circuit(name, rows, known.get(name, "")) for name, rows in mine.items() if rows]


def of_circuit(subject: str, findings: Sequence[Finding], brief: str) -> str:
    """Whether the circuit of one model is evidence: first in capitals, then what it was measured by.

    Args:
        subject: The model.
        findings: Of the audits of circuits on it, settled.
        brief: Its size in words; empty where it is not known.
    """
    if all(finding.status in _SILENT for finding in findings):
        return f"NO ANSWER on a circuit of {subject}: {findings[0].because}"
    sufficient, necessary, nulls, stable = (
        [finding for finding in findings if finding.title.startswith(title)] for title in TITLES
    )
    size = f" ({brief})" if brief else ""
    said = [_sufficient(sufficient), _necessary(necessary), _nulls(nulls), _stable(stable)]
    start = _verdict(sufficient, necessary, nulls, stable)
    return f"{start}: the circuit of {subject}{size} {' '.join(part for part in said if part)}"


def _verdict(
    sufficient: Sequence[Finding], necessary: Sequence[Finding], nulls: Sequence[Finding], stable: Sequence[Finding]
) -> str:
    """What it comes to: the first thing that speaks against it, or that is not known."""
    if _at(nulls, "found"):
        return "NOT EVIDENCE"
    holds = _at(sufficient, "excluded")
    if sufficient and not holds:
        return "NOT SUFFICIENT" if _at(sufficient, "found") else "CANNOT TELL"
    if _at(sufficient, "found"):
        return f"SUFFICIENT ONLY UNDER {holds.upper()}"
    if _at(necessary, "found"):
        return "NOT NECESSARY"
    if _at(stable, "found"):
        return "NOT STABLE"
    answered = all(finding.status in ("found", "excluded", "measured") for finding in (*sufficient, *necessary, *nulls))
    return "EVIDENCE" if answered and sufficient and necessary and nulls else "CANNOT TELL"


def _at(rows: Sequence[Finding], *statuses: FindingStatus) -> str:
    """What the titles of rows with a status are about, in words."""
    return ", ".join(row.title.partition(": ")[2] for row in rows if row.status in statuses)


def _sufficient(rows: Sequence[Finding]) -> str:
    """Under which ablations of the rest the circuit does the task."""
    holds, fails, opened = _at(rows, "excluded"), _at(rows, "found"), _at(rows, "inconclusive")
    parts = [
        f"does the task alone under {holds}" if holds else "",
        (f"does not do it alone under {fails}" if holds else f"does not do the task alone under {fails}")
        if fails
        else "",
        f"undecided under {opened}" if opened else "",
    ]
    more = " So the rest may still be used." if holds and fails else ""
    said = "; ".join(part for part in parts if part)
    return f"{said}.{more}" if said else "was not asked whether it does the task alone."


def _necessary(rows: Sequence[Finding]) -> str:
    """Whether the rest does the task without it."""
    needed, spare, opened = _at(rows, "excluded"), _at(rows, "found"), _at(rows, "inconclusive")
    parts = [
        f"without it the task fails ({needed})" if needed else "",
        f"the rest does the task without it ({spare})" if spare else "",
        f"undecided whether the rest does ({opened})" if opened else "",
    ]
    said = "; ".join(part for part in parts if part)
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def _nulls(rows: Sequence[Finding]) -> str:
    """Whether as much is found where nothing is."""
    if not rows:
        return "Nulls were not asked for."
    found = [row.said for row in rows if row.status == "found"]
    if found:
        return " ".join(found)
    if all(row.status == "excluded" for row in rows):
        return "Better than its nulls."
    return f"Nulls without an answer: {_at(rows, 'inconclusive', *_SILENT)}."


def _stable(rows: Sequence[Finding]) -> str:
    """On held-out pairs, rephrased, and searched again."""
    words = {"found": "Fails when rephrased.", "excluded": "Holds when rephrased.",
             "inconclusive": "Undecided when rephrased."}  # fmt: skip
    held = [row for row in rows if row.title.endswith("held-out pairs")]
    said = [row.said for row in held if row.brief]
    worded = [row for row in rows if row not in held and row.margin is not None]
    said += [words[row.status] for row in worded if row.status in words]
    shared = [row.estimates[0].value for row in rows if row.status == "measured" and row.estimates]
    said += [
        f"Two other searches share {100 * value:.0f} % of what they keep." for value in shared if value is not None
    ]
    return " ".join(said)
