"""Sections: the page in a real browser with hostile names, the terminal, Markdown, the file."""

import io
import json
import zlib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from rich.console import Console

from tests.report.page_cases import sections
from tests.report.report_cases import HOSTILE, single
from tests.report.study_cases import study_plain
from wheeltap.core.errors import FileFormatError, UnknownName
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import (
    Axis,
    Chart,
    Graph,
    Link,
    Node,
    Picture,
    Pictures,
    Section,
    Series,
    Table,
    Text,
    View,
    Widget,
)
from wheeltap.report import Report, jsonfile, png
from wheeltap.report import text as terminal

[GRAPH] = [block for block in sections().sections[0].blocks if isinstance(block, Graph)]


def _open(browser: Any, path: Path, width: int = 1280) -> tuple[Any, list[str]]:
    page, events = browser.new_page(viewport={"width": width, "height": 900}), list[str]()
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
    page.goto(Report(sections()).html(path).as_uri())
    return page, events


@pytest.mark.browser
def test_every_node_and_line_is_drawn_and_keys_move(browser: Any, tmp_path: Path) -> None:
    page, events = _open(browser, tmp_path / "page.html")
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
    assert page.locator(".graph .ring").count() == 0 and events == []
    page.close()


@pytest.mark.browser
def test_values_follow_the_view_and_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    page, events = _open(browser, tmp_path / "page.html", 400)
    circles = page.locator(".graph circle[data-at]")
    before = circles.first.get_attribute("r")
    page.locator(".graph select").select_option("2")
    first = GRAPH.nodes[0]
    most = max(abs(value - first.center) for value in first.values)
    radius = 2.5 + 3 * abs(first.values[2] - first.center) / most
    assert circles.first.get_attribute("r") != before
    assert float(circles.first.get_attribute("r")) == pytest.approx(radius)
    assert page.locator(".graph .context").inner_text() == f"{HOSTILE} = 2"
    assert "1.4e-7" in page.inner_text("main") or "1.4e-07" in page.inner_text("main")
    assert f"Nothing draws {HOSTILE}." in page.inner_text("main")
    assert page.evaluate("document.documentElement.scrollWidth") <= 400 and events == []
    page.close()


def test_a_page_without_a_graph_has_no_script(tmp_path: Path) -> None:
    page = Report(msgspec.structs.replace(sections(), sections=())).html(tmp_path / "page.html").read_text()
    assert "<script" not in page and "script-src" not in page


def test_the_file_comes_back_and_what_does_not_fit_is_refused() -> None:
    record = sections()
    data = jsonfile.to_json(record)
    jsonschema.Draft202012Validator(jsonfile.schema()).validate(json.loads(data))
    assert jsonfile.validate(data) == record
    changes: dict[str, tuple[str, Any]] = {
        "a link of a node": ("links", lambda links: [{**links[0], "target": 99}]),
        "a node of a row": ("rows", lambda rows: rows[:-1] if len(rows) == 4 else rows),
        "values of a node": ("views", lambda views: views[:-1]),
        "cells of a row": ("heads", lambda heads: heads[:-1]),
        "numbers of a series": ("series", lambda series: [{**series[0], "y": [0.1]}]),
    }
    for said, (field, change) in changes.items():
        fields = json.loads(data)
        for block in fields["sections"][0]["blocks"]:
            if field in block:
                block[field] = change(block[field])
        with pytest.raises(FileFormatError, match=said):
            jsonfile.validate(json.dumps(fields).encode())


def test_the_schema_describes_every_field_of_a_section() -> None:
    defs = jsonfile.schema()["$defs"]
    kinds = (Section, Text, Table, Axis, Series, Chart, Node, Link, View, Graph, Picture, Pictures, Widget)
    for kind in kinds:
        tag = kind.__struct_config__.tag
        fields = {*kind.__struct_fields__, *(["type"] if tag else [])}
        assert fields == set(defs[kind.__name__.lower()]["properties"]), kind


@pytest.mark.parametrize("key", ["lens", "circuits"])
def test_parts_of_an_earlier_version_are_refused_and_what_to_do_is_said(key: str) -> None:
    fields = json.loads(jsonfile.to_json(single()))
    assert jsonfile.validate(json.dumps({**fields, "lens": None, "circuits": []}).encode()) == single()
    with pytest.raises(FileFormatError, match=f"(?s){key}.*Run the command that wrote it again"):
        jsonfile.validate(json.dumps({**fields, key: [{"subject": "net"}]}).encode())


def test_drawn_nets_of_an_earlier_study_are_refused_and_what_to_do_is_said() -> None:
    fields = json.loads(jsonfile.to_json(study_plain()))
    fields["study"] |= {"strips": [], "drawn": [{"name": "face"}]}
    with pytest.raises(FileFormatError, match=r"(?s)drawn.*Run the command that wrote it again"):
        jsonfile.validate(json.dumps(fields).encode())


def test_a_block_that_does_not_fit_itself_is_not_made() -> None:
    with pytest.raises(ValueError, match="1 cells of a row where there must be 2"):
        Table(heads=("a", "b"), rows=(("a",),))
    with pytest.raises(UnknownName, match="place"):
        Table(heads=("a", "b"), rows=(), place="last")  # pyright: ignore[reportArgumentType]


def _printed(record: ReportRecord, *, full: bool) -> str:
    console = Console(file=io.StringIO(), width=100)
    terminal.write(record, console, full=full)
    return console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]


def test_the_terminal_says_the_answer_then_what_is_first_and_all_where_asked() -> None:
    first, full = (_printed(sections(), full=full) for full in (False, True))
    assert first.startswith("SUFFICIENT") and len(first.splitlines()) <= 40
    assert "20 of 640." in first and "1.4e-07 [1.0e-07, 2.0e-07]" in first and "behind its title" in first
    drawn = "20 units, 15 lines. Drawn on the page."
    assert drawn not in " ".join(first.split()) and drawn in " ".join(full.split()) and "\x1b" not in full


@pytest.mark.parametrize("width", [60, 80, 120])
def test_numbers_of_a_wide_table_are_never_broken(width: int) -> None:
    cells = [f"{at}.{at:03d} [0.123, 4.567]" for at in range(9)]
    heads = ("name", *(f"column {at}" for at in range(9)))
    table = Table(heads=heads, rows=(("a name that is long enough to fold at some width", *cells),), place="first")
    record = msgspec.structs.replace(single(), sections=(Section(title="wide", blocks=(table,)),))
    console = Console(file=io.StringIO(), width=width)
    terminal.summary(record, console)
    printed = console.file.getvalue()  # pyright: ignore[reportAttributeAccessIssue]
    assert all(cell in printed for cell in cells) and max(map(len, printed.splitlines())) <= width


def test_markdown_has_what_is_first() -> None:
    shown = Report(sections()).markdown()
    assert "1.4e-07 [1.0e-07, 2.0e-07]" in shown and "<script>" not in shown and len(shown.splitlines()) < 60


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
