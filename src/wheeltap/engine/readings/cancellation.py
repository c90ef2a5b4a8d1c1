"""Pairs of hidden units whose contributions undo each other, and what it costs to lose one of them or both."""

import math
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import measure, seeds
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.engine.units import (
    Contributions,
    HiddenUnits,
    Session,
    centred,
    contributions,
    correlations,
    hidden_units,
    means,
    second_moments,
    to_value,
)
from wheeltap.plans.readings.cancellation import CANCELLATION, CancellationSettings

_UNITS = 4
"""A layer of fewer living units has no pair apart to compare a pair with."""

_EXAMPLES = 4
"""Fewer examples cannot be divided into two halves that each tell something."""


class _Pair(NamedTuple):
    """Two units of a layer, as positions in the order of its ``Contributions``."""

    layer: int
    one: int
    two: int


@final
class Cancellation(Reading):
    """Finds the most opposing pairs on half of the examples and ablates them on the other half.

    All of it but ``units`` is the same, up to rounding, on a copy with its units permuted and rescaled.
    """

    spec = CANCELLATION

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``."""
        settings: CancellationSettings = self.settings
        hiddens = hidden_units(subject, task)
        if len(task.targets) < _EXAMPLES:
            raise DataError(
                "There are too few examples to choose pairs on some and measure them on others.",
                where=task.name,
                expected=f"at least {_EXAMPLES} examples",
                got=str(len(task.targets)),
            )
        one, two = task.halves(seeds.generator(root, "cancellation", "halves", seed))
        first, second = task.part(one), task.part(two)
        with torch.no_grad():
            held = list(contributions(subject, first, hiddens, centred=settings.to == "mean").values())
        rng = seeds.generator(root, "cancellation", "pairs", seed)
        opposing = _most_opposing(held, settings.pairs)
        if not opposing:
            raise ModelError(
                "No hidden layer has units to pair.",
                where=subject.name,
                expected=f"a layer of at least {_UNITS} units that differ from example to example",
                got=", ".join(f"{hidden.layer}: {hidden.units}" for hidden in hiddens),
                do="Leave the redundancy audit out for this model.",
            )
        sets = (opposing, [_random_pair(held, pair, rng) for pair in opposing])
        pairs = _Pairs(subject, second, hiddens, held, to=settings.to)
        rng, nulls = seeds.generator(root, "cancellation", "writes", seed), list[list[float]]()
        for layer in held:
            alive = layer.alive.cpu().numpy()
            orders = (to_tensor(rng.permutation(alive)) for _ in range(settings.permutations))
            nulls.append([layer.cancellation(order) for order in orders])
        values = {
            **pairs.of_pairs(sets),
            "layer": np.array([float(pair.layer) for pair in opposing]),
            "units": np.array([
                [[float(held[pair.layer].order[at]) for at in (pair.one, pair.two)] for pair in pairs] for pairs in sets
            ]),
            "opposing": np.array([
                [-2.0 * float(held[p.layer].products[p.one, p.two] / held[p.layer].products.sum()) for p in pairs]
                for pairs in sets
            ]),
            "ratio": np.array([layer.cancellation() for layer in held]),
            "ratio_null": np.array(nulls),
            "living": np.array([float(len(layer.alive)) for layer in held]),
        }  # fmt: skip
        shuffles = [seeds.generator(root, "cancellation", "rows", seed, at) for at in range(settings.shuffles)]
        values["rows"], values["beside"] = to_array(two), _beside(subject, hiddens)
        values |= _duplicates(subject, first, dict(zip(hiddens, held, strict=True)), settings.duplicate, shuffles)
        return Readings(values, forwards=0.5 * (1 + pairs.passes + settings.shuffles))


def _most_opposing(held: list[Contributions], count: int) -> list[_Pair]:
    """Pairs that take most from what their layer writes, most first; no unit is in two of them."""
    left: list[Tensor] = []
    for layer in held:
        opposing = -layer.products / layer.products.sum().clamp_min(torch.finfo(torch.float64).tiny)
        movable = torch.zeros(len(opposing), dtype=torch.bool, device=opposing.device)
        movable[layer.alive] = len(layer.alive) >= _UNITS
        # Each pair once, its first unit before its second in the order: else rounding would name either first.
        pairs = (movable[:, None] & movable).triu(1)
        left.append(opposing.masked_fill(~pairs, -torch.inf))
    found: list[_Pair] = []
    while len(found) < count:
        best = [float(opposing.max()) for opposing in left]
        layer = int(np.argmax(best))
        if best[layer] == -np.inf:
            break
        one, two = divmod(int(left[layer].argmax()), len(left[layer]))
        found.append(_Pair(layer, one, two))
        left[layer][[one, two]] = left[layer][:, [one, two]] = -torch.inf
    return found


def _random_pair(held: list[Contributions], like: _Pair, rng: np.random.Generator) -> _Pair:
    """Another two living units of the same layer."""
    some = held[like.layer].alive.cpu().numpy()
    while True:
        one, two = (int(at) for at in rng.choice(some, size=2, replace=False))
        if {one, two} != {like.one, like.two}:
            return _Pair(like.layer, one, two)


@final
class _Pairs(Session):
    """Measures a subject without some of its units, each set of units once."""

    def __init__(
        self,
        subject: Subject,
        task: BaseTask,
        hiddens: tuple[HiddenUnits, ...],
        held: list[Contributions],
        *,
        to: str,
    ) -> None:
        super().__init__(subject, task)
        self.hiddens, self.held = hiddens, held
        found = means(subject, task, hiddens)
        self.passes += 1.0
        self.value = {hidden: mean if to == "mean" else torch.zeros_like(mean) for hidden, mean in found.items()}
        self.known: dict[tuple[int, frozenset[int]], NDArray[np.float32]] = {}
        self.names = ("moved", "lost") if task.targets.is_floating_point() else ("moved", "lost", "nll")
        self.spread = float(centred(self.clean - self.clean.mean(0)).square().sum(1).mean()) or 1.0

    def of_pairs(self, sets: tuple[list[_Pair], ...]) -> dict[str, NDArray[Any]]:
        """``moved``, ``lost`` and ``nll`` of every pair's ways."""
        ways = [[[(p.one,), (p.two,), (p.one, p.two)] for p in pairs] for pairs in sets]
        measured = np.stack([
            [[self._lost(pair.layer, way) for way in each] for pair, each in zip(pairs, of_set, strict=True)]
            for pairs, of_set in zip(sets, ways, strict=True)
        ])  # fmt: skip
        return {name: measured[:, :, :, at] for at, name in enumerate(self.names)}

    def _lost(self, layer: int, units: tuple[int, ...]) -> NDArray[np.float32]:
        """What is named in ``names``, ``[name, example]``."""
        key = (layer, frozenset(units))
        if key not in self.known:
            hidden = self.hiddens[layer]
            index = self.held[layer].order[list(units)]
            scores = self.without({hidden: to_value(index, self.value[hidden][index])})
            rows = [centred(scores - self.clean).square().sum(1) / self.spread, self.lost(scores)]
            if "nll" in self.names:
                rows.append(self.rise(measure.nll, scores))
            self.known[key] = torch.stack(rows).numpy()
        return self.known[key]


