"""What is taught must not be what all others are asked anyway: then a net that says nothing else loses nothing."""

import msgspec
import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.core.records import Finding
from wheeltap.report.report import Report

PLACES = {2: [[3.0, 0.0], [-3.0, 0.0]], 3: [[3.0, 0.0], [-1.5, 2.6], [-1.5, -2.6]]}


def sorted_by(classes: int) -> tuple[wt.Subject, torch.Tensor, torch.Tensor]:
    """A net that tells clusters of points apart by closed form, the points, and their clusters."""
    centers = torch.tensor(PLACES[classes])
    net = nn.Sequential(nn.Linear(2, 6), nn.ReLU(), nn.Linear(6, classes)).eval()
    with torch.no_grad():
        first, last = net[0], net[2]
        assert isinstance(first, nn.Linear) and isinstance(last, nn.Linear)
        first.weight.copy_(torch.cat([centers, -centers])[torch.arange(6) % (2 * classes)])
        first.bias.zero_()
        last.weight.copy_(centers @ first.weight.T)
        last.bias.zero_()
    targets = torch.arange(60) % classes
    points = centers[targets] + 0.3 * torch.randn(60, 2, generator=torch.Generator().manual_seed(5))
    return wt.Subject(net, name="net"), points, targets


def tuned(subject: wt.Subject, task: wt.Task) -> Report:
    spec = wt.AuditSpec(
        name="fine-tuning", settings={"doses": [4, 32], "tested": 32, "draws": 2, "lr": 0.05, "others": False}
    )
    plan = wt.plan(subject, task, audits=["score", spec])
    return wt.run(msgspec.structs.replace(plan, twin=None, planted=None, graded=()), subject, task)


def of(report: Report) -> Finding:
    [found] = [finding for finding in report.findings if finding.code == "WT110"]
    return found


def test_where_all_others_have_the_answer_that_is_taught_nothing_can_be_lost() -> None:
    """One of two classes is taught the other's answer: a net that gives that to everything is right on all others."""
    subject, points, targets = sorted_by(2)
    report = tuned(subject, wt.Task(points, targets, name="two"))
    found = of(report)
    assert found.status == "not_applicable" and "already has the answer" in found.because
    assert not found.estimates
    assert not [curve for curve in report.record.curves if curve.code == "WT110"]


@pytest.mark.parametrize("groups", [True, False], ids=["groups of both answers", "three answers"])
def test_where_others_have_other_answers_too_it_is_measured(groups: bool) -> None:
    subject, points, targets = sorted_by(2 if groups else 3)
    task = wt.Task(points, targets, name="more")
    found = of(tuned(subject, task.with_behaviors((points[:, 1] > 0).long()) if groups else task))
    assert found.status != "not_applicable" and found.estimates[0].value is not None


@pytest.mark.parametrize("lr", [0.05, 1e30], ids=["learned", "diverged"])
def test_two_nets_are_compared_on_the_groups_of_the_examples_that_are_scored(lr: float) -> None:
    """Some examples are trained on: the groups are those of the others, and where training diverged, of all."""
    (one, points, targets), two = sorted_by(3), sorted_by(3)[0]
    task = wt.Task(points, targets, name="grouped").with_groups(torch.arange(60) // 3)
    spec = wt.AuditSpec(name="fine-tuning", settings={"doses": [4], "tested": 4, "draws": 2, "lr": lr, "others": False})
    report = wt.compare(one, wt.Subject(two.model, name="two"), task, audits=["score", spec])
    first = next(found for found in report["WT110"] if found.subject == "net")
    assert any(estimate.name == "rank by what is kept" for estimate in first.estimates)
