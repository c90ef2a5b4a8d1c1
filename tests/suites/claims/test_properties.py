"""The study ``properties``: its rules, what it computes of all nets together, and a whole run (before a release)."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from wheeltap.core.errors import UnknownName
from wheeltap.core.records import Estimate
from wheeltap.core.study import Cohort
from wheeltap.stats.held_out import halvings, r2_of
from wheeltap.stats.members import Single
from wheeltap.studies.rules import draft, require_sound
from wheeltap.studies.table import MemberTable
from wheeltap.suites.claims.studies import properties as own
from wheeltap.suites.claims.studies.properties import Properties
from wheeltap.testing.study_contract import StudyContract


@pytest.mark.release
class TestContract(StudyContract):
    study = Properties
    settings: ClassVar[dict[str, Any]] = {"properties": "robust", "seeds": 5}

    def test_what_is_kept_is_what_the_weights_keep(self, folder: Path) -> None:
        """Strong noise and dropout in training: more is kept under noise, in every pair."""
        study = self.run(folder).record.study
        assert study is not None
        [row] = [row for row in study.rows if row.metric.key == own.kept(own.NOISE)]
        robust, plain = (np.array(one.values) for one in row.cohorts)
        assert (robust > plain).all()


def test_the_sizes_are_sound_and_every_property_meets_adamw() -> None:
    for on in ("digits", "strokes", "text"):
        for size in ("small", "full"):
            study = Properties({**Properties.sized(size), "on": on})
            require_sound(study.spec(), alpha=0.05 / 15)
            against = {rule.cohorts for rule in study.rules() if rule.statistic == "paired"}
            assert against == {(own.PROPERTIES[name].name, own.PLAIN) for name in study.settings.named}
    with pytest.raises(UnknownName):
        Properties({"properties": "sam,luck"})


def test_members_are_paired_by_seed() -> None:
    """Nets at the same place start alike; those of the control are of other seeds."""
    cast = {one.name: one.members for one in Properties({"properties": "sam,copy", "seeds": 3}).cast()}
    seeds = {name: [one.seed for one in members] for name, members in cast.items()}
    assert seeds["SAM"] == seeds[own.PLAIN]
    assert not set(seeds["AdamW again"]) & set(seeds[own.PLAIN])


# ---- planted numbers ------------------------------------------------------------------------------------------------

SEEDS = 10


def table(effect: float, *, slope: float = 0.0, apart: float = 0.0, seeds: int = SEEDS, root: int = 0) -> MemberTable:
    """Two cohorts: SAM keeps ``effect`` more, scores ``apart`` better, and keeps ``slope`` times what it scores."""
    rng, study = np.random.default_rng(root), Properties({"properties": "sam", "seeds": seeds})
    numbers: dict[str, dict[str, Single]] = {}
    cohorts: list[Cohort] = []
    for one in study.cast():
        names = tuple(member.name for member in one.members)
        cohorts.append(Cohort(name=one.name, members=names, role=one.role))
        for name in names:
            sam = one.name == "SAM"
            score, curvature = 0.9 + apart * sam + rng.normal(0.0, 0.01), rng.normal()
            kept = 0.8 + effect * sam + slope * (score - 0.9) + rng.normal(0.0, 0.004)
            values = {own.SCORE: score, own.AREA: score * score * kept, own.CURVATURE: kept + 0.001 * curvature}
            values |= {own.kept(key): kept for key in (*own.FAMILIES, own.SURVIVAL, own.REST)}
            numbers[name] = {key: Single(float(value)) for key, value in values.items()}
    found = MemberTable(cohorts=tuple(cohorts), metrics=study.metrics(), numbers=numbers, lost={})
    for key in (*own.FAMILIES, own.SURVIVAL):
        for name, value in own.equal_score(found, own.kept(key)).items():
            numbers[name][own.matched(key)] = Single(value)
    return found


def p_of(made: MemberTable) -> float:
    """Of the rule on what is kept at equal score."""
    study = Properties({"properties": "sam", "seeds": len(made.cohorts[0].members)})
    [rule] = [rule for rule in study.rules() if rule.metric == own.matched(own.SURVIVAL)]
    test = draft(rule, made, among=len(study.rules()), alpha=0.05).test
    assert test is not None
    assert test.p is not None
    return test.p


def test_more_is_found_where_more_is_kept_and_not_where_the_score_explains_it() -> None:
    assert p_of(table(0.05, seeds=80)) < 0.05 / 10
    assert p_of(table(0.05)) > 0.05  # ten seeds do not show that one in ten fails
    assert p_of(table(0.0, seeds=80)) > 0.05
    better = table(0.0, slope=2.0, apart=0.03, seeds=80)
    gap = np.mean(better.values("SAM", own.kept(own.BITS))) - np.mean(better.values(own.PLAIN, own.kept(own.BITS)))
    assert gap > 0.04  # of itself it would be found
    assert p_of(better) > 0.05
    few = [p_of(table(0.02, seeds=3, root=root)) for root in range(20)]
    assert sum(p < 0.05 / 10 for p in few) <= 1


def test_a_number_that_says_what_is_kept_predicts_it() -> None:
    made = table(0.05)
    found = own.predicted(made, own.CURVATURE)
    assert list(found) == list(made.cohort(own.PLAIN).members)
    features, outcome = (
        np.array([made.numbers[name][key].value for one in zip(*(c.members for c in made.cohorts), strict=True)
                  for name in one])
        for key in (own.CURVATURE, own.kept(own.REST))
    )  # fmt: skip
    assert np.mean(list(found.values())) == pytest.approx(halvings(features[:, None], outcome).mean(), abs=1e-6)
    assert r2_of(float(np.mean(list(found.values())))) > 0.9
    assert own.predicted(made, own.KURTOSIS) == {}


def test_tables_say_who_is_better_and_by_how_much() -> None:
    ranks, less = own.tables(table(0.05))
    assert [row[:3:2] for row in ranks.rows] == [("SAM", "1 [1, 1]"), (own.PLAIN, "2 [2, 2]")]
    assert all("[1, 2]" in str(row[2]) for row in own.tables(table(0.0))[0].rows)
    [row] = less.rows
    found = row[3]
    assert isinstance(found, Estimate)
    assert found.value == pytest.approx(0.05, abs=0.01)
