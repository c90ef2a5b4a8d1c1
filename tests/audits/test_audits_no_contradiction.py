"""Findings that must not contradict the evidence: constant targets, outputs that are the same."""

import copy

import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.audits.case import AT_CHANCE
from wheeltap.audits.score import SAME_OUTPUTS


@pytest.mark.parametrize("targets", [torch.zeros(500, 3, dtype=torch.bool), torch.full((500, 3), 2.0)])
def test_constant_targets_leave_nothing_to_lose(targets: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 3)).eval()
    report = wt.audit(wt.Subject(model, name="model"), wt.Task(torch.randn(500, 5), targets), schemes="int8")
    (score,) = report["WT001"]
    assert (score.status, score.verdict) == ("found", AT_CHANCE)
    assert "targets are equal" in score.because and "units" not in score.because


def test_a_model_and_its_copy_are_said_to_have_the_same_outputs() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(5, 3)).eval(), torch.randn(12, 5)
    task = wt.Task(inputs, model(inputs).argmax(1))
    pair = wt.compare(wt.Subject(model, name="a"), wt.Subject(copy.deepcopy(model), name="b"), task, schemes="int8")
    score = next(finding for finding in pair["WT001"] if " vs " in finding.subject)
    assert score.status == "inconclusive" and any(one.name == SAME_OUTPUTS for one in score.estimates)
    assert "cannot tell whether scores differ" not in pair.headline
