"""A linear model under Gaussian noise, where the expected rise of the squared error is known exactly.

The mean squared error L of outputs W x + b is quadratic in the weights, so noise of covariance S raises it by
tr(S H) / 2 on average, H its Hessian, whatever the weights are.
"""

from typing import NamedTuple

import numpy as np
import pytest
import torch
from engine_nets import numbers
from engine_trials import run, trial
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.stats.effect import mean_effect

INPUTS, OUTPUTS, DOSE = 5, 3, 0.3


class Setting(NamedTuple):
    subject: Subject
    deviations: list[float]


@pytest.fixture(scope="module")
def setting() -> Setting:
    model = nn.Linear(INPUTS, OUTPUTS).eval()
    model.weight.data = numbers(OUTPUTS, INPUTS, seed=1)
    model.bias.data = numbers(OUTPUTS, seed=2)
    # The "std" perturbation: each tensor moves by its own standard deviation times the dose.
    spread = [DOSE * float(p.detach().double().std(correction=0)) for p in (model.weight, model.bias)]
    return Setting(Subject(model, name="linear"), spread)


def task_of(seed: int, examples: int = 60) -> Task:
    inputs = numbers(examples, INPUTS, seed=100 + seed)
    return Task(inputs, numbers(examples, OUTPUTS, seed=9_000 + seed), name="regression")


def expected_rise(setting: Setting, task: Task) -> float:
    """Half the trace of the noise's covariance times the Hessian, which autograd gives."""
    model = setting.subject.model
    shapes = [model.get_parameter(name).shape for name in ("weight", "bias")]
    flat = torch.cat([model.get_parameter(name).detach().double().flatten() for name in ("weight", "bias")])

    def loss(theta: Tensor) -> Tensor:
        weight, bias = theta[: shapes[0].numel()].reshape(shapes[0]), theta[shapes[0].numel() :]
        outputs = task.inputs.double() @ weight.T + bias
        return (outputs - task.targets.double()).square().sum(1).mean()

    hessian = torch.autograd.functional.hessian(loss, flat)
    variances = torch.cat(
        [torch.full((shape.numel(),), s**2) for shape, s in zip(shapes, setting.deviations, strict=True)]
    )
    return 0.5 * float((variances.double() * hessian.diagonal()).sum())


def rises(setting: Setting, task: Task, *, draws: int, root: int) -> NDArray[np.float64]:
    """Disturbed minus clean squared error ``[draw, example]``, from the engine."""
    subject = setting.subject
    trials = [
        trial(subject, task, "none", 0.0),
        *(trial(subject, task, "std", DOSE, seed=s, root=root) for s in range(draws)),
    ]
    values = [outcome.values["squared_error"].astype(float) for outcome in run(subject, task, trials)]
    return np.stack(values[1:]) - values[0]


def test_the_hessian_is_the_one_on_paper(setting: Setting) -> None:
    """tr H = 2 x outputs x mean |x|^2 for the weights and 2 x outputs for the bias."""
    task = task_of(0)
    weight, bias = setting.deviations
    norms = float(task.inputs.double().square().sum(1).mean())
    assert expected_rise(setting, task) == pytest.approx(OUTPUTS * (weight**2 * norms + bias**2), rel=1e-7)


def test_the_expected_rise_is_inside_the_interval(setting: Setting) -> None:
    task = task_of(0)
    found = rises(setting, task, draws=1000, root=5)
    known = expected_rise(setting, task)
    effect = mean_effect(found, unit="squared error")
    assert effect.low is not None and effect.high is not None and effect.low < known < effect.high
    # Over the draws alone, these examples held fixed: narrow enough to tell half of the trace from the trace.
    fixed = mean_effect(found.mean(1, keepdims=True), unit="squared error")
    assert fixed.low is not None and fixed.high is not None
    assert fixed.low < known < fixed.high and fixed.high - fixed.low < 0.3 * known


@pytest.mark.slow
@pytest.mark.full
def test_intervals_over_draws_and_examples_cover_at_their_level(setting: Setting) -> None:
    """Each repetition draws its own examples and its own noise."""
    roots, fixed, population = 400, 0, 0
    weight, bias = setting.deviations
    everywhere = OUTPUTS * (weight**2 * INPUTS + bias**2)  # E|x|^2 = inputs, for standard normal inputs
    for root in range(roots):
        task = task_of(root, examples=40)
        found = rises(setting, task, draws=10, root=root)
        known = expected_rise(setting, task)
        here = mean_effect(found.mean(1, keepdims=True), unit="squared error")
        there = mean_effect(found, unit="squared error")
        assert here.low is not None and here.high is not None and there.low is not None and there.high is not None
        fixed += here.low < known < here.high
        population += there.low < everywhere < there.high
    # 95 % over 400 repetitions has a standard error of 1.1 %; a rise is skewed to the right, which costs t a little.
    assert 0.915 <= fixed / roots <= 0.985
    assert 0.92 <= population / roots <= 0.995
