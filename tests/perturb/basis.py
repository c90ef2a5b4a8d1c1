"""Every direction of noise: as many as numbers are drawn, of which each is 1 in one and 0 in all others.

What a draw does is linear in what is drawn, so mean squares over draws are sums over these, exactly.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from wheeltap.core.layer import Layer
from wheeltap.perturb.base import BlockFactors, Draw, Factors, Weights
from wheeltap.perturb.noise import FunctionNoise


class Basis(Draw):
    """A draw that is 1 at one place. What is drawn for a constant follows what is drawn for the inputs."""

    def __init__(self, known: Factors | BlockFactors, place: int) -> None:
        super().__init__(0, 0, known)
        object.__setattr__(self, "place", place)
        object.__setattr__(self, "first", 0)

    def normal(self, name: str, shape: tuple[int, ...], *, like: Tensor) -> Tensor:
        drawn = torch.zeros(shape, dtype=like.dtype)
        at = self.place - self.first
        if 0 <= at < drawn.numel():
            drawn.view(-1)[at] = 1.0
        object.__setattr__(self, "first", self.first + drawn.numel())
        return drawn


def directions(layer: Layer, clean: Weights, known: Factors | BlockFactors, own: Factors) -> Iterator[Weights]:
    """All of them, of a layer of which ``own`` is what draws are made for."""
    rows = own.out.shape[1] - own.constant[0]
    columns = len(own.whiten) - own.constant[1]
    for place in range(rows * columns + any(own.constant) * (rows + columns + 1)):
        yield FunctionNoise().direction(layer, clean, Basis(known, place))
