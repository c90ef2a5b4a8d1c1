"""Erasing against its closed form; merging against its line, with what the engine reads of the other checkpoint."""

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.layer import Layer
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.gather import of_another
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Weights
from wheeltap.perturb.merge import Erase
from wheeltap.testing.contract import PerturbationContract
from wheeltap.testing.planted import CASES, numbers, planted


class TestErase(PerturbationContract):
    """The last dose is the one at which twins are compared: at dose 1 nothing would be left to differ."""

    perturbation = Erase
    doses = (0.05, 1.0, 0.3)
    draws = 24


@pytest.mark.parametrize("dose", [0.0, 0.25, 1.0])
def test_every_weight_keeps_what_the_dose_leaves(dose: float) -> None:
    weight = numbers(4, 6, seed=0)
    layer = Layer(name="x", kind="linear", weight="x.weight", bias="x.bias", shape=(4, 6))
    left = create("erase").replace(layer, Weights(weight, numbers(4, seed=1)), dose, Draw(0, 0))
    expected = [[value - dose * value for value in row] for row in weight.tolist()]
    assert torch.allclose(left.weight, torch.tensor(expected, dtype=weight.dtype), rtol=1e-15)
    assert left.bias is None, "biases are kept"
    assert dose < 1.0 or not left.weight.any()


def merged(mine: Weights, theirs: Weights, dose: float) -> Weights:
    made = create("merge", {"other": "theirs"})
    made.require_dose(dose)
    layer = Layer(name="x", kind="linear", weight="x.weight", bias="x.bias", shape=tuple(mine.weight.shape))
    return made.replace(layer, mine, dose, Draw(0, 0, theirs))


def pair(dtype: torch.dtype = torch.float64, *, seed: int = 0) -> tuple[Weights, Weights]:
    mine, theirs = (
        Weights(numbers(4, 5, seed=seed + at).to(dtype), numbers(4, seed=seed + at + 2).to(dtype)) for at in (0, 1)
    )
    return mine, theirs


