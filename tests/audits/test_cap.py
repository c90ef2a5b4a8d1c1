"""Losses with a cap: bounded methods decide, stored outcomes keep their values, and reports say so."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.core.errors import UsageError
from wheeltap.stats.sample import Sample

MARGIN, ALPHA, REPORTS = 0.2, 0.05, 200


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(("examples", "cap"), [(50, 3.0), (300, 10.0)])
def test_capped_lognormal_losses_at_the_margin_are_seldom_judged_falsely(
    examples: int, cap: float, sign: float
) -> None:
    rng = np.random.default_rng(examples)
    true = np.minimum(np.exp(rng.normal(size=10**6)), cap).mean()
    safe = costs = 0
    for _ in range(REPORTS):
        lost = MARGIN + sign * (np.minimum(np.exp(rng.normal(size=examples)), cap) - true)
        sample = Sample(lost[None], bound=cap + MARGIN, far=cap)
        safe += (sample.below(MARGIN, one_sided=True) or 0.0) <= ALPHA
        costs += lost.mean() > MARGIN and (sample.above(MARGIN) or 0.0) <= ALPHA
    assert max(safe, costs) <= 0.06 * REPORTS


def test_capped_losses_far_from_the_margin_are_decided() -> None:
    rng = np.random.default_rng(0)
    lost = np.minimum(np.exp(rng.normal(size=(1, 400))), 3.0)
    for shift, verdict in ((-1.3, "below"), (-1.3 + 3 * MARGIN, "above")):
        sample = Sample(lost + shift, bound=3.0, far=3.0)
        p = sample.below(MARGIN, one_sided=True) if verdict == "below" else sample.above(MARGIN)
        assert p is not None and p <= ALPHA, verdict
        assert sample.required(MARGIN) == 0 < Sample(lost + shift).required(MARGIN)


def shipped() -> tuple[nn.Module, nn.Module, tuple[torch.Tensor, torch.Tensor]]:
    """A regression on targets with a long tail, and a copy that answers .4 too much."""
    torch.manual_seed(0)  # pyright: ignore[reportUnknownMemberType]
    head = nn.Linear(16, 1)
    net = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), head).eval()
    with torch.no_grad():
        head.weight.mul_(12.0)
        inputs = torch.randn(300, 4)
        targets = net(inputs) + (torch.exp(torch.randn(300, 1)) - 1.6487) / 2.1612
    other = copy.deepcopy(net)
    with torch.no_grad():
        [*other.parameters()][-1].add_(0.4)
    return net, other, (inputs, targets)


def test_a_cap_is_applied_to_stored_outcomes_and_stated(tmp_path: Path) -> None:
    net, other, data = shipped()
    errors = (net(data[0]) - data[1]).square().sum(1).detach()

    def audit(cap: float | None) -> wt.Report:
        return wt.audit(net, data, schemes=[lambda: copy.deepcopy(other)], cap=cap, store=tmp_path / "s.wheeltap")

    whole, capped, lower = audit(None), audit(4.0), audit(1.0)
    rows = [next(f for f in report.record.findings if f.code == "WT100") for report in (whole, capped, lower)]
    assert rows[0].status == "inconclusive" and "skewed" in rows[0].because
    assert [row.verdict for row in rows[1:]] == ["costs", "costs"] and lower.record.cost.trials == 0
    for report, row, cap in ((capped, rows[1], 4.0), (lower, rows[2], 1.0)):
        score = next(f for f in report.record.findings if f.code == "WT001").estimates[0]
        assert score.value == pytest.approx(float(errors.clamp(max=cap).mean()), rel=1e-5)
        assert row.margin == pytest.approx(0.1 * float(errors.clamp(max=cap).mean()), rel=1e-5)
        sentence = f"The loss per example is capped at {cap:g}."
        assert sentence in row.because and sentence in report.text() and report.record.task.cap == cap


@pytest.mark.parametrize("cap", [0.0, -1.0, float("inf"), float("nan")])
def test_a_cap_that_is_no_positive_number_is_refused(cap: float) -> None:
    net, _, data = shipped()
    with pytest.raises(UsageError, match="cap cannot be used"):
        wt.audit(net, data, schemes="int8", cap=cap)


def test_a_bounded_measure_is_refused() -> None:
    data = torch.randn(40, 4), torch.arange(40) % 3
    with pytest.raises(UsageError, match="accuracy is bounded already"):
        wt.audit(nn.Linear(4, 3).eval(), data, schemes="int8", cap=2.0)
