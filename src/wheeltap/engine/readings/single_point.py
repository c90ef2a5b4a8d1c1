"""Which single weights a network may depend on, and random ones of similar size to compare them with.

A screen of every single number of a subject, weights, biases and gains alike, costs one backward pass. A number's score
is how far its loss would move the log-odds of the model's own answers, to first order: |w| times the root mean square
over examples of the derivative of an example's log-odds by w. What multiplies a number by c and its derivative by 1/c
(units rescaled, norms folded into what reads them) leaves it as it is, and what moves numbers about moves their scores
along: so a reparametrized copy names the same numbers.

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

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain, zip_longest
from typing import Any, Final, NamedTuple, cast, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.settings import LARGE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import inner, restored
from wheeltap.engine.apply import differentiable, preserved_state
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.perturb.ties import Marks, least
from wheeltap.plans.readings.single_point import SINGLE_POINT, SORTS, SinglePointSettings, padded, written

COST: Final = 3.0
"""Passes that the screen costs in one state of the weights: one forward, and a backward that counts as two."""

STATES: Final = (1.0, 0.65, 0.5)
"""What all weights are multiplied by, in the order in which screens are taken."""

PARTS: Final = 16
"""Parts of the examples, and gradients that are summed: a score is then within a fifth of what single examples give."""

PARTS_OF_LARGE: Final = 8
"""The same of a model of ``LARGE`` numbers or more, of which a gradient is itself a lot of memory to go through."""


class ParameterScreen(NamedTuple):
    """What the screen says of one parameter.

    Attributes:
        weight: The parameter.
        score: Of each of its numbers, in log-odds (or units of the outputs).
    """

    weight: Float[Tensor, "*size"]
    score: Float[Tensor, "*size"]


Screens = dict[str, ParameterScreen]
"""By path of the parameter."""


def screens_at(
    subject: Subject, task: BaseTask, scales: Sequence[float], *, signs: np.random.Generator
) -> Generator[Screens]:
    """Screens of every parameter that a task's answers depend on, by path, a tied one once; one after another.

    Memory: the activations of one part of the task, two numbers per weight, and a copy of the weights while they are
    scaled. Nothing of the subject changes.

    Args:
        subject: Undisturbed.
        task: Each example is run once for each screen.
        scales: What all weights are multiplied by, screen by screen, the first by 1: answers are those of the weights
            as they are.
        signs: Draws the random signs.

    Raises:
        ModelError: If no gradient can be had of this model, or no answer depends on its parameters.
    """
    if any(parameter.is_inference() for parameter in subject.model.parameters()):
        raise _no_gradient(subject, "weights that were made in inference mode")
    assert scales[0] == 1.0 or task.targets.is_floating_point(), "whose answers are asked for must be known"
    every = {name: subject.parameter(name) for name in subject.parameters}
    parameters = {name: held for name, held in every.items() if held.is_floating_point() and not inner(held)}
    tops: list[Tensor] = []
    for scale in scales:
        gradients = (torch.inference_mode(False), torch.enable_grad(), differentiable(subject.model))
        with preserved_state(subject), ExitStack() as stack:
            for one in (*gradients, _scaled(subject, scale)):
                stack.enter_context(one)
            for parameter in parameters.values():
                parameter.requires_grad_(True)
            sums = _summed(subject, task, parameters, tops, signs)
        if not sums:
            raise _no_gradient(subject, "a task whose answers depend on no parameter")
        screens: Screens = {}
        for name, held in parameters.items():
            if name in sums:  # |w| rms(g); 0 where a gradient is not a number
                score = sums.pop(name).div_(len(task.targets)).sqrt_().mul_(held.detach().abs()).nan_to_num_(nan=0.0)
                screens[name] = ParameterScreen(held.detach(), score)
        yield screens


def _summed(
    subject: Subject, task: BaseTask, parameters: dict[str, Tensor], tops: list[Tensor], signs: np.random.Generator
) -> dict[str, Tensor]:
    """By parameter, the estimated sum over examples of squared derivatives.

    Args:
        subject: The model.
        task: The examples.
        parameters: By path.
        tops: The top options of the rows of each part; filled the first time.
        signs: Draws the random signs.
    """
    sums: dict[str, Tensor] = {}
    size = sum(parameter.numel() for parameter in parameters.values())
    count = len(task.targets)
    try:
        most = min(PARTS if size < LARGE else PARTS_OF_LARGE, count)
        parts = [task.part(torch.as_tensor(index)) for index in np.array_split(np.arange(count), most)]
    except DataError:
        parts = [task]  # one gradient then stands for all: rougher, but what there is
    for at, part in enumerate(parts):
        scores = part.forward(subject.model)
        if not scores.requires_grad:
            graded = "its answers are generated, and grades have no slope"
            off = "a forward that switches gradients off, or reaches no parameter"
            raise _no_gradient(subject, graded if task.adaptive else off)
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if at == len(tops):
            tops.append(wide.detach().argmax(-1, keepdim=True))
        read, top = wide, tops[at]
        if not task.targets.is_floating_point():  # log-odds of each row's top option against all others
            read = wide.gather(-1, top)[..., 0] - wide.scatter(-1, top, -torch.inf).logsumexp(-1)
        drawn = signs.integers(2, size=tuple(read.shape)) * 2 - 1
        answer = (read * torch.as_tensor(drawn, device=read.device, dtype=read.dtype)).sum()
        try:
            found = torch.autograd.grad(answer, list(parameters.values()), allow_unused=True)
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise ModelError(
                "The model changes a layer's input after the layer has read it.",
                where=subject.name,
                expected="inputs that keep their values until the forward pass is over",
                do="Replace the operation in place behind this layer by one that makes a new tensor.",
            ) from error
        reached = cast("tuple[Tensor | None, ...]", found)
        for name, gradient in zip(parameters, reached, strict=True):
            if gradient is None:
                continue  # of one that these answers do not depend on
            one = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
            sums[name] = one.square() if name not in sums else sums[name].addcmul_(one, one)
    return sums


@contextmanager
def _scaled(subject: Subject, scale: float) -> Generator[None]:
    """While the block runs, all parameters are multiplied by ``scale``; afterwards they are what they were."""
    if scale == 1.0:
        yield
        return
    held = [
        parameter for parameter in subject.model.parameters() if parameter.is_floating_point() and not inner(parameter)
    ]
    with restored(held):
        for parameter in held:
            parameter.data.mul_(scale)
        yield


def _no_gradient(subject: Subject, got: str) -> ModelError:
    return ModelError(
        f"No gradient can be had of this model: {got}.",
        where=subject.name,
        expected="a forward that torch can differentiate",
        do="Load it outside inference mode, and take torch.no_grad out of its forward.",
    )


class _Point(NamedTuple):
    """One number: its parameter's path and its place in that, flattened."""

    parameter: str
    at: int

    def place(self, screens: Screens) -> tuple[int, ...]:
        """Its indices."""
        return tuple(int(at) for at in np.unravel_index(self.at, tuple(screens[self.parameter].weight.shape)))


