"""What the screens name against every single number removed in turn, and against numbers that were made to matter."""

import numpy as np
import pytest
import torch
from engine_nets import numbers
from single_nets import named, read
from torch import Tensor, nn

from benchmarks.nets.uncommon import uncommon
from wheeltap.core.task import BaseTask, Task

KINDS = (
    "lstm projected", "gru", "rnn", "weight norm", "weight norm of an lstm", "pruned", "deconvolved", "bags", "widths",
)  # fmt: skip

Place = tuple[str, tuple[int, ...]]


@torch.no_grad()
def lost(model: nn.Module, task: BaseTask, place: Place) -> float:
    """Share of right answers that are lost without one number."""
    held, right = model.get_parameter(place[0]), task.scores(model).argmax(-1) == task.targets
    before = float(held[place[1]])
    held[place[1]] = 0.0
    without = task.scores(model).argmax(-1) == task.targets
    held[place[1]] = before
    return float(right.float().mean() - without.float().mean())


def every(model: nn.Module) -> list[Place]:
    return [(name, place) for name, held in model.named_parameters() for place in np.ndindex(*held.shape)]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_costs_much_more_than_the_worst_that_is_named(kind: str) -> None:
    """One answer of 40 may be missed."""
    case = uncommon(kind)
    model, task = case.subject.model, case.task
    worst = max(lost(model, task, place) for place in every(model))
    best = max(lost(model, task, place) for place in named(read(model, task, nulls=0).values))
    assert best >= worst - 1 / 40 - 1e-6 and worst > 0.1


class Carried(nn.Module):
    """A recurrent layer, a norm, experts in one tensor and a head; every signal goes through one of each."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.norm = nn.GRU(6, 8, batch_first=True), nn.LayerNorm(8)
        self.router, self.experts = nn.Linear(8, 3), nn.Parameter(0.5 * torch.randn(3, 8, 8))
        self.bias, self.head = nn.Parameter(0.5 * torch.randn(3, 8)), nn.Linear(8, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.norm(self.body(inputs)[0][:, -1])
        shares = self.router(hidden).softmax(-1)
        mixed = torch.einsum("ni,eoi->neo", hidden, self.experts) + self.bias
        return self.head(hidden + (shares[..., None] * mixed.relu()).sum(1))


def made_to_matter(model: nn.Module, inputs: Tensor, place: Place, *, seed: int) -> Task:
    """Trains ``model`` so that it is right with one number, which is held, and wrong without it."""
    targets = (inputs[:, -1, :2] > 0).long() @ torch.tensor([2, 1])
    held = model.get_parameter(place[0])
    size = 2.0 if seed % 2 else -2.0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        held.data[place[1]] = size
        nn.functional.cross_entropy(model(inputs), targets).backward()
        held.data[place[1]] = 0.0
        right = model(inputs).softmax(-1).gather(1, targets[:, None])
        (-(1.0 - right).clamp_min(1e-4).log().mean()).backward()
        held.data[place[1]] = size
        optimizer.step()
    held.data[place[1]] = size
    return Task(inputs, targets)


@pytest.mark.parametrize(
    "name", ["body.weight_hh_l0", "body.bias_ih_l0", "norm.weight", "norm.bias", "experts", "bias"]
)
def test_a_fragile_number_is_named_whatever_it_is(name: str) -> None:
    """Recurrent weights and biases, gains and offsets of a norm, weights and biases of experts in one tensor."""
    for seed in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = Carried()
        shape = model.get_parameter(name).shape
        rng = np.random.default_rng(seed)
        place = (name, tuple(int(rng.integers(size)) for size in shape))
        task = made_to_matter(model, numbers(120, 4, 6, seed=seed), place, seed=seed)
        model.eval()
        cost = lost(model, task, place)
        if cost < 0.15:
            continue  # it could not be made to matter
        best = max(lost(model, task, one) for one in named(read(model, task, nulls=0).values))
        assert best >= cost - 1e-6
        return
    raise AssertionError("none could be made to matter")
