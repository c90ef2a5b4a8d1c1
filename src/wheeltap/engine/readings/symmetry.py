"""How symmetrically the outputs answer to changes of single weights, all at the same size of effect.

Raw sizes say little: a step of 1 is six times larger for a weight of .15 than for one of 1. What disturbances do can be
compared where they do equally much: so the size of each that has a given effect is sought, many at once.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, ModelError, UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.subject import Subject
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import restored
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.engine.units import Session
from wheeltap.plans.readings.symmetry import SYMMETRY_RESPONSE, TRIES, SymmetryResponseSettings

FloatArray = NDArray[np.float64]

_GROW = 4.0
"""A size that does too little grows by this factor at most: larger steps may pass over a crossing."""

_STEPS = 40
"""Bound on the evaluations of one disturbance."""

Effects = Callable[[NDArray[np.int64], FloatArray], NDArray[np.floating[Any]]]
"""Effect of each of some disturbances (their numbers) at a size of its own; both ``[disturbance]``."""


class Matches(NamedTuple):
    """What was found; all ``[disturbance]``.

    Attributes:
        size: The size, where ``reached``; the last one tried elsewhere.
        effect: The effect there.
        reached: Whether the effect is the target, within tolerance. A disturbance that has too little effect at the
            bound (or jumps over the target) does not reach it.
    """

    size: FloatArray
    effect: FloatArray
    reached: NDArray[np.bool_]


def match(
    effects: Effects,
    guesses: FloatArray,
    *,
    target: float,
    bound: float,
    tolerance: float = 0.01,
    mean: float | None = None,
) -> Matches:
    """Sizes at which each disturbance has the effect wanted, by bracketing and regula falsi.

    Sizes grow from the guess until the effect is passed. Effects grow about linearly with small sizes, so the root is
    then sought along the straight line between logarithms, and every third time by halving.

    Args:
        effects: Gives the effects of some disturbances; must be 0 at size 0 and continuous in size.
        guesses: First size tried of each, ``[disturbance]``; positive.
        target: Effect wanted, in the effect's unit.
        bound: Largest size allowed.
        tolerance: Relative error of the effect that is close enough.
        mean: Bound on their mean evaluations over all disturbances: the search ends where it would be passed.

    Raises:
        UsageError: If an effect is not finite or negative, or target, bound or tolerance are not above 0.

    Source: Dowell & Jarratt (1971), regula falsi; the halving makes it safe.
    """
    if not (target > 0.0 and bound > 0.0 and tolerance > 0.0):
        raise UsageError(
            "Sizes cannot be searched for so.",
            expected="a target, a bound and a tolerance above 0",
            got=f"target {target}, bound {bound}, tolerance {tolerance}",
        )
    size, count = np.minimum(guesses, bound), len(guesses)
    effect = np.zeros(count)
    # One end of the bracket of each disturbance: the size, and the effect there.
    low, high = (np.full((2, count), size) for size in (0.0, np.inf))
    spent, open_ = 0, np.arange(count)
    for step in range(_STEPS):
        found = np.asarray(effects(open_, size[open_]), dtype=np.float64)
        if not (np.isfinite(found) & (found >= 0.0)).all():
            raise UsageError("An effect cannot be matched.", expected="finite numbers, 0 or more", got="another number")
        effect[open_] = found
        spent += len(open_)
        for end, index in ((low, open_[found < target]), (high, open_[found >= target])):
            end[:, index] = size[index], effect[index]
        met = np.abs(effect / target - 1.0) <= tolerance
        closed = (low[0] >= bound) | (low[0] >= high[0] * (1.0 - 1e-9))
        open_ = np.flatnonzero(~met & ~closed)
        if not len(open_) or (mean is not None and spent + len(open_) > mean * count):
            break
        following = _next(low[:, open_], high[:, open_], target, halve=step % 3 == 2, far=step >= _FAR)
        size[open_] = np.minimum(following, bound)
    return Matches(size, effect, np.abs(effect / target - 1.0) <= tolerance)


_FAR = 12
"""Evaluations after which a size that is still too large is far too large: the effect has long stopped growing."""


def _next(low: FloatArray, high: FloatArray, target: float, *, halve: bool, far: bool) -> FloatArray:
    """The next sizes to try, from both ends of the brackets ``[size or effect, disturbance]``."""
    tiny = np.finfo(np.float64).tiny
    unbounded, first = ~np.isfinite(high[0]), low[0] == 0.0
    upper, top = np.where(unbounded, 1.0, high[0]), np.where(unbounded, 1.0, high[1])
    grown = low[0] * np.clip(1.02 * target / np.maximum(low[1], tiny), _GROW**0.25, _GROW)
    shrunk = upper * (1 / _GROW**2 if far else np.clip(0.98 * target / top, 1 / _GROW**2, 0.9))
    between = np.sqrt(np.maximum(low[0], tiny)) * np.sqrt(upper)
    if not halve:
        a, b = np.log(np.maximum(low[0], tiny)), np.log(upper)
        f, g = np.log(np.maximum(low[1], tiny) / target), np.log(top / target)
        part = np.clip(-f / np.maximum(g - f, tiny), 0.01, 0.99)
        between = np.exp(a + part * (b - a))
    return np.where(unbounded, grown, np.where(first, shrunk, between))


_ENDLESS = 1e30
"""Effect that stands for outputs that are not finite: larger than any that is sought."""


class _Place(NamedTuple):
    """What is changed: one column of a layer's matrix, along a unit vector.

    Attributes:
        layer: Index in ``subject.layers``.
        unit: Row of the single weight; -1 for a direction.
        source: Column.
        along: ``[unit]``.
        typical: A change of ordinary size.
    """

    layer: int
    unit: int
    source: int
    along: FloatArray
    typical: float


@final
class SymmetryResponse(Reading):
    """Finds, for each weight and either sign, the change that moves the outputs by a given amount, and says how.

    S = ||P dF||^2 / ||dF||^2, with dF the change of the outputs on the task and P the projection onto the changes
    that have the task's symmetry. 1 means that what a weight does, it does everywhere alike; a change that knows
    nothing of the symmetry has S at about ``floor``, the share of dimensions that P leaves (1/2 for a mirror).

    Source: the measure is this project's; the disturbances are those of Kumar et al. 2025, arXiv:2505.11581, sec. 3
    (single weights) and App. F (directions).
    """

    spec = SYMMETRY_RESPONSE

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """About ten passes for each place: five for each sign.

        Raises:
            DataError: If the symmetry does not fit the outputs.
            ModelError: If the outputs are the same for all examples, or no layer has weights.
        """
        settings: SymmetryResponseSettings = self.settings
        symmetry = task.annotations.symmetry
        if symmetry is None:
            return Readings({"known": np.array(0.0)}, forwards=0.0)
        places = _places(subject, settings, seeds.generator(root, self.name, seed, "places"))
        with torch.no_grad(), _shuffled(subject, settings.copy, root=root):
            bench = _Responses(subject, task, symmetry)
            found = bench.matched(places, settings)
        values: dict[str, Any] = {
            "known": np.array(1.0),
            "layer": np.array([place.layer for place in places], dtype=np.float64),
            "unit": np.array([place.unit for place in places], dtype=np.float64),
            "source": np.array([place.source for place in places], dtype=np.float64),
            "floor": np.array(dimension_share(symmetry, bench.clean.shape[1])),
            "own": np.array(float(symmetry.share(bench.clean - bench.clean.mean(0)))),
            "spread": np.array(bench.spread),
            "broken": np.array(symmetry.broken(task.targets, options=bench.clean.shape[1])),
            **found,
        }
        return Readings(values, forwards=bench.passes)


def dimension_share(symmetry: Symmetry, options: int) -> float:
    """Share of the dimensions of functions ``[example, output]`` that the projection leaves: the mean of traces."""
    total = 0.0
    for element in range(symmetry.order):
        still = float((symmetry.examples[element] == torch.arange(symmetry.size)).sum())
        signs = torch.ones(options) if symmetry.signs is None else symmetry.signs[element].float()
        if symmetry.outputs is not None:
            signs = signs * (symmetry.outputs[element] == torch.arange(options))
        total += still * float(signs.sum())
    return total / (symmetry.order * symmetry.size * options)


def _places(subject: Subject, settings: SymmetryResponseSettings, rng: np.random.Generator) -> list[_Place]:
    """Weights from the layers in turn, then directions; the same ones in a shuffled copy."""
    held: list[tuple[int, Tensor, FloatArray]] = []
    for index, layer in enumerate(subject.layers):
        matrix = layer.matrix(subject.parameter(layer.weight).detach()).float().cpu()
        sizes = matrix.abs().flatten().double().numpy()
        if sizes.any():
            held.append((index, matrix, sizes))
    if not held:
        raise ModelError(
            "There is no weight to disturb.",
            where=subject.name,
            expected="a layer with weights other than 0",
            got=f"{len(subject.layers)} layers",
        )
    found: list[_Place] = []
    for at in range(settings.weights + settings.directions):
        index, matrix, sizes = held[at % len(held)]
        present = np.flatnonzero(sizes)
        unit, source = divmod(int(present[rng.integers(len(present))]), matrix.shape[1])
        typical = float(np.sqrt(np.square(sizes[present]).mean()))
        if at < settings.weights:
            found.append(_Place(index, unit, source, np.eye(1, len(matrix), unit)[0], typical))
        else:
            drawn = rng.standard_normal(len(matrix))
            along = drawn / np.sqrt(np.square(drawn).sum())
            found.append(_Place(index, -1, source, along, typical * float(np.sqrt(len(matrix)))))
    return found


@contextmanager
def _shuffled(subject: Subject, copy: int, *, root: int) -> Generator[None]:
    """While the block runs, the weights of each layer in another order; as they are where ``copy`` is 0."""
    if copy == 0:
        yield
        return
    held = [subject.parameter(layer.weight).data for layer in subject.layers]
    with restored(held):
        for layer, weight in zip(subject.layers, held, strict=True):
            order = seeds.generator(root, "shuffled", copy, layer.name).permutation(weight.numel())
            weight.copy_(weight.flatten()[torch.from_numpy(order).to(weight.device)].reshape(weight.shape))  # pyright: ignore[reportUnknownMemberType]
        yield


class _Responses(Session):
    """A subject on a task, disturbed and put back, in double precision."""

    def __init__(self, subject: Subject, task: BaseTask, symmetry: Symmetry) -> None:
        super().__init__(subject, task)
        self.symmetry = symmetry
        where, options = f"{subject.name} on {task.name}", self.clean.shape[1]
        for moved in (symmetry.outputs, symmetry.signs):
            if moved is not None and moved.shape[1] != options:
                raise DataError(
                    f"The symmetry does not fit the outputs: it moves {moved.shape[1]}, the model gives {options}.",
                    where=f"{where}: {symmetry.name}",
                    expected=f"permutations and signs of {options} outputs",
                    got=f"of {moved.shape[1]}",
                    do="Give Symmetry(outputs=, signs=) one column per output, or leave them out.",
                )
        self.spread = float((self.clean - self.clean.mean(0)).square().mean().sqrt())
        if not self.spread > 0.0 or not np.isfinite(self.spread):
            raise ModelError(
                "The outputs are the same for all examples: there is nothing to be symmetric.",
                where=where,
                expected="outputs that differ",
                got=f"a spread of {self.spread}",
            )

    def scores(self) -> Tensor:
        """See ``Session.scores``."""
        return super().scores().double()

    def matched(self, places: list[_Place], settings: SymmetryResponseSettings) -> dict[str, FloatArray]:
        """Each place and sign at the effect wanted."""
        count = 2 * len(places)
        shares, typical = np.zeros(count), np.repeat([place.typical for place in places], 2)
        signs = np.tile([1.0, -1.0], len(places))

        def effects(index: NDArray[np.int64], sizes: FloatArray) -> FloatArray:
            # In units of what is typical there, so that one bound serves all layers.
            deltas = signs[index] * typical[index] * sizes
            found = np.full(len(index), _ENDLESS)
            for row, (at, delta) in enumerate(zip(index, deltas, strict=True)):
                place = places[int(at) // 2]
                with _moved(self.subject, self.subject.layers[place.layer], place, float(delta)):
                    change = self.scores() - self.clean
                finite = bool(torch.isfinite(change).all())
                shares[at] = float(self.symmetry.share(change)) if finite else 0.0
                if finite:
                    found[row] = float(change.square().mean().sqrt()) / self.spread
            return found

        reach = settings.reach
        met = match(effects, np.full(count, min(1.0, reach)), target=settings.effect, bound=reach, mean=TRIES)
        found = {
            "delta": signs * typical * met.size,
            "rms": met.effect,
            "symmetry": shares,
            "reached": met.reached.astype(np.float64),
        }
        return {name: values.reshape(-1, 2) for name, values in found.items()}


@contextmanager
def _moved(subject: Subject, layer: Layer, place: _Place, delta: float) -> Generator[None]:
    """One column of a layer's matrix changed while the block runs, and put back from a copy."""
    held = subject.parameter(layer.weight).data
    matrix = layer.matrix(held)
    viewed = matrix.data_ptr() == held.data_ptr()
    before = matrix[:, place.source].clone()
    try:
        matrix[:, place.source] += torch.as_tensor(delta * place.along, dtype=held.dtype, device=held.device)
        if not viewed:
            held.copy_(layer.stored(matrix))
        yield
    finally:
        matrix[:, place.source] = before
        if not viewed:
            held.copy_(layer.stored(matrix))
