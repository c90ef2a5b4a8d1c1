"""The page in a real browser: quiet, self-contained, readable in both themes and on a phone, inert to hostile names."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.pages import CONTRAST, MISFITS, UNFOLD, opened
from tests.report.report_cases import shipped, shipped_void
from wheeltap.core.report import ReportRecord
from wheeltap.report import blocks, figures, shown


@pytest.mark.browser
def test_a_page_is_quiet_fits_and_can_be_read(browser: Any, pages: dict[str, Path]) -> None:
    """Headline, models and the first row of the table are seen without scrolling; all of it fits a phone."""
    page, events = opened(browser, pages["many_rows"], viewport={"width": 1280, "height": 900})
    for part in ("h1", ".asked", "table tbody tr"):
        box = page.locator(part).first.bounding_box()
        assert box is not None and box["y"] + box["height"] <= 900, part
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.evaluate(UNFOLD)
    for width in (400, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(MISFITS) == []
    for theme in ("light", "dark"):
        page.emulate_media(color_scheme=theme)
        worst = page.evaluate(CONTRAST)
        assert worst[0][0] >= 4.5, (theme, worst)
    assert page.get_by_role("img").count() == page.locator(".chart:visible").count()
    assert events == []
    page.close()


@pytest.mark.browser
def test_hostile_names_are_inert_and_visible(browser: Any, pages: dict[str, Path]) -> None:
    for name, part in (("hostile", "h1"), ("study_hostile", "main")):
        page, events = opened(browser, pages[name])
        assert events == []
        assert page.evaluate("document.querySelectorAll('script, iframe, object, embed').length") == 0
        assert page.evaluate("document.querySelectorAll('[onerror], [onload], [onclick]').length") == 0
        assert page.evaluate("[...document.images].filter(i => !i.src.startsWith('data:image/png')).length") == 0
        text = page.inner_text(part)
        assert "<script>alert(1)</script>" in text and "{{ 7*7 }}" in text
        if name == "hostile":
            texts = "[...document.querySelectorAll('.chart text')].map(t => t.textContent).join()"
            assert "<script>" in page.evaluate(texts) and page.locator("img").count() == 0
        page.close()


class _Outline(HTMLParser):
    """What a page opens: tags with their attributes, and whether they close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.crossed: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "br", "img", "input", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.crossed.append(tag)


@pytest.mark.parametrize("name", ["hostile", "study_hostile", "sections", "empty"])
def test_the_page_is_well_formed_and_names_no_address(pages: dict[str, Path], name: str) -> None:
    page = pages[name].read_text()
    outline = _Outline(page)
    assert outline.crossed == outline.open == []
    named = [value for _, attrs in outline.tags for key, value in attrs.items() if key in ("src", "href", "xlink:href")]
    assert all(value is not None and value.startswith(("#", "data:")) for value in named)
    assert set(re.findall(r"https?://[^\"' <]+", page)) <= {"http://www.w3.org/2000/svg"}
    assert "url(" not in page
    ids = [attrs["id"] for _, attrs in outline.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {value[1:] for value in named if value and value.startswith("#")} <= set(ids)


def test_a_void_page_reassures_nobody(pages: dict[str, Path]) -> None:
    assert 'class="void"' in pages["shipped_void"].read_text()
    calm = figures.TONES["calm"]
    assert calm not in "".join(_svgs(shipped_void())) and calm in "".join(_svgs(shipped()))


def _drawings(record: ReportRecord) -> list[blocks.Drawing]:
    several = [block for part in shown.first(record, page=True) for block in part.blocks]
    return [block for block in several if isinstance(block, blocks.Drawing)]


def _svgs(record: ReportRecord) -> list[str]:
    return [figures.svg(chart) for drawing in _drawings(record) for chart in drawing.draw()]
