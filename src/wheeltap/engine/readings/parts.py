"""A set of hidden units ablated, and all the others ablated, in ways from mild to hostile.

Setting all units outside a set to zero or to their means at once can make nearly any set look sufficient: what is
outside may cancel itself out. So random parts of what is outside are ablated too, and the part that hurts most.

Source: Gao et al. 2025, arXiv:2511.13653 (necessity and sufficiency of a set by mean ablation); Drori 2026,
"Weight-sparse circuits may be interpretable yet unfaithful" (what zero and mean ablation can manufacture).
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Final, NamedTuple, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.apply import differentiable
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.engine.units import (
    HiddenUnits,
    Replace,
    Session,
    hidden_units,
    means,
    replaced,
    to_drawn_rows,
    to_value,
)
from wheeltap.plans.readings.parts import PARTS, PartsSettings


def named(hiddens: Sequence[HiddenUnits], text: str, *, where: str) -> Tensor:
    """The units that a user _named, ``[unit]`` through all hidden layers.

    Args:
        hiddens: The hidden layers.
        text: ``layer:unit,unit;layer:unit``.
        where: Name of the subject, for errors.

    Raises:
        UnknownName: If there is no such layer.
        UsageError: If there is no such unit.
    """
    ends = list(accumulate((hidden.units for hidden in hiddens), initial=0))
    chosen = torch.zeros(ends[-1], dtype=torch.bool)
    places = {hidden.layer: place for place, hidden in enumerate(hiddens)}
    if not any(layer.isdigit() for layer in places):
        places |= {str(place): place for place in range(len(hiddens))}
    for part in text.split(";"):
        layer, _, numbers = part.partition(":")
        layer = layer.strip()
        if layer not in places:
            raise UnknownName("hidden layer", layer, [hidden.layer for hidden in hiddens])
        place = places[layer]
        units = [int(number) for number in numbers.split(",")]
        if max(units) >= hiddens[place].units:
            raise UsageError(
                f"There is no unit {max(units)} in the hidden layer {layer!r}.",
                where=where,
                expected=f"0 to {hiddens[place].units - 1}",
                got=str(max(units)),
                do="Correct the setting units.",
            )
        chosen[[ends[place] + unit for unit in units]] = True
    return chosen


def require_part(chosen: Tensor, *, where: str) -> None:
    """Raises ``UsageError`` if a set of units is empty or everything.

    Args:
        chosen: ``[unit]``, which are in the set.
        where: Name of the subject, for errors.
    """
    if bool(chosen.all()) or not bool(chosen.any()):
        raise UsageError(
            "The set of units is no part of the model.",
            where=where,
            expected=f"some, not all, of its {len(chosen)} hidden units",
            got=f"{int(chosen.sum())} units",
            do="Name fewer units, or another share.",
        )


FEWEST: Final = 10
"""Fewest examples in either half."""

FIRST_STEP: Final = 0.5
"""Share of the promising flips that the search tries first; halved after each failure."""


Halves = tuple[Tensor, Tensor]
"""Examples of a behaviour in two random halves: what is chosen on the first is measured on the second."""


def halves_of(task: BaseTask, behaviour: int | None, rng: np.random.Generator) -> Halves:
    """Halves of the task's examples, or of those of one of its groups.

    Raises:
        DataError: If there are too few examples.
    """
    groups = task.behaviors.cpu().numpy()
    members = np.arange(len(groups)) if behaviour is None else np.flatnonzero(groups == behaviour)
    if len(members) < 2 * FEWEST:
        raise DataError(
            "Too few examples to choose units on one half and measure them on the other.",
            where=task.name if behaviour is None else f"{task.name}: group {behaviour}",
            expected=f"at least {2 * FEWEST} examples",
            got=f"{len(members)}",
            do="Give more examples, or leave the setting behaviour out to count all of them.",
        )
    return task.halves(rng, members)


class UnitAblation(NamedTuple):
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
class UnitSets(Session):
    """A subject whose hidden units, numbered through all its layers, can be ablated.

    Args:
        subject: The model.
        task: The examples.
        halves: On which of them choices are made, and which measured.
    """

    def __init__(self, subject: Subject, task: BaseTask, halves: Halves) -> None:
        super().__init__(subject, task)
        self.halves = halves
        self.hiddens = hidden_units(subject, task)
        self.sizes = [hidden.units for hidden in self.hiddens]
        self.means = means(subject, task, self.hiddens)
        self.passes += 1.0
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

    def zero(self, units: Tensor) -> UnitAblation:
        """With these units at zero."""
        return self._run(units, lambda _, index: to_value(index, torch.zeros(len(index), device=index.device)))

    def mean(self, units: Tensor) -> UnitAblation:
        """With these units at their means."""
        return self._run(units, lambda hidden, index: to_value(index, self.means[hidden][index]))

    def resampled(self, units: Tensor, seed: int) -> UnitAblation:
        """With these units as they are, all together, on one other example."""
        return self._run(units, lambda _, index: to_drawn_rows(index, seed=seed))

    def _run(self, units: Tensor, change: Callable[[HiddenUnits, Tensor], Replace]) -> UnitAblation:
        changes: dict[HiddenUnits, Replace] = {}
        for hidden, part in self.by_layer(units):
            if bool(part.any()):
                changes[hidden] = change(hidden, part.nonzero()[:, 0].to(self.subject.device))
        scores = self.without(changes)
        return UnitAblation(units, scores, float(self._harm(scores)))

    def _harm(self, scores: Tensor) -> Tensor:
        half, targets = self.halves[0], self.task.targets.cpu()
        return self.loss(scores[half], targets[half], self.clean[half]).mean()

    def predicted_rise(self, ablated: UnitAblation, rng: np.random.Generator) -> Tensor:
        """``[unit]``: rise of the harm that the slope there predicts for ablating a unit, or for giving it back.

        Random numbers, all positive, where the task's scores have no slope.
        """
        degree = ablated.units.float().requires_grad_()

        def towards_mean(hidden: HiddenUnits, part: Tensor) -> Replace:
            def change(values: Tensor) -> Tensor:
                by = part.to(values)[None, :, None]
                return values + by * (self.means[hidden].to(values)[None, :, None] - values)

            return change

        changes = {hidden: towards_mean(hidden, part) for hidden, part in self.by_layer(degree)}
        with torch.enable_grad(), differentiable(self.subject.model), replaced(self.subject, changes):
            scores = self.task.forward(self.subject.model).float().cpu()
            harm, slope = self._harm(scores), None
            if harm.requires_grad:
                # Later layers may have gradients of their own though none leads back to the units.
                found = torch.autograd.grad(harm, degree, allow_unused=True)
                slope = cast("tuple[Tensor | None, ...]", found)[0]
        self.passes += 1.0 if slope is None else 3.0
        if slope is None:
            self.guided = False
            return to_tensor(rng.random(self.units))
        return torch.where(ablated.units, -slope, slope)

    def values(self, runs: Sequence[UnitAblation]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score and loss per example of the other half, averaged over ``runs``."""
        half, targets = self.halves[1], self.task.targets.cpu()[self.halves[1]]
        score, loss = (
            to_array(torch.stack([by(run.scores[half], targets, self.clean[half]).double() for run in runs]).mean(0))
            for by in (self.task.measure, self.loss)
        )
        return score, loss


