"""The page of a study in a real browser: rules and verdicts first, a ring for every net, pictures, the explorer."""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.pages import opened
from tests.report.study_cases import COHORTS, METRICS, RULES, numbers, study, study_many, study_plain
from wheeltap.core.report import ReportRecord
from wheeltap.report import figures, html, shown
from wheeltap.report.blocks import Drawing


@pytest.mark.browser
def test_the_answer_and_every_verdict_are_seen_without_scrolling_and_pictures_load(
    browser: Any, pages: dict[str, Path]
) -> None:
    page, events = opened(browser, pages["study"], viewport={"width": 1280, "height": 900})
    rows = page.locator(".first table").first.locator("tbody tr")
    assert rows.count() == len(RULES)
    for at, finding in enumerate(study().findings):
        row = rows.nth(at)
        assert finding.verdict in row.inner_text()
        assert row.bounding_box()["y"] + row.bounding_box()["height"] <= 900
    assert page.locator("h1").inner_text().startswith("Weights of the composed net")
    assert page.locator("thead tr th:first-child").all_inner_texts()[:2] == ["Rule", "Metric"]
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert page.locator("#s-every-net").is_visible() and page.get_by_text("left out sgd 5 (sgd)").is_visible()
    assert page.locator(".pictures img").count() == 1 and page.locator(".rows img").count() == 2
    assert events == []
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


def test_the_page_of_a_study_is_about_kinds_of_nets_and_needs_no_script(pages: dict[str, Path]) -> None:
    plain, drawn = (pages[name].read_text().replace("\u00a0", " ") for name in ("study_plain", "study"))
    assert "<script" not in plain + drawn and "script-src" not in plain + drawn
    for word in ("Pictures", "Weights moved"):
        assert (f">{word}</h2>" in plain, f">{word}</h2>" in drawn) == (False, True)
    for words in ('class="heads"', "weights covered", "Surviving these disturbances", "Score against dose"):
        assert words not in plain
    for line in ("One net is compared", "By symmetry alone", "It cannot be told from these nets.", "It counts if"):
        assert line in plain
    for rule in RULES:
        assert not rule.supports or f"If found: {rule.supports}".replace("'", "&#39;") in drawn
        assert not rule.refutes or f"If excluded: {rule.refutes}" in drawn
    void = pages["study_void"].read_text()
    assert 'class="void"' in void and "Failed: a copy has the same numbers." in void
    assert not re.search(r'class="tone [a-z]+">(found|excluded|maybe|cannot tell)<', void)
