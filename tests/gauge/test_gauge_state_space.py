"""Mamba and Mamba-2: states, heads and channels permuted and rescaled, proven on outputs."""

import copy
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import made, run_on
from tiny_transformers import hooked, with_part
from torch import nn
from twins import BOUND, apart, require_same_numbers

from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import state_space
from wheeltap.gauge.base import GaugeSettings, SharedTensors
from wheeltap.gauge.moves import permute

FAMILIES = ("mamba", "mamba2")
GAUGES = ("permute", "rescale")


def twin_of(model: nn.Module, gauge: str) -> Any:
    moves, _ = state_space.find(model, SharedTensors(model))
    twin = copy.deepcopy(model)
    moves[gauge](twin, np.random.default_rng(0), GaugeSettings())
    return twin


def test_twins_compute_the_same() -> None:
    """What moves: all of a Mamba-2 layer; of Mamba, what makes, keeps and reads its states."""
    for name, biased in product(FAMILIES, (False, True)):
        model = made(name, use_bias=biased)
        before = weights_digest(model)
        assert tuple(state_space.find(model, SharedTensors(model))[0]) == GAUGES
        for gauge in GAUGES:
            twin = twin_of(model, gauge)
            assert apart(run_on(name, seed=1), model, twin) <= BOUND, gauge
            for old, new in zip(model.backbone.layers, twin.backbone.layers, strict=True):
                assert weights_digest(old.mixer) != weights_digest(new.mixer)
            for (path, old), new in zip(model.named_parameters(), twin.parameters(), strict=True):
                moved = ".mixer." in path and (name == "mamba2" or "A_log" in path or "x_proj" in path)
                assert gauge != "permute" or biased or torch.equal(old, new) != moved, path
        assert weights_digest(model) == before


@pytest.mark.parametrize("name", FAMILIES)
def test_16_bit_weights_keep_every_bit(name: str) -> None:
    model = made(name).bfloat16()
    twin = twin_of(model, "permute")
    assert require_same_numbers(model, twin) > 0
    assert apart(run_on(name, seed=1), model.float(), twin.float()) <= BOUND
    model = made(name).bfloat16()
    twin = twin_of(model, "rescale")
    assert apart(run_on(name, seed=1), model.float(), twin.float()) <= BOUND


def test_states_that_fade_in_another_order_are_others() -> None:
    model = made("mamba")
    units = state_space.find(model, SharedTensors(model))[0]["permute"].keywords["parts"]  # type: ignore[attr-defined]
    twin = copy.deepcopy(model)
    for one in units:
        less = replace(one, stages=tuple(each for each in one.stages if not each.names[0].endswith("A_log")))
        permute(twin, (less,), np.random.default_rng(0), GaugeSettings())
    assert apart(run_on("mamba", seed=1), model, twin) > 10 * BOUND


def test_groups_and_heads_stay_together() -> None:
    """Moved without regard to heads or to groups, others share a time step, states or a norm."""
    model = made("mamba2")
    layer = state_space.find(model, SharedTensors(model))[0]["permute"].keywords["parts"][0]  # type: ignore[attr-defined]
    assert (layer.groups, layer.heads, layer.width, layer.states) == (2, 8, 8, 8)
    wrong = (replace(layer, groups=1, states=16), replace(layer, heads=4, width=16, layers=_without_heads(layer)))
    for one in wrong:
        twin = copy.deepcopy(model)
        state_space.permute_heads(twin, one, np.random.default_rng(1))
        assert apart(run_on("mamba2", seed=1), model, twin) > 10 * BOUND


def _without_heads(layer: Any) -> Any:
    """Leaves time steps where they are."""
    channels, heads, states = layer.layers
    return channels, replace(heads, stages=()), states


MIXER = "backbone.layers.0.mixer"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mamba", hooked(f"{MIXER}.conv1d")),
        ("mamba2", with_part(f"{MIXER}.out_proj", lambda model: model.backbone.layers[1].mixer.out_proj)),
        ("mamba", with_part(f"{MIXER}.skip", lambda _: nn.Parameter(torch.ones(64)))),
        ("mamba2", with_part(f"{MIXER}.norm", lambda _: nn.LayerNorm(64))),
    ],
)
def test_layers_that_are_not_plain_are_refused(name: str, change: Callable[[Any], None]) -> None:
    model = made(name)
    change(model)
    reasons = state_space.find(model, SharedTensors(model))[1]
    assert any(reason.startswith(f"{MIXER}: ") for reason in reasons)