@final
class SinglePoint(Reading):
    """Numbers whose loss may ruin the network, and random ones.

    Candidates are those that the screens rank highest, one from each screen in turn:
    weights, biases and gains alike.
    """

    spec = SINGLE_POINT

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """One forward and one backward pass for each screen.

        Raises:
            ModelError: If no gradient can be had of this model, or the task reaches none of its weights.
        """
        rng = seeds.generator(root, self.name, seed)
        screens, lists = Screens(), list[list[tuple[float, _Point]]]()
        for found in screens_at(subject, task, STATES[: self.settings.states], signs=rng):
            screens = screens or found
            lists.append(_ranked(found, self.settings.confirm))
        # The first of each list, then the second of each, and so on; none twice.
        ranked: dict[_Point, float] = {}
        for score, point in filter(None, chain.from_iterable(zip_longest(*lists))):
            ranked.setdefault(point, score)
        points = list(ranked)[: self.settings.confirm]
        nulls, sorts = _nulls(screens, rng, points, self.settings), _sorts(subject)
        values: dict[str, Any] = {"scores": [ranked[point] for point in points]}
        for of, some in (("candidate", points), ("null", nulls)):
            values |= {
                f"{of}_parameters": written([point.parameter for point in some]),
                f"{of}_places": padded([point.place(screens) for point in some]),
                f"{of}_sorts": [SORTS.index(sorts[point.parameter]) for point in some],
                f"{of}_values": [_value(point, screens) for point in some],
            }
        values |= {
            "screened": sum(screen.weight.numel() for screen in screens.values()) / sum(subject.sizes.values()),
        }
        return Readings(
            {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}, COST * len(lists)
        )


