"""The report object: what it gives, what it prints, what it puts in a table."""

import io
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from tests.report.page_cases import PAGE_CASES, many_lines
from tests.report.report_cases import CASES, HOSTILE, demo, four, gaps, hostile, pair, shipped, single, uncovered, void
from tests.report.study_cases import STUDIES
from wheeltap.core.errors import UnknownName
from wheeltap.core.records import Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Cell
from wheeltap.report import Report, deployment, view, words


def _text(record: ReportRecord, width: int = 80, *, full: bool = True) -> str:
    buffer = io.StringIO()
    Report(record).text(Console(file=buffer, width=width), full=full)
    return buffer.getvalue()


def cells(record: ReportRecord) -> list[Cell]:
    several = [cell for table in view.verdict_tables(record) for row in table.rows for cell in row[1:]]
    return [cell for cell in several if isinstance(cell, Cell)]


def test_an_unknown_code_suggests_the_nearest() -> None:
    assert {f.code for f in Report(demo())["WT101"]} == {"WT101"}
    with pytest.raises(UnknownName, match="WT101") as caught:
        Report(demo())["WT1O1"]
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("make", [*CASES.values(), *STUDIES.values(), *PAGE_CASES.values()])
def test_text_fits_its_width_without_color(make: Callable[[], ReportRecord]) -> None:
    for width in (60, 80, 120, 200):
        for full in (False, True):
            text = _text(make(), width, full=full)
            assert "\x1b" not in text and "\u202e" not in text
            assert max(len(line.rstrip()) for line in text.splitlines()) <= width


def test_the_first_screen_has_every_verdict_at_any_width() -> None:
    for record in (shipped(), pair(), four(), uncovered()):
        for width in (60, 80, 100):
            text = " ".join(_text(record, width, full=False).split())
            for line in (line for table in deployment.lines(record) for line in table.lines):
                said = [line.verdict.word] if line.verdict.word else [part for cell in line.cells for part in cell[:2]]
                assert all(word in text for word in " ".join(said).split()), line.label


def test_the_first_screen_is_short_and_the_full_text_has_all() -> None:
    first, full = (_text(shipped(), 100, full=full) for full in (False, True))
    assert len(first.splitlines()) <= 40
    assert len(_text(four(), 100, full=False).splitlines()) <= 60
    assert full.endswith(first)
    assert "What this does not prove" in full and "What this does not prove" not in first


def test_no_number_is_wrapped() -> None:
    """Each interval of the table stands whole on one line."""
    for width in (60, 80, 120):
        text = _text(demo(), width)
        assert all(cell.number in text for cell in cells(demo()))
        for line in (*text.splitlines(), *_text(many_lines(), width).splitlines()):
            assert not re.search(r"\[-?[\d.]+, *$|^ *-?[\d.]+\]", line), line


def test_text_says_things_in_order() -> None:
    text = _text(demo())
    titles = ("Each network", "Findings", "Block map", "Controls", "Cost", "does not prove", "Same score")
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert "smallest detectable 0.012 accuracy" in text


def test_the_lead_speaks_of_what_was_asked(pages: dict[str, Path]) -> None:
    whole = demo()
    asked = {
        "how fast the score falls": ("WT001", "WT101", "WT103"),
        "what that does to the answers": ("WT001", "WT202"),
        "and disturbed nothing": ("WT001",),
    }
    for said, codes in asked.items():
        first = whole.findings[0]
        findings = tuple(msgspec.structs.replace(first, code=code) for code in codes)
        curves = tuple(curve for curve in whole.curves if curve.code in codes)
        lead = view.explanation(msgspec.structs.replace(whole, findings=findings, curves=curves))
        assert [words_ for words_ in asked if words_ in lead] == [said]
    assert "how fast the score falls" in pages["demo"].read_text()
    rising = tuple(msgspec.structs.replace(curve, code="WT107") for curve in whole.curves)
    findings = (msgspec.structs.replace(whole.findings[0], code="WT107"),)
    assert "how fast" not in view.explanation(msgspec.structs.replace(whole, findings=findings, curves=rising))


def test_a_void_report_says_so_first(pages: dict[str, Path]) -> None:
    assert _text(void(), full=False).startswith(words.VOID_HEADLINE)
    assert _text(void()).startswith(words.VOID_HEADLINE), "also in full"
    page = pages["void"].read_text()
    assert page.index(words.VOID_HEADLINE) < page.index("<h1>")
    assert "Failed: original, permuted and rescaled." in page
    assert "VOID" in repr(Report(void()))


def test_hostile_text_neither_colours_nor_controls_a_terminal() -> None:
    buffer = io.StringIO()
    Report(hostile()).text(Console(file=buffer, width=120, force_terminal=True, color_system=None))
    text = buffer.getvalue()
    assert "\x1b[31m" not in text
    assert "\u202e" not in text
    assert "[bold red]x[/]" in text


