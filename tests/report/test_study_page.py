"""The page of a study in a real browser: rules and verdicts first, a ring for every net, pictures, the explorer."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.report.study_cases import (
    COHORTS,
    METRICS,
    RULES,
    STUDIES,
    numbers,
    study,
    study_many,
    study_plain,
    study_void,
)
from wheeltap.core.report import ReportRecord
from wheeltap.report import Report, figures, html, shown
from wheeltap.report.blocks import Drawing


def _open(browser: Any, folder: Path, name: str, **settings: Any) -> tuple[Any, list[str]]:
    path = Report(STUDIES[name]()).html(folder / f"{name}.html")
    page, events = browser.new_page(**settings), list[str]()
    page.on("console", lambda message: events.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: events.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (events.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda one: events.append(one.url) if not one.url.startswith(("file:", "data:", "blob:")) else 0)
    page.goto(path.as_uri())
    return page, events


@pytest.mark.browser
def test_the_answer_and_every_verdict_are_seen_without_scrolling(browser: Any, tmp_path: Path) -> None:
    page, _ = _open(browser, tmp_path, "study", viewport={"width": 1280, "height": 900})
    rows = page.locator(".first table").first.locator("tbody tr")
    assert rows.count() == len(RULES)
    for at, finding in enumerate(study().findings):
        row = rows.nth(at)
        assert finding.verdict in row.inner_text()
        assert row.bounding_box()["y"] + row.bounding_box()["height"] <= 900
    assert page.locator("h1").inner_text().startswith("Weights of the composed net")
    assert page.locator("thead tr th:first-child").all_inner_texts()[:2] == ["Rule", "Metric"]
    page.close()


@pytest.mark.browser
def test_pictures_load(browser: Any, tmp_path: Path) -> None:
    page, events = _open(browser, tmp_path, "study", viewport={"width": 400, "height": 800})
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.locator("#s-every-net").is_visible() and page.get_by_text("left out sgd 5 (sgd)").is_visible()
    assert page.locator(".pictures img").count() == 1 and page.locator(".rows img").count() == 2
    assert events == []
    page.close()


@pytest.mark.browser
def test_names_stay_text(browser: Any, tmp_path: Path) -> None:
    page, events = _open(browser, tmp_path, "study_hostile")
    assert events == []
    assert page.evaluate("document.querySelectorAll('[onerror], [onload], [onclick], iframe, object').length") == 0
    assert page.evaluate("[...document.images].filter(i => !i.src.startsWith('data:image/png')).length") == 0
    assert "{{ 7*7 }}" in page.inner_text("main") and "<script>alert(1)</script>" in page.inner_text("main")
    page.close()


@pytest.mark.browser
def test_everything_is_reached_by_keyboard(browser: Any, tmp_path: Path) -> None:
    page, _ = _open(browser, tmp_path, "study_plain")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for heading in ("Rules", "Controls", "How to read this"):
        summary = page.locator("summary", has=page.get_by_role("heading", name=heading, exact=True))
        summary.focus()
        page.keyboard.press("Enter")
        assert summary.evaluate("s => s.parentElement.open"), heading
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    page.close()


def _charts(record: ReportRecord) -> list[Drawing]:
    [part] = shown.first(record, page=True)
    return [block for block in part.blocks if isinstance(block, Drawing)]


def test_a_chart_has_a_ring_for_each_net_and_a_row_for_each_cohort() -> None:
    charts, held = _charts(study_plain()), numbers()
    assert {chart.title for chart in charts} == {metric.title for metric in METRICS}
    for chart in charts:
        [key] = [metric.key for metric in METRICS if metric.title == chart.title]
        rings = sum(key in held.get(name, {}) for cohort in COHORTS[1:] for name in cohort.members)
        marks = re.findall(r'class="mark-symbol role-mark[^"]*"[^>]*>(.*?)</g>', figures.svg(chart.draw()[0]))
        assert sum(group.count("<path") for group in marks) == rings + len(COHORTS)
        assert all(f"{cohort.name}: " in chart.alt for cohort in COHORTS)


def test_at_most_six_charts_of_at_most_six_cohorts_and_the_table_has_all() -> None:
    record = study_many()
    assert record.study is not None
    more = tuple(
        msgspec.structs.replace(row, metric=msgspec.structs.replace(row.metric, key=f"{i}", title=f"metric {i}"))
        for i, row in enumerate(record.study.rows * 2)
    )
    full = msgspec.structs.replace(record.study, rows=(*record.study.rows, *more))
    charts = _charts(msgspec.structs.replace(record, study=full))
    assert len(charts) == 6 and all(chart.alt.count("]") <= 6 for chart in charts)
    page = html.page(msgspec.structs.replace(record, study=full))
    assert "Not drawn, but in the tables: 9 metrics and 3 cohorts" in page
    assert all(f"metric {i}<" in page or f"metric {i} <" in page for i in range(10))


def test_pictures_need_no_script() -> None:
    plain, drawn = html.page(study_plain()), html.page(study())
    assert "<script" not in plain + drawn and "script-src" not in plain + drawn
    for word in ("Pictures", "Weights moved"):
        assert (f">{word}</h2>" in plain, f">{word}</h2>" in drawn) == (False, True)


def test_the_page_of_a_study_has_nothing_of_one_model() -> None:
    page = html.page(study_plain())
    for words in ('class="heads"', "weights covered", "Surviving these disturbances", "Score against dose"):
        assert words not in page
    for line in ("One net is compared", "By symmetry alone", "It cannot be told from these nets."):
        assert line in page


def test_rules_stand_on_the_page_as_they_were_fixed() -> None:
    page = html.page(study()).replace("\u00a0", " ")
    for rule in RULES:
        assert not rule.supports or f"If found: {rule.supports}".replace("'", "&#39;") in page
        assert not rule.refutes or f"If excluded: {rule.refutes}" in page
    assert "It counts if" in page


def test_a_void_page_keeps_the_numbers_and_no_verdict() -> None:
    page = html.page(study_void())
    assert 'class="void"' in page and "Failed: a copy has the same numbers." in page
    assert not re.search(r'class="tone [a-z]+">(found|excluded|maybe|cannot tell)<', page)
