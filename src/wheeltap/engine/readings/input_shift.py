"""Scores under declared disturbances of the inputs: what deployment does to data, dose by dose."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.plans.readings.input_shift import FITTING, INPUT_SHIFT, LADDERS, SHIFTS, InputShiftSettings

Rng = np.random.Generator

_CHANNELS: Final = (1, 3, 4)
"""Of images. Where the last axis is as long and the second is not, it is taken to be the channels."""


@final
class InputShift(Reading):
    """The task with its inputs changed, each disturbance at every dose of its ladder, in several draws.

    Every subject gets the same changed inputs: the draws depend on the task alone.
    """

    spec = INPUT_SHIFT

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: a disturbance must exist and fit the inputs."""
        _chosen(task, self.settings)

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass for each disturbance, dose and draw.

        Raises:
            DataError: If the inputs are neither numbers nor tokens.
        """
        settings: InputShiftSettings = self.settings
        rows: list[Tensor] = []
        changes: list[tuple[int, int, int]] = []
        clean = task.scores(subject.model)
        for shift in _chosen(task, settings):
            for level, dose in enumerate(LADDERS[shift]):
                for draw in range(settings.shift_draws):
                    rng = seeds.generator(root, self.name, shift, seed, draw)
                    scores = _changed(task, shift, dose, rng, settings).scores(subject.model)
                    rows.append(task.measure(scores, task.targets.cpu(), clean))
                    changes.append((SHIFTS.index(shift), level, draw))
        values: dict[str, Any] = {"score": to_array(torch.stack(rows))}
        values["shift"], values["level"], values["draw"] = np.array(changes).T
        return Readings(values, forwards=1.0 + len(rows))


def _kind(task: BaseTask, settings: InputShiftSettings) -> str:
    if isinstance(task, ChoiceTask):
        return "tokens"
    inputs = _rows(task)
    if settings.image:
        height, width = map(int, settings.image.split("x"))
        if math.prod(inputs.shape[1:]) != height * width:
            raise UsageError(
                "The examples are no images of this size.",
                where="input-shift: image",
                expected=f"{math.prod(inputs.shape[1:])} numbers an example",
                got=f"{settings.image}, {height * width} numbers",
                do="Give HEIGHTxWIDTH, or leave the setting image out.",
            )
        return "image"
    return "image" if inputs.ndim == 4 else "table"


def _rows(task: BaseTask) -> Tensor:
    """Inputs of floating-point numbers.

    Raises:
        DataError: If the task has others.
    """
    inputs = task.inputs if isinstance(task, Task) else None
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        return inputs
    named = ", ".join(inputs) if isinstance(inputs, dict) else type(task).__name__
    raise DataError(
        "The inputs cannot be disturbed.",
        where=task.name,
        expected="rows of floating-point numbers, images, or items of tokens with options",
        got=str(inputs.dtype) if isinstance(inputs, Tensor) else named,
        do="Convert pixels or table entries to floating point; for ids of tokens leave the audit input-shift out.",
    )


def _chosen(task: BaseTask, settings: InputShiftSettings) -> tuple[str, ...]:
    """The disturbances asked for.

    Raises:
        UsageError: If one does not exist, or does not fit the inputs.
    """
    fitting = FITTING[_kind(task, settings)]
    for name in settings.named:
        if name not in fitting:
            error = UnknownName("disturbance of these inputs", name, fitting)
            raise UsageError(error.what, where="input-shift: shifts", expected=error.expected, got=name, do=error.do)
    return settings.named or fitting


def _changed(task: BaseTask, shift: str, dose: float, rng: Rng, settings: InputShiftSettings) -> BaseTask:
    """The task with its inputs changed; targets and options as they are."""
    if isinstance(task, ChoiceTask):
        pool = [token for context in task.contexts for token in context]
        contexts = [_TOKENS[shift](context, dose, rng, pool) for context in task.contexts]
        targets = [int(target) for target in task.targets]
        return ChoiceTask(contexts, task.choices, targets, name=task.name, tokens_per_batch=task.tokens_per_batch)
    assert isinstance(task, Task), "other tasks are refused"
    given = _rows(task)
    inputs = given.detach().float().cpu()
    shape = inputs.shape
    if settings.image:
        inputs = inputs.reshape(len(inputs), 1, *map(int, settings.image.split("x")))
    last = inputs.ndim == 4 and shape[-1] in _CHANNELS and shape[1] not in _CHANNELS
    moved = _NUMBERS[shift](inputs.movedim(-1, 1) if last else inputs, dose, rng)
    moved = (moved.movedim(1, -1) if last else moved).reshape(shape).to(given)
    return Task(moved, task.targets, measure=task.measure, name=task.name, batch=task.batch)


def _normal(like: Tensor, rng: Rng) -> Tensor:
    return to_tensor(rng.standard_normal(tuple(like.shape), dtype=np.float32))


def _feature_dropout(inputs: Tensor, dose: float, rng: Rng) -> Tensor:
    lost = to_tensor(rng.random(tuple(inputs.shape), dtype=np.float32)) < dose
    return torch.where(lost, inputs.mean(0).expand_as(inputs), inputs)


def _blur(inputs: Tensor, dose: float, rng: Rng) -> Tensor:
    """Gaussian, a row and a column at a time; edges repeat."""
    del rng
    reach = max(1, math.ceil(3 * dose))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / dose).square())
    kernel = kernel / kernel.sum()
    planes = inputs.reshape(-1, 1, *inputs.shape[-2:])
    for pad, shape in (((reach, reach, 0, 0), (1, 1, 1, -1)), ((0, 0, reach, reach), (1, 1, -1, 1))):
        planes = functional.conv2d(functional.pad(planes, pad, mode="replicate"), kernel.reshape(shape))
    return planes.reshape(inputs.shape)


def _occlusion(inputs: Tensor, dose: float, rng: Rng) -> Tensor:
    height, width = inputs.shape[-2:]
    tall = max(1, round(math.sqrt(dose) * height))
    wide = min(width, max(1, round(dose * height * width / tall)))  # of whole pixels, as near to the dose as they come
    covered = inputs.clone()
    tops, lefts = (rng.integers(0, side - part + 1, len(inputs)) for side, part in ((height, tall), (width, wide)))
    for at, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        covered[at, ..., top : top + tall, left : left + wide] = inputs[at].mean()
    return covered


def _contrast(inputs: Tensor, dose: float, rng: Rng) -> Tensor:
    del rng
    middle = inputs.flatten(1).mean(1).reshape(-1, *[1] * (inputs.ndim - 1))
    return middle + (1.0 - dose) * (inputs - middle)


_NUMBERS: Final[dict[str, Callable[[Tensor, float, Rng], Tensor]]] = {
    "feature noise": lambda inputs, dose, rng: inputs + dose * inputs.std(0, correction=0) * _normal(inputs, rng),
    "feature dropout": _feature_dropout,
    "noise": lambda inputs, dose, rng: inputs + dose * inputs.std(correction=0) * _normal(inputs, rng),
    "blur": _blur,
    "occlusion": _occlusion,
    "contrast": _contrast,
}


def _swapped(context: Sequence[int], dose: float, rng: Rng, pool: Sequence[int]) -> list[int]:
    del pool
    tokens, at = list(context), 0
    while at + 1 < len(tokens):
        # A swap moves two tokens and skips one place: so that the share of tokens that move is the dose.
        if rng.random() < dose / (2.0 - dose):
            tokens[at], tokens[at + 1] = tokens[at + 1], tokens[at]
            at += 1
        at += 1
    return tokens


def _dropped(context: Sequence[int], dose: float, rng: Rng, pool: Sequence[int]) -> list[int]:
    del pool
    # An item keeps one token at least: a context cannot be empty.
    return [token for token in context if rng.random() >= dose] or list(context[-1:])


def _replaced(context: Sequence[int], dose: float, rng: Rng, pool: Sequence[int]) -> list[int]:
    return [pool[int(rng.integers(len(pool)))] if rng.random() < dose else token for token in context]


_TOKENS: Final[dict[str, Callable[[Sequence[int], float, Rng, Sequence[int]], list[int]]]] = {
    "swapped tokens": _swapped,
    "dropped tokens": _dropped,
    "replaced tokens": _replaced,
}
