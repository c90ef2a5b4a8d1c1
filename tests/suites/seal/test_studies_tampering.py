"""The study ``tampering``: its contract on hardly trained nets, and its numbers counted again from what was stored."""

from pathlib import Path
from typing import Any, ClassVar

import pytest

from wheeltap.core.errors import UnknownName
from wheeltap.core.report import ReportRecord
from wheeltap.studies.rules import require_sound
from wheeltap.suites.seal.specs import BENIGN, CHANGES
from wheeltap.suites.seal.studies import tampering as own
from wheeltap.suites.seal.studies.tampering import TamperingStudy
from wheeltap.testing.study_contract import StudyContract

SMALL: dict[str, Any] = {"seeds": 9, "draws": 1, "kinds": own.DENSE, "epochs": 1}


def numbers(record: ReportRecord) -> dict[str, tuple[float, ...]]:
    assert record.study is not None
    return {row.metric.key: row.cohorts[0].values for row in record.study.rows}


@pytest.mark.full
class TestContract(StudyContract):
    study = TamperingStudy
    settings: ClassVar[dict[str, Any]] = SMALL

    def test_what_is_known_beforehand_comes_out(self, folder: Path) -> None:
        """Dense nets have no norms and no equal layers: 19 changes of 22 and all 6 harmless ones are possible."""
        record = self.run(folder).record
        found = numbers(record)
        assert set(found[own.PASSED]) == {1.0}
        assert set(found[own.FOUND]) == {1.0}
        assert set(found[own.BY_HASH]) == {1.0}
        # Four of six harmless conversions change bytes.
        assert found[own.HASH_FALSE] == pytest.approx([4 / 6] * 9)
        assert record.study is not None
        lines = record.study.notes[1:]
        assert len(lines) == len(CHANGES) - 3 + len(BENIGN)
        assert record.headline.startswith(
            "Seals find 171 of 171 changed copies and call 0 of 54 harmless ones changed."
        )
        assert {control.name: control.status for control in record.controls if "bits" in control.name} == {
            "no check alarms on the same bits": "passed"
        }

    def test_differences_are_those_of_the_shares(self, folder: Path) -> None:
        found = numbers(self.run(folder).record)
        for five, prints, less in zip(found[own.SMALL_FIVE], found[own.SMALL_PRINTS], found[own.PRINTS], strict=True):
            assert five - prints == pytest.approx(less)
        assert max(found[own.SMALL]) <= 1.0


def test_the_sizes_are_sound_and_kinds_are_known() -> None:
    for size in ("small", "full"):
        require_sound(TamperingStudy(TamperingStudy.sized(size)).spec(), alpha=0.05)
    with pytest.raises(UnknownName):
        TamperingStudy({"kinds": "dense,deep"})
