"""The report object: what it gives, what it prints, what it puts in a table."""

import io
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from rich.console import Console

from tests.report.page_cases import many_rows
from tests.report.report_cases import CASES, gaps, hostile, pair, shipped, uncovered
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Cell
from wheeltap.report import Report, deployment, view


def _text(record: ReportRecord, width: int = 80, *, full: bool = True) -> str:
    return Report(record).text(full=full, width=width)


def cells(record: ReportRecord) -> list[Cell]:
    several = [cell for table in view.verdict_tables(record) for row in table.rows for cell in row[1:]]
    return [cell for cell in several if isinstance(cell, Cell)]


@pytest.mark.parametrize("make", [gaps, hostile, many_rows])
def test_text_fits_its_width_without_color(make: Callable[[], ReportRecord]) -> None:
    for width in (60, 100):
        for full in (False, True):
            text = _text(make(), width, full=full)
            assert "\x1b" not in text and "\u202e" not in text
            assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    buffer = io.StringIO()
    Report(make()).print(Console(file=buffer, width=120, force_terminal=True, color_system=None))
    assert "\x1b[31m" not in buffer.getvalue() and "\u202e" not in buffer.getvalue()


def test_the_first_screen_has_every_verdict_at_any_width() -> None:
    for record in (shipped(), pair(), uncovered()):
        for width in (60, 80, 100):
            text = " ".join(_text(record, width, full=False).split())
            for line in (line for table in deployment.lines(record) for line in table.lines):
                said = [line.verdict.word] if line.verdict.word else [part for cell in line.cells for part in cell[:2]]
                assert all(word in text for word in " ".join(said).split()), line.label


def test_every_interval_in_the_terminal_is_on_the_page(pages: dict[str, Path]) -> None:
    pattern = re.compile(r"\[(?:-?[\d.,]+\d|open|no interval)(?:, (?:-?[\d.,]+\d|open))?\]")
    for name in ("single", "gaps"):
        record = CASES[name]()
        page = pages[name].read_text().replace("\u00a0", " ")
        in_text = set(pattern.findall(_text(record)))
        assert in_text and in_text <= set(pattern.findall(page))
        for cell in cells(record):
            value, mark, bracket = cell.number.partition(" [")
            assert mark + bracket in page and (f"<b>{value}</b>" in page or not value)


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
