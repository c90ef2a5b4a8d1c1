"""The store and every built-in audit keep the contracts that other packages' ones must keep."""

from pathlib import Path
from typing import Any, ClassVar

from wheeltap.audits.base import BUILTIN
from wheeltap.audits.decodable import DecodableAudit
from wheeltap.audits.entanglement import EntanglementAudit
from wheeltap.audits.families import BitFlipAudit, PruningAudit, QuantizationAudit
from wheeltap.audits.fine_tuning import FineTuningAudit
from wheeltap.audits.heads import HeadsAudit
from wheeltap.audits.improvement import ImprovementAudit
from wheeltap.audits.merging import MergingAudit
from wheeltap.audits.noises import FunctionNoiseAudit, LowRankNoiseAudit, RelativeNoiseAudit, StdNoiseAudit
from wheeltap.audits.parts import PartsAudit
from wheeltap.audits.race import RaceAudit
from wheeltap.audits.redundancy import RedundancyAudit
from wheeltap.audits.relearning import RelearningAudit
from wheeltap.audits.score import ScoreAudit
from wheeltap.audits.single_point import SinglePointAudit
from wheeltap.audits.symmetry import SymmetryAudit
from wheeltap.plans.store import Store
from wheeltap.testing.contract import AuditContract, StoreContract, StoreLike


class TestStore(StoreContract):
    def opened(self, path: Path) -> StoreLike:
        return Store(path)


class TestScoreAudit(AuditContract):
    audit = ScoreAudit


class TestRelativeNoiseAudit(AuditContract):
    audit = RelativeNoiseAudit


class TestFunctionNoiseAudit(AuditContract):
    audit = FunctionNoiseAudit


class TestStdNoiseAudit(AuditContract):
    audit = StdNoiseAudit


class TestQuantizationAudit(AuditContract):
    audit = QuantizationAudit


class TestPruningAudit(AuditContract):
    audit = PruningAudit


class TestBitFlipAudit(AuditContract):
    audit = BitFlipAudit


class TestFineTuningAudit(AuditContract):
    audit = FineTuningAudit


class TestLowRankNoiseAudit(AuditContract):
    audit = LowRankNoiseAudit


class TestMergingAudit(AuditContract):
    audit = MergingAudit


class TestRaceAudit(AuditContract):
    audit = RaceAudit


class TestRelearningAudit(AuditContract):
    audit = RelearningAudit
    settings: ClassVar[dict[str, Any]] = {"group": 0}


class TestImprovementAudit(AuditContract):
    audit = ImprovementAudit
    settings: ClassVar[dict[str, Any]] = {"draws": 3, "rungs": [-4, 0], "splits": 2}


class TestSinglePointAudit(AuditContract):
    audit = SinglePointAudit


class TestHeadsAudit(AuditContract):
    audit = HeadsAudit


class TestRedundancyAudit(AuditContract):
    audit = RedundancyAudit


class TestEntanglementAudit(AuditContract):
    audit = EntanglementAudit


class TestDecodableAudit(AuditContract):
    audit = DecodableAudit


class TestSymmetryAudit(AuditContract):
    audit = SymmetryAudit


class TestPartsAudit(AuditContract):
    audit = PartsAudit


def test_every_builtin_audit_is_held_to_it() -> None:
    tested = {kind.audit.name for kind in globals().values() if _is_contract(kind)}
    assert tested == set(BUILTIN)


def _is_contract(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, AuditContract) and kind is not AuditContract