def _value(point: _Point, screens: Screens) -> float:
    return float(screens[point.parameter].weight[point.place(screens)])


_OUTPUT_FIRST = ("linear", "conv", "attention", "recurrent")
_INPUT_FIRST = ("transposed", "embedding", "conv_transposed")


def _sorts(subject: Subject) -> dict[str, str]:
    """What the numbers of each parameter are, of ``SORTS``."""
    layers = {layer.weight: layer for layer in subject.layers}
    biases = {layer.bias for layer in subject.layers}

    def sort(path: str) -> str:
        layer = layers.get(path)
        if layer is not None and layer.kind in _OUTPUT_FIRST:
            return "output and input"
        if layer is not None:
            # Of a grouped one the second index counts outputs of a group.
            return "input and output" if layer.kind in _INPUT_FIRST and layer.groups == 1 else "weight"
        owner, _, name = path.rpartition(".")
        if path in biases or name.startswith("bias"):
            return "bias"
        is_norm = "norm" in type(subject.model.get_submodule(owner)).__name__.lower()
        return "gain of a norm" if is_norm and name == "weight" else "number"

    return {path: sort(path) for path in subject.parameters}


def _ranked(screens: Screens, count: int) -> list[tuple[float, _Point]]:
    """The highest scores over all parameters, each with its number; which of equal ones, ``perturb.ties`` says."""
    best: list[tuple[float, int, _Point]] = []
    for path, screen in screens.items():
        # As [first index, rest]; a vector as one row.
        table, weight = (one.reshape(len(one) if one.ndim > 1 else 1, -1) for one in (screen.score, screen.weight))
        marks = Marks(weight)
        top = least(-table, min(count, table.numel()), marks.at)
        places = top.reshape(-1).nonzero()[:, 0]
        for place, mark in zip(places, marks.at(top), strict=True):
            best.append((float(table.reshape(-1)[place]), int(mark), _Point(path, int(place))))
    ranked = sorted(best, key=lambda candidate: (-candidate[0], candidate[1]))[:count]
    return [(score, point) for score, _, point in ranked]


def _nulls(
    screens: Screens, rng: np.random.Generator, points: Sequence[_Point], settings: SinglePointSettings
) -> list[_Point]:
    """Random numbers from all parameters, as many as the settings say, shared out among the sizes of ``points``.

    None is drawn twice, nor one of ``points``; of sizes of which there are too few, the range is doubled.
    """
    taken, found = set(points), list[_Point]()
    everything = sum(screen.weight.numel() for screen in screens.values())

    def near(path: str, size: float, within: float) -> Tensor:
        """Which numbers of a parameter are of the wanted size, flattened."""
        sizes = screens[path].weight.reshape(-1).abs()
        return torch.logical_and(sizes >= size / within, sizes <= size * within)

    for rank, like in enumerate(points):
        count = len(range(rank, settings.nulls, len(points)))
        if not count:
            continue
        # More than are wanted, so that those taken already can be passed over.
        size, within, wanted = abs(_value(like, screens)), settings.within, count + len(taken)
        counts = np.array([int(near(path, size, within).sum()) for path in screens])
        while counts.sum() < min(wanted, everything) and size > 0.0:
            within *= 2.0
            counts = np.array([int(near(path, size, within).sum()) for path in screens])
        ends, own = counts.cumsum(), 0
        drawn: list[int] = rng.choice(int(counts.sum()), min(wanted, int(counts.sum())), replace=False).tolist()
        for place in drawn:
            at = int(np.searchsorted(ends, place, side="right"))
            path = list(screens)[at]
            point = _Point(path, int(near(path, size, within).nonzero()[place - int(ends[at] - counts[at]), 0]))
            if point not in taken and own < count:
                own += 1
                taken.add(point)
                found.append(point)
    return found
