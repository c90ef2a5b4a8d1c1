"""The same function, written as another file would write it: what a comparison concludes of conversions."""

import copy

import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.core.subject import Subject
from wheeltap.gauge.regroup import Split
from wheeltap.plans.plan import Effort
from wheeltap.sources import digits


def in_two(layer: nn.Linear) -> nn.Module:
    """Two layers in a row, with no bias between them."""
    left, sizes, right = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    inner, outer = nn.Linear(layer.in_features, len(sizes), bias=False), nn.Linear(len(sizes), layer.out_features)
    with torch.no_grad():
        inner.weight.copy_(sizes.sqrt()[:, None] * right)
        outer.weight.copy_(left * sizes.sqrt())
        outer.bias.copy_(layer.bias)
    return nn.Sequential(inner, outer)


@pytest.mark.parametrize("kind", ["in two", "split"])
@pytest.mark.release
def test_function_noise_finds_conversions_equivalent_and_relative_noise_a_difference(kind: str) -> None:
    original = digits.subject()
    model = copy.deepcopy(original.model)
    first = next(at for at, layer in enumerate(model) if isinstance(layer, nn.Linear))
    model[first] = in_two(model[first]) if kind == "in two" else Split(model[first], 7)
    audits, effort = ["score", "relative-noise", "function-noise"], Effort(draws=64, control_draws=4, block_draws=0)
    report = wt.compare(original, Subject(model.eval(), name="converted"), digits.task(), audits=audits, effort=effort)
    pairs = {one.code: one for one in report.findings if " vs " in one.subject}
    assert pairs["WT102"].status == "excluded"
    gap = pairs["WT102"].estimates[0]
    assert gap.low is not None and gap.high is not None
    assert -0.02 < gap.low <= gap.high < 0.02
    if kind == "in two":
        assert pairs["WT101"].status == "found"
