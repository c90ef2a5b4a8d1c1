"""Sections: the page in a real browser with hostile names, the terminal, Markdown, the file."""

import io
import zlib
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from rich.console import Console

from tests.pages import opened
from tests.report.page_cases import sections
from tests.report.report_cases import HOSTILE, single
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Graph, Section, Table
from wheeltap.report import Report, png
from wheeltap.report import text as terminal

[GRAPH] = [block for block in sections().sections[0].blocks if isinstance(block, Graph)]


@pytest.mark.browser
def test_every_node_and_line_is_drawn_and_keys_move(browser: Any, pages: dict[str, Path]) -> None:
    page, events = opened(browser, pages["sections"], viewport={"width": 400, "height": 900})
    assert page.locator(".graph circle[data-at]").count() == len(GRAPH.nodes)
    assert page.locator(".graph .weight").count() == len(GRAPH.links)
    negative = sum(link.weight < 0 for link in GRAPH.links)
    assert page.locator(".graph .weight.minus").count() == negative > 0
    assert page.locator(".graph .stream").count() == len(GRAPH.faint)
    assert page.locator(".graph .row").all_text_contents() == [f"{row} (5)" for row in GRAPH.rows]
    says = page.locator(".graph .says")
    page.locator(".graph select").focus()
    page.keyboard.press("Tab")
    assert says.inner_text().startswith(f"{GRAPH.nodes[0].name}:")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    node = GRAPH.nodes[6]
    assert says.inner_text().startswith(f"{node.name}: {node.values[0]:.3f} here; mean 0.100, spread 1.000.")
    reads = [link for link in GRAPH.links if link.target == 6]
    assert reads and all(f"{GRAPH.nodes[one.source].name} ({one.weight:.3f})" in says.inner_text() for one in reads)
    assert page.locator(".graph .weight.lit").count() == sum(6 in (one.source, one.target) for one in GRAPH.links)
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    assert f"Pinned: {node.name}." in says.inner_text() and page.locator(".graph .ring").count() == 2
    page.keyboard.press("Escape")
    assert page.locator(".graph .ring").count() == 0
    # Values follow the view, and hostile names are text.
    circles = page.locator(".graph circle[data-at]")
    before = circles.first.get_attribute("r")
    page.locator(".graph select").select_option("2")
    first = GRAPH.nodes[0]
    most = max(abs(value - first.center) for value in first.values)
    radius = 2.5 + 3 * abs(first.values[2] - first.center) / most
    assert circles.first.get_attribute("r") != before
    assert float(circles.first.get_attribute("r")) == pytest.approx(radius)
    assert page.locator(".graph .context").inner_text() == f"{HOSTILE} = 2"
    assert f"Nothing draws {HOSTILE}." in page.inner_text("main")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400 and events == []
    page.close()


def test_a_page_without_a_graph_has_no_script(tmp_path: Path) -> None:
    page = Report(msgspec.structs.replace(sections(), sections=())).html(tmp_path / "page.html").read_text()
    assert "<script" not in page and "script-src" not in page


def _printed(record: ReportRecord, *, full: bool = False, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    terminal.write(record, console, full=full)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_numbers_of_a_wide_table_are_never_broken() -> None:
    cells = [f"{at}.{at:03d} [0.123, 4.567]" for at in range(9)]
    heads = ("name", *(f"column {at}" for at in range(9)))
    table = Table(heads=heads, rows=(("a name that is long enough to fold at some width", *cells),), place="first")
    record = msgspec.structs.replace(single(), sections=(Section(title="wide", blocks=(table,)),))
    for width in (60, 80, 120):
        printed = _printed(record, width=width)
        assert all(cell in printed for cell in cells) and max(map(len, printed.splitlines())) <= width


def test_pictures_are_png_files_that_hold_what_was_drawn() -> None:
    drawn = np.random.default_rng(0).random((8, 8, 3)).astype(np.float32)
    drawn[0, 0] = [-0.5, 1.5, 0.5]  # clipped
    data = png.encode(drawn)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    body = data[data.index(b"IDAT") + 4 : data.index(b"IEND") - 8]
    rows = np.frombuffer(zlib.decompress(body), dtype=np.uint8).reshape(8, 25)
    assert np.array_equal(rows[:, 1:].reshape(8, 8, 3), np.rint(np.clip(drawn, 0.0, 1.0) * 255))
    assert not rows[:, 0].any()
    assert png.encode(np.rint(np.clip(drawn, 0.0, 1.0) * 255).astype(np.uint8)) == data
