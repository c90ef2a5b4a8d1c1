"""A screen of every single number of a subject, weights, biases and gains alike, for the price of one backward pass.

A number's score is how far its loss would move the log-odds of the model's own answers, to first order: |w| times the
root mean square over examples of the derivative of an example's log-odds by w. What multiplies a number by c and its
derivative by 1/c (units rescaled, norms folded into what reads them) leaves it as it is, and what moves numbers about
moves their scores along: so a reparametrized copy names the same numbers.

Answers and not labels, log-odds and not loss: the gradient of a loss vanishes where a model is right and sure. Where
the targets are numbers there are no odds; the outputs themselves are summed with random signs.

A first-order term does not see what is saturated: a softmax or a gate that one number holds at its end. So the screen
is also taken with all weights scaled down, where much of that has a slope again. That commutes with the same changes
of coordinates.

The mean square over examples comes from few gradients: the examples are parted, those of a part are summed with random
signs, and the mean over parts of the squared gradient of that sum is, in expectation, the sum of their squares.

Source: LeCun, Denker & Solla (1989), "Optimal Brain Damage", eq. 2 (first-order term); Hutchinson (1990), "A stochastic
estimator of the trace", sec. 2 (random signs).
"""

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final, cast, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import as_before
from wheeltap.engine.backward import differentiable

COST: Final = 3.0
"""Passes that the screen costs in one state of the weights: one forward, and a backward that counts as two."""

STATES: Final = (1.0, 0.65, 0.5)
"""What all weights are multiplied by, in the order in which screens are taken."""

PARTS: Final = 16
"""Parts of the examples, and gradients that are summed: a score is then within a fifth of what single examples give."""

PARTS_OF_LARGE: Final = 8
"""The same of a model of ``LARGE`` numbers or more, of which a gradient is itself a lot of memory to go through."""

LARGE: Final = 20_000_000


@final
@dataclass(frozen=True)
class Screen:
    """What the screen says of one parameter.

    Attributes:
        weight: The parameter.
        score: Of each of its numbers, in log-odds (or units of the outputs).
    """

    weight: Float[Tensor, "*size"]
    score: Float[Tensor, "*size"]


@final
class ScreenMaker:
    """Screens of every parameter that a task's answers depend on.

    Memory: the activations of one part of the task, two numbers per weight, and a copy of the weights while they are
    scaled. Nothing of the subject changes.

    Args:
        subject: Undisturbed.
        task: Each example is run once for each screen.
        signs: Draws the random signs.

    Raises:
        ModelError: If no gradient can be had of this model.
    """

    def __init__(self, subject: Subject, task: BaseTask, *, signs: np.random.Generator) -> None:
        if any(parameter.is_inference() for parameter in subject.model.parameters()):
            raise _no_gradient(subject, "weights that were made in inference mode")
        self._subject, self._task, self._signs = subject, task, signs
        parameters = {name: subject.parameter(name) for name in subject.parameters}
        self._parameters = {name: held for name, held in parameters.items() if held.is_floating_point()}
        self._tops: list[Tensor] = []

    def at(self, scale: float) -> dict[str, Screen]:
        """The screen by path of the parameter, a tied one once; the first time the model must be as it is.

        Args:
            scale: What all weights are multiplied by meanwhile; answers are those of the weights as they are.

        Raises:
            ModelError: If no gradient can be had of this model, or no answer depends on its parameters.
        """
        assert self._tops or scale == 1.0 or self._of_outputs, "whose answers are asked for must be known"
        subject = self._subject
        gradients = (torch.inference_mode(False), torch.enable_grad(), differentiable(subject.model))
        with as_before(subject), ExitStack() as stack:
            for one in (*gradients, _scaled(subject, scale)):
                stack.enter_context(one)
            for parameter in self._parameters.values():
                parameter.requires_grad_(True)
            sums = self._summed()
        if not sums:
            raise _no_gradient(subject, "a task whose answers depend on no parameter")
        count = len(self._task.targets)
        return {
            name: Screen(held.detach(), _score(held.detach(), sums.pop(name), count))
            for name, held in self._parameters.items()
            if name in sums
        }

    @property
    def _of_outputs(self) -> bool:
        return self._task.targets.is_floating_point()

    def _summed(self) -> dict[str, Tensor]:
        """By parameter, the estimated sum over examples of squared derivatives."""
        sums: dict[str, Tensor] = {}
        size = sum(parameter.numel() for parameter in self._parameters.values())
        for at, part in enumerate(_parts(self._task, PARTS if size < LARGE else PARTS_OF_LARGE)):
            scores = part.forward(self._subject.model)
            if not scores.requires_grad:
                raise _no_gradient(self._subject, "a forward that switches gradients off, or reaches no parameter")
            wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
            if at == len(self._tops):
                self._tops.append(wide.detach().argmax(-1, keepdim=True))
            read = wide if self._of_outputs else _log_odds(wide, self._tops[at])
            drawn = self._signs.integers(2, size=tuple(read.shape)) * 2 - 1
            answer = (read * torch.as_tensor(drawn, device=read.device, dtype=read.dtype)).sum()
            for name, gradient in _gradients(self._subject, answer, self._parameters).items():
                one = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
                sums[name] = one.square() if name not in sums else sums[name].addcmul_(one, one)
        return sums


@contextmanager
def _scaled(subject: Subject, scale: float) -> Generator[None]:
    """While the block runs, all parameters are multiplied by ``scale``; afterwards they are what they were."""
    if scale == 1.0:
        yield
        return
    held = [parameter for parameter in subject.model.parameters() if parameter.is_floating_point()]
    clean = [parameter.detach().clone() for parameter in held]
    try:
        for parameter in held:
            parameter.data.mul_(scale)
        yield
    finally:
        for parameter, before in zip(held, clean, strict=True):
            parameter.data.copy_(before)


def _score(weight: Tensor, squares: Tensor, count: int) -> Tensor:
    """|w| rms(g); 0 where a gradient is not a number."""
    return squares.div_(count).sqrt_().mul_(weight.abs()).nan_to_num_(nan=0.0)


def _parts(task: BaseTask, count: int) -> Iterator[BaseTask]:
    """The task in so many parts; whole where it cannot be divided."""
    examples = len(task.targets)
    try:
        for index in np.array_split(np.arange(examples), min(count, examples)):
            yield task.part(torch.as_tensor(index))
    except DataError:
        yield task  # one gradient then stands for all: rougher, but what there is


def _log_odds(scores: Tensor, top: Tensor) -> Tensor:
    """Of each row's option ``top`` against all others, ``[example]``."""
    return scores.gather(-1, top)[..., 0] - scores.scatter(-1, top, -torch.inf).logsumexp(-1)


def _gradients(subject: Subject, of: Tensor, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
    try:
        found = torch.autograd.grad(of, list(parameters.values()), allow_unused=True)
    except RuntimeError as error:
        if "modified by an inplace operation" not in str(error):
            raise
        raise ModelError(
            "The model changes a layer's input after the layer has read it.",
            where=subject.name,
            expected="inputs that keep their values until the forward pass is over",
            do="Replace the operation in place behind this layer by one that makes a new tensor.",
        ) from error
    # None of one that these answers do not depend on.
    reached = cast("tuple[Tensor | None, ...]", found)
    return {name: one for name, one in zip(parameters, reached, strict=True) if one is not None}


def _no_gradient(subject: Subject, got: str) -> ModelError:
    return ModelError(
        f"No gradient can be had of this model: {got}.",
        where=subject.name,
        expected="a forward that torch can differentiate",
        do="Load it outside inference mode, and take torch.no_grad out of its forward.",
    )
