"""The screen of single numbers against slow differences: every number moved a little each way."""

import copy
import math

import numpy as np
import pytest
import torch
from engine_nets import TiedLanguageModel, choices, numbers, seeded, taught
from torch import Tensor, nn
from twins import Wired

from tests.cases import MODEL_CASES
from tests.nets.uncommon import uncommon
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.readings.single_point import ParameterScreen, screens_at
from wheeltap.models.mlp import mlp


def screens_of(model: nn.Module, task: BaseTask, *, scale: float = 1.0) -> dict[str, ParameterScreen]:
    scales = [1.0] if scale == 1.0 else [1.0, scale]
    return list(screens_at(Subject(model), task, scales, signs=np.random.default_rng(0)))[-1]


SCREENED = (
    "choices", "mlp", "residual", "llama", "gpt2", "mixtral", "lstm", "weight norm", "own parameters", "deconvolved",
    "symmetric", "bags",
)  # fmt: skip
FEW = 12
"""Examples of which each is a part of its own: then no random sign matters."""


def slowly(
    model: nn.Module, task: BaseTask, *, most: int, step: float, dtype: torch.dtype, scale: float = 1.0
) -> dict[str, dict[tuple[int, ...], float]]:
    """By parameter and place, |w| times the root mean square of the derivative of each example's log-odds.

    Computed in ``dtype``, by central differences of ``step`` to each side; of ``most`` numbers of each parameter, with
    all of them multiplied by ``scale``.
    """
    wide = copy.deepcopy(model).to(dtype)
    top = scores_of(wide, task).argmax(-1)
    for held in wide.parameters():
        held.detach().mul_(scale)
    found: dict[str, dict[tuple[int, ...], float]] = {}
    stream = torch.Generator().manual_seed(0)
    for name, held in wide.named_parameters():
        parameter = held.detach()  # the same memory
        chosen = torch.randperm(parameter.numel(), generator=stream)[:most]
        places = [tuple(int(at) for at in torch.unravel_index(one, parameter.shape)) for one in chosen]
        sizes = parameter.abs() / scale
        found[name] = {at: float(sizes[at]) * _slope(wide, task, parameter[at], top, step) for at in places}
    return found


def _slope(model: nn.Module, task: BaseTask, number: Tensor, top: Tensor, step: float) -> float:
    """Not a number where two steps disagree: at a jump (of what is sent to which expert) there is no derivative."""
    slopes = [_quotient(model, task, number, top, wide) for wide in (step, 2.0 * step)]
    return slopes[0] if abs(slopes[0] - slopes[1]) <= 0.2 * max(slopes) else math.nan


def _quotient(model: nn.Module, task: BaseTask, number: Tensor, top: Tensor, step: float) -> float:
    held = float(number)
    odds: list[Tensor] = []
    for moved in (held + step, held - step):
        number.fill_(moved)
        odds.append(log_odds(scores_of(model, task), top))
    number.fill_(held)
    return float(((odds[0] - odds[1]) / (2 * step)).square().mean().sqrt())


def log_odds(scores: Tensor, top: Tensor) -> Tensor:
    """Logarithm of p / (1 - p), where p is what the softmax gives the option ``top`` of each row."""
    p = scores.softmax(-1)
    own = p.gather(-1, top[:, None])[:, 0]
    rest = p.scatter(-1, top[:, None], 0.0).sum(-1)
    return own.log() - rest.log()


@torch.no_grad()
def scores_of(model: nn.Module, task: BaseTask) -> Tensor:
    """``[example, option]`` in double precision, of choices option by option."""
    if not isinstance(task, ChoiceTask):
        return task.forward(model).double()
    rows: list[Tensor] = []
    for context, options in zip(task.contexts, task.choices, strict=True):
        for option in options:
            said = model(torch.tensor([[*context, *option]]))[0].double().log_softmax(-1)
            own = said[len(context) - 1 : -1].gather(1, torch.tensor(option)[:, None])
            rows.append(own.sum())
    return torch.stack(rows).reshape(len(task.contexts), -1)


