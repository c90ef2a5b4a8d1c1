"""Nets that add modulo 31, with and without attention: the clock and the pizza of the literature, small.

Source: Zhong, Liu, Tegmark & Andreas (2023, arXiv:2306.17844), section 2 for the nets and their training.
"""

from typing import Annotated, Final, final

import msgspec
import torch
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor
from wheeltap.models.rows import HEADS
from wheeltap.recipes.base import Given
from wheeltap.recipes.classifier import ClassifierNet
from wheeltap.recipes.fit import Optimizer, Schedule, TrainingSettings

MODULUS: Final = 31
TAUGHT: Final = 0.8  # share of all sums that a net is trained on, as in the source


def sums() -> Task:
    """All sums of two numbers, ``[sum, 2]``; to swap the two changes nothing."""
    pairs = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS))
    moved = torch.stack([torch.arange(len(pairs)), pairs[:, 1] * MODULUS + pairs[:, 0]])
    task = Task(pairs, pairs.sum(1) % MODULUS, name=f"sums modulo {MODULUS}")
    return task.with_symmetry(Symmetry("swap", moved))


@final
class Adder(nn.Module):
    """One block without norms that answers at the second of two numbers; ``attends``: see ``AddingNetSettings``."""

    def __init__(self, width: int, *, attends: bool) -> None:
        super().__init__()
        self.number, self.place = nn.Embedding(MODULUS, width), nn.Embedding(2, width)
        names = ("query", "key", "value", "output") if attends else ("value", "output")
        self.attention = nn.ModuleDict({name: nn.Linear(width, width, bias=False) for name in names})
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.answer = nn.Linear(width, MODULUS, bias=False)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=width**-0.5) if parameter.ndim > 1 else nn.init.zeros_(parameter)

    def forward(self, pairs: Tensor) -> Tensor:
        """Scores ``[sum, number]``."""
        stream = self.number(pairs) + self.place.weight
        last, heads = stream[:, 1], self.attention["value"](stream).unflatten(-1, (HEADS, -1))
        if "query" in self.attention:
            asked = self.attention["query"](last).unflatten(-1, (HEADS, -1))
            known = self.attention["key"](stream).unflatten(-1, (HEADS, -1))
            shares = (torch.einsum("nhd,nkhd->nkh", asked, known) / known.shape[-1] ** 0.5).softmax(1)
            heads = shares[..., None] * heads
        last = last + self.attention["output"](heads.sum(1).flatten(1))
        return self.answer(last + self.down(self.up(last).relu()))


class AddingNetSettings(TrainingSettings, frozen=True, kw_only=True):
    """Which net, and how it is trained.

    Attributes:
        attends: Whether attention weighs the two numbers (*clock*), or each counts as much (*pizza*).
        width: Of what a place holds.
    """

    attends: bool = True
    width: Annotated[int, msgspec.Meta(ge=HEADS, le=1024, multiple_of=HEADS)] = 64
    epochs: int = 600
    batch: int = MODULUS**2
    decay: float = 2.0
    optimizer: Optimizer = "adamw"
    schedule: Schedule = "constant"


@final
class AddingNet(ClassifierNet):
    """A net that is trained on most sums and must find the others."""

    name = stream = "adding-net"
    title = f"small transformer that adds modulo {MODULUS}, with or without attention"
    settings_type = AddingNetSettings
    settings: AddingNetSettings  # pyright: ignore[reportIncompatibleVariableOverride]  (never set again)

    def lesson(self, given: Given) -> Task:
        """Most of the sums, by the seed."""
        task = given.examples
        if not isinstance(task, Task) or task.digest != sums().digest:
            raise UsageError("This net learns nothing but sums.", where=f"recipe {self.name}", got=task and task.name,
                             expected=f"the examples {__name__}:sums")  # fmt: skip
        order = seeds.generator(given.spec.seed, self.name, "taught").permutation(len(task.targets))
        return task.part(to_tensor(order[: int(TAUGHT * len(order))]))

    def _net(self, task: Task) -> nn.Module:
        return Adder(self.settings.width, attends=self.settings.attends)