def worst(
    bench: UnitSets, side: Tensor, *, known: Sequence[UnitAblation], tries: int, rng: np.random.Generator
) -> UnitAblation:
    """The units of ``side`` whose ablation hurts most, as far as a greedy search from the worst ``known`` finds."""
    found, step, predicted = max(known, key=lambda run: run.harm), FIRST_STEP, None
    for _ in range(tries):
        predicted = bench.predicted_rise(found, rng) if predicted is None else predicted
        hopeful = ((predicted > 0) & side).nonzero()[:, 0]
        if not len(hopeful):
            break
        order = hopeful[predicted[hopeful].argsort(descending=True, stable=True)]
        flipped = found.units.clone()
        flipped[order[: max(1, round(step * len(order)))]] ^= True
        tried = bench.mean(flipped)
        if tried.harm > found.harm:
            found, predicted = tried, None
        else:
            step /= 2
    return found


def costliest(bench: UnitSets, share: float, *, most: int) -> Tensor:
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


def random_like(bench: UnitSets, chosen: Tensor, rng: np.random.Generator) -> Tensor:
    """As many units of each layer as ``chosen`` has, drawn at random."""
    drawn = bench.none()
    for (_, part), (_, like) in zip(bench.by_layer(drawn), bench.by_layer(chosen), strict=True):
        part[to_tensor(rng.choice(len(part), size=int(like.sum()), replace=False))] = True
    return drawn


