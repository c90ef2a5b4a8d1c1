"""Where memory runs out batches are halved, down to single examples; a bound on it changes the way, not the numbers."""

import pytest
import torch
from engine_nets import numbers, taught
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.clean import out_of_memory
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.models.mlp import mlp


class Hungry(nn.Module):
    """Runs out of memory, as torch says it, on more than ``most`` examples at once."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.body, self.most = mlp((6, 12, 4)), most
        self.eval()

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) > self.most:
            raise RuntimeError("[enforce fail] . DefaultCPUAllocator: can't allocate memory: you tried 99 bytes.")
        return self.body(inputs)


def probed(model: Hungry) -> Task:
    return taught(model.body, numbers(60, 6, seed=1), more=numbers(30, 6, seed=2))


def test_batches_are_halved_until_they_fit_or_a_clear_error() -> None:
    model = Hungry(10)
    task = probed(model)
    scores = TrialRunner([], (), task).scores(Subject(model))
    assert task.batch <= 10
    assert torch.allclose(scores, model.body(task.inputs).detach(), atol=1e-6)
    assert out_of_memory(MemoryError()) and out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("shapes do not fit")) and not out_of_memory(ValueError("memory"))
    model.most = 0
    with pytest.raises(ModelError, match="fails on the task's examples") as caught:
        wt.audit(Subject(model, name="net"), probed(model), audits=["score"])
    assert "can't allocate memory" in str(caught.value)
