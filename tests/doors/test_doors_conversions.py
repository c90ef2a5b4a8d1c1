"""The same function, written as another file would write it: what a comparison says of conversions."""

import copy
from functools import cache

import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.core.subject import Subject
from wheeltap.gauge.regroup import Split
from wheeltap.plans.plan import Effort
from wheeltap.report.report import Report
from wheeltap.sources import digits

EFFORT = Effort(draws=64, control_draws=4, block_draws=0)


def in_two(layer: nn.Linear) -> nn.Module:
    """Two layers in a row, with no bias between them."""
    left, sizes, right = torch.linalg.svd(layer.weight.detach().double(), full_matrices=False)
    inner, outer = nn.Linear(layer.in_features, len(sizes), bias=False), nn.Linear(len(sizes), layer.out_features)
    with torch.no_grad():
        inner.weight.copy_(sizes.sqrt()[:, None] * right)
        outer.weight.copy_(left * sizes.sqrt())
        outer.bias.copy_(layer.bias)
    return nn.Sequential(inner, outer)


@cache
def compared(kind: str) -> Report:
    original = digits.subject()
    model = copy.deepcopy(original.model)
    at = next(at for at, layer in enumerate(model) if isinstance(layer, nn.Linear))
    model[at] = in_two(model[at]) if kind == "in two" else Split(model[at], 7)
    converted = Subject(model.eval(), name="converted")
    audits = ["score", "relative-noise", "function-noise"]
    return wt.compare(original, converted, digits.task(), audits=audits, effort=EFFORT)


@pytest.mark.parametrize("kind", ["in two", "split"])
@pytest.mark.release
def test_function_noise_says_that_the_two_are_equivalent(kind: str) -> None:
    (found,) = [one for one in compared(kind).findings if one.code == "WT102" and " vs " in one.subject]
    assert found.status == "excluded"
    gap = found.estimates[0]
    assert gap.low is not None and gap.high is not None
    assert -0.02 < gap.low <= gap.high < 0.02


@pytest.mark.release
def test_a_difference_in_how_weights_are_written_is_named_as_a_conversion() -> None:
    report = compared("in two")
    (found,) = [one for one in report.findings if one.code == "WT101" and " vs " in one.subject]
    assert found.status == "found"
    assert "same outputs, from layers that are cut in different ways" in report.headline
    assert "conversion" in report.headline


@pytest.mark.release
def test_a_pair_that_is_no_conversion_is_not_named_as_one() -> None:
    other = Subject(copy.deepcopy(digits.subject().model), name="other")
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.0 + 0.6 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    report = wt.compare(digits.subject(), other, digits.task(), audits=["score", "relative-noise"], effort=EFFORT)
    assert "conversion" not in report.headline
