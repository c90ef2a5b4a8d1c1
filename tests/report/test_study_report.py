"""A study in the terminal, for other programs and in a real browser: its answer, its rules and its numbers."""

from importlib.util import find_spec

import msgspec
import numpy as np
import pytest
from defusedxml import ElementTree

from tests.report.study_cases import (
    COHORTS,
    LOST,
    RULES,
    numbers,
    study,
    study_plain,
    study_void,
)
from wheeltap.core.report import ReportRecord
from wheeltap.core.study import StudyRecord
from wheeltap.report import Report, cohorts, gate
from wheeltap.report.junit import junit


def the_study(record: ReportRecord) -> StudyRecord:
    assert record.study is not None
    return record.study


# ---- terminal -------------------------------------------------------------------------------------------------


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
    assert found["abs-x-vs-sgd/WT206/verdict"] == 0.0  # four against six nets exclude nothing
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
