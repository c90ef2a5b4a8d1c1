"""Nets on a task with a mirror symmetry, whose answers to any change of a weight are known to be symmetric or not."""

import copy
from typing import Literal, cast, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wheeltap.core import measure, symmetry
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.models.mlp import mlp
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import PlantedCase

Kind = Literal["folded", "halves", "plain"]
"""``folded`` reads |x|: S = 1 for every change of any weight. ``halves`` computes the same function with one set of
weights for each side: S = 1/2 for every change. ``plain`` reads x like any net: neither."""


@final
class MirroredNet(nn.Module):
    """Points ``[example, (x, y)]`` to two outputs; of a smooth net hidden units are tanh, else ReLU."""

    def __init__(self, kind: Kind, *, smooth: bool = True) -> None:
        super().__init__()

        self.kind: Kind = kind
        self.one = mlp((2, 12, 8, 2))
        if smooth:
            self.one[1], self.one[3] = nn.Tanh(), nn.Tanh()
        self.other = copy.deepcopy(self.one) if kind == "halves" else nn.Identity()

    def forward(self, points: Float[Tensor, "example 2"]) -> Float[Tensor, "example 2"]:
        if self.kind == "plain":
            return cast("Tensor", self.one(points))
        folded = torch.cat([points[:, :1].abs(), points[:, 1:]], 1)
        here = cast("Tensor", self.one(folded))
        if self.kind == "folded":
            return here
        return torch.where(points[:, :1] > 0, here, cast("Tensor", self.other(folded)))


def mirrored(kind: Kind, *, seed: int = 0, size: int = 12, smooth: bool = True) -> PlantedCase:
    """A random net, and a task of grid points (an even number a side) with the mirror symmetry left-right."""
    line = torch.linspace(-1.0, 1.0, size)
    y, x = torch.meshgrid(line, line, indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()], 1)
    with reproducible(seed):
        model = MirroredNet(kind, smooth=smooth).eval()
    with torch.no_grad():
        targets = cast("Tensor", model(points))
    task = Task(points, targets, measure=measure.squared_error, name=kind)
    return PlantedCase(Subject(model, name=kind), task.with_symmetry(symmetry.mirror(points)))
