"""The report as JUnit XML: a test for each finding, red where the gate is."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal
from xml.etree import ElementTree as Xml

from wheeltap.core.records import UNCOVERED, Finding, FindingStatus
from wheeltap.core.report import FailOn, ReportRecord
from wheeltap.core.settings import checked
from wheeltap.report import gate, words
from wheeltap.report.origin import missing_trials

SUITE = "wheeltap"

Result = Literal["", "failure", "error", "skipped"]
"""Name of the element that says so; none of a test that passes."""

_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 has no way to write (section 2.2)."""


_DECIDED: Final[tuple[FindingStatus, ...]] = ("found", "excluded", "measured")


@dataclass(frozen=True, kw_only=True)
class _Case:
    group: str
    name: str
    result: Result
    verdict: str
    message: str
    text: str


@checked
def junit(record: ReportRecord, fail_on: FailOn) -> bytes:
    """One suite with a test for each finding; some test is red exactly where ``gate.exit_code`` is not 0.

    A verdict that fails is a failure. What leaves no result to go by is an error: an audit's own, too few weights; a
    run that is not over, a control that failed or no answer to anything, each as a test of its own. What was not
    decided, and does not fail, is skipped.

    Args:
        record: The report.
        fail_on: The mildest verdict that fails.

    Returns:
        UTF-8 bytes.
    """
    cases = [*_of_run(record, fail_on), *(_of(finding, fail_on) for finding in record.findings)]
    count = Counter(case.result for case in cases)
    suite = Xml.Element(
        "testsuite",
        name=SUITE,
        tests=str(len(cases)),
        failures=str(count["failure"]),
        errors=str(count["error"]),
        skipped=str(count["skipped"]),
        time=f"{record.cost.seconds:.3f}",
    )
    named: Counter[tuple[str, str]] = Counter()
    for case in cases:
        named[case.group, case.name] += 1
        _add(suite, case, again=named[case.group, case.name])
    Xml.indent(suite)
    return Xml.tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n"


def _add(suite: Xml.Element, case: _Case, *, again: int) -> None:
    name = case.name if again == 1 else f"{case.name} ({again})"
    test = Xml.SubElement(suite, "testcase", classname=_legal(case.group), name=_legal(name))
    if case.result:
        stated = Xml.SubElement(test, case.result, message=_legal(case.message))
        if case.result != "skipped":
            stated.set("type", _legal(case.verdict))
            stated.text = _legal(case.text)
        return
    Xml.SubElement(test, "system-out").text = _legal(f"{case.message}\n{case.text}".strip())


def _of_run(record: ReportRecord, fail_on: FailOn) -> list[_Case]:
    """What keeps the whole run from having a result: a test each."""
    found: list[_Case] = []
    missing = missing_trials(record)
    if missing:
        said = f"At least {missing:,} trials have not run. Run the same command again: it resumes where it stopped."
        found.append(_error("the run is over", "unfinished", said))
    if record.void:
        failed = [control for control in record.controls if control.status == "failed"]
        said = "\n".join(f"{control.name}: {control.because}" for control in failed)
        found.append(_error("the controls pass", "void", words.VOID, said))
    open_ones = () if fail_on == "never" else gate.unanswered(record)
    if open_ones:
        said = "\n".join(dict.fromkeys(one.because for one in open_ones))
        found.append(_error("there is an answer", "no answer", "Nothing that was asked has an answer.", said))
    return found


def _error(name: str, verdict: str, message: str, text: str = "") -> _Case:
    return _Case(group=SUITE, name=name, result="error", verdict=verdict, message=message, text=text)


def _of(finding: Finding, fail_on: FailOn) -> _Case:
    verdict = finding.verdict or words.status(finding.status)
    number = f" {words.interval(finding.estimates[0])}" if finding.estimates else ""
    return _Case(
        group=finding.subject,
        name=finding.title,
        result=_result(finding, fail_on),
        verdict=verdict,
        message=f"{verdict}{number}",
        text="\n".join((*words.paragraphs(finding.because), f"({finding.code})")),
    )


def _result(finding: Finding, fail_on: FailOn) -> Result:
    if finding.verdict == UNCOVERED and fail_on != "never":
        return "error"
    if gate.fails(finding, fail_on):
        return "error" if finding.status == "error" else "failure"
    return "" if finding.status in _DECIDED else "skipped"


def _legal(text: str) -> str:
    """``text`` without control characters and what XML 1.0 cannot hold."""
    return _ILLEGAL.sub("?", words.plain(text, lines=True))
