"""The page in a real browser: quiet, self-contained, readable in both themes and on a phone, inert to hostile names."""

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.pages import CONTRAST, MISFITS, UNFOLD, opened
from tests.report.page_cases import many_lines, ten
from tests.report.report_cases import four, shipped, shipped_void, single
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Table
from wheeltap.report import blocks, curves, deployment, dots, drawn, figures, html, sections, shown

THEMES = ("light", "dark")
NAMED = ("hostile", "many_rows", "long_pair", "study_hostile", "sections", "empty")
"""Pages that are hard to fit: long or hostile names, many rows, every kind of block, nothing at all."""
WIDTHS = (400, 1280)


@pytest.mark.browser
@pytest.mark.parametrize("name", ["long_pair", "many_rows", "single", "study"])
def test_a_page_is_quiet_fits_and_can_be_read(browser: Any, pages: dict[str, Path], name: str) -> None:
    """Headline, models and the first row of the table are seen without scrolling; all of it fits a phone."""
    page, events = opened(browser, pages[name], viewport={"width": 1280, "height": 900})
    for part in ("h1", ".asked", "table tbody tr"):
        box = page.locator(part).first.bounding_box()
        assert box is not None and box["y"] + box["height"] <= 900, part
    page.evaluate(UNFOLD)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(MISFITS) == []
    for theme in THEMES:
        page.emulate_media(color_scheme=theme)
        worst = page.evaluate(CONTRAST)
        assert worst[0][0] >= 4.5, (theme, worst)
    assert events == []
    page.close()


@pytest.mark.browser
def test_one_drawing_serves_both_themes(browser: Any, pages: dict[str, Path]) -> None:
    colours = {}
    for theme in THEMES:
        page, _ = opened(browser, pages["single"], color_scheme=theme)
        query = "[...document.querySelectorAll('.chart .mark-line path')].map(p => getComputedStyle(p).stroke)"
        colours[theme] = page.evaluate(query)
        card = page.evaluate("getComputedStyle(document.querySelector('figure')).backgroundColor")
        assert all(_contrast(stroke, card) >= 3 for stroke in colours[theme])
        page.close()
    assert len(colours["light"]) == len(colours["dark"]) >= 1
    assert all(light != dark for light, dark in zip(colours["light"], colours["dark"], strict=True))


def _contrast(first: str, second: str) -> float:
    def luminance(colour: str) -> float:
        shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in shares)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


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


@pytest.mark.browser
def test_is_usable_by_keyboard_on_a_phone_and_prints(browser: Any, pages: dict[str, Path]) -> None:
    page, _ = opened(browser, pages["long_pair"], viewport={"width": 400, "height": 800})
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    summary = page.locator("summary", has=page.get_by_role("heading")).first
    summary.focus()
    page.keyboard.press("Enter")
    assert summary.evaluate("s => s.parentElement.open")
    page.evaluate(UNFOLD)
    assert page.get_by_role("columnheader").count() >= 1  # a table is a table also on a phone
    assert page.get_by_role("rowheader").count() >= 1
    assert page.get_by_role("img").count() == page.locator(".chart:visible").count()
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden() and len(page.pdf(format="A4")) > 10_000
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


@pytest.mark.parametrize("name", NAMED)
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


def test_the_sections_of_a_page_have_an_order_and_each_chart_has_a_label(pages: dict[str, Path]) -> None:
    page = pages["single"].read_text()
    first = ("<h1>", 'class="heads"', 'class="notes"', "<nav")
    titles = ("findings", "score-against-dose", "block-map", "controls", "cost")
    parts = (*first, *(f'id="s-{title}"' for title in titles))
    places = [page.index(part) for part in (*parts, 'id="reading"')]
    assert places == sorted(places)
    labels = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert len(labels) == page.count('class="chart')
    assert html.page(single()).encode() == pages["single"].read_bytes(), "the same record gives the same page"


def test_a_void_page_reassures_nobody(pages: dict[str, Path]) -> None:
    assert 'class="void"' in pages["shipped_void"].read_text()
    calm = figures.TONES["calm"]
    assert calm not in "".join(_svgs(shipped_void())) and calm in "".join(_svgs(shipped()))


def _drawings(record: ReportRecord) -> list[blocks.Drawing]:
    several = [block for part in shown.first(record, page=True) for block in part.blocks]
    return [block for block in several if isinstance(block, blocks.Drawing)]


def _svgs(record: ReportRecord) -> list[str]:
    return [figures.svg(chart) for drawing in _drawings(record) for chart in drawing.draw()]


def test_the_picture_ranks_the_rows_of_the_table() -> None:
    [table] = deployment.lines(shipped())
    lines = dots.ranked(table.lines, paired=False)
    values = [line.effect.value for line in lines if line.effect is not None and line.effect.value is not None]
    assert values == sorted(values, reverse=True)
    assert len(values) == sum(line.effect is not None for line in table.lines)
    drawing = _svgs(shipped())[0]
    places = [drawing.index(f">{line.label}<") for line in lines]
    assert places == sorted(places)
    assert all(line.verdict.word in drawing for line in lines)


def test_a_chart_has_at_most_six_lines_and_the_table_has_all() -> None:
    dosed, matched = drawn.dosed(ten()), drawn.matched(many_lines())
    assert dosed is not None and matched is not None
    for part in (dosed, matched):
        drawing, table = part.blocks
        assert isinstance(drawing, blocks.Drawing) and isinstance(table, Table)
        assert figures.svg(drawing.draw()[0]).count("mark-line") == len(drawing.legend) == curves.MOST_LINES
        assert len(table.rows) == 10
    # The first, and those that lose most.
    assert [one.label for one in dosed.blocks[0].legend] == [subject.name for subject in ten().subjects][:6]  # pyright: ignore


def test_many_pairs_get_a_chart_each_and_many_models_a_table_in_parts() -> None:
    assert len(_drawings(ten())) == 9
    [drawing] = _drawings(four())
    assert [entry.label for entry in drawing.legend] == ["second", "third", "fourth"]
    first = next(block for block in deployment.blocks(ten(), page=True) if isinstance(block, Table))
    parts = sections.table_view(first)["parts"]
    assert [len(part["heads"]) - 1 for part in parts] == [6, 4]
    assert [len(row) - 1 for part in parts for row in part["rows"]] == [6, 6, 6, 4, 4, 4]
