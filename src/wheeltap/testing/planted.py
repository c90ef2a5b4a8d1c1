"""Tiny subjects with planted structure: what a disturbance does to them is known in closed form."""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from wheeltap.core import measure
from wheeltap.core.errors import UnknownName
from wheeltap.core.layer import find_layers
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.models.mlp import mlp
from wheeltap.perturb.base import BlockFactors, Factors
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_once


def numbers(*shape: int, seed: int) -> Tensor:
    """Standard normal numbers of their own stream, in double precision."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class PlantedCase:
    """A subject and the task it is measured on.

    Attributes:
        subject: In eval mode.
        task: With enough rows for the layer moments.
    """

    subject: Subject
    task: BaseTask

    def factors(self) -> dict[str, Factors | BlockFactors]:
        """Layer moments, for perturbations that need them."""
        from wheeltap.engine.needs import moments

        known = moments.layer_moments(self.subject, self.task).known
        return cast("dict[str, Factors | BlockFactors]", known)


def linear_regression(*, examples: int = 64) -> PlantedCase:
    """Six correlated inputs, four outputs and residuals of standard deviation .5, in double precision."""
    inputs = numbers(examples, 6, seed=0) @ numbers(6, 6, seed=1) + 0.5
    weight, bias = numbers(4, 6, seed=2), numbers(4, seed=3)
    model = nn.Linear(6, 4, dtype=torch.float64).eval()
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(bias)
    targets = inputs @ weight.T + bias + 0.5 * numbers(examples, 4, seed=4)
    task = Task(inputs, targets, measure=measure.squared_error, name="linear regression")
    return PlantedCase(Subject(model, name="linear"), task)


class Tokens(nn.Module):
    """Token ids ``[example, position]`` to class scores: embedding, mean over positions, linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        return self.head(self.embed(ids).mean(1))


class Attention(nn.Module):
    """Vectors ``[example, position, 8]`` to class scores: self-attention, mean over positions, linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        mixed, _ = self.attend(inputs, inputs, inputs, need_weights=False)
        return self.head(mixed.mean(1))


class TiedNet(nn.Module):
    """A token to scores over next tokens, with one matrix read at both ends."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 5)
        self.inner = nn.Linear(5, 5)
        self.out = nn.Linear(5, 9, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Scores ``[example, token]``."""
        return self.out(self.inner(self.embed(ids)))


def _ids(*shape: int, top: int) -> Tensor:
    return torch.randint(top, shape, generator=torch.Generator().manual_seed(1))


CASES = ("mlp", "conv", "conv1d", "embedding", "attention", "tied")
"""Kinds of nets that ``planted`` makes: between them every kind of layer that models of torch alone have."""


def planted(kind: str, *, seed: int = 0) -> PlantedCase:
    """A small net with random weights, and a task whose right answers are the net's own.

    Args:
        kind: One of ``CASES``.
        seed: Of the weights.

    Raises:
        UnknownName: If there is no such kind.
    """
    with reproducible(seed):
        match kind:
            case "mlp":
                model, inputs = mlp((6, 12, 8, 3)), numbers(60, 6, seed=1).float()
            case "conv":
                model, inputs = nn.Sequential(
                    nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 2, stride=2), nn.ReLU(), nn.Flatten(),
                    nn.Linear(16, 3),
                ), numbers(60, 2, 4, 4, seed=1).float()  # fmt: skip
            case "conv1d":
                layers = nn.Conv1d(2, 4, 3, dilation=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3)
                model, inputs = nn.Sequential(*layers), numbers(60, 2, 8, seed=1).float()
            case "embedding":
                model, inputs = Tokens(), _ids(60, 5, top=11)
            case "attention":
                model, inputs = Attention(), numbers(60, 5, 8, seed=1).float()
            case "tied":
                model, inputs = TiedNet(), _ids(60, top=9)
            case _:
                raise UnknownName("kind of planted net", kind, CASES)
    return with_own_answers(model.eval(), inputs, name=kind)


def with_own_answers(model: nn.Module, inputs: Tensor, *, name: str) -> PlantedCase:
    """The model, and a task on which it is always right."""
    with torch.no_grad():
        targets = model(inputs).argmax(-1)
    return PlantedCase(Subject(model, name=name), Task(inputs, targets, name=name))


def clusters(*, seed: int = 0) -> PlantedCase:
    """An MLP of 12-24-24-6 units trained to tell six overlapping clusters apart; a tenth of a second on one core.

    It is right on most examples and has redundancy to lose: a small stand-in for a real classifier.
    """
    centres = 1.2 * numbers(6, 12, seed=100)
    labels = torch.arange(1200) % 6
    inputs = (centres[labels] + numbers(1200, 12, seed=101)).float()
    with reproducible(seed):
        model = mlp((12, 24, 24, 6))
    train_once(model, inputs[:600], targets=labels[:600], settings=TrainSettings(seed=seed, epochs=20))
    subject = Subject(model, name="clusters")
    assert len(find_layers(model)) == 3
    return PlantedCase(subject, Task(inputs[600:], labels[600:], name="clusters"))
