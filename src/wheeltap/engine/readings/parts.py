"""A set of hidden units taken away, and all the others taken away, under ablations from mild to hostile.

Taking all units outside a set away at once, to zero or to their means, can make nearly any set look sufficient: what
is outside may cancel itself out. So random parts of what is outside are taken away too, and the part that hurts most.

Source: Gao et al. 2025, arXiv:2511.13653 (necessity and sufficiency of a set by mean ablation); Drori 2026,
"Weight-sparse circuits may be interpretable yet unfaithful" (what zero and mean ablation can manufacture).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Annotated, Final, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import measure, seeds
from wheeltap.core.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.inside.units import HiddenUnits, Replace, hidden_units, means, replaced, to_drawn_rows, to_value
from wheeltap.engine.readings import unit_sets
from wheeltap.engine.readings.base import Reading, Readings, ReadingSettings

ABLATIONS: Final = ("zero", "mean", "resample", "stochastic", "adversarial")
"""In the order of the readings' first axis."""

FEWEST: Final = 10
"""Fewest examples in either half."""

FIRST_STEP: Final = 0.5
"""Share of the promising flips that the search tries first; halved after each failure."""

_NAMED = r"^$|^[^:;]+:\d+(,\d+)*(;[^:;]+:\d+(,\d+)*)*$"


class PartsSettings(ReadingSettings, frozen=True, kw_only=True):
    """Which set, and how it is tried.

    Attributes:
        share: Share of the hidden units that make up the set: those whose mean-ablation costs most.
        units: The set itself, in place of ``share``: ``layer:unit,unit;layer:unit``. A layer is given by its module
            path, or by its place (from 0) among the hidden layers where no path is a number.
        behaviour: Only examples of this group of the task (a class, where it names none) count; all where ``None``.
        nulls: Random sets of as many units of each layer.
        draws: Draws of the resample and stochastic ablations.
        tries: Steps of the search for the part that hurts most.
        most: Most hidden units that are tried one by one to find the set.
    """

    share: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.1
    units: Annotated[str, msgspec.Meta(pattern=_NAMED)] = ""
    behaviour: int | None = None
    nulls: Annotated[int, msgspec.Meta(ge=2)] = 16
    draws: Annotated[int, msgspec.Meta(ge=1)] = 4
    tries: Annotated[int, msgspec.Meta(ge=0)] = 4
    most: Annotated[int, msgspec.Meta(ge=1)] = 4096


@dataclass(frozen=True)
class Halves:
    """Examples of a behaviour in two random halves: what is chosen on one is measured on the other."""

    chosen_on: Tensor
    measured_on: Tensor

    @classmethod
    def of(cls, task: BaseTask, behaviour: int | None, rng: np.random.Generator) -> "Halves":
        """Halves of the task's examples, or of those of one of its groups.

        Raises:
            DataError: If there are too few examples.
        """
        groups = to_array(task.groups)
        members = np.arange(len(groups)) if behaviour is None else np.flatnonzero(groups == behaviour)
        if len(members) < 2 * FEWEST:
            raise DataError(
                "Too few examples to choose units on one half and measure them on the other.",
                where=task.name if behaviour is None else f"{task.name}: group {behaviour}",
                expected=f"at least {2 * FEWEST} examples",
                got=f"{len(members)}",
                do="Give more examples, or leave the setting behaviour out to count all of them.",
            )
        order = to_tensor(rng.permutation(members))
        half = len(members) // 2
        return cls(order[:half].sort().values, order[half:].sort().values)


@dataclass(frozen=True)
class Ablated:
    """What the model did with some units ablated.

    Attributes:
        units: ``[unit]``, which were.
        scores: ``[example, option]``.
        harm: Mean loss on the half that choices are made on.
    """

    units: Tensor
    scores: Tensor
    harm: float


