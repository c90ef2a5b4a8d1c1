"""What every study keeps, as tests: subclass ``StudyContract``, name the study and small settings, and run pytest."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

import wheeltap as wt
from wheeltap.core.errors import UsageError
from wheeltap.core.report import ReportRecord
from wheeltap.core.study import StudySpec
from wheeltap.plans.plan import Plan
from wheeltap.runs.request import StudyRequest
from wheeltap.runs.studying import planned
from wheeltap.studies.base import Study
from wheeltap.studies.rules import require_sound

ALPHA = 0.05

_runs: dict[Path, wt.Report] = {}


class StudyContract:
    """Tests of one study.

    Attributes:
        study: The class.
        settings: So small that it is made and measured in seconds.
        effort: Draws of audits that are measures of members.
    """

    study: ClassVar[type[Study]]
    settings: ClassVar[Mapping[str, Any]] = {}
    effort: ClassVar[wt.Effort] = wt.Effort(draws=4, control_draws=4, block_draws=0)

    def made(self) -> Study:
        """The study with its small settings."""
        return self.study(dict(self.settings))

    def run(self, folder: Path) -> wt.Report:
        """The study, made and measured into a store in the folder: once."""
        if folder not in _runs:
            _runs[folder] = self._run(folder)
        return _runs[folder]

    def _run(self, folder: Path) -> wt.Report:
        return wt.study(self.made(), store=folder / "study.wheeltap", effort=self.effort)

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Where the class's runs go: the nets are made once."""
        return tmp_path_factory.mktemp("study")

    def test_its_rules_are_sound_and_part_of_the_plan(self) -> None:
        """Rules that could come out either way, in the key: one that is changed afterwards is another plan."""
        spec = self.made().spec()
        require_sound(spec, alpha=ALPHA)
        request = StudyRequest(effort=self.effort)
        plan = planned(self.made(), request).plan
        other = msgspec.structs.replace(spec.rules[0], margin=spec.rules[0].margin + 0.125)
        moved = msgspec.structs.replace(plan, study=msgspec.structs.replace(spec, rules=(other, *spec.rules[1:])))
        assert plan.key != moved.key, "a rule that is changed afterwards must be another plan"
        assert plan.key == planned(self.made(), request).plan.key
        assert Plan.from_bytes(plan.to_bytes(), where="memory") == plan

    def test_its_settings_read_back(self) -> None:
        """The study made of what a plan keeps of it is the same."""
        for study in (self.made(), self.study(dict(self.study.sized("small")))):
            spec = msgspec.json.decode(msgspec.json.encode(study.spec()), type=StudySpec)
            assert spec == study.spec()
            assert self.study(dict(spec.settings)).spec() == spec

    def test_a_second_run_makes_and_measures_nothing(self, folder: Path) -> None:
        """All is found in the store, and the answer is the same."""
        first, again = self.run(folder), self._run(folder)
        assert again.cost.trials == 0
        assert again.cost.reused == first.cost.trials + first.cost.reused
        assert _answer(again.record) == _answer(first.record)

    def test_it_is_judged_from_the_store(self, folder: Path) -> None:
        """The same answer from what was stored, without any net."""
        first = self.run(folder)
        assert _answer(wt.judge(folder / "study.wheeltap").record) == _answer(first.record)

    def test_every_number_has_its_members(self, folder: Path) -> None:
        """Every cohort is of known members, and n is their number."""
        study = self.run(folder).record.study
        assert study is not None
        known = {member.name for member in study.members}
        assert known == {name for cohort in study.cohorts for name in cohort.members}
        for row in study.rows:
            for cohort in row.cohorts:
                assert cohort.mean.n == len(cohort.values), f"{row.metric.key}: n must be the number of members"

    def test_a_dead_rule_is_refused(self) -> None:
        """A rule that nothing could trip, beside sound ones."""
        spec = self.made().spec()
        with pytest.raises(UsageError):
            require_sound(_hopeless(spec), alpha=ALPHA)


def _answer(record: ReportRecord) -> tuple[object, ...]:
    return record.headline, record.findings, record.controls, record.study


def _hopeless(spec: StudySpec) -> StudySpec:
    """The study with one more rule: a share of members cannot differ from a half by more than its margin."""
    dead = msgspec.structs.replace(
        spec.rules[0], title="dead", cohorts=(spec.cohorts[0].name,), statistic="exact", margin=0.75, relative=False,
        beyond=(), with_metric="",
    )  # fmt: skip
    return msgspec.structs.replace(spec, rules=(*spec.rules, dead))
