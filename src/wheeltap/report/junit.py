"""The report as JUnit XML: a test for each finding, red where the gate is."""

import re
from collections import Counter
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


@checked
def junit(record: ReportRecord, fail_on: FailOn) -> bytes:
    """One suite with a test for each finding; some test is red exactly where ``gate.exit_code`` is not 0.

    A verdict that fails is a failure. What leaves no result to go by is an error: an audit's own, too few weights; a
    run that is not over, a control that failed or no answer to anything, each as a test of its own. What was not
    decided, and does not fail, is skipped.
    """
    gate.require_measured(record)
    suite = Xml.Element("testsuite", name=SUITE)
    failing = gate.failing(record, fail_on)
    rows = (_of(finding, fail_on, fails=finding in failing) for finding in record.findings)
    suite.extend([*_of_run(record, fail_on), *rows])
    named: Counter[tuple[str, str]] = Counter()
    for test in suite:
        key = test.attrib["classname"], test.attrib["name"]
        named[key] += 1
        if named[key] > 1:
            test.set("name", f"{key[1]} ({named[key]})")
    count = Counter(test[0].tag for test in suite)
    suite.set("tests", str(len(suite)))
    for attribute, result in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(count[result]))
    suite.set("time", f"{record.cost.seconds:.3f}")
    Xml.indent(suite)
    return Xml.tostring(suite, encoding="utf-8", xml_declaration=True) + b"\n"


def _test(group: str, name: str, result: Result, verdict: str, message: str, text: str = "") -> Xml.Element:
    """A test of a group, with the element that says what came of it."""
    test = Xml.Element("testcase", classname=_legal(group), name=_legal(name))
    if result:
        stated = Xml.SubElement(test, result, message=_legal(message))
        if result != "skipped":
            stated.set("type", _legal(verdict))
            stated.text = _legal(text)
    else:
        Xml.SubElement(test, "system-out").text = _legal(f"{message}\n{text}".strip())
    return test


def _of_run(record: ReportRecord, fail_on: FailOn) -> list[Xml.Element]:
    """What keeps the whole run from having a result: a test each."""
    found: list[Xml.Element] = []
    missing = missing_trials(record)
    if missing:
        said = f"At least {missing:,} trials have not run. Run the same command again: it resumes where it stopped."
        found.append(_test(SUITE, "the run is over", "error", "unfinished", said))
    if record.void:
        failed = [control for control in record.controls if control.status == "failed"]
        said = "\n".join(f"{control.name}: {control.because}" for control in failed)
        found.append(_test(SUITE, "the controls pass", "error", "void", words.VOID, said))
    open_ones = () if fail_on == "never" else gate.unanswered(record)
    if open_ones or gate.is_unasked(record, fail_on):
        said = "\n".join(dict.fromkeys(one.because for one in open_ones))
        message = "Nothing that was asked has an answer."
        found.append(_test(SUITE, "there is an answer", "error", "no answer", message, said))
    return found


def _of(finding: Finding, fail_on: FailOn, *, fails: bool) -> Xml.Element:
    verdict = finding.verdict or words.status(finding.status)
    number = f" {words.interval(finding.estimates[0])}" if finding.estimates else ""
    result: Result = "" if finding.status in _DECIDED else "skipped"
    if finding.verdict == UNCOVERED and fail_on != "never":
        result = "error"
    elif fails:
        result = "error" if finding.status == "error" else "failure"
    text = "\n".join((*words.paragraphs(finding.because), f"({finding.code})"))
    return _test(finding.subject, finding.title, result, verdict, f"{verdict}{number}", text)


def _legal(text: str) -> str:
    """``text`` without control characters and what XML 1.0 cannot hold."""
    return _ILLEGAL.sub("?", words.plain(text, lines=True))