@final
class Bench:
    """A subject whose hidden units, numbered through all its layers, can be ablated.

    Args:
        subject: The model.
        task: The examples.
        halves: Which of them choices are made on.
    """

    def __init__(self, subject: Subject, task: BaseTask, halves: Halves) -> None:
        self.subject, self.task, self.halves = subject, task, halves
        self.hiddens = hidden_units(subject)
        self.sizes = [hidden.units for hidden in self.hiddens]
        self.means = means(subject, task, self.hiddens)
        self.clean = task.scores(subject.model)
        self.loss = measure.squared_error if task.targets.is_floating_point() else measure.nll
        self.passes = 2.0
        self.guided = True

    @property
    def units(self) -> int:
        """Of all hidden layers together."""
        return sum(self.sizes)

    def by_layer(self, units: Tensor) -> list[tuple[HiddenUnits, Tensor]]:
        """Each layer with its own stretch of ``units`` (a view)."""
        return [
            (hidden, units[end - hidden.units : end])
            for hidden, end in zip(self.hiddens, accumulate(self.sizes), strict=True)
        ]

    def none(self) -> Tensor:
        """No unit at all, ``[unit]``."""
        return torch.zeros(self.units, dtype=torch.bool)

    def zero(self, units: Tensor) -> Ablated:
        """With these units at zero."""
        return self._run(units, lambda _, index: to_value(index, torch.zeros(len(index), device=index.device)))

    def mean(self, units: Tensor) -> Ablated:
        """With these units at their means."""
        return self._run(units, lambda hidden, index: to_value(index, self.means[hidden][index]))

    def resampled(self, units: Tensor, seed: int) -> Ablated:
        """With these units as they are, all together, on one other example."""
        return self._run(units, lambda _, index: to_drawn_rows(index, seed=seed))

    def _run(self, units: Tensor, change: Callable[[HiddenUnits, Tensor], Replace]) -> Ablated:
        changes: dict[HiddenUnits, Replace] = {}
        for hidden, part in self.by_layer(units):
            if bool(part.any()):
                changes[hidden] = change(hidden, part.nonzero()[:, 0].to(self.subject.device))
        with replaced(self.subject, changes):
            scores = self.task.scores(self.subject.model)
        self.passes += 1.0
        return Ablated(units, scores, float(self._harm(scores)))

    def _harm(self, scores: Tensor) -> Tensor:
        half, targets = self.halves.chosen_on, self.task.targets.cpu()
        return self.loss(scores[half], targets[half], self.clean[half]).mean()

    def promise(self, ablated: Ablated, rng: np.random.Generator) -> Tensor:
        """``[unit]``: rise of the harm that the slope there promises for ablating a unit, or for giving it back.

        Random numbers, all positive, where the task's scores have no slope.
        """
        degree = ablated.units.float().requires_grad_()

        def towards_mean(hidden: HiddenUnits, part: Tensor) -> Replace:
            def change(values: Tensor) -> Tensor:
                by = part.to(values)[None, :, None]
                return values + by * (self.means[hidden].to(values)[None, :, None] - values)

            return change

        changes = {hidden: towards_mean(hidden, part) for hidden, part in self.by_layer(degree)}
        with torch.enable_grad(), replaced(self.subject, changes):
            scores = self.task.forward(self.subject.model).float().cpu()
            slope = _slope(self._harm(scores), degree)
        self.passes += 1.0 if slope is None else 3.0
        if slope is None:
            self.guided = False
            return to_tensor(rng.random(self.units))
        return torch.where(ablated.units, -slope, slope)

    def values(self, runs: Sequence[Ablated]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score and loss per example of the other half, averaged over ``runs``."""
        half, targets = self.halves.measured_on, self.task.targets.cpu()[self.halves.measured_on]

        def read(by: measure.Measure) -> NDArray[np.float32]:
            each = [by(run.scores[half], targets, self.clean[half]).double() for run in runs]
            return to_array(torch.stack(each).mean(0))

        return read(self.task.measure), read(self.loss)


def _slope(harm: Tensor, degree: Tensor) -> Tensor | None:
    """Of ``harm`` in ``degree``, where the one was computed from the other with gradients."""
    if not harm.requires_grad:
        return None
    # Later layers may have gradients of their own though none leads back to the units.
    return cast("tuple[Tensor | None, ...]", torch.autograd.grad(harm, degree, allow_unused=True))[0]


def worst(bench: Bench, side: Tensor, *, known: Sequence[Ablated], tries: int, rng: np.random.Generator) -> Ablated:
    """The units of ``side`` whose ablation hurts most, as far as a greedy search from the worst ``known`` finds."""
    found, step, promise = max(known, key=lambda run: run.harm), FIRST_STEP, None
    for _ in range(tries):
        promise = bench.promise(found, rng) if promise is None else promise
        hopeful = ((promise > 0) & side).nonzero()[:, 0]
        if not len(hopeful):
            break
        order = hopeful[promise[hopeful].argsort(descending=True, stable=True)]
        flipped = found.units.clone()
        flipped[order[: max(1, round(step * len(order)))]] ^= True
        tried = bench.mean(flipped)
        if tried.harm > found.harm:
            found, promise = tried, None
        else:
            step /= 2
    return found


@dataclass(frozen=True)
class Draws:
    """What is random about the ablations: the same for every set, so that sets are compared under like conditions.

    Attributes:
        coins: ``[draw, unit]``, whether a unit is ablated in a stochastic draw, if it is on the ablated side.
        shuffles: Seed of each shuffle of the examples.
        tries: Steps of the search for the part that hurts most.
    """

    coins: Tensor
    shuffles: tuple[int, ...]
    tries: int


def ablations(bench: Bench, side: Tensor, draws: Draws, *, rng: np.random.Generator) -> list[list[Ablated]]:
    """Every kind of ablation of the units of ``side``, in the order of ``ABLATIONS``; draws in the inner lists."""
    whole = bench.mean(side)
    parts = [bench.mean(side & coin) for coin in draws.coins]
    hostile = worst(bench, side, known=[whole, *parts], tries=draws.tries, rng=rng)
    return [[bench.zero(side)], [whole], [bench.resampled(side, seed) for seed in draws.shuffles], parts, [hostile]]


def costliest(bench: Bench, share: float, *, most: int) -> Tensor:
    """The share of units whose mean-ablation, one at a time, costs most on the half that choices are made on.

    Raises:
        ModelError: If there are too many units to try.
    """
    if bench.units > most:
        raise ModelError(
            "There are too many hidden units to try one by one.",
            where=bench.subject.name,
            expected=f"at most {most:,}",
            got=f"{bench.units:,}",
            do="Name the units (setting units), or raise the setting most.",
        )
    alone = torch.eye(bench.units, dtype=torch.bool)
    harm = torch.tensor([bench.mean(unit).harm for unit in alone])
    chosen = bench.none()
    chosen[harm.argsort(descending=True, stable=True)[: max(1, round(share * bench.units))]] = True
    return chosen


def named(bench: Bench, text: str) -> Tensor:
    """The units that a user named.

    Raises:
        UnknownName: If there is no such layer.
        UsageError: If there is no such unit.
    """
    return unit_sets.named(bench.hiddens, text, where=bench.subject.name)


def _named(bench: Bench, text: str) -> Tensor:
    """The same for a trial that is under way: of the error, only what went wrong is told as its reason."""
    try:
        return named(bench, text)
    except UnknownName as error:
        raise UsageError(
            f"{error.what} {error.do}",
            where=bench.subject.name,
            expected=error.expected,
            got=error.got,
            do="Correct the setting units.",
        ) from error


def random_like(bench: Bench, chosen: Tensor, rng: np.random.Generator) -> Tensor:
    """As many units of each layer as ``chosen`` has, drawn at random."""
    drawn = bench.none()
    for (_, part), (_, like) in zip(bench.by_layer(drawn), bench.by_layer(chosen), strict=True):
        part[to_tensor(rng.choice(len(part), size=int(like.sum()), replace=False))] = True
    return drawn


@final
class Parts(Reading):
    """Score without a set of hidden units and with it alone, under five kinds of ablation, and of random sets.

    Values, on one half of the examples (the set and the worst ablations are chosen on the other): ``clean_score``,
    ``clean_loss``: ``[example]``; ``without_score``, ``without_loss`` (the set ablated), ``alone_score``,
    ``alone_loss`` (all other hidden units ablated): ``[ablation, set, example]``, ablations in the order of
    ``ABLATIONS``, the set itself first, then the random ones. Scores are in the measure's unit; the loss is the
    negative log-likelihood in nats, or the squared error. ``units``: ``[unit, 2]``, each unit of the set as the place
    of its layer among the subject's layers and its number there; ``total``: how many hidden units there are;
    ``guided``: whether the search for the worst ablation had slopes to go by (1) or tried at random (0).
    """

    name = "parts"
    title = "A set of hidden units ablated, and all the others"
    settings_type = PartsSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; costs about ``(nulls + 1) * 2 * (2 + 2 * draws + 4 * tries)`` passes and one per unit.

        Raises:
            ModelError: If no hidden units are known, or too many to try them one by one.
            UsageError: If the set is empty or everything.
        """
        settings: PartsSettings = self.settings

        def stream(name: str) -> np.random.Generator:
            return seeds.generator(root, "parts", seed, name)

        bench = Bench(subject, task, Halves.of(task, settings.behaviour, stream("halves")))
        if settings.units:
            chosen = _named(bench, settings.units)
        else:
            chosen = costliest(bench, settings.share, most=settings.most)
        unit_sets.require_part(chosen, where=subject.name)
        nulls = stream("nulls")
        sets = [chosen, *(random_like(bench, chosen, nulls) for _ in range(settings.nulls))]
        draws = Draws(
            to_tensor(stream("coins").random((settings.draws, bench.units)) < 0.5),
            tuple(seeds.derive(root, "parts", seed, "rows", draw) for draw in range(settings.draws)),
            settings.tries,
        )
        values: dict[str, NDArray[np.float32]] = {}
        values["clean_score"], values["clean_loss"] = bench.values([Ablated(bench.none(), bench.clean, 0.0)])
        for name, sides in (("without", sets), ("alone", [~units for units in sets])):
            search = stream(f"search {name}")
            tables = [[bench.values(runs) for runs in ablations(bench, side, draws, rng=search)] for side in sides]
            # [set, ablation, score or loss, example]
            stacked = np.asarray(tables, dtype=np.float32).transpose(2, 1, 0, 3)
            values[f"{name}_score"], values[f"{name}_loss"] = stacked
        values["units"] = _addresses(bench, chosen)
        values["total"] = np.array(bench.units, dtype=np.float32)
        values["guided"] = np.array(bench.guided, dtype=np.float32)
        return Readings({**values}, bench.passes)


def _addresses(bench: Bench, chosen: Tensor) -> NDArray[np.float32]:
    layers = [layer.name for layer in bench.subject.layers]
    rows = [
        (layers.index(hidden.layer), int(unit))
        for hidden, part in bench.by_layer(chosen)
        for unit in part.nonzero()[:, 0]
    ]
    return np.array(rows, dtype=np.float32)
