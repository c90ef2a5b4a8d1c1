"""Two screens of every single weight of a subject, for the price of one forward and one backward pass.

The spike screen scores a weight by the most that it ever adds to its unit, as a share of its layer's typical output:
|w_ij| max_t |x_j(t)| / rms(y); for a convolution x_j is a channel's largest value at any place.

The first-order screen scores it by how far its loss would move the log-odds of the model's own answers: |w_ij| times
the mean over answers of |delta_i| |x_j|, in absolute values because signed ones cancel. Answers and not labels,
log-odds and not loss: the gradient of a loss vanishes where a model is right and sure. Where the targets are numbers
there are no odds; the outputs themselves are summed with random signs.

Source: Yu et al. (2024), "The Super Weight in Large Language Models", arXiv 2411.07191, sec. 3 (spikes); LeCun, Denker
& Solla (1989), "Optimal Brain Damage", eq. 2 (first-order term).
"""

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.layer import Layer, LayerKind, find_layers
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, as_scores
from wheeltap.core.typed import named_modules
from wheeltap.engine.apply import as_before
from wheeltap.engine.backward import differentiable
from wheeltap.engine.needs.reads import Read, Reads

COST = 3.0
"""Passes that both screens cost together: one forward, and a backward that counts as two."""


@dataclass
class _Use:
    """What one module that multiplies by a weight was given and gave; a tied weight has several.

    Attributes:
        peak: Largest absolute value of each input (channel, or 1 for each token that came up).
        power: Sum of squares of its outputs.
        count: How many outputs that was.
    """

    kind: LayerKind
    module: nn.Module
    peak: Tensor | None = None
    power: float = 0.0
    count: int = 0

    def see(self, inputs: Tensor, output: Tensor, *, tokens: int) -> None:
        """Takes in one call, unless it is on no row at all (an expert that none was sent to)."""
        if not inputs.numel():
            return
        if self.kind == "embedding":
            peak = torch.zeros(tokens, device=inputs.device, dtype=output.dtype)
            peak[inputs.flatten()] = 1.0
        else:
            axis = 1 if self.kind == "conv" else inputs.ndim - 1
            peak = inputs.abs().amax([other for other in range(inputs.ndim) if other != axis])
        wide = peak.to(torch.promote_types(peak.dtype, torch.float32))
        self.peak = wide if self.peak is None else torch.maximum(self.peak, wide)
        self.power += float(output.float().square().sum())
        self.count += output.numel()

    def spikes(self, weight: Tensor) -> Tensor:
        """Each weight's largest contribution, as a share of the root mean square of the outputs; as stored."""
        if self.peak is None or not self.power:
            return torch.zeros_like(weight)
        return weight.abs() * self._spread(self.peak, weight) / (self.power / self.count) ** 0.5

    def _spread(self, peak: Tensor, weight: Tensor) -> Tensor:
        """``peak`` in a shape that multiplies the weight as stored."""
        if self.kind in ("transposed", "embedding"):
            return peak[:, None]
        if self.kind != "conv":
            return peak[None, :]
        # The units of each group read that group's channels.
        groups = len(peak) // weight.shape[1]
        by_unit = peak.reshape(groups, -1).repeat_interleave(len(weight) // groups, dim=0)
        return by_unit.reshape(*by_unit.shape, *[1] * (weight.ndim - 2))


@final
@dataclass
class Screen:
    """What both screens know of one layer, summed over every module that uses its weight.

    Attributes:
        moved: Sum over answers of |delta| |x| for each weight, as stored; ``None`` before any.
        answers: How many answers that was.
    """

    layer: Layer
    weight: Tensor
    uses: list[_Use] = field(default_factory=list[_Use])
    moved: Tensor | None = None
    answers: int = 1

    @property
    def reached(self) -> bool:
        """Whether a pass over the task comes by."""
        return any(use.peak is not None for use in self.uses)

    @property
    def matrix(self) -> Float[Tensor, "unit fan_in"]:
        """The weights."""
        return self.layer.matrix(self.weight)

    def spikes(self) -> Float[Tensor, "unit fan_in"]:
        """The spike screen's scores, as shares of the layer's typical output."""
        return self.layer.matrix(torch.stack([use.spikes(self.weight) for use in self.uses]).amax(0))

    def first_order(self) -> Float[Tensor, "unit fan_in"]:
        """The first-order screen's scores, in log-odds (or units of the outputs)."""
        if self.moved is None:
            return torch.zeros_like(self.matrix)
        return self.layer.matrix(self.weight.abs() * self.moved / self.answers)

    def add(self, use: _Use, inputs: Tensor, delta: Tensor) -> None:
        """Adds one call's products of absolute inputs and absolute gradients of the outputs."""
        if self.moved is None:
            wide = torch.promote_types(self.weight.dtype, torch.float32)
            self.moved = torch.zeros(self.weight.shape, device=self.weight.device, dtype=wide)
        there = delta.abs().to(self.moved.dtype)
        if use.kind == "embedding":
            self.moved.index_add_(0, inputs.flatten(), there.flatten(0, -2))
            return
        here = inputs.abs().to(self.moved.dtype)
        if use.kind == "conv":
            self.moved += _of_convolution(use.module, here, there, like=self.moved)
            return
        one, two = (part.reshape(-1, part.shape[-1]) for part in (there, here))
        self.moved.addmm_(*((one.T, two) if use.kind == "linear" else (two.T, one)))


def _of_convolution(module: nn.Module, inputs: Tensor, delta: Tensor, *, like: Tensor) -> Tensor:
    """Sum over places of |delta| |x|: the gradient of a convolution's weight, from absolute values."""
    assert isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    blank = torch.zeros_like(like, requires_grad=True)
    with torch.enable_grad():
        # torch's own inner call: it knows every way of padding, stride and groups.
        output: Tensor = module._conv_forward(inputs, blank, None)  # pyright: ignore[reportPrivateUsage]
    return torch.autograd.grad(output, blank, delta)[0]


def screened(subject: Subject, task: BaseTask, *, signs: np.random.Generator) -> dict[int, Screen]:
    """Both screens of every layer that the task reaches, by index in ``subject.layers``.

    Not of packed attention weights, whose outputs never leave torch's own function, nor of weights that are not what
    their module multiplies with (recurrent or computed ones, experts).

    Memory: the activations of one call of the model, and one number per weight. Nothing of the subject changes: only
    activations take part in the backward pass.

    Args:
        subject: Undisturbed.
        task: Whose ``forward`` is run once.
        signs: Of the outputs, where the targets are numbers.

    Raises:
        ModelError: If no gradient can be had of this model, or the task reaches none of its weights.
    """
    if any(parameter.is_inference() for parameter in subject.model.parameters()):
        raise _no_gradient(subject, "weights that were made in inference mode")
    screens = _screens(subject)
    reader = _Reader(subject, screens, signs=signs if task.targets.is_floating_point() else None)
    with as_before(subject), torch.inference_mode(False), torch.enable_grad(), differentiable(subject.model):
        for parameter in subject.model.parameters():
            parameter.requires_grad_(False)
        with reader.hooked():
            task.forward(subject.model)
    reached = {index: screen for index, screen in enumerate(screens) if screen.reached}
    if not reached or not reader.answers:
        raise _no_gradient(subject, "a task that calls only parts of the model, or no layer that is known")
    for screen in reached.values():
        screen.answers = reader.answers
    return reached


def _screens(subject: Subject) -> list[Screen]:
    """Every layer with all modules that use its weight and let their outputs be read."""
    weights = [subject.parameter(layer.weight) for layer in subject.layers]
    screens = [Screen(layer, weight.detach()) for layer, weight in zip(subject.layers, weights, strict=True)]
    by_weight = {id(weight): screen for weight, screen in zip(weights, screens, strict=True)}
    for _, module in named_modules(subject.model):
        if any(id(own) in by_weight for own in module.parameters(recurse=False)):
            own = [found for found in find_layers(module) if not found.name]  # its own, not its children's
            for use in (found for found in own if found.kind != "attention" and not found.unread):
                by_weight[id(module.get_parameter(use.weight))].uses.append(_Use(use.kind, module))
    return screens


class _Reader:
    """Hooks that read every layer on the way forward and back, and start the way back at the model's answers.

    An ``anchor`` of zero, added to the outputs of layers that no gradient would reach, starts the graph: so no
    parameter needs, or gets, a gradient.
    """

    def __init__(self, subject: Subject, screens: list[Screen], *, signs: np.random.Generator | None) -> None:
        self.subject, self.screens, self.signs = subject, screens, signs
        with torch.inference_mode(False):
            self.anchor = torch.zeros((), device=subject.device, requires_grad=True)
        self.answers = 0
        self._tokens: dict[int, Tensor] = {}

    def _looked_up(self, weight: int, read: Read) -> None:
        """Keeps the rows of a table that are looked up: a module may be given something else (a mask, say)."""
        if not read.inputs.is_floating_point():
            self._tokens[weight] = read.inputs

    @contextmanager
    def hooked(self) -> Generator[None]:
        with ExitStack() as undo:
            for screen in self.screens:
                for use in screen.uses:
                    undo.callback(use.module.register_forward_hook(self._at(screen, use), with_kwargs=True).remove)
            # Last: where the model is itself a layer, its answer is read after its output.
            undo.callback(self.subject.model.register_forward_hook(self._answered).remove)
            tables = [screen.weight for screen in self.screens if any(use.kind == "embedding" for use in screen.uses)]
            pointers = {weight.data_ptr() for weight in tables}
            held = {id(p): p.data_ptr() for p in self.subject.model.parameters() if p.data_ptr() in pointers}
            undo.enter_context(Reads(held, self._looked_up))
            yield

    def _at(self, screen: Screen, use: _Use) -> Callable[..., Tensor]:
        def read(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor:
            given = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            inputs = given[0].detach()
            if use.kind == "embedding":
                inputs = self._tokens.get(screen.weight.data_ptr(), inputs)
            use.see(inputs, output.detach(), tokens=len(screen.weight))
            return self._followed(screen, use, inputs, output)

        return read

    def _followed(self, screen: Screen, use: _Use, inputs: Tensor, output: Tensor) -> Tensor:
        """The layer's output, from which the gradient will be read on the way back."""
        version = inputs._version

        def back(delta: Tensor) -> None:
            if inputs._version != version:
                raise ModelError(
                    "The model changes a layer's input after the layer has read it.",
                    where=f"{self.subject.name}: {screen.layer.name}",
                    expected="inputs that keep their values until the forward pass is over",
                    do="Replace the operation in place behind this layer by one that makes a new tensor.",
                )
            screen.add(use, inputs, delta)

        followed = output if output.requires_grad else output + self.anchor
        if followed.requires_grad:  # not where the model switches gradients off
            followed.register_hook(back)  # pyright: ignore[reportUnknownMemberType]
        return followed

    def _answered(self, module: nn.Module, args: Any, output: Any) -> Tensor:
        """Runs backward from one call's answers and lets go of the graph; so one call's activations are held."""
        scores = as_scores(output)
        if not scores.requires_grad:
            raise _no_gradient(self.subject, "a forward that switches gradients off, or reaches no known layer")
        towards = _of_log_odds(scores.detach()) if self.signs is None else _signs(self.signs, like=scores)
        torch.autograd.grad(scores, self.anchor, towards, allow_unused=True)
        self.answers += scores[..., 0].numel()
        return scores.detach()


def _of_log_odds(scores: Tensor) -> Tensor:
    """Gradient by the scores of each row's log-odds of the highest one against all others."""
    top = scores.argmax(-1, keepdim=True)
    others = scores.float().scatter(-1, top, -torch.inf).softmax(-1)
    return others.neg_().scatter_(-1, top, 1.0).to(scores.dtype)


def _signs(rng: np.random.Generator, *, like: Tensor) -> Tensor:
    drawn = rng.integers(2, size=tuple(like.shape)) * 2 - 1
    return torch.as_tensor(drawn, device=like.device, dtype=like.dtype)


def _no_gradient(subject: Subject, got: str) -> ModelError:
    return ModelError(
        f"No gradient can be had of this model: {got}.",
        where=subject.name,
        expected="a forward that torch can differentiate",
        do="Load it outside inference mode, and take torch.no_grad out of its forward.",
    )
