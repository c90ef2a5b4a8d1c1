"""Experts that change places with the weights that choose them, proven on outputs."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import made, run_on
from tiny_transformers import hooked, with_part
from torch import Tensor, nn
from twins import Wired, apart, on, require_same_numbers

from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import experts
from wheeltap.gauge.base import GaugeSettings, SharedTensors
from wheeltap.gauge.hidden import Slices

FAMILIES = {
    "mixtral": (4, 1), "qwen3-moe": (4, 1), "gpt-oss": (4, 1), "deepseek-v2-grouped": (8, 4), "deepseek-v3": (8, 2),
}  # fmt: skip
SEED = 4
INPUTS = on(torch.randn(60, 12, generator=torch.Generator().manual_seed(0)))
FRESH = on(torch.randn(60, 12, generator=torch.Generator().manual_seed(1)))


def twin_of(model: nn.Module, **given: Any) -> Any:
    moves, _ = experts.find(model, SharedTensors(model), **given)
    twin = copy.deepcopy(model)
    moves["experts"](twin, np.random.default_rng(SEED), GaugeSettings())
    return twin


@pytest.mark.parametrize("name", FAMILIES)
def test_mixtures_of_transformers(name: str) -> None:
    model, run = made(name), run_on(name, seed=1)
    before = weights_digest(model)
    found, refused = experts.mixtures(model, SharedTensors(model))
    layers = ("1",) if name.startswith("deepseek") else ("0", "1")
    assert [mixture.path for mixture in found] == [f"model.layers.{layer}.mlp.experts" for layer in layers]
    assert {(mixture.count, mixture.groups) for mixture in found} == {FAMILIES[name]} and not refused
    twin = twin_of(model)
    assert apart(run, model, twin) < 1e-5
    path = f"{found[-1].path}.down_proj"
    assert not torch.equal(model.get_parameter(path), twin.get_parameter(path))
    assert weights_digest(model) == before
    alone = copy.deepcopy(model)
    for mixture in found:
        held = tuple(held for held in mixture.tensors if held.path == mixture.path)
        experts.permute(alone, replace(mixture, tensors=held), np.random.default_rng(SEED), GaugeSettings())
    assert apart(run, model, alone) > 1e-2


def test_groups_stay_together() -> None:
    """Experts of a group move to one group; across groups, others would be chosen."""
    model, run = made("deepseek-v3"), run_on("deepseek-v3", seed=1)
    (mixture,) = experts.mixtures(model, SharedTensors(model))[0]
    assert any(held.names[0].endswith("e_score_correction_bias") for held in mixture.tensors)
    mixed = copy.deepcopy(model)
    experts.permute(mixed, replace(mixture, groups=1), np.random.default_rng(SEED), GaugeSettings())
    assert apart(run, model, mixed) > 1e-2


def test_weights_of_16_bits() -> None:
    """Where scores are rounded to 16 bits experts may tie; where they are not, every bit of the weights is kept."""
    model = made("deepseek-v3").bfloat16()
    twin = twin_of(model)
    assert require_same_numbers(model, twin) == 3
    assert apart(run_on("deepseek-v3", seed=1), model.float(), twin.float()) < 1e-5
    for name in ("mixtral", "gpt-oss"):
        model = made(name).bfloat16()
        moves, refused = experts.find(model, SharedTensors(model))
        assert not moves and refused[0].startswith("model.layers.0.mlp: experts")


def _alike(model: Any) -> None:
    with torch.no_grad():
        model.model.layers[0].mlp.gate.weight[1] = model.model.layers[0].mlp.gate.weight[2]


REFUSED: list[Callable[[Any], Any]] = [
    hooked("model.layers.0.mlp.experts"),
    _alike,
    with_part("model.layers.0.mlp.extra", lambda _: nn.Linear(4, 4)),
    with_part("model.layers.0.mlp.experts.down_proj", lambda _: nn.Parameter(torch.zeros(3, 32, 40))),
    with_part("model.layers.0.mlp.gate", lambda _: nn.Linear(32, 4)),
]


@pytest.mark.parametrize("change", REFUSED)
def test_mixtures_that_are_not_plain_are_refused(change: Callable[[Any], None]) -> None:
    model = made("mixtral")
    change(model)
    found, refused = experts.mixtures(model, SharedTensors(model))
    assert [mixture.path for mixture in found] == ["model.layers.1.mlp.experts"]
    assert list(refused) == ["model.layers.0.mlp"]


class Listed(nn.Module):
    """A list of experts of which the best two are asked; as one tensor, or each multiplied by its number."""

    def __init__(self, *, stacked: bool = False, numbered: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stacked, self.numbered = stacked, numbered
        self.enter, self.router = nn.Linear(12, 16), nn.Parameter(torch.randn(16, 5))
        if stacked:
            shapes = {"one": (5, 16, 8), "two": (5, 8, 16)}
            parts = {name: nn.Parameter(torch.randn(*shape)) for name, shape in shapes.items()}
            self.experts: nn.Module = Wired(lambda net, x: (x @ net.one).relu() @ net.two, **parts)
        else:
            self.experts = nn.ModuleList(nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 16)) for _ in range(5))
        self.narrow, self.head = nn.Linear(16, 5), nn.Linear(21, 7)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.enter(x).relu()
        weights, chosen = (hidden @ self.router).topk(2, -1)
        every: Any = self.experts
        given = every(hidden) if self.stacked else torch.stack([expert(hidden) for expert in every])
        if self.numbered:
            given = given * torch.arange(1, 6)[:, None, None]
        mixed = sum(weights[:, k, None].softmax(0) * given[chosen[:, k], torch.arange(len(x))] for k in range(2))
        return self.head(torch.cat([hidden + mixed, self.narrow(hidden)], dim=1))


@pytest.mark.parametrize("stacked", [False, True])
def test_plain_mixtures_are_proven_unless_experts_are_numbered(*, stacked: bool) -> None:
    model = Listed(stacked=stacked).eval()
    assert experts.find(model, SharedTensors(model)) == ({}, ())
    (mixture,) = experts.mixtures(model, SharedTensors(model), run=INPUTS)[0]
    router = [held for held in mixture.tensors if held.path != "experts"]
    assert (mixture.path, mixture.listed, router) == ("experts", not stacked, [Slices(names=("router",), axis=1)])
    twin = twin_of(model, run=INPUTS)
    assert apart(FRESH, model, twin) < 1e-5
    assert weights_digest(twin) != weights_digest(model)
    assert not torch.equal(twin.router, model.router)
    numbered = Listed(stacked=stacked, numbered=True).eval()
    assert experts.mixtures(numbered, SharedTensors(numbered), run=INPUTS) == ((), {})
