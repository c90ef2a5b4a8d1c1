"""The study ``decodable-shift`` in small, whole: its contract, its controls, and numbers whose answer was built."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

import wheeltap as wt
from wheeltap.core.records import Control
from wheeltap.core.report import ReportRecord
from wheeltap.core.study import Cohort
from wheeltap.stats.members import Single
from wheeltap.studies.table import MemberTable
from wheeltap.suites.decodable import studies as own
from wheeltap.suites.decodable.studies import CANCELING, RECODED, DecodableShift
from wheeltap.testing.study_contract import StudyContract

SMALL: dict[str, Any] = {"seeds": 2, "control_seeds": 1, "units": 6, "examples": 2000, "epochs": 15, "draws": 8}


@pytest.mark.release
class TestContract(StudyContract):
    study = DecodableShift
    settings: ClassVar[dict[str, Any]] = SMALL

    def record(self, folder: Path) -> ReportRecord:
        return self.run(folder).record

    def test_controls_that_can_be_read_with_so_few_nets_pass(self, folder: Path) -> None:
        status = {control.name: control.status for control in self.record(folder).controls}
        assert "failed" not in status.values()
        for name in (
            "canceling units are found", "disorganization is seen where it was built",
            f"{RECODED} copies have the same numbers",
        ):  # fmt: skip
            assert status[name] == "passed", name

    def test_what_was_built_is_measured(self, folder: Path) -> None:
        found = numbers(self.record(folder))
        spread = found[own.SPREAD]
        assert spread[own.MODULES] == pytest.approx([1.0] * 2, abs=1e-6)
        assert min(spread[own.MIXED]) > max(spread[own.GUIDED]) > 1.0
        assert spread[RECODED] == pytest.approx(spread[own.MODULES][:1], abs=1e-6)
        assert found[own.SHIFT][RECODED] == pytest.approx(found[own.SHIFT][own.MODULES][:1], abs=0.005)
        assert found[own.RELATIVE][CANCELING][0] > found[own.RELATIVE][own.MODULES][0] + 0.1
        # All numbers of a cohort are there.
        for key, cohorts in found.items():
            assert {name: len(values) for name, values in cohorts.items()} == {
                **dict.fromkeys((*own.TRAINED, own.COPIED), 2), RECODED: 1, CANCELING: 1
            }, key  # fmt: skip

    def test_every_rule_has_its_finding_with_what_could_be_detected(self, folder: Path) -> None:
        findings = self.record(folder).findings
        assert [one.title for one in findings] == [rule.title for rule in DecodableShift({}).rules()]
        for finding in findings:
            assert finding.status in ("found", "excluded", "inconclusive")
            assert finding.estimates[0].n == (10 if " goes with " in finding.title else 2)


def numbers(record: ReportRecord) -> dict[str, dict[str, tuple[float, ...]]]:
    assert record.study is not None
    return {row.metric.key: {one.cohort: one.values for one in row.cohorts} for row in record.study.rows}


def table(values: Mapping[str, Mapping[str, list[float]]]) -> MemberTable:
    """Of cohorts, by metric: members are called after them."""
    cohorts = {name: len(column) for columns in values.values() for name, column in columns.items()}
    held: dict[str, dict[str, Single]] = {f"{name} {at + 1}": {} for name, n in cohorts.items() for at in range(n)}
    for key, columns in values.items():
        for name, column in columns.items():
            for at, value in enumerate(column):
                held[f"{name} {at + 1}"][key] = Single(value)
    made = tuple(Cohort(name=name, members=tuple(f"{name} {at + 1}" for at in range(n))) for name, n in cohorts.items())
    return MemberTable(cohorts=made, metrics=DecodableShift({}).metrics(), numbers=held, lost={})


def test_a_copy_that_is_not_the_same_fails() -> None:
    same = {own.SPREAD: {own.MODULES: [1.0, 1.0], RECODED: [1.0]}, own.SHIFT: {own.MODULES: [0.3, 0.4], RECODED: [0.3]}}
    assert own.alike(table(same)).status == "passed"
    other = {**same, own.SHIFT: {own.MODULES: [0.3, 0.4], RECODED: [0.4]}}
    assert own.alike(table(other)).status == "failed"


def test_a_number_that_does_not_see_the_wiring_fails() -> None:
    def control(modules: list[float], mixed: list[float]) -> Control:
        return own.wiring(table({own.SPREAD: {own.MODULES: modules, own.MIXED: mixed}}))

    assert control([1.0, 1.0], [2.0, 1.2]).status == "passed"
    assert control([1.0, 1.0], [2.0, 1.0]).status == "failed"
    assert control([1.0, 1.3], [2.0, 2.0]).status == "failed"


def test_nets_that_score_otherwise_are_named_and_stay() -> None:
    scores = {name: [0.97, 0.98, 0.975] for name in own.TRAINED}
    assert own.equal_scores(table({own.SCORE: scores})).status == "passed"
    found = own.equal_scores(table({own.SCORE: {**scores, own.MIXED: [0.97, 0.91, 0.98]}}))
    assert found.status == "skipped" and "mixed 2" in found.because
    assert found.estimates[0].value == 1.0


def test_the_sizes_are_sound() -> None:
    from wheeltap.studies.rules import require_sound

    for size in ("small", "full"):
        require_sound(DecodableShift(DecodableShift.sized(size)).spec(), alpha=0.05)
    assert len({msgspec.json.encode(rule) for rule in DecodableShift({}).rules()}) == 8


def test_nets_that_paint_are_made_and_measured_by_the_same_rules(tmp_path: Path) -> None:
    """Two nets of a kind: every number is there, and what was built is measured."""
    given = {**SMALL, "on": "pictures", "units": 2, "examples": 300, "epochs": 3, "draws": 2}
    record = wt.study("decodable-shift", settings=given, store=tmp_path / "s.wheeltap").record
    found, status = numbers(record), {control.name: control.status for control in record.controls}
    assert set(found) == {metric.key for metric in DecodableShift({}).metrics()}
    assert found[own.SPREAD][own.MODULES] == pytest.approx([1.0] * 2, abs=1e-6)
    assert status["disorganization is seen where it was built"] == "passed"
    assert status[f"{RECODED} copies have the same numbers"] == "passed"
    assert [one.title for one in record.findings] == [rule.title for rule in DecodableShift({}).rules()]
