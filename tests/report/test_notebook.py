"""A report in a cell of a notebook: its page, apart from the notebook's styles, of bounded size; a line of progress."""

from typing import Any

import msgspec
import pytest

from tests.report.report_cases import hostile, shipped
from wheeltap.report.html import fragment, notebook
from wheeltap.report.report import Report

NOTEBOOK = """<!doctype html><meta name="viewport" content="width=device-width, initial-scale=1">
<style>h1, h2 { color: rgb(1, 2, 3); } table { border: 9px solid red; } p { color: rgb(4, 5, 6); }</style>
<p id="above">above</p>CELL"""


@pytest.mark.browser
def test_a_cell_shows_the_page_and_styles_do_not_meet(browser: Any) -> None:
    tab = browser.new_page(viewport={"width": 400, "height": 800})
    requests: list[str] = []
    tab.on("request", lambda request: requests.append(request.url))
    tab.set_content(NOTEBOOK.replace("CELL", Report(shipped())._repr_html_()))
    tab.wait_for_function("document.querySelector('iframe').style.height !== '0px'")
    (page,) = [frame for frame in tab.frames if frame != tab.main_frame]
    assert requests == []
    assert not tab.locator("iframe").evaluate("frame => frame.previousElementSibling.checkVisibility()")
    assert 300 < tab.locator("iframe").evaluate("frame => frame.clientHeight") <= 900
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.locator("h1").evaluate("one => getComputedStyle(one).color") != "rgb(1, 2, 3)"
    assert page.locator("table").first.evaluate("one => getComputedStyle(one).borderTopWidth") != "9px"
    assert tab.locator("#above").evaluate("one => getComputedStyle(one).color") == "rgb(4, 5, 6)"
    assert page.locator("svg").count() > 0
    page.locator("nav a").last.click()
    assert page.url == "about:srcdoc#reading" and tab.locator("#above").count() == 1
    tab.close()


def test_names_cannot_leave_the_frame() -> None:
    said = Report(hostile())._repr_html_()
    assert said.count("<iframe") == said.count("</iframe>") == 1 and "<script" not in said
    assert said.endswith('"></iframe>') and said.count('"', said.index('srcdoc="')) == 2


def test_a_page_too_large_for_a_cell_is_left_out() -> None:
    record = shipped()
    large = msgspec.structs.replace(record, command="x" * 2_000_000)
    said = notebook(large)
    assert "<iframe" not in said and said.startswith(f"<div>{fragment(large)}</div>")
    assert len(said) < 100_000
