"""The study ``dictionaries``: its rules, what its first line says, its controls; in small, whole."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest

from wheeltap.core.study import Cohort
from wheeltap.stats.members import Single
from wheeltap.studies.rules import require_sound
from wheeltap.studies.table import MemberTable
from wheeltap.suites.dictionaries import studies as own
from wheeltap.suites.dictionaries.studies import EDITS, F1, Dictionaries
from wheeltap.testing.study_contract import StudyContract


@pytest.mark.release
class TestContract(StudyContract):
    study = Dictionaries
    settings: ClassVar[Mapping[str, Any]] = {"net": "digits", "seeds": 4, "steps": 40, "features": 64, "pairs": 40}


def table(values: Mapping[str, Mapping[str, list[float]]]) -> MemberTable:
    """Of cohorts, by metric: members are called after them."""
    cohorts = [own.TRAINED, *(kind for kind in own.ABOUT if kind != "own")]
    count = max(len(column) for columns in values.values() for column in columns.values())
    held: dict[str, dict[str, Single]] = {f"{name} {at + 1}": {} for name in cohorts for at in range(count)}
    for key, columns in values.items():
        for name, column in columns.items():
            for at, value in enumerate(column):
                held[f"{name} {at + 1}"][key] = Single(value)
    made = tuple(Cohort(name=name, members=tuple(f"{name} {at + 1}" for at in range(count))) for name in cohorts)
    return MemberTable(cohorts=made, metrics=Dictionaries({}).metrics(), numbers=held, lost={})


def around(value: float, *, spread: float = 0.01, seed: int = 0) -> list[float]:
    return [*(value + spread * np.random.default_rng(seed).standard_normal(8))]


@pytest.mark.parametrize("settings", [{}, dict(Dictionaries.sized("small")), {"net": "smollm2"}])
def test_every_cohort_stands_beside_the_trained_one_and_rules_can_be_decided(settings: dict[str, Any]) -> None:
    study = Dictionaries(settings)
    require_sound(study.spec(), alpha=0.05)
    cohorts = {cohort.name: cohort for cohort in study.cast()}
    assert set(cohorts) == {own.NET, own.TRAINED, *(kind for kind in own.ABOUT if kind != "own")}
    assert {len(one.members) for name, one in cohorts.items() if name != own.NET} == {study.settings.seeds}
    for at, member in enumerate(cohorts["random"].members):
        twin = cohorts[own.TRAINED].members[at]
        assert (member.seed, member.of) == (twin.seed, twin.of) and member.settings["entries"] == "own,random"


def test_a_lead_no_larger_than_a_reseed_is_said_so() -> None:
    same = {own.TRAINED: around(0.6), "reseed": around(0.6, seed=1), "frozen decoder": around(0.605, seed=2),
            "random": around(0.2, seed=3), "soft-frozen decoder": around(0.6, seed=4)}  # fmt: skip
    small = {(one.key, one.null): one.small for one in own.leads(table({F1: same}))}
    assert small == {(F1, "frozen decoder"): True, (F1, "random"): False, (F1, "soft-frozen decoder"): True}
    said = Dictionaries({}).said(None, table({F1: same}), []).headline  # type: ignore[arg-type]
    assert "No larger than a reseed's noise: F1 of features over frozen decoder, soft-frozen decoder." in said


def test_edits_by_supervised_codes_must_be_found() -> None:
    def status(codes: list[float], random: list[float]) -> str:
        return own.supervised(table({EDITS: {"mean codes": codes, "random": random}})).status

    assert status(around(0.9), around(0.2, seed=1)) == "passed"
    assert status(around(0.2), around(0.2, seed=1)) == "failed"
    assert status(around(0.3, spread=0.2), around(0.2, spread=0.2, seed=1)) == "skipped"
    assert status([0.9], [0.1]) == "skipped"