@final
class UnitParts(Reading):
    """Score without a set of hidden units and with it alone, under five kinds of ablation, and of random sets."""

    spec = PARTS

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: units and the behaviour.

        A model without hidden units passes: that it has none is a finding, not a mistake of the user's.

        Raises:
            UnknownName: If a layer that is named is none of its hidden layers.
            UsageError: If it has no such unit, the set is all of them, or no example belongs to the behaviour.
        """
        units, behaviour = self.settings.units, self.settings.behaviour
        groups = {int(group) for group in np.unique(task.behaviors.cpu().numpy())}
        if behaviour is not None and behaviour not in groups:
            raise UsageError(
                f"No example belongs to the behaviour {behaviour}.",
                where=task.name,
                expected=", ".join(map(str, sorted(groups)[:20])) + (", ..." if len(groups) > 20 else ""),
                got=str(behaviour),
                do="Correct the setting behaviour, or leave it out to count all examples.",
            )
        if units:
            with suppress(ModelError):
                hiddens = hidden_units(subject, task)
                require_part(named(hiddens, units, where=subject.name), where=subject.name)

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; costs about ``(nulls + 1) * 2 * (2 + 2 * draws + 4 * tries)`` passes and one per unit.

        Raises:
            ModelError: If no hidden units are known, or too many to try them one by one.
            UsageError: If the set is empty or everything, or names what there is not.
        """
        settings: PartsSettings = self.settings

        def stream(name: str) -> np.random.Generator:
            return seeds.generator(root, "parts", seed, name)

        bench = UnitSets(subject, task, halves_of(task, settings.behaviour, stream("halves")))
        if settings.units:
            chosen = named(bench.hiddens, settings.units, where=subject.name)
        else:
            chosen = costliest(bench, settings.share, most=settings.most)
        require_part(chosen, where=subject.name)
        nulls = stream("nulls")
        sets = [chosen, *(random_like(bench, chosen, nulls) for _ in range(settings.nulls))]
        # The same for every set, so that sets are compared under like conditions.
        coins = to_tensor(stream("coins").random((settings.draws, bench.units)) < 0.5)
        shuffles = [seeds.derive(root, "parts", seed, "rows", draw) for draw in range(settings.draws)]
        values: dict[str, NDArray[np.float32]] = {}
        values["clean_score"], values["clean_loss"] = bench.values([UnitAblation(bench.none(), bench.clean, 0.0)])
        for name, sides in (("without", sets), ("alone", [~units for units in sets])):
            search, tables = stream(f"search {name}"), list[list[tuple[NDArray[np.float32], NDArray[np.float32]]]]()
            for side in sides:
                whole, parts = bench.mean(side), [bench.mean(side & coin) for coin in coins]
                hostile = worst(bench, side, known=[whole, *parts], tries=settings.tries, rng=search)
                shuffled = [bench.resampled(side, shuffle) for shuffle in shuffles]
                kinds = ([bench.zero(side)], [whole], shuffled, parts, [hostile])  # in the order of ABLATIONS
                tables.append([bench.values(runs) for runs in kinds])
            # [set, ablation, score or loss, example]
            stacked = np.asarray(tables, dtype=np.float32).transpose(2, 1, 0, 3)
            values[f"{name}_score"], values[f"{name}_loss"] = stacked
        layers = [layer.name for layer in subject.layers]
        addresses = [
            (layers.index(hidden.layer), int(unit))
            for hidden, part in bench.by_layer(chosen)
            for unit in part.nonzero()[:, 0]
        ]
        values["units"] = np.array(addresses, dtype=np.float32)
        values["rows"] = to_array(bench.halves[1])
        values["total"] = np.array(bench.units, dtype=np.float32)
        values["guided"] = np.array(bench.guided, dtype=np.float32)
        return Readings({**values}, bench.passes)
