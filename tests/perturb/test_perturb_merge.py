"""Erasing against its closed form; merging against its line, with what the engine reads of the other checkpoint."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.layer import Layer
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.gather import of_another
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Weights
from wheeltap.testing.planted import numbers, planted


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
    for got, one, two in ((found.weight, mine.weight, theirs.weight), (found.bias, mine.bias, theirs.bias)):
        assert got is not None and one is not None and two is not None
        expected = [
            (1 - dose) * a + dose * b for a, b in zip(one.flatten().tolist(), two.flatten().tolist(), strict=True)
        ]
        torch.testing.assert_close(got.flatten(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-12)
    assert merged(mine, Weights(theirs.weight), dose).bias is None, "a bias without a partner stays"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_ends_are_the_checkpoints_bit_for_bit_and_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    mine, theirs = pair(dtype)
    theirs.weight[0, 0] = -0.0
    for dose, end in ((0.0, mine), (1.0, theirs)):
        found = merged(mine, theirs, dose)
        for got, want in ((found.weight, end.weight), (found.bias, end.bias)):
            assert got is not None and want is not None
            assert torch.equal(got.view(torch.uint8), want.view(torch.uint8))
            assert got.data_ptr() != want.data_ptr()
    if dtype.itemsize == 2:
        wide = mine.weight.float() + 0.3 * (theirs.weight.float() - mine.weight.float())
        assert torch.equal(merged(mine, theirs, 0.3).weight, wide.to(dtype))


def covered(subject: Subject) -> list[str]:
    return [name for layer in subject.layers for name in (layer.weight, layer.bias) if name is not None]


@pytest.mark.parametrize("kind", ["attention", "tied"])
def test_a_whole_model_becomes_the_other_and_comes_back(kind: str) -> None:
    """By what the engine reads of it: at dose 1 all outputs are the other model's, tied and packed weights included."""
    mine, theirs = planted(kind).subject, planted(kind, seed=1).subject
    digests = [weights_digest(each.model) for each in (mine, theirs)]
    first, second = ({name: each.parameter(name).detach().clone() for name in covered(each)} for each in (mine, theirs))
    known = of_another(mine, theirs)
    with Disturbance(mine, create("merge", {"other": "x"}), WHOLE, known) as disturbance, torch.no_grad():
        for dose in (1.0, -1.0, 0.5):
            disturbance.apply(dose, root=0, seed=0)
            assert dose != 1.0 or weights_digest(mine.model) == digests[1]
            for name, held in first.items():
                torch.testing.assert_close(mine.parameter(name), held.lerp(second[name], dose))
    assert [weights_digest(each.model) for each in (mine, theirs)] == digests, "the other model is left alone"


@pytest.mark.parametrize("kind", ["attention", "tied"])
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