@given(st.floats(-1, 2), st.integers(0, 50))
def test_weights_and_biases_are_on_the_line(dose: float, seed: int) -> None:
    mine, theirs = pair(seed=seed)
    found = merged(mine, theirs, dose)
    assert found.bias is not None
    for got, one, two in ((found.weight, mine.weight, theirs.weight), (found.bias, mine.bias, theirs.bias)):
        assert one is not None
        assert two is not None
        expected = [
            (1 - dose) * a + dose * b for a, b in zip(one.flatten().tolist(), two.flatten().tolist(), strict=True)
        ]
        torch.testing.assert_close(got.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_ends_are_the_checkpoints_bit_for_bit(dtype: torch.dtype) -> None:
    mine, theirs = pair(dtype)
    theirs.weight[0, 0] = -0.0
    for dose, end in ((0.0, mine), (1.0, theirs)):
        found = merged(mine, theirs, dose)
        for got, want in ((found.weight, end.weight), (found.bias, end.bias)):
            assert got is not None
            assert want is not None
            assert torch.equal(got.view(torch.uint8), want.view(torch.uint8))
            assert got.data_ptr() != want.data_ptr()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    mine, theirs = pair(dtype)
    wide = mine.weight.float() + 0.3 * (theirs.weight.float() - mine.weight.float())
    assert torch.equal(merged(mine, theirs, 0.3).weight, wide.to(dtype))


def test_a_task_is_added_again_and_taken_away() -> None:
    """A fine-tuned model is base + task: dose 2 has the task twice, dose -1 its opposite."""
    base, task = numbers(4, 5, seed=1), numbers(4, 5, seed=2)
    for dose in (2.0, -1.0):
        found = merged(Weights(base), Weights(base + task), dose).weight
        torch.testing.assert_close(found, base + dose * task)


def test_a_bias_without_a_partner_stays() -> None:
    mine, theirs = pair()
    assert merged(mine, Weights(theirs.weight), 0.5).bias is None


@pytest.mark.parametrize("kind", CASES)
def test_a_whole_model_becomes_the_other_and_comes_back(kind: str) -> None:
    """By what the engine reads of it: at dose 1 all outputs are the other model's, tied and packed weights included."""
    mine, theirs = planted(kind), planted(kind, seed=1)
    digest = weights_digest(mine.subject.model)
    known = of_another(mine.subject, theirs.subject)
    with Disturbance(mine.subject, create("merge", {"other": "x"}), WHOLE, known) as disturbance, torch.no_grad():
        disturbance.apply(1.0, root=0, seed=0)
        assert weights_digest(mine.subject.model) == weights_digest(theirs.subject.model)
        disturbance.apply(0.5, root=0, seed=0)
        middle = mean_of(planted(kind).subject.model, theirs.subject.model, like=mine.subject)
        for name in covered(mine.subject):
            torch.testing.assert_close(mine.subject.parameter(name), middle[name])
    assert weights_digest(mine.subject.model) == digest


@pytest.mark.parametrize("kind", CASES)
def test_what_two_others_changed_is_added(kind: str) -> None:
    base, one, two = (planted(kind, seed=seed) for seed in range(3))
    digest = weights_digest(base.subject.model)
    first, second, start = (dict(each.subject.model.named_parameters()) for each in (one, two, planted(kind)))
    known = of_another(base.subject, one.subject, two.subject)
    with Disturbance(base.subject, create("merge", {"other": "x", "also": "y"}), WHOLE, known) as disturbance:
        for dose in (1.0, 0.5, 2.0):
            disturbance.apply(dose, root=0, seed=0)
            for name in covered(base.subject):
                expected = start[name] + dose * (first[name] - start[name]) + dose * (second[name] - start[name])
                torch.testing.assert_close(base.subject.parameter(name).detach(), expected.detach())
    assert weights_digest(base.subject.model) == digest
    with pytest.raises(ModelError, match=r"(?s)4x3x2 and 4x3x5: 1\.weight"):
        of_another(mlp(4, 3, 2), mlp(4, 3, 2), mlp(4, 3, 5))


def mean_of(one: nn.Module, two: nn.Module, *, like: Subject) -> dict[str, Tensor]:
    first, second = dict(one.named_parameters()), dict(two.named_parameters())
    return {name: (first[name] + second[name]) / 2 for name in covered(like)}


def covered(subject: Subject) -> list[str]:
    return [name for layer in subject.layers for name in (layer.weight, layer.bias) if name is not None]


def mlp(*widths: int, bias: bool = True) -> Subject:
    layers = [nn.Linear(a, b, bias=bias) for a, b in pairwise(widths)]
    return Subject(nn.Sequential(*layers).eval(), name="x".join(map(str, widths)))


def test_the_first_tensor_that_differs_is_named() -> None:
    with pytest.raises(ModelError, match=r"(?s)4x3x2 and 4x3x5: 1\.weight.*\[2, 3\].*\[5, 3\]"):
        of_another(mlp(4, 3, 2), mlp(4, 3, 5))
    with pytest.raises(ModelError, match=r"(?s)0\.bias.*\[3\].*no such tensor"):
        of_another(mlp(4, 3, 2), mlp(4, 3, 2, bias=False))


def test_the_other_model_is_left_alone() -> None:
    mine, theirs = planted("mlp"), planted("mlp", seed=1)
    before = copy.deepcopy(theirs.subject.model.state_dict())
    known = of_another(mine.subject, theirs.subject)
    with Disturbance(mine.subject, create("merge"), WHOLE, known) as disturbance:
        for dose in (1.0, -1.0, 0.5):
            disturbance.apply(dose, root=0, seed=0)
    for name, held in theirs.subject.model.state_dict().items():
        assert torch.equal(held, before[name])
