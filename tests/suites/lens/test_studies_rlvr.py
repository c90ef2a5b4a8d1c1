"""The study ``rlvr``: its contract on hardly trained nets, its rules on planted answers, and one base trained whole."""

from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from wheeltap.core.report import ReportRecord
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.make import weights, with_weights
from wheeltap.runs.request import StudyRequest
from wheeltap.runs.studying import folder_of, planned
from wheeltap.studies.rules import require_sound
from wheeltap.suites.lens import studies as own
from wheeltap.suites.lens.studies import Rlvr
from wheeltap.testing.study_contract import StudyContract

SMALL: dict[str, Any] = {
    "seeds": 5, "draws": 4, "base_steps": 4, "reward_steps": 4, "distill_steps": 4, "test_steps": 4,
}  # fmt: skip


def numbers(record: ReportRecord) -> dict[str, dict[str, tuple[float, ...]]]:
    assert record.study is not None
    return {row.metric.key: {one.cohort: one.values for one in row.cohorts} for row in record.study.rows}


@pytest.mark.release
class TestContract(StudyContract):
    study = Rlvr
    settings: ClassVar[dict[str, Any]] = SMALL

    def test_numbers_are_those_of_the_draws(self, folder: Path) -> None:
        """By hand, of one net and its base: their answers drawn again with numpy."""
        import torch

        from wheeltap.core import seeds
        from wheeltap.suites.lens.nets import ANSWERS, FRESH, ArithmeticTransformer, items

        found = numbers(self.run(folder).record)
        plan, held = planned(self.made(), StudyRequest(effort=self.effort)).plan, items()
        kept = Artifacts(folder_of(folder / "study.wheeltap"))
        rows = torch.cat([held.rows(1), held.rows(2)])
        uniform = seeds.generator(plan.seed, "samples", 0).random((len(rows), SMALL["draws"]))
        right, best = {}, {}
        for name in ("base 2", "contaminated 2"):
            record = next(one for one in plan.subjects if one.name == name)
            assert record.artifact is not None
            model = ArithmeticTransformer(64).eval()
            loaded = kept.load(record.artifact, like=weights(model))
            assert loaded is not None
            with torch.no_grad():
                scores = with_weights(model, loaded.arrays)(held.inputs[rows])
            edges = scores.double().softmax(1).numpy().cumsum(1)
            drawn = [
                [min(int((u >= edge).sum()), ANSWERS - 1) for u in us] for us, edge in zip(uniform, edges, strict=True)
            ]
            right[name] = np.array(drawn) == held.right[rows].numpy()[:, None]
            best[name] = (scores.argmax(1) == held.right[rows]).numpy()
        fresh = held.part[rows.numpy()] == FRESH
        one, two = (right[name].mean(1) for name in right)
        before, after = (right[name].any(1)[fresh] for name in right)
        expected = {
            own.ONCE: two[fresh].mean(), own.WITHIN: after.mean(), own.GAIN: (two - one)[fresh].mean(),
            own.GAINED: (after & ~before).mean(), own.LOST: (before & ~after).mean(),
            own.BALANCE: after.mean() - before.mean(), own.BEYOND: two[fresh].mean() - best["base 2"][fresh].mean(),
            own.GAP: (two - one)[~fresh].mean() - (two - one)[fresh].mean(),
        }  # fmt: skip
        for key, value in expected.items():
            assert found[key][own.CONTAMINATED][1] == pytest.approx(value, abs=1e-6), key

    def test_every_rule_has_its_finding_and_a_base_does_not_differ_from_itself(self, folder: Path) -> None:
        record = self.run(folder).record
        assert [one.title for one in record.findings] == [rule.title for rule in Rlvr({}).rules()]
        status = {control.name: control.status for control in record.controls}
        assert status["a base that is sampled again is unchanged"] == "passed"
        assert status["teachers solve more than bases within many tries"] == "skipped"


def test_the_sizes_are_sound() -> None:
    for size in ("small", "full"):
        require_sound(Rlvr(Rlvr.sized(size)).spec(), alpha=0.05)
    assert len({msgspec.json.encode(rule) for rule in Rlvr({}).rules()}) == 9


@pytest.mark.parametrize(
    ("gap", "balance", "beyond", "name"),
    [
        (0.5, 0.3, 0.3, "memorized"), (0.05, 0.3, 0.3, "widened"), (0.05, -0.3, 0.3, "sharpened"),
        (0.05, 0.05, 0.06, "sharpened"), (0.05, -0.3, 0.04, "narrowed"), (0.05, -0.05, 0.04, "unchanged"),
    ],
)  # fmt: skip
def test_signatures(gap: float, balance: float, beyond: float, name: str) -> None:
    assert own.signature({own.GAP: gap, own.BALANCE: balance, own.BEYOND: beyond}) == name
