"""Digit nets whose answers to some images rest on units that cancel each other; which images these are is known.

The units are active on one side of a plane through the images. There they cancel exactly, so no output and no input
noise shows them, and noise in the weights does. On the other side they are off.
"""

import torch
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.task import Task
from wheeltap.sources import digits

SHARE = 0.3
"""Of the images, on which the units are active."""

PAIRS, SCALE = 8, 3.0


def task() -> Task:
    data, active = digits.split(), (height() > 0).long()
    made = Task(data.test_inputs, data.test_targets, name="fragile digits")
    return made.with_factors({"fragile": active})


def dealt_at_random(labels: Tensor, at: int) -> Tensor:
    return labels[torch.as_tensor(seeds.generator(at, "dealt").permutation(len(labels)))]


def plane() -> tuple[Tensor, Tensor]:
    """Normal and offset; the farthest image on the active side is at 1."""
    along = torch.randn(64, generator=torch.Generator().manual_seed(5))
    heights = digits.split().test_inputs @ along
    edge = heights.quantile(1 - SHARE)
    return along / (heights.max() - edge), edge / (heights.max() - edge)


def height() -> Tensor:
    along, edge = plane()
    return digits.split().test_inputs @ along - edge


def net(seed: int) -> nn.Sequential:
    first, _, second, _, last = digits.train(seed)
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear) and isinstance(last, nn.Linear)
    (along, edge), units = plane(), 2 * PAIRS
    wide, read = nn.Linear(64, 128 + units), nn.Linear(128 + units, 128)
    sent = torch.randn(128, PAIRS, generator=torch.Generator().manual_seed(seed))
    sent *= second.weight.detach().norm(dim=1).mean() / sent.norm(dim=1).mean()
    with torch.no_grad():
        wide.weight.copy_(torch.cat([first.weight, along.expand(units, 64)]))
        wide.bias.copy_(torch.cat([first.bias, -edge.expand(units)]))
        read.weight.copy_(torch.cat([second.weight, SCALE * sent, -SCALE * sent], 1))
        read.bias.copy_(second.bias)
    return nn.Sequential(wide, nn.ReLU(), read, nn.ReLU(), last).eval()
