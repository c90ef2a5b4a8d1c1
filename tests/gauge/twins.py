"""Copies rewritten by gauges: how far their outputs are from the model's, and whether they hold its numbers."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.gauge import attention
from wheeltap.gauge.attention import REWRITES, AttentionLayer
from wheeltap.gauge.base import GaugeSettings, SharedTensors

BOUND = 1e-4
Run = Callable[[Any], Tensor]


def on(inputs: Tensor) -> Run:
    """What runs a model on these inputs, in the model's precision."""

    def run(model: Any) -> Tensor:
        with torch.no_grad():
            return model(inputs.to(next(model.parameters()).dtype))

    return run


def apart(run: Run, model: nn.Module, twin: nn.Module) -> float:
    return gauge.check(run(model).double().numpy(), run(twin).double().numpy()).difference


def require_same_numbers(model: nn.Module, twin: nn.Module) -> int:
    """Every parameter holds the same numbers in some order, to the bit; gives how many have another order."""
    moved = 0
    for old, new in zip(model.parameters(), twin.parameters(), strict=True):
        assert new.dtype == old.dtype
        assert torch.equal(old.detach().flatten().sort().values, new.detach().flatten().sort().values)
        moved += not torch.equal(old, new)
    return moved


def attention_in(model: nn.Module) -> tuple[tuple[AttentionLayer, ...], tuple[str, ...]]:
    """Its attention layers, and why others, and moves of these, are refused."""
    return attention.find(model, SharedTensors(model))


def turned(model: nn.Module, *moves: str, seed: int = 0) -> Any:
    """A copy with each attention layer moved so, where that holds."""
    twin, rng = copy.deepcopy(model), np.random.default_rng(seed)
    for layer in attention_in(model)[0]:
        for move in moves:
            if move in layer.moves:
                REWRITES[move](twin, layer, rng, GaugeSettings())
    return twin


class Wired(nn.Module):
    """Some parts, and a function that says what their forward is."""

    def __init__(self, read: Callable[[Any, Tensor], Tensor], **parts: Any) -> None:
        super().__init__()
        self.read = read
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self, x)
