"""WT105: what one screen names is removed in both subjects; a reparametrized copy is its control; its words."""

import msgspec
import numpy as np
import pytest
import reports
import torch
from numpy.typing import NDArray
from single_worlds import CHANCE, CONFIRM, EXAMPLES, NULLS, answered, losing, plan_of, settled
from torch import nn

import wheeltap as wt
from benchmarks.nets import zoo
from wheeltap.audits.base import Case
from wheeltap.audits.settle import settle
from wheeltap.audits.single_point import SinglePointAudit
from wheeltap.core.records import Control, Outcome, Trial
from wheeltap.core.subject import Subject
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.single_point import SORTS, written


def test_what_one_screen_names_is_removed_in_both() -> None:
    """Two subjects that depend on one weight alike, which the screen of the second does not name."""
    plan = plan_of("a", "b")
    case = answered(plan, losing({0: 0.3}), first={plan.subjects[1].fingerprint: 10})
    one, two, pair = settled(case)
    # No example differs, yet 200 examples do not exclude a difference of two points among 36 pairs of weights.
    assert (one.status, two.status, pair.status) == ("found", "found", "inconclusive")
    assert pair.estimates[0].value == 0.0 and pair.estimates[0].level == pytest.approx(1 - 0.05 / 36)
    assert "Of the 6 weights" not in two.because and "depends on one weight. Without back.weight[0, 5]" in two.because
    assert not any(estimate.name.startswith("weight ") for estimate in two.estimates), "its value is not known"
    assert any(estimate.name == "weight back.weight[0, 5]" for estimate in one.estimates)


def test_what_is_not_there_in_the_other_is_left_out() -> None:
    """Of other shapes: what the first one's screen names, the second does not have."""
    plan = plan_of("a", "b")
    second = plan.subjects[1].fingerprint

    def right(trial: Trial, row: int) -> NDArray[np.floating]:
        return np.array(0.0) if trial.subject == second and row < 10 else losing({0: 0.3})(trial, row)

    one, two, pair = settled(answered(plan, right, first={second: 10}))
    assert (one.status, two.status, pair.status) == ("found", "inconclusive", "found")
    assert two.estimates[0].value == 0.0 and pair.estimates[0].level == pytest.approx(1 - 0.05 / 18)


def control(case: Case) -> Control:
    return reports.control(SinglePointAudit().judge(case), "WT105 reparametrized copy")


def with_twin() -> tuple[Plan, str]:
    plan = plan_of("net")
    twin = msgspec.structs.replace(plan.reference, name="net (twin)", fingerprint="f" * 32, role="twin")
    return msgspec.structs.replace(plan, twin=twin), twin.fingerprint


def test_a_copy_that_loses_as_much_passes() -> None:
    """By weights at other places: nothing of the one is removed in the other, and no random weight of the copy."""
    plan, twin = with_twin()
    removed = list[tuple[str, int]]()

    def right(trial: Trial, row: int) -> NDArray[np.floating]:
        removed.append((trial.subject, row))
        return losing({10: 0.3} if trial.subject == twin else {0: 0.3})(trial, row)

    found = control(answered(plan, right, first={twin: 10}))
    assert (found.status, found.kind) == ("passed", "null") and found.estimates[0].value == 0.0
    assert sorted(row for subject, row in removed if subject == twin) == [10, 11, 12]
    assert sorted(row for subject, row in removed if subject != twin) == [*range(CONFIRM), *range(100, 100 + NULLS)]


def test_a_copy_whose_screen_names_other_weights_voids_the_run_and_one_that_could_not_have_failed_is_none() -> None:
    plan, twin = with_twin()
    found = control(answered(plan, losing({0: 0.3}), first={twin: 10}))
    assert found.status == "failed" and found.estimates[0].value == pytest.approx(-0.3)
    noise = np.random.default_rng(0).random((2, EXAMPLES)) > 0.3
    found = control(answered(plan, lambda trial, row: noise[int(trial.subject == twin)] * 1.0))
    assert found.status == "skipped" and "could hardly have failed" in found.because


