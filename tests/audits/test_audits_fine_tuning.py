"""What is taught must not be what all others are asked anyway: then a net that says nothing else loses nothing."""

import pytest
import torch
from reports import estimate, finding, run
from torch import nn

import wheeltap as wt
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


def tuned(*subjects: wt.Subject, task: wt.Task, **more: object) -> Report:
    settings = {"doses": [4, 32], "tested": 32, "draws": 2, "lr": 0.05, "others": False, **more}
    return run([*subjects], task, "score", wt.AuditSpec("fine-tuning", settings))


def test_where_all_others_have_the_answer_that_is_taught_nothing_can_be_lost() -> None:
    """One of two classes is taught the other's answer: a net that gives that to everything is right on all others."""
    subject, points, targets = sorted_by(2)
    report = tuned(subject, task=wt.Task(points, targets, name="two"))
    [found] = report["WT110"]
    assert found.status == "not_applicable" and "already has the answer" in found.because
    assert not found.estimates
    assert not [curve for curve in report.record.curves if curve.code == "WT110"]


@pytest.mark.parametrize("groups", [True, False], ids=["groups of both answers", "three answers"])
def test_where_others_have_other_answers_too_it_is_measured(groups: bool) -> None:
    subject, points, targets = sorted_by(2 if groups else 3)
    task = wt.Task(points, targets, name="more")
    [found] = tuned(subject, task=task.with_behaviors((points[:, 1] > 0).long()) if groups else task)["WT110"]
    assert found.status != "not_applicable" and found.estimates[0].value is not None


@pytest.mark.parametrize("lr", [0.05, 1e30], ids=["learned", "diverged"])
def test_two_nets_are_compared_on_the_groups_of_the_examples_that_are_scored(lr: float) -> None:
    """Some examples are trained on: the groups are those of the others, and where training diverged, of all."""
    (one, points, targets), two = sorted_by(3), sorted_by(3)[0]
    task = wt.Task(points, targets, name="grouped").with_groups(torch.arange(60) // 3)
    report = tuned(one, wt.Subject(two.model, name="two"), task=task, doses=[4], tested=4, lr=lr)
    assert estimate(finding(report, "WT110", "net"), "rank by what is kept")
