"""Random nets on given inputs, for the tests of function-space noise."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.recipes.randomness import reproducible
from wheeltap.testing.planted import PlantedCase


def made(build: Callable[[], nn.Module], inputs: Tensor, *, seed: int = 0, bias: float = 1.0) -> PlantedCase:
    """A random net in double precision with sizeable biases, on these inputs."""
    with reproducible(seed):
        model = build().to(torch.float64).eval()
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.data.normal_(0, bias)
    return PlantedCase(Subject(model), Task(inputs, torch.zeros(len(inputs), dtype=torch.long)))


def inputs_of(case: PlantedCase) -> Tensor:
    assert isinstance(case.task, Task)
    return case.task.inputs
