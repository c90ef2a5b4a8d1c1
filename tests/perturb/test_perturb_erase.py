"""Erasing against its closed form, and under the contract."""

import pytest
import torch

from wheeltap.core.layer import Layer
from wheeltap.perturb import create
from wheeltap.perturb.base import Draw, Weights
from wheeltap.perturb.merge import Erase
from wheeltap.testing.contract import PerturbationContract
from wheeltap.testing.planted import numbers


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
