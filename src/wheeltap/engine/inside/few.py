"""A few examples of a task, to try a model on: what gauges are found and proven with."""

import torch
from torch import Tensor, nn

from wheeltap.core.errors import DataError
from wheeltap.core.task import BaseTask
from wheeltap.gauge import Run

FEW = ((2_000_000, 32), (20_000_000, 16), (None, 6))
"""Examples by the size of the model: up to so many parameters, so many."""


def few(task: BaseTask, model: nn.Module) -> Run:
    """Runs a model on examples from all over ``task``, always the same ones; on all where it cannot be divided."""
    parameters, total = sum(parameter.numel() for parameter in model.parameters()), len(task.targets)
    count = next(count for limit, count in FEW if limit is None or parameters <= limit)
    try:
        some = task.part(torch.linspace(0, total - 1, min(count, total)).round().long())
    except DataError:
        some = task

    def run(model: nn.Module) -> Tensor:
        scores = some.scores(model)
        first = next(iter(task.moments())).one(0)
        tokens = isinstance(first.inputs, Tensor) and not first.inputs.is_floating_point()
        if tokens and not torch.is_grad_enabled():
            first.run(model)  # a plain call may do more than one that is made for scores: keep a state, say
        return scores

    return run
