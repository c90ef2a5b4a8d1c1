"""Nets with many kinds of layers whose single numbers are screened, and how a reading of them is read."""

from collections.abc import Callable
from typing import Any

import torch
from engine_nets import TiedLanguageModel, choices, numbers, taught
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.readings import Readings, create
from wheeltap.models.mlp import mlp
from wheeltap.plans.readings.single_point import held, text


class Odd(nn.Module):
    """Convolutions in every way of padding, stride, dilation and groups, then a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        self.mirrored = nn.Conv2d(4, 6, (1, 3), padding="same", padding_mode="reflect", dilation=(1, 2), bias=False)
        self.line = nn.Conv1d(6, 3, 2, padding_mode="circular", padding=1)
        self.head = nn.Linear(3, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.mirrored(self.grouped(inputs).relu()).relu_()
        return self.head(self.line(hidden.flatten(2)).tanh().mean(2))


def transposed() -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    return nn.Sequential(Conv1D(5, 6), nn.ReLU(inplace=True), Conv1D(3, 5))


def images(model: nn.Module) -> BaseTask:
    """Of several answers: a net that gives only one is at chance, and has nothing to lose."""
    inputs = numbers(12, 2, 8, 8, seed=1)
    with torch.no_grad():
        model.get_parameter("head.bias").sub_(model(inputs).mean(0))
    return taught(model, inputs)


def own_answers(model: nn.Module, task: ChoiceTask) -> BaseTask:
    return ChoiceTask(task.contexts, task.choices, task.scores(model).argmax(-1).tolist())


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module], BaseTask]]] = {
    "linear": (lambda: mlp((6, 9, 9, 4)), lambda model: taught(model, numbers(20, 6, seed=1))),
    "transposed": (transposed, lambda model: taught(model, numbers(20, 6, seed=1))),
    "convolutions": (Odd, images),
    # Three tokens of the model's 13 never come up, but its answers are about them too.
    "tied": (TiedLanguageModel, lambda model: own_answers(model, choices(8, vocabulary=10))),
}


def named(values: dict[str, Any], of: str = "candidate") -> list[tuple[str, tuple[int, ...]]]:
    """Parameter and indices of each number that was named."""
    return [(text(p), held(at)) for p, at in zip(values[f"{of}_parameters"], values[f"{of}_places"], strict=True)]


def read(model: nn.Module, task: BaseTask, **settings: float) -> Readings:
    return create("single-point", dict(settings)).read(Subject(model), task, root=0, seed=0)