SAID = [
    ("gain of a norm", (7,), "back.weight[7] (a gain of a norm; value 2.5)"),
    ("bias", (7,), "back.weight[7] (a bias; value 2.5)"),
    ("number", (), "back.weight (value 2.5)"),
    ("weight", (1, 0, 3), "back.weight[1, 0, 3] (value 2.5)"),
    ("input and output", (1, 4), "back.weight[1, 4] (input 1, output 4; value 2.5)"),
    ("output and input", (1, 0, 2, 3), "back.weight[1, 0, 2, 3] (output 1, input 0 at 2, 3 of the kernel; value 2.5)"),
]


def test_it_is_said_what_a_number_is() -> None:
    for sort, place, said in SAID:
        values = {
            "candidate_parameters": written(["back.weight"]), "candidate_places": np.array([place], dtype=np.int32),
            "candidate_sorts": np.array([SORTS.index(sort)]), "candidate_values": np.array([2.5]),
            "null_parameters": written([]), "null_places": np.zeros((0, len(place)), dtype=np.int32),
            "null_sorts": np.zeros(0), "null_values": np.zeros(0), "scores": np.ones(1), "screened": np.array(1.0),
        }  # fmt: skip
        plan, known = plan_of("net"), dict[str, Outcome]()
        case, audit = Case(plan, known.get), SinglePointAudit({"confirm": 1, "nulls": 0})
        clean = {"accuracy": np.ones(EXAMPLES), "chance": np.array(CHANCE)}
        known |= {trial.key: Outcome(key=trial.key, status="done", values=clean) for trial in plan.baselines()}
        for _ in range(2):
            for trial in audit.ask(case):
                answer = values if trial.kind == "read" else {"accuracy": np.zeros(EXAMPLES)}
                known.setdefault(trial.key, Outcome(key=trial.key, status="done", values=answer))
        [found] = settle(audit.judge(case).drafts, alpha=0.05)
        assert found.status == "found" and f"Without {said} it loses 1.000" in found.because


def depthwise(*, spread: float, seed: int) -> nn.Sequential:
    """The depthwise net of the zoo, the units of its first layer written larger or smaller and in another order."""
    model = zoo.made("depthwise").subject.model
    assert isinstance(model, nn.Sequential)
    stream = torch.Generator().manual_seed(seed)
    first, reader = model[0], model[2]
    assert isinstance(first, nn.Conv2d) and isinstance(reader, nn.Sequential)
    filters, mixing = reader[0], next(one for one in reader if isinstance(one, nn.Conv2d) and one.groups == 1)
    assert isinstance(filters, nn.Conv2d) and filters.groups == 16
    scale, order = 2.0 ** (spread * torch.randn(16, generator=stream)).round(), torch.randperm(16, generator=stream)
    between = [one for one in list(reader)[: list(reader).index(mixing)] if not isinstance(one, nn.ReLU)]
    with torch.no_grad():
        first.weight.mul_(scale[:, None, None, None])
        first.bias.mul_(scale)
        filters.weight.div_(scale[:, None, None, None])
        for one in (first, *between):
            for held in (*one.parameters(), *one.buffers()):
                held.copy_(held[order] if held.ndim else held)
        mixing.weight.copy_(mixing.weight[:, order])
    return model


@pytest.mark.parametrize("seed", range(3))
def test_a_rescaled_and_permuted_depthwise_net_is_not_called_different(seed: int) -> None:
    case = zoo.made("depthwise")
    copy = Subject(depthwise(spread=3.0, seed=seed), name="copy")
    assert torch.allclose(case.task.scores(copy.model), case.task.scores(case.subject.model), atol=1e-3)
    report = reports.run([case.subject, copy], case.task, wt.AuditSpec("single-point", {"nulls": 2}))
    pair = reports.finding(report, "WT105", f"{case.subject.name} vs copy")
    assert pair.verdict in ("equivalent", "cannot tell") and pair.estimates[0].value == pytest.approx(0.0, abs=2e-3)
