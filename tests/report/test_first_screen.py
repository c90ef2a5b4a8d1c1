"""What the first screen warns of: examples that are few, alike or uneven, and rows that reached few weights."""

import io

import msgspec
from report_cases import shipped
from rich.console import Console

from wheeltap.core.report import ReportRecord
from wheeltap.report import deployment
from wheeltap.report.report import Report


def screen(record: ReportRecord, width: int = 100) -> str:
    buffer = io.StringIO()
    Report(record).text(Console(file=buffer, width=width, color_system=None))
    return " ".join(buffer.getvalue().split())


def of_examples(**changes: object) -> ReportRecord:
    record = shipped()
    return msgspec.structs.replace(record, task=msgspec.structs.replace(record.task, **changes))


def test_repeated_examples_are_warned_of() -> None:
    warning = "Warning: only 40 of the 2,000 examples differ"
    assert warning in screen(of_examples(examples=2000, tokens=40))
    assert "Warning" not in screen(of_examples(examples=2000, tokens=1990))


def test_one_answer_that_is_nearly_always_right_is_warned_of() -> None:
    assert "Warning: 97.4% of the examples have one answer" in screen(of_examples(common=0.974))
    assert "Warning" not in screen(of_examples(common=0.5))


def test_a_row_that_reached_few_weights_says_so_and_no_other_row_does() -> None:
    record = shipped()
    part = [msgspec.structs.replace(f, coverage=0.02) if f.scheme == "int8" else f for f in record.findings]
    (table,) = deployment.tables(msgspec.structs.replace(record, findings=tuple(part)))
    notes = {line.label: line.note for line in table.lines}
    assert notes["8 bits, per channel"] == "2 % of the weights"
    assert sum("of the weights" in note for note in notes.values()) == 1


def test_few_examples_foresee_at_least_so_many() -> None:
    record = shipped()
    few = [
        msgspec.structs.replace(f, estimates=tuple(msgspec.structs.replace(e, n=60) for e in f.estimates))
        for f in record.findings
    ]
    (table,) = deployment.tables(msgspec.structs.replace(record, findings=tuple(few)))
    assert {line.note for line in table.lines if line.label == "4 bits, per channel"} == {
        "at least 3,000 examples would tell"
    }
