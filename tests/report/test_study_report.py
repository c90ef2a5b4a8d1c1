"""A study in the terminal, for other programs and in a real browser: its answer, its rules and its numbers."""

import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from defusedxml import ElementTree
from rich.console import Console

from tests.pages import opened
from tests.report.study_cases import (
    COHORTS,
    LOST,
    METRICS,
    RULES,
    numbers,
    study,
    study_many,
    study_plain,
    study_unfinished,
    study_void,
)
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Cell
from wheeltap.core.study import Direction, Statistic, StudyRecord
from wheeltap.report import Report, cohorts, figures, gate, html, shown, text, words
from wheeltap.report.blocks import Drawing
from wheeltap.report.junit import junit

INTERVAL = re.compile(r"-?[\d.,]+ \[[^\]]*\]")


def printed(record: ReportRecord, *, width: int = 100, full: bool = False) -> list[str]:
    buffer = io.StringIO()
    console = Console(file=buffer, width=width, color_system=None, highlight=False, markup=False, emoji=False)
    text.write(record, console, full=full)
    return [line.rstrip() for line in buffer.getvalue().splitlines()]


def the_study(record: ReportRecord) -> StudyRecord:
    assert record.study is not None
    return record.study


# ---- terminal -------------------------------------------------------------------------------------------------


def test_the_first_screen_has_the_answer_first_and_every_verdict_in_its_last_lines() -> None:
    for record in (study(), study_plain(), study_many(), study_unfinished()):
        lines = printed(record)
        assert len(lines) <= 40
        said = " ".join(" ".join(lines).split())
        assert said.startswith(" ".join(record.headline.split())) and "sgd 5 (Its training diverged)" in said
        last = " ".join(" ".join(lines[-15:]).split())
        assert all(finding.verdict in last for finding in record.findings)


def test_many_cohorts_are_rows_of_the_first_screen_and_no_net_is_a_model() -> None:
    record = study_many()
    for width in (80, 100):
        lines, held = printed(record, width=width), the_study(record)
        assert len(lines) <= 40
        metric = next(row for row in held.rows if row.metric.key == RULES[0].metric)
        for cohort in COHORTS:  # those that rules are about
            [line] = [line for line in lines if re.match(rf"{re.escape(cohort.name)}  +\d", line)]
            [own] = [one for one in metric.cohorts if one.cohort == cohort.name]
            assert words.parts(own.mean)[0] in line
        said = " ".join(" ".join(lines).split())
        names = (*(f"{one.name}  " for one in COHORTS), "trained with ")
        left = len(held.cohorts) - sum(line.startswith(names) for line in lines)
        assert f"and {left} more: --full" in said and "3 more metrics with --full" in said
        whole = " ".join(" ".join(printed(record, width=width, full=True)).split())
        assert all(cohort.name in whole for cohort in held.cohorts)
        for word in ("weights covered", "passing does not make a network", "Left alone", "parameters", "also asked"):
            assert word not in said
        assert "sam 3.2" not in said and "41 nets in 9 cohorts (1 left out)" in said


def test_nobody_is_left_out_of_a_study_that_is_not_over() -> None:
    said = " ".join(printed(study_unfinished()))
    assert "Left out" not in said and "(1 without their numbers so far)" in said
    assert "Without their numbers so far: sgd 5 (Its training diverged)." in said


def test_the_table_has_the_means_of_the_nets() -> None:
    """Against plain means of the members' numbers."""
    lines, held = printed(study_plain()), numbers()
    for metric in METRICS:
        if len(metric.title) > 30:
            continue
        [line] = [line for line in lines if line.startswith(metric.title) and INTERVAL.search(line)]
        found = [float(value.split(" ")[0].replace(",", "")) for value in INTERVAL.findall(line)]
        for value, cohort in zip(found, COHORTS, strict=True):
            own = [held[name][metric.key].value for name in cohort.members if metric.key in held.get(name, {})]
            assert value == pytest.approx(np.mean(own), rel=2e-3)


def test_the_rules_have_the_effects_of_the_findings() -> None:
    record = study_plain()
    said = " ".join(" ".join(printed(record, width=200)).split())
    for rule, finding in zip(RULES, record.findings, strict=True):
        first = finding.estimates[0]
        [decided] = [one for one in cohorts.decided(record, the_study(record)) if one.name == rule.title]
        assert decided.word == finding.verdict
        value = decided.value.partition(" ")[0].replace(",", "")
        assert float(value) == pytest.approx(first.value, rel=2e-3, abs=6e-4)
        assert f"{decided.value} {decided.counts} {decided.word}" in said and f" {decided.least}" in said


def test_every_width_says_what_could_have_been_found() -> None:
    for width in (60, 80, 100):
        said = " ".join(printed(study_plain(), width=width))
        for finding in study_plain().findings:
            assert finding.smallest_detectable is not None
            assert f" {words.number(finding.smallest_detectable)}" in said


def test_a_rule_says_from_where_on_it_counts() -> None:
    counts = {one.name: one.counts for one in cohorts.decided(study(), the_study(study()))}
    own = numbers()
    trained = np.mean([own[name]["maps"].value for name in COHORTS[1].members if name not in LOST])
    below = counts["Distinct feature maps"].removeprefix("below -")
    assert float(below) == pytest.approx(0.1 * trained, rel=1e-3)
    assert counts["Symmetry of response: face is not one of sgd"] == "above 0.050"
    assert counts["Symmetry under noise"] == "beyond ±0.050"


