"""The study ``seal-health``: its contract on hardly trained nets, its reading and its rules on planted responses."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.plans.artifacts import digest
from wheeltap.recipes.base import Given, spec
from wheeltap.recipes.make import once, weights
from wheeltap.sources import digits
from wheeltap.stats.members import Single
from wheeltap.studies.rules import draft, require_sound
from wheeltap.studies.table import MemberTable
from wheeltap.suites.seal.readings import SealResponses
from wheeltap.suites.seal.studies import seal_health as own
from wheeltap.suites.seal.studies.seal_health import SealHealth, _planted  # pyright: ignore[reportPrivateUsage]
from wheeltap.testing.study_contract import StudyContract


@pytest.mark.release
class TestContract(StudyContract):
    study = SealHealth
    settings: ClassVar[dict[str, Any]] = {"seeds": 6, "epochs": 8}

    def test_every_rule_has_its_finding_and_few_nets_decide_nothing(self, folder: Path) -> None:
        record = self.run(folder).record
        assert [one.title for one in record.findings] == [rule.title for rule in SealHealth({}).rules()]
        assert {one.status for one in record.findings} == {"inconclusive"}
        status = {control.name: control.status for control in record.controls}
        assert status["outcomes dealt to other nets are not predicted"] == "passed"


def test_the_sizes_are_sound() -> None:
    for size in ("small", "full"):
        require_sound(SealHealth(SealHealth.sized(size)).spec(), alpha=0.05)


# ---- the reading --------------------------------------------------------------------------------------------------


def read(model: nn.Module, task: Task | None = None, **settings: Any) -> np.ndarray:
    reading = SealResponses({"inputs": 8, "draws": 2, **settings})
    return reading.read(Subject(model, name="net"), task or digits.task(), root=3, seed=0).values["responses"]


def linear(scale: float) -> nn.Module:
    torch.manual_seed(1)
    made = nn.Sequential(nn.Linear(64, 10, bias=False)).eval()
    with torch.no_grad():
        made[0].weight.mul_(scale)
    return made


def test_responses_of_a_linear_net_grow_with_the_dose_alone() -> None:
    """All three kinds of noise are linear in the dose, and all numbers are shares of the outputs' spread."""
    found = read(linear(1.0))
    ratio = found / np.sqrt(1.0 - found**2)  # of the change to the spread
    np.testing.assert_allclose(ratio[1::2], 4.0 * ratio[::2], rtol=1e-3)
    np.testing.assert_allclose(read(linear(8.0)), found, rtol=1e-3)


def test_relative_noise_has_the_size_that_theory_gives_it() -> None:
    """Of one weight a row: each output is multiplied by 1 + dose x normal number, so that the change has that size."""
    made = nn.Sequential(nn.Linear(10, 10, bias=False)).eval()
    with torch.no_grad():
        made[0].weight.copy_(torch.eye(10))
    inputs = torch.randn(64, 10, generator=torch.Generator().manual_seed(2))
    found = read(made, Task(inputs, torch.arange(64) % 10, name="rows"), inputs=64, draws=16)
    assert np.sqrt(np.square(found[0]).mean()) == pytest.approx(0.1, rel=0.1)


def test_canceling_units_show_in_responses() -> None:
    """Planted: the same function, written as differences of large numbers."""
    net = digits.train(0)
    planted = read(once(Given(spec("recoded", {"gauges": "cancel"}, seed=1, of=(digest(weights(net)),)), (net,))))
    plain = read(net)
    assert (planted[:2] > 1.5 * plain[:2]).all()
    np.testing.assert_allclose(planted[2:4], plain[2:4], rtol=0.5)  # function-space noise is blind


# ---- the rules ----------------------------------------------------------------------------------------------------


def table(numbers: dict[str, np.ndarray], features: np.ndarray) -> MemberTable:
    cohorts = SealHealth({"seeds": len(features)}).spec().cohorts
    values: dict[str, dict[str, Single]] = {}
    for metric, cohort in own.COHORTS.items():
        if metric.key not in numbers:
            continue
        names = next(one.members for one in cohorts if one.name == cohort)
        predictions = own.predicted(features, numbers[metric.key])
        for key, column in ((metric.key, numbers[metric.key]), (own.by_responses(metric), predictions)):
            for name, value in zip(names, column, strict=True):
                values.setdefault(name, {})[key] = Single(float(value))
    return MemberTable(cohorts, SealHealth({}).metrics(), values, {})


def test_planted_nets_are_decided_as_they_were_planted() -> None:
    """Of 48 nets: responses say all of the loss at 4 bits and of the half dose, and nothing of what is relearned."""
    rng = np.random.default_rng(8)
    features = rng.standard_normal((48, 6))
    planted = table({
        own.RISE.key: features[:, 0] + 0.2 * rng.standard_normal(48), own.BACK.key: rng.standard_normal(48),
        own.HALF.key: features[:, 1],
    }, features)  # fmt: skip
    rise, back = (draft(rule, planted, among=2, alpha=0.05) for rule in SealHealth({}).rules())
    assert rise.test is not None and back.test is not None and back.evidence is not None
    assert rise.test.p is not None and rise.test.p < 0.005
    assert back.test.p is not None and back.test.p > 0.5
    assert (back.evidence.below(back.margin, one_sided=True) or 1.0) < 0.05
    assert _planted(planted).status == "passed"


def test_responses_that_see_nothing_fail_the_control() -> None:
    rng = np.random.default_rng(9)
    noise = rng.standard_normal((36, 6))
    assert _planted(table({own.HALF.key: rng.standard_normal(36)}, noise)).status == "failed"
    assert _planted(table({}, noise)).status == "skipped"


def test_few_nets_and_equal_outcomes_predict_nothing() -> None:
    for features, outcome in ((np.ones((3, 2)), np.arange(3.0)), (np.ones((8, 2)), np.ones(8))):
        assert len(own.predicted(features, outcome)) == 0