def _beside(subject: Subject, hiddens: tuple[HiddenUnits, ...]) -> NDArray[np.float64]:
    """Weights of each layer, in the order of the subject's record; 0 for those around the units.

    A gate goes with the layer that it multiplies: it is of the same shape, in the same module.
    """
    around = {name for hidden in hiddens for name in (hidden.layer, hidden.reader)}
    gated = {(layer.name.rpartition(".")[0], layer.shape) for layer in subject.layers if layer.name in around}
    sizes = {
        layer.name: float(math.prod(layer.shape))
        for layer in subject.layers
        if layer.name not in around and (layer.name.rpartition(".")[0], layer.shape) not in gated
    }
    return np.array([sizes.get(name, 0.0) for name in subject.record.layers])


def _duplicates(
    subject: Subject,
    task: BaseTask,
    held: dict[HiddenUnits, Contributions],
    threshold: float,
    shuffles: list[np.random.Generator],
) -> dict[str, NDArray[Any]]:
    def count(maps: Tensor) -> float:
        pooled = maps.sum(0).abs()
        pooled.fill_diagonal_(0.0)
        return float((pooled >= threshold).any(1).sum())

    def shuffled(rng: np.random.Generator) -> list[float]:
        def arrange(hidden: HiddenUnits, rows: Tensor) -> Tensor:
            index = to_tensor(rng.random((len(rows), rows.shape[1])).argsort(0)).to(rows.device)
            return rows[:, held[hidden].order].gather(0, index[:, :, None].expand_as(rows))

        moments = second_moments(subject, task, list(held), arrange=arrange)
        return [count(correlations(layer)) for layer in moments.values()]

    with torch.no_grad():
        null = np.array([shuffled(rng) for rng in shuffles])
    return {"duplicates": np.array([count(layer.maps) for layer in held.values()]), "duplicates_null": null.T}
