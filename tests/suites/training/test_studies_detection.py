"""The study ``detection``: planted defects are found and sound copies are not; its contract, rules and controls."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

import wheeltap as wt
from wheeltap.audits.case import Case
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.study import Cohort
from wheeltap.plans.defects import DEFECTS, SOUND, USUAL
from wheeltap.runs.request import StudyRequest
from wheeltap.runs.studying import planned
from wheeltap.stats.members import Single
from wheeltap.studies.rules import require_sound
from wheeltap.studies.table import MemberTable
from wheeltap.suites.training.studies import detection as own
from wheeltap.suites.training.studies.detection import Detection, Plant
from wheeltap.testing.study_contract import ALPHA, StudyContract

STRONG, WEAK = Plant("cancel", 16), Plant("cancel", 1)
NO_LOOK = ("WT001", "WT701", "WT102")
"""Codes that cannot see what leaves the function as it is."""


def shares(record: ReportRecord, key: str) -> dict[str, float]:
    """Mean of a metric of 0 and 1 in each cohort."""
    assert record.study is not None
    rows = {row.metric.key: row for row in record.study.rows}
    return {row.cohort: sum(row.values) / len(row.values) for row in rows[key].cohorts}


@pytest.mark.release
class TestContract(StudyContract):
    study = Detection
    settings: ClassVar[dict[str, Any]] = {"model": "digits", "defects": "cancel", "strengths": "16,1", "copies": 2}
    effort = wt.Effort(draws=32, control_draws=8)

    def test_what_is_planted_is_found_and_sound_copies_are_not_called_different(self, folder: Path) -> None:
        record = self.run(folder).record
        assert not record.void
        for code in ("WT101", "WT201"):
            found = shares(record, own.found_key(code))
            assert (found[str(STRONG)], found[str(WEAK)], found[own.COPIES]) == (1.0, 0.0, 0.0), code
        for code in NO_LOOK:
            assert not any(shares(record, own.found_key(code)).values()), code
        got = shares(record, own.ANY)
        assert got[str(STRONG)] == 1.0 and got[own.COPIES] == 0.0
        assert all(value == 0.0 for value in shares(record, "WT001").values())

    def test_its_controls_pass(self, folder: Path) -> None:
        status = {control.name: control.status for control in self.run(folder).record.controls}
        assert status["every copy computes what its original computes"] == "passed"
        assert status["a planted defect is found"] == "passed"

    def test_disturbed_inputs_are_given_as_many_passes_as_any_weights(self) -> None:
        for draws in (2, 64):
            plan = planned(self.made(), StudyRequest(effort=wt.Effort(draws=draws))).plan
            study = Detection(dict(self.settings))
            pair = study.pair(Case(plan, lambda _: None), plan.subjects[-1])
            assert pair is not None
            _, shift, *weights = study.compared(pair.plan).made()
            inputs = 2 * own.SHIFT_PASSES * shift.settings.shift_draws
            assert inputs >= max(audit.most_passes(pair.plan) for audit in weights)


def test_rules_that_are_judged_can_be_decided() -> None:
    """At either size; with few copies only false alarms are counted, as ``doctor --plant`` does."""
    for settings in ({}, Detection.sized("small"), {"copies": 2}, {"copies": 12, "shift": False, "strengths": "all"}):
        spec = Detection(dict(settings)).spec()
        require_sound(spec, alpha=ALPHA)
        added = [rule for rule in spec.rules if rule.statistic == "added"]
        assert bool(added) == (settings.get("copies", 24) >= own.FEWEST)
        for rule in added:
            assert rule.within and rule.cohorts[1] == own.COPIES and rule.margin == 0.02
            assert rule.beyond == (("WT001",) if settings.get("shift") is False else ("WT001", "WT701"))
            assert rule.cohorts[0] in {str(Plant(name, DEFECTS[name].middle)) for name in USUAL}


def test_each_copy_is_of_a_net_of_its_own_where_no_model_is_named() -> None:
    cast = {cohort.name: cohort for cohort in Detection({"copies": 3, "defects": "cancel"}).cast()}
    assert [one.of for one in cast["cancel 4"].members] == [("net 1",), ("net 2",), ("net 3",)]
    assert [one.of for one in cast[own.COPIES].members] == [("net 1",), ("net 2",), ("net 3",)]
    assert len({one.seed for one in cast[own.BASES].members}) == 3
    assert cast[own.COPIES].role == "null" and cast["cancel 4"].role == "planted"


@pytest.mark.parametrize(
    "settings", [{"defects": "cancle"}, {"defects": " , "}, {"strengths": "some"}, {"data": "x.npz"}, {"copies": 1}]
)
def test_what_cannot_be_used_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises((UsageError, UnknownName)):
        Detection(settings)


def table(**members: dict[str, float]) -> MemberTable:
    """Of one net in each cohort."""
    metrics = Detection({"defects": "cancel"}).metrics()
    cohorts = tuple(Cohort(name=name.replace("_", " "), members=(name,)) for name in members)
    numbers = {name: {key: Single(value) for key, value in some.items()} for name, some in members.items()}
    return MemberTable(cohorts=cohorts, metrics=metrics, numbers=numbers, lost={})


def test_a_copy_that_computes_something_else_voids_the_study() -> None:
    both = table(cancel_16={own.SAME: 1.0}, sound_copies={own.SAME: 1.0})
    assert own.same_function(both).status == "passed"
    assert own.same_function(table(cancel_16={own.SAME: 0.0}, sound_copies={own.SAME: 1.0})).status == "failed"
    assert own.same_function(table(originals={own.SCORE: 0.9})).status == "skipped"


@pytest.mark.parametrize(("hits", "status"), [(10, "passed"), (9, "skipped"), (2, "failed")])
def test_the_strongest_plant_must_be_found(hits: int, status: str) -> None:
    """Of 12: a run fails where that is shown, not where 9 were found of a defect that is found four times in five."""
    names = [f"c{at}" for at in range(12)]
    cohorts = tuple(Cohort(name=str(one), members=tuple(f"{one}{name}" for name in names)) for one in (WEAK, STRONG))
    found = {str(WEAK): 12 - hits, str(STRONG): hits}
    numbers = {
        f"{one}{name}": {own.ANY: Single(float(at < found[str(one)]))}
        for one in (WEAK, STRONG) for at, name in enumerate(names)
    }  # fmt: skip
    held = MemberTable(cohorts=cohorts, metrics=Detection({"defects": "cancel"}).metrics(), numbers=numbers, lost={})
    assert own.plants_found(held, [WEAK, STRONG]).status == status
    assert own.plants_found(table(sound_copies={own.ANY: 0.0}), []).status == "skipped"


def test_what_rounding_makes_of_a_difference_is_none() -> None:
    """Or a copy with one unit more would be known from others by the order of its sums."""
    estimate = Estimate.exact("gap", 0.0, "", n=1)
    finding = Finding(code="WT202", title="", status="excluded", subject="a vs b", estimates=(estimate,), margin=0.4)
    assert own.to_the_grain(Single(-1.1e-7), finding).value == 0.0
    assert own.to_the_grain(Single(0.0243), finding).value == pytest.approx(0.024)
    assert own.to_the_grain(Single(-1.1e-7), Finding(code="x", title="", status="found", subject="")).value == -1.1e-7


def test_sound_copies_are_counted_where_nothing_is_planted() -> None:
    assert [cast.name for cast in Detection({"defects": SOUND}).cast()] == [own.BASES, own.COPIES]
