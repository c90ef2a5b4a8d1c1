"""Sealed nets, and ways to change copies of them."""

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

import wheeltap as wt
from wheeltap import sources
from wheeltap.suites.seal.making import SealOptions, make
from wheeltap.suites.seal.record import Seal

Change = Callable[[nn.Module], object]


@cache
def digits() -> tuple[nn.Module, Seal]:
    loaded = sources.load("digits")
    return loaded.subject.model, make(loaded.subject, loaded.task, SealOptions(seed=7)).seal


def changed(change: Change) -> nn.Module:
    """A copy of the digits net, changed in place."""
    model = copy.deepcopy(digits()[0])
    with torch.no_grad():
        change(model)
    return model


def weights(model: nn.Module) -> list[nn.Parameter]:
    return [part for part in model.parameters() if part.ndim > 1]


def task() -> wt.Task:
    return wt.Task(torch.randn(24, 6, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3)


class Gain(nn.Module):
    """A user's layer, with a table that no file keeps, a plain tensor, and a list."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Buffer(torch.arange(8.0), persistent=False)
        self.scale, self.steps = torch.full((8,), 1.5), [1, 2]

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return hidden * self.scale + self.table * self.steps[0]


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), Gain(), nn.Tanh(), nn.Linear(8, 3)).eval()


@cache
def sealed() -> Seal:
    return make(wt.Subject(net()), task(), SealOptions(inputs=4, seed=2)).seal