def require_slopes(case: str, *, scale: float = 1.0) -> None:
    """The screen of a few numbers of each parameter is what slow differences give; the model is left as it was."""
    if case == "choices":
        model, items = seeded(TiedLanguageModel), choices(8)
        task: BaseTask = ChoiceTask(items.contexts, items.choices, items.scores(model).argmax(-1).tolist())
    else:
        held = MODEL_CASES[case].planted() if case in MODEL_CASES else uncommon(case)
        model, task = held.subject.model, held.task
    task = task.part(torch.arange(FEW).clamp_max(len(task.targets) - 1).unique())
    before = {name: held.clone() for name, held in model.state_dict().items()}
    found = screens_of(model, task, scale=scale)
    assert all(torch.equal(held, before[name]) for name, held in model.state_dict().items())
    # Norms and experts of transformers compute in single precision alone: small steps drown there.
    coarse = case in ("llama", "mixtral")
    step, dtype, near = (5e-4, torch.float32, 0.05) if coarse else (1e-6, torch.float64, 0.005)
    expected = slowly(model, task, most=6, step=step, dtype=dtype, scale=scale)
    every = np.array([score for places in expected.values() for score in places.values()])
    largest = float(np.nanmax(every))
    assert np.isnan(every).mean() < 0.25 and (every > 0.01 * largest).sum() >= 5, "nearly all must be known"
    for name, places in expected.items():
        for place, score in places.items():
            ours = 0.0 if name not in found else float(found[name].score[place])
            assert math.isnan(score) or ours == pytest.approx(score, rel=near, abs=near * largest / 10), (name, place)


@pytest.mark.parametrize("case", SCREENED)
def test_the_screen_is_what_slow_differences_give(case: str) -> None:
    """Of weights, biases and gains in every kind of layer."""
    require_slopes(case)


def test_with_weights_scaled_down_it_is_of_the_scaled_net_and_of_the_answers_of_the_whole_one() -> None:
    require_slopes("lstm", scale=0.5)


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


def test_batches_do_not_matter_and_a_model_that_is_right_and_sure_is_still_read() -> None:
    model = seeded(lambda: mlp((6, 9, 4)))
    inputs = numbers(50, 6, seed=1)
    targets = torch.zeros(50, dtype=torch.long)
    one, many = (screens_of(model, Task(inputs, targets, batch=size)) for size in (50, 2))
    for name, screen in one.items():
        assert torch.allclose(screen.score, many[name].score, rtol=1e-4)
    model.get_parameter("2.weight").data.mul_(1e4)  # the gradient of its loss would be zero to the last digit
    for screen in screens_of(model, taught(model, numbers(20, 6, seed=1))).values():
        assert (screen.score > 0.0).float().mean() > 0.3


def test_scaled_down_it_sees_what_holds_a_gate_open() -> None:
    """An open gate has next to no slope."""

    def gated() -> nn.Module:  # hidden units, all multiplied by one gate that reads the first input, which is always 1
        parts = {"gate": nn.Linear(6, 1), "inner": nn.Linear(6, 12), "head": nn.Linear(12, 4)}
        return Wired(lambda net, x: net.head(net.inner(x).relu() * net.gate(x).sigmoid()), **parts)

    model, inputs = seeded(gated), numbers(200, 6, seed=1)
    inputs[:, 0] = 1.0
    with torch.no_grad():
        model.get_parameter("gate.weight").zero_()[0, 0] = 12.0
        model.get_parameter("gate.bias").zero_()
    task = taught(model, inputs)

    def standing(scale: float) -> float:
        found = screens_of(model, task, scale=scale)
        return float(found["gate.weight"].score[0, 0] / max(float(one.score.max()) for one in found.values()))

    assert standing(0.5) > 10.0 * standing(1.0)