def test_a_margin_is_a_distance_from_no_effect() -> None:
    held, bare = the_study(study()), msgspec.structs.replace(study(), findings=())
    margins: dict[tuple[Statistic, Direction], str] = {
        ("ratio", "more"): "above 1.250", ("auc", "less"): "below 0.250", ("exact", "either"): "not in 0.050 to 0.550",
        ("paired", "less"): "below -0.250",
    }  # fmt: skip
    for (statistic, direction), said in margins.items():
        rule = msgspec.structs.replace(RULES[0], statistic=statistic, direction=direction, margin=0.25, share=0.3)
        [one] = cohorts.decided(bare, msgspec.structs.replace(held, rules=(rule,)))
        assert (one.counts, one.word) == (said, "not judged")
    # Of a metric that is compared by ratios, it is one of a ratio.
    log = [msgspec.structs.replace(r, metric=msgspec.structs.replace(r.metric, log=True)) for r in held.rows]
    rule = msgspec.structs.replace(RULES[0], direction="either", margin=0.2)
    [one] = cohorts.decided(bare, msgspec.structs.replace(held, rules=(rule,), rows=tuple(log)))
    assert one.counts == "not in 0.800 to 1.200"
    assert one.asks == "symmetry of response: ratio of face to the geometric mean of sgd"


def test_asked_for_it_shows_everything() -> None:
    record, said = study(), " ".join(" ".join(printed(study(), width=400, full=True)).split())
    held = the_study(record)
    assert all(re.search(rf"{member.name}( \(.*?\))? +{member.cohort}", said) for member in held.members)
    assert all(line in said for line in (*held.notes, *held.caveats, held.question, held.about))
    assert all(f"If found: {rule.supports}" in said for rule in held.rules if rule.supports)
    assert all(control.name in said for control in record.controls)
    assert all(cohort.about in said for cohort in held.cohorts)
    assert "Surviving these disturbances" not in said


def test_a_void_study_says_nothing_but_that() -> None:
    lines = printed(study_void())
    assert lines[0].startswith("VOID")
    assert not re.search(r"\b(found|excluded|maybe|cannot tell)\b", "\n".join(lines[6:]))
    assert gate.exit_code(study_void(), "costs") == gate.VOID


def test_a_notebook_shows_rules_and_metrics() -> None:
    said = html.fragment(study()).replace("\u00a0", " ")
    held = the_study(study())
    for table in (cohorts.rules_table(study(), held), cohorts.metrics_table(held, place="first")):
        cells = [cell for row in table.rows for cell in row if isinstance(cell, Cell)]
        assert cells and all(word in said for cell in cells for word in (*cell.number.split(" ", 1), cell.word))
    assert "class=" not in said
    assert repr(Report(study())).startswith("Weights of the composed net")


# ---- other programs -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not any(map(find_spec, ("polars", "pandas", "pyarrow"))), reason="needs a library for tables")
def test_the_frame_has_one_row_for_each_net_and_metric() -> None:
    import narwhals as nw

    frame = nw.from_native(Report(study()).frame(), eager_only=True)
    rows = list(frame.iter_rows(named=True))
    got = {(row["member"], row["metric"]): row["value"] for row in rows if row["metric"] is not None}
    assert got == {(name, key): one.value for name, own in numbers().items() for key, one in own.items()}
    [lost] = [row for row in rows if row["metric"] is None]
    assert (lost["member"], lost["status"], lost["because"]) == ("sgd 5", "left out", LOST["sgd 5"])
    assert {row["cohort"]: row["role"] for row in rows} == {cohort.name: cohort.role for cohort in COHORTS}


def test_scalars_have_the_means_and_the_verdicts() -> None:
    found, own = Report(study()).scalars(), numbers()
    trained = [own[name]["maps"].value for name in COHORTS[1].members if name not in LOST]
    assert found["sgd/maps"] == pytest.approx(np.mean(trained))
    assert found["sgd/maps_low"] < found["sgd/maps"] < found["sgd/maps_high"]
    assert found["face-vs-sgd/WT204/verdict"] == 1.0
    assert found["abs-x-vs-sgd/WT206/verdict"] == -1.0
    assert found["passed"] == 1.0 and "coverage" not in found
    assert set(Report(study_void()).scalars()) == {"passed"}


def test_junit_has_a_test_for_each_rule_and_is_red_where_the_gate_is() -> None:
    record = study()
    suite = ElementTree.fromstring(junit(record, "costs"))
    assert [test.get("name") for test in suite] == [rule.title for rule in RULES]
    assert suite.get("failures") == "0" and gate.exit_code(record, "costs") == gate.PASSED
    alarmed = tuple(
        msgspec.structs.replace(one, status="found", verdict="found") if one.alarm else one for one in record.findings
    )
    bad = msgspec.structs.replace(record, findings=alarmed)
    assert ElementTree.fromstring(junit(bad, "costs")).get("failures") == "1"
    assert gate.exit_code(bad, "costs") == gate.FAILED


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
    for line in ('class="heads"', "weights covered", "Surviving these disturbances", "Score against dose"):
        assert line not in plain
    for line in ("One net is compared", "By symmetry alone", "It counts if"):
        assert line in plain
    for rule in RULES:
        assert not rule.supports or f"If found: {rule.supports}".replace("'", "&#39;") in drawn
        assert not rule.refutes or f"If excluded: {rule.refutes}" in drawn
    void = pages["study_void"].read_text()
    assert 'class="void"' in void and "Failed: a copy has the same numbers." in void
    assert not re.search(r'class="tone [a-z]+">(found|excluded|maybe|cannot tell)<', void)
