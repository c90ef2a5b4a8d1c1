"""The screen of single numbers, slowly: every number moved a little each way."""

import copy
import math

import torch
from torch import Tensor, nn

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.task import BaseTask, Task

Slopes = dict[str, dict[tuple[int, ...], float]]


def slowly(
    model: nn.Module, task: BaseTask, *, most: int, step: float, dtype: torch.dtype, scale: float = 1.0
) -> Slopes:
    """By parameter and place, |w| times the root mean square of the derivative of each example's log-odds.

    Computed in ``dtype``, by central differences of ``step`` to each side; of ``most`` numbers of each parameter, with
    all of them multiplied by ``scale``.
    """
    wide = copy.deepcopy(model).to(dtype)
    top = scores_of(wide, task).argmax(-1)
    for held in wide.parameters():
        held.detach().mul_(scale)
    found: Slopes = {}
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
    """``[example, option]`` in double precision."""
    if isinstance(task, Task):
        assert isinstance(task.inputs, Tensor)
        dtype = next(model.parameters()).dtype
        return model(task.inputs.to(dtype) if task.inputs.is_floating_point() else task.inputs).double()
    assert isinstance(task, ChoiceTask)
    rows: list[list[Tensor]] = []
    for context, options in zip(task.contexts, task.choices, strict=True):
        rows.append([])
        for option in options:
            said = model(torch.tensor([[*context, *option]]))[0].double().log_softmax(-1)
            rows[-1].append(
                sum((said[len(context) - 1 + k, t] for k, t in enumerate(option)), torch.zeros(()).double())
            )
    return torch.stack([torch.stack(row) for row in rows])
