"""A sealed net and ways to change copies of it."""

import copy
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from wheeltap import sources
from wheeltap.suites.seal.making import Asked, Made, make

Change = Callable[[nn.Module], object]


@cache
def digits() -> tuple[nn.Module, Made]:
    """The digits net and its seal."""
    loaded = sources.load("digits")
    return loaded.subject.model, make(loaded.subject, loaded.task, Asked(seed=7))


def changed(change: Change) -> nn.Module:
    """A copy of the digits net, changed in place."""
    model = copy.deepcopy(digits()[0])
    with torch.no_grad():
        change(model)
    return model


def weights(model: nn.Module) -> list[nn.Parameter]:
    """Its matrices, in order."""
    return [part for part in model.parameters() if part.ndim > 1]
