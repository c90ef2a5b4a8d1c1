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
    RULES,
    numbers,
    study,
    study_many,
    study_plain,
    study_unfinished,
    study_void,
)
from wheeltap.core.report import ReportRecord
from wheeltap.core.study import StudyRecord
from wheeltap.report import Report, cohorts, gate, text
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
        assert " ".join(" ".join(lines).split()).startswith(" ".join(record.headline.split()))
        last = " ".join(" ".join(lines[-15:]).split())
        assert all(finding.verdict in last for finding in record.findings)


def test_the_rules_have_the_effects_of_the_findings() -> None:
    record = study_plain()
    for rule, finding in zip(RULES, record.findings, strict=True):
        first = finding.estimates[0]
        [decided] = [one for one in cohorts.decided(record, the_study(record)) if one.name == rule.title]
        assert decided.word == finding.verdict
        value = decided.value.partition(" ")[0].replace(",", "")
        assert float(value) == pytest.approx(first.value, rel=2e-3, abs=6e-4)


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
    assert page.evaluate("[...document.images].filter(i => !i.complete || !i.naturalWidth).length") == 0
    assert page.locator("#s-every-net").is_visible()
    assert page.locator(".pictures img").count() == 1 and page.locator(".rows img").count() == 2
    assert events == []
    page.close()
