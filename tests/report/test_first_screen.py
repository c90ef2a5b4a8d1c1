"""What the first screen warns of: examples that are few, alike or uneven, and rows that reached few weights."""

import io

import msgspec
from rich.console import Console

from tests.report.report_cases import shipped
from wheeltap.audits import headline
from wheeltap.audits.losses import GROWN
from wheeltap.core.records import Estimate
from wheeltap.core.report import ReportRecord
from wheeltap.report import deployment
from wheeltap.report.report import Report


def of_examples(**changes: object) -> ReportRecord:
    record = shipped()
    return msgspec.structs.replace(record, task=msgspec.structs.replace(record.task, **changes))


def lines(record: ReportRecord, width: int) -> list[str]:
    buffer = io.StringIO()
    Report(record).text(Console(file=buffer, width=width, color_system=None))
    return buffer.getvalue().splitlines()


def test_each_row_of_the_table_is_one_line_at_100_columns() -> None:
    """Those without a number to wait for too, and of names that are long."""
    record = shipped()
    long = [
        msgspec.structs.replace(
            f, estimates=tuple(msgspec.structs.replace(e, name=e.name.replace("8 bits, per channel", NAME))
                               for e in f.estimates),
        ) for f in record.findings
    ]  # fmt: skip
    for each in (record, msgspec.structs.replace(record, findings=tuple(long))):
        (table,) = deployment.lines(each)
        printed = lines(each, 100)
        first = next(at for at, line in enumerate(printed) if line.startswith("shipped as"))
        rows = printed[first + 1 : first + 1 + len(table.lines)]
        for line, row in zip(table.lines, rows, strict=True):
            assert row.startswith(line.label[:25]) and line.verdict.word in row, row
            assert len(row) <= 100
        assert printed[first + 1 + len(table.lines)].strip() == ""
    assert any("(needs 1,400)" in line for line in printed), "examples that would tell"


def test_errors_that_grow_very_much_leave_room_for_verdicts_at_80_columns() -> None:
    """An error changes no answers, so that there is no such column."""
    record = of_examples(measure="squared_error", bounded=False)
    grown = msgspec.structs.replace(Estimate.exact(GROWN, 5.67e5, "ratio"), low=1.23e5, high=1.01e6)
    rows = [
        msgspec.structs.replace(
            f, estimates=(*(e for e in f.estimates if e.name != "answers changed"), grown) if f.scheme else f.estimates,
        ) for f in record.findings
    ]  # fmt: skip
    printed = lines(msgspec.structs.replace(record, findings=tuple(rows)), 80)
    shown = "\n".join(printed)
    assert "x 5.67e+05 [1.23e+05, 1.01e+06] cannot tell" in shown and "(needs 1,400)" in " ".join(shown.split())
    assert not any("changed" in line for line in printed if line.startswith("shipped as"))


NAME = "8 bits, per channel, and a name that is much longer than any other"


def test_a_row_of_few_weights_or_few_examples_says_so_and_no_other_row_does() -> None:
    record = shipped()
    part = [msgspec.structs.replace(f, coverage=0.02) if f.scheme == "int8" else f for f in record.findings]
    (table,) = deployment.lines(msgspec.structs.replace(record, findings=tuple(part)))
    notes = {line.label: line.verdict.note for line in table.lines}
    assert notes["8 bits, per channel"] == "2 % of the weights"
    assert sum("of the weights" in note for note in notes.values()) == 1
    for n, groups, expected in ((60, None, "at least 3,000 examples"), (250, 300, "at least 300 groups")):
        few = [
            msgspec.structs.replace(
                f, estimates=tuple(msgspec.structs.replace(e, n=n) for e in f.estimates),
                power=f.power and msgspec.structs.replace(f.power, groups=groups),
            )
            for f in record.findings
        ]  # fmt: skip
        (table,) = deployment.lines(msgspec.structs.replace(record, findings=tuple(few)))
        [note] = [line.verdict.note for line in table.lines if line.label == "4 bits, per channel"]
        assert note == f"{expected} would tell"


def test_a_loss_is_rounded_in_one_way_everywhere() -> None:
    """Half of a tenth is rounded up, as a decimal: in the table, in the answer, and beside a verdict."""
    record, ends = shipped(), {"value": 0.0325, "low": 0.0225, "high": 0.0425}
    half = [
        msgspec.structs.replace(f, estimates=tuple(msgspec.structs.replace(e, **ends) for e in f.estimates))
        for f in record.findings
    ]
    (table,) = deployment.lines(msgspec.structs.replace(record, findings=tuple(half)))
    [cells] = [line.cells for line in table.lines if line.label == "4 bits, per channel"]
    assert cells == ("3.3", "3.3 [2.3, 4.3]", "3.3 %")
    assert headline.amount(0.0325, record.task) == "3.3 points" and str(half[-1].estimates[0]).startswith("0.033 [")
