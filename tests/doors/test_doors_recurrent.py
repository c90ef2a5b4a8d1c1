"""A recurrent net is rounded whole: what it scores at 2 bits is what a loop over its rows gives."""

import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.task import Task
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_once
from wheeltap.sources import digits


class Rows(nn.Module):
    """An LSTM that reads an image row by row: 95 % of its weights are recurrent."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(8, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]`` of ``[example, 64]``."""
        return self.head(self.body(x.reshape(-1, 8, 8))[0][:, -1])


def recurrent() -> nn.Module:
    """That net, trained on the training digits; in eval mode."""
    with reproducible(0):
        net = Rows()
    data, settings = digits.split(), TrainSettings(seed=0, epochs=25)
    return train_once(net, data.train_inputs, targets=data.train_targets, settings=settings)


def rounded(net: nn.Module, bits: int) -> nn.Module:
    """The net with every matrix rounded, a grid a row, by a loop over rows: an independent quantizer."""
    for parameter in net.parameters():
        for line in parameter.detach().flatten(1) if parameter.ndim > 1 else ():
            step = line.abs().max() / (2 ** (bits - 1) - 1)
            if step > 0:
                line.copy_((line / step).round() * step)
    return net


def accuracy(net: nn.Module, task: Task) -> float:
    with torch.no_grad():
        scores: Tensor = task.forward(net)
    return float((scores.argmax(1) == task.targets).float().mean())


def test_a_recurrent_net_is_rounded_whole() -> None:
    report = wt.audit(recurrent(), digits.task(), schemes="int2")
    (row,) = report["WT100"]
    score = next(estimate.value for estimate in row.estimates if estimate.name == "score")
    assert score == pytest.approx(accuracy(rounded(recurrent(), 2), digits.task()), abs=1e-6)
    assert row.coverage is not None and row.coverage > 0.9 and row.verdict == "costs" and not report.passed
