"""The screen of single numbers against slow differences."""

import math

import numpy as np
import pytest
import torch
from engine_nets import numbers, seeded, taught
from screens_oracle import Slopes, slowly
from single_nets import CASES
from torch import Tensor, nn

from benchmarks.nets.uncommon import uncommon
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.readings.single_point import ParameterScreen, ScreenMaker
from wheeltap.models.mlp import mlp


def screens_of(model: nn.Module, task: BaseTask, *, scale: float = 1.0) -> dict[str, ParameterScreen]:
    screening = ScreenMaker(Subject(model), task, signs=np.random.default_rng(0))
    plain = screening.at(1.0)
    return plain if scale == 1.0 else screening.at(scale)


UNCOMMON = (
    "lstm", "gru", "cells", "weight norm", "weight norm by hooks", "symmetric", "deconvolved", "bags", "widths",
    "places", "mixtral", "gpt-oss", "mamba",
)  # fmt: skip
FEW = 12
"""Examples of which each is a part of its own: then no random sign matters."""


@pytest.mark.parametrize("case", [*CASES, *UNCOMMON])
def test_the_screen_is_what_slow_differences_give(case: str) -> None:
    """Of weights, biases and gains in every kind of layer."""
    if case in CASES:
        make, probing = CASES[case]
        model = seeded(make)
        task = probing(model)
    else:
        held = uncommon(case)
        model, task = held.subject.model, held.task
    task = task.part(torch.arange(FEW).clamp_max(len(task.targets) - 1).unique())
    # Norms and experts of transformers compute in single precision alone: small steps drown there.
    coarse = case in ("mixtral", "gpt-oss", "mamba")
    step, dtype = (5e-4, torch.float32) if coarse else (1e-6, torch.float64)
    expected = slowly(model, task, most=6, step=step, dtype=dtype)
    found, near = screens_of(model, task), 0.05 if coarse else 0.005
    largest = largest_of(expected)
    for name, places in expected.items():
        for place, score in places.items():
            ours = 0.0 if name not in found else float(found[name].score[place])
            assert math.isnan(score) or ours == pytest.approx(score, rel=near, abs=near * largest / 10), (name, place)


def largest_of(expected: Slopes) -> float:
    """The largest score; nearly all must be known."""
    every = np.array([score for places in expected.values() for score in places.values()])
    large = every > 0.01 * np.nanmax(every)
    assert np.isnan(every).mean() < 0.25 and large.sum() >= 5
    return float(np.nanmax(every))


def test_few_gradients_give_the_mean_over_many_examples() -> None:
    """A score is within a third of that of single examples, and right on average."""
    model = seeded(lambda: mlp((6, 20, 20, 4)))
    task = taught(model, numbers(400, 6, seed=1))
    alone = [screens_of(model, task.part(torch.tensor([at]))) for at in range(400)]
    ratios = list[Tensor]()
    for name, screen in screens_of(model, task).items():
        exact = torch.stack([one[name].score for one in alone]).square().mean(0).sqrt()
        seen = exact > 1e-3 * exact.max()
        ratios.append((screen.score / exact)[seen])
    every = torch.cat(ratios)
    assert float(every.square().mean()) == pytest.approx(1.0, abs=0.1)
    assert float((every.log().abs() < 0.35).float().mean()) > 0.8 and float(every.min()) > 0.3


def test_batches_do_not_matter() -> None:
    model = seeded(lambda: mlp((6, 9, 9, 4)))
    inputs = numbers(50, 6, seed=1)
    targets = torch.zeros(50, dtype=torch.long)
    one, many = (screens_of(model, Task(inputs, targets, batch=size)) for size in (50, 2))
    for name, screen in one.items():
        assert torch.allclose(screen.score, many[name].score, rtol=1e-4)


def test_a_model_that_is_right_and_sure_is_still_read() -> None:
    """The gradient of its loss would be zero to the last digit."""
    model = seeded(lambda: mlp((6, 9, 4)))
    with torch.no_grad():
        model.get_parameter("2.weight").mul_(1e4)
    for screen in screens_of(model, taught(model, numbers(20, 6, seed=1))).values():
        assert (screen.score > 0.0).float().mean() > 0.3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions(dtype: torch.dtype) -> None:
    model = seeded(lambda: mlp((6, 9, 4)))
    task = taught(model, numbers(20, 6, seed=1))
    plain = screens_of(model, task)
    for name, screen in screens_of(model.to(dtype), Task(task.inputs.to(dtype), task.targets)).items():
        one, other = screen.score, plain[name].score
        assert torch.allclose(one.float(), other, rtol=0.1, atol=0.02 * float(other.max()))


@pytest.mark.parametrize("case", ["linear", "convolutions", "lstm"])
def test_with_weights_scaled_down_it_is_of_the_scaled_net_and_of_the_answers_of_the_whole_one(case: str) -> None:
    if case in CASES:
        make, probing = CASES[case]
        model = seeded(make)
        task = probing(model).part(torch.arange(FEW))
    else:
        made = uncommon(case)
        model, task = made.subject.model, made.task.part(torch.arange(FEW))
    before = {name: held.clone() for name, held in model.state_dict().items()}
    found = screens_of(model, task, scale=0.5)
    assert all(torch.equal(held, before[name]) for name, held in model.state_dict().items())
    expected = slowly(model, task, most=6, step=1e-6, dtype=torch.float64, scale=0.5)
    largest = largest_of(expected)
    for name, places in expected.items():
        for place, score in places.items():
            ours = float(found[name].score[place])
            assert math.isnan(score) or ours == pytest.approx(score, rel=5e-3, abs=5e-4 * largest), (name, place)


class Gated(nn.Module):
    """Hidden units, all multiplied by one gate that reads the first input, which is always 1."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.inner, self.head = nn.Linear(6, 1), nn.Linear(6, 12), nn.Linear(12, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.inner(inputs).relu() * self.gate(inputs).sigmoid())


def test_scaled_down_it_sees_what_holds_a_gate_open() -> None:
    """An open gate has next to no slope."""
    model, inputs = seeded(Gated), numbers(200, 6, seed=1)
    inputs[:, 0] = 1.0
    with torch.no_grad():
        model.get_parameter("gate.weight").zero_()
        model.get_parameter("gate.weight")[0, 0] = 12.0
        model.get_parameter("gate.bias").zero_()
    task = taught(model, inputs)

    def standing(scale: float) -> float:
        found = screens_of(model, task, scale=scale)
        return float(found["gate.weight"].score[0, 0] / max(float(one.score.max()) for one in found.values()))

    assert standing(0.5) > 10.0 * standing(1.0)