def test_repr_is_short_and_html_repr_is_escaped() -> None:
    assert "Each network" in repr(Report(single()))
    assert "shipped as" in repr(Report(shipped()))
    assert "does not prove" not in repr(Report(demo()))
    fragment = Report(hostile())._repr_html_()
    assert HOSTILE not in fragment
    assert "<table" in fragment


def test_every_interval_in_the_terminal_is_on_the_page(pages: dict[str, Path]) -> None:
    pattern = re.compile(r"\[(?:-?[\d.,]+\d|open|no interval)(?:, (?:-?[\d.,]+\d|open))?\]")
    for name in ("demo", "single", "void", "gaps"):
        record = CASES[name]()
        page = pages[name].read_text().replace("\u00a0", " ")
        in_text = set(pattern.findall(_text(record)))
        assert in_text and in_text <= set(pattern.findall(page))
        for cell in cells(record):
            value, mark, bracket = cell.number.partition(" [")
            assert mark + bracket in page and (f"<b>{value}</b>" in page or not value)
    (area,) = (f for f in demo().findings if (f.subject, f.code) == ("original vs imposter", "WT101"))
    expected = words.interval(area.estimates[0])
    assert expected in pages["demo"].read_text() and expected in _text(demo())


@pytest.mark.skipif(not any(map(find_spec, ("polars", "pandas", "pyarrow"))), reason="needs a library for tables")
def test_the_frame_has_one_row_per_estimate_with_its_interval_and_verdict() -> None:
    import narwhals as nw

    frame = nw.from_native(Report(gaps()).frame(), eager_only=True)
    assert frame.columns == list(view.estimate_columns(gaps()))
    assert frame["low"].to_list() == [0.5, None, None, 11000.0, None, None]
    assert nw.from_native(Report(CASES["empty"]()).frame(), eager_only=True).shape == (0, 18)
    frame = nw.from_native(Report(shipped()).frame(), eager_only=True)
    rows = [row for row in frame.iter_rows(named=True) if row["scheme"]]
    first = {row["scheme"]: row for row in reversed(rows)}
    for finding in shipped().findings:
        if finding.scheme and finding.estimates:
            row, lost = first[finding.scheme], finding.estimates[0]
            assert (row["value"], row["low"], row["high"]) == (lost.value, lost.low, lost.high)
            assert (row["verdict"], row["margin"], row["coverage"]) == (finding.verdict, 0.02, finding.coverage)


def test_two_findings_in_one_cell_show_the_gravest() -> None:
    record = demo()
    (quantised,) = (f for f in record.findings if (f.subject, f.code) == ("imposter", "WT103"))
    second = msgspec.structs.replace(quantised, status="excluded")
    doubled = msgspec.structs.replace(record, findings=(second, *record.findings))
    assert "found (worst of 2)" in {cell.word for cell in cells(doubled)}


def test_two_claims_under_one_code_have_a_column_each() -> None:
    record = CASES["single"]()
    first = record.findings[0]
    claims = [
        msgspec.structs.replace(
            first, code="WT205", title=f"A set of units is {claim}", status=status, verdict="", alarm=False
        )
        for claim, status in (("necessary", "found"), ("sufficient", "inconclusive"))
    ]
    quiet = [msgspec.structs.replace(finding, status="excluded") for finding in claims]
    assert "A set of units is necessary (WT205" in _text(msgspec.structs.replace(record, findings=tuple(quiet)))
    [table] = view.verdict_tables(msgspec.structs.replace(record, findings=(*record.findings, *claims)))
    rows = {row[0].word: row[1].word for row in table.rows if "WT205" in row[0].note}  # pyright: ignore
    assert rows == {"A set of units is necessary": "found", "A set of units is sufficient": "cannot tell"}
    for width in (60, 80):
        lines = _text(msgspec.structs.replace(record, findings=(*record.findings, *claims)), width, full=False)
        assert "necessary" in lines and "sufficient" in lines
        assert max(len(line.rstrip()) for line in lines.splitlines()) <= width


def test_the_claims_of_a_pair_stand_below_those_of_its_networks() -> None:
    record = demo()
    noise = [f for f in record.findings if f.code == "WT101"]

    def titled(title: str, findings: list[Finding]) -> list[Finding]:
        ends = [": difference" if " vs " in f.subject else "" for f in findings]
        return [msgspec.structs.replace(f, title=f"{title}{end}") for f, end in zip(findings, ends, strict=True)]

    first = titled("Noise", noise)
    second = titled("Other noise", [msgspec.structs.replace(f, status="skipped", verdict="skipped") for f in noise])
    rest = [f for f in record.findings if f.code != "WT101"]
    tables = view.verdict_tables(msgspec.structs.replace(record, findings=(*rest, *first, *second)))
    found = [cell.word for table in tables for row in table.rows if row[0][0] == "Other noise" for cell in row[1:]]  # pyright: ignore
    assert len(tables) == 2 and set(found) == {"skipped"}
