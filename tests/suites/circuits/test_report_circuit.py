"""Circuits on the page, in a real browser: the drawing, keys, names that are hostile; in the terminal and the file."""

import io
import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from page_cases import circuit
from report_cases import HOSTILE
from rich.console import Console

from wheeltap.core.errors import FileFormatError
from wheeltap.core.report import ReportRecord
from wheeltap.report import Report, jsonfile, text
from wheeltap.suites.circuits.record import ShownWeight, circuits_of, section


def _open(browser: Any, path: Path, width: int = 1280, *, record: ReportRecord | None = None) -> tuple[Any, list[str]]:
    page, events = browser.new_page(viewport={"width": width, "height": 900}), list[str]()
    page.on("console", lambda message: events.append(message.text))
    page.on("pageerror", lambda error: events.append(str(error)))
    page.on("dialog", lambda dialog: (events.append("dialog"), dialog.dismiss()))
    page.goto(Report(record or circuit()).html(path).as_uri())
    return page, events


@pytest.mark.browser
def test_every_unit_and_weight_is_drawn_and_keys_move(browser: Any, tmp_path: Path) -> None:
    page, events = _open(browser, tmp_path / "page.html")
    view = circuits_of(circuit().sections)[0]
    assert page.locator(".circuit-graph circle[data-at]").count() == len(view.units)
    assert page.locator(".circuit-graph .weight").count() == len(view.weights)
    negative = sum(one.weight < 0 for one in view.weights)
    assert page.locator(".circuit-graph .weight.minus").count() == negative > 0
    rows = page.locator(".circuit-graph .row").all_text_contents()
    assert rows == [f"{site} (5)" for site in view.sites]

    told = page.locator(".circuit-graph .told")
    page.locator(".circuit-graph select").focus()
    page.keyboard.press("Tab")
    assert told.inner_text().startswith(f"attention0.read {view.units[0].unit}:")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    at = view.units[6]
    reads = [one for one in view.weights if one.target == 6]
    assert told.inner_text().startswith(f"attention0.query {at.unit}: {at.held[0]:.3f} here; mean 0.100, spread 1.000.")
    assert all(
        f"attention0.read {view.units[one.source].unit} ({one.weight:.3f})" in told.inner_text() for one in reads
    )
    lit = [one for one in view.weights if 6 in (one.source, one.target)]
    assert page.locator(".circuit-graph .weight.lit").count() == len(lit) > 0
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    assert f"Pinned: attention0.query {at.unit}." in told.inner_text()
    assert page.locator(".circuit-graph .ring").count() == 2
    page.keyboard.press("Escape")
    assert page.locator(".circuit-graph .ring").count() == 0
    assert events == []
    page.close()


@pytest.mark.browser
def test_values_follow_the_example_and_hostile_names_are_text(browser: Any, tmp_path: Path) -> None:
    page, events = _open(browser, tmp_path / "page.html", width=400)
    circles = page.locator(".circuit-graph circle[data-at]")
    before = circles.first.get_attribute("r")
    page.locator(".circuit-graph select").select_option("5")
    assert circles.first.get_attribute("r") != before
    assert page.locator(".circuit-graph .context").inner_text().startswith(f"{HOSTILE} = (")
    shares = [max(abs(value - one.mean) for value in one.held) for one in circuits_of(circuit().sections)[0].units]
    first = circuits_of(circuit().sections)[0].units[0]
    radius = 2.5 + 3 * abs(first.held[5] - first.mean) / shares[0]
    assert float(circles.first.get_attribute("r")) == pytest.approx(radius)
    assert circles.first.get_attribute("class") == ("minus" if first.held[5] < first.mean else "plus")
    scripts = page.evaluate("[...document.scripts].map(one => one.textContent.includes('alert(1)') && !one.type)")
    assert not any(scripts) and page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert events == []
    page.close()


def test_random_circuits_beyond_the_axis_leave_the_drawing_as_it_is(tmp_path: Path) -> None:
    record = circuit()
    [view] = circuits_of(record.sections)
    far = [msgspec.structs.replace(one, beside=(9.0, 12.0)) if one.beside else one for one in view.losses]
    pages = [
        Report(msgspec.structs.replace(record, sections=(section(msgspec.structs.replace(view, losses=losses)),)))
        .html(tmp_path / "page.html").read_text()
        for losses in (view.losses, tuple(far), ())
    ]  # fmt: skip
    frames = [page.split("Loss against size</h3>")[1].split("<svg")[1].split('class="mark-group')[0] for page in pages]
    assert frames[0] == frames[1] and "median 10.500" in pages[1]
    assert ["Loss by every definition" in page for page in pages] == [True, True, False]


@pytest.mark.browser
def test_a_circuit_of_edges_names_heads_and_says_what_each_gives(browser: Any, tmp_path: Path) -> None:
    record = circuit()
    [view] = circuits_of(record.sections)
    rows = ("embedding", *(f"{part} {layer}" for layer in range(9) for part in ("attention", "MLP")), "logits")
    sites = tuple(rows[at] for at in range(len(view.sites)))
    view = msgspec.structs.replace(view, parts="edges", sites=sites)
    page, events = _open(
        browser, tmp_path / "page.html", 400, record=msgspec.structs.replace(record, sections=(section(view),))
    )
    graph = page.locator(".circuit-graph")
    graph.locator("select").focus()
    page.keyboard.press("Tab")
    told = graph.locator(".told")
    first, second = view.units[0], view.units[5]
    assert told.inner_text().startswith(f"embedding: gives {first.held[0]:.3f} of the score difference here.")
    page.keyboard.press("ArrowDown")
    named = f"attention 0 head {second.unit}: gives {second.held[0]:.3f} of the score difference here."
    assert told.inner_text().startswith(named)
    assert "Filled: helps the answer." in graph.inner_text()
    assert "Components and edges" in page.locator("figure.circuit").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= 400 and events == []
    page.close()


def test_a_page_without_a_circuit_has_no_script(tmp_path: Path) -> None:
    page = Report(msgspec.structs.replace(circuit(), sections=())).html(tmp_path / "page.html").read_text()
    assert "<script" not in page and "script-src" not in page


def test_the_file_comes_back_and_what_does_not_fit_is_refused() -> None:
    record = circuit()
    data = jsonfile.to_json(record)
    jsonschema.Draft202012Validator(jsonfile.schema()).validate(json.loads(data))
    assert jsonfile.validate(data) == record
    view = circuits_of(record.sections)[0]
    broken = (
        {"weights": (ShownWeight(source=0, target=len(view.units), weight=1.0),)}, {"sites": view.sites[:-1]},
        {"examples": view.examples[:-1]}, {"tried": (msgspec.structs.replace(view.tried[0], losses=()),)},
    )  # fmt: skip
    for change in broken:
        other = msgspec.structs.replace(record, sections=(section(msgspec.structs.replace(view, **change)),))
        with pytest.raises(FileFormatError, match=r"circuits\[0\]"):
            jsonfile.validate(jsonfile.to_json(other))


def test_the_terminal_says_the_answer_first_and_every_claim() -> None:
    console = Console(file=io.StringIO(), width=100)
    text.summary(circuit(), console)
    lines = console.file.getvalue().splitlines()  # pyright: ignore[reportAttributeAccessIssue]
    assert lines[0].startswith("SUFFICIENT ONLY UNDER MEAN ABLATION") and len(lines) <= 40
    assert any(line.startswith("WT301") for line in lines)
    assert "80 of 640 units, 200 of 13,650 weights between units; target 0.15 nats" in " ".join(lines)
