"""Hidden units found by probing in the families of transformers that no structure here knows."""

from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import made, run_on
from torch import nn

from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import general
from wheeltap.gauge.hidden import Inputs, Slices

LINEAR = ("permute", "rescale", "split", "cancel", "dead", "entangle")
CURVED = ("permute", "split", "cancel", "dead", "entangle")

FAMILIES: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "phi3": (LINEAR, ["model.layers.0.mlp.gate_up_proj", "model.layers.1.mlp.gate_up_proj"]),
    "mixtral": (LINEAR, ["model.layers.0.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.gate_up_proj"]),
    "deepseek-v3": (LINEAR, ["model.layers.0.mlp.gate_proj", "model.layers.1.mlp.experts.gate_up_proj",
                             "model.layers.1.mlp.shared_experts.gate_proj"]),
    "bert": (CURVED, ["bert.encoder.layer.0.intermediate.dense", "bert.encoder.layer.1.intermediate.dense",
                      "bert.pooler.dense"]),
}  # fmt: skip
"""What is found in each, and the gauges of hidden units that hold on all of it together."""


def calm(name: str) -> Any:
    """A member with matrices half as large: its own rounding is then far below the bound on twins."""
    model = made(name)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.5 if parameter.ndim > 1 else 1)
    return model


def weights_of(model: nn.Module, family: gauge.Family) -> dict[str, np.ndarray[Any, Any]]:
    stages = (stage for layer in family.hiddens for stage in layer.stages)
    names = {name for stage in stages if isinstance(stage, Slices | Inputs) for name in stage.names}
    return {name: model.get_parameter(name).detach().float().numpy() for name in names}


@pytest.mark.parametrize("name", FAMILIES)
def test_twins_of_hidden_units_alone(name: str) -> None:
    """On inputs that were never probed; every tensor of every hidden layer is another one."""
    model, fresh = calm(name), run_on(name, seed=5)
    before = weights_digest(model)
    family = general.recognise(model, run_on(name, seed=1))
    assert isinstance(family, gauge.Family)
    offers, hiddens = FAMILIES[name]
    assert sorted(layer.name for layer in family.hiddens) == sorted(hiddens)
    units = tuple(gauge for gauge in family.offers if gauge in LINEAR)
    assert units == offers
    original, old = fresh(model).numpy(), weights_of(model, family)
    for operation in units:
        twin = gauge.twin(model, gauge.describe(family, operation, seed=1), family=family)
        likeness = gauge.check(original, fresh(twin).numpy())
        assert likeness.difference < 1e-4, operation
        assert likeness.agreement == 1, operation
        new = weights_of(twin, family)
        stages = [stage for layer in family.hiddens for stage in layer.stages]
        scaled = {stage.names[0] for stage in stages if isinstance(stage, Inputs)}
        scaled |= {stage.names[0] for stage in stages if isinstance(stage, Slices) and stage.scaled}
        for weight in scaled if operation == "rescale" else new:
            same = new[weight].shape == old[weight].shape and np.array_equal(new[weight], old[weight])
            assert not same or not old[weight].any(), f"{operation}: {weight}"
    assert weights_digest(model) == before
