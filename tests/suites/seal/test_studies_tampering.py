"""The study ``tampering``: its contract on hardly trained nets, where every verdict of a seal is known beforehand."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from wheeltap.core.errors import UnknownName
from wheeltap.studies.rules import require_sound
from wheeltap.suites.seal.specs import BENIGN, CHANGES
from wheeltap.suites.seal.studies import tampering as own
from wheeltap.suites.seal.studies.tampering import TamperingStudy
from wheeltap.testing.study_contract import StudyContract

SEEDS = 9


class TestContract(StudyContract):
    study = TamperingStudy
    settings: ClassVar[dict[str, Any]] = {"seeds": SEEDS, "draws": 1, "kinds": own.DENSE, "epochs": 1}

    def test_every_change_is_found_and_every_harmless_one_passes(self, folder: Path) -> None:
        record = self.run(folder).record
        assert record.study is not None
        values = {row.metric.key: row.cohorts[0].values for row in record.study.rows}
        assert values == {own.PASSED: (1.0,) * SEEDS, own.FOUND: (1.0,) * SEEDS}
        assert {finding.title: finding.status for finding in record.findings} == {
            "Every harmless conversion passes": "found", "Every change is found": "found",
        }  # fmt: skip
        controls = {control.name: control for control in record.controls}
        for name in ("the seal passes the same bits", "the seal detects a matrix of zeros"):
            assert controls[name].status == "passed"
            assert [estimate.n for estimate in controls[name].estimates] == [SEEDS]
        assert f" {SEEDS * len(CHANGES)} changed copies" in record.headline
        assert f" {SEEDS * len(BENIGN)} harmless ones" in record.headline


def test_the_sizes_are_sound_and_kinds_are_known() -> None:
    for size in ("small", "full"):
        require_sound(TamperingStudy(TamperingStudy.sized(size)).spec(), alpha=0.05)
    with pytest.raises(UnknownName):
        TamperingStudy({"kinds": "dense,deep"})
