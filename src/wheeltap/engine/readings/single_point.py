"""Which single weights a network may depend on, and random ones of similar size to compare them with."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.screens import COST, STATES, Screen, ScreenMaker
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.perturb.ties import Marks, least
from wheeltap.plans.readings.single_point import SINGLE_POINT, SORTS, SinglePointSettings, padded, written

Screens = dict[str, Screen]
"""By path of the parameter."""

_Ranked = tuple[float, "_Point"]
"""A number and its score."""


@dataclass(frozen=True)
class _Point:
    """One number: its parameter's path and its place in that, flattened."""

    parameter: str
    index: int

    def place(self, screens: Screens) -> tuple[int, ...]:
        """Its indices."""
        return tuple(int(at) for at in np.unravel_index(self.index, tuple(screens[self.parameter].weight.shape)))

    def value(self, screens: Screens) -> float:
        return float(screens[self.parameter].weight[self.place(screens)])


@final
class SinglePoint(Reading):
    """Numbers whose loss may ruin the network, and random ones.

    Candidates are those that the screens of ``engine.inside.screens`` rank highest, one from each screen in turn:
    weights, biases and gains alike.
    """

    spec = SINGLE_POINT

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """One forward and one backward pass for each screen.

        Raises:
            ModelError: If no gradient can be had of this model, or the task reaches none of its weights.
        """
        rng = seeds.generator(root, self.name, seed)
        screening, lists = ScreenMaker(subject, task, signs=rng), list[list[_Ranked]]()
        screens: Screens = {}
        for scale in STATES[: self.settings.states]:
            found = screening.at(scale)
            screens = screens or found
            lists.append(_ranked(found, self.settings.confirm))
        ranked = _in_turn(lists)[: self.settings.confirm]
        points = [point for _, point in ranked]
        nulls = _Nulls(screens, rng, taken=set(points)).drawn(points, self.settings)
        sorts = _sorts(subject)
        values: dict[str, Any] = {
            **_named("candidate", points, screens, sorts),
            "scores": [score for score, _ in ranked],
            **_named("null", nulls, screens, sorts),
            "screened": sum(screen.weight.numel() for screen in screens.values()) / sum(subject.sizes.values()),
        }
        return Readings(
            {name: np.asarray(value, dtype=np.float64) for name, value in values.items()}, COST * len(lists)
        )


def _named(of: str, points: Sequence[_Point], screens: Screens, sorts: dict[str, str]) -> dict[str, Any]:
    return {
        f"{of}_parameters": written([point.parameter for point in points]),
        f"{of}_places": padded([point.place(screens) for point in points]),
        f"{of}_sorts": [SORTS.index(sorts[point.parameter]) for point in points],
        f"{of}_values": [point.value(screens) for point in points],
    }


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


def _ranked(screens: Screens, count: int) -> list[_Ranked]:
    """The highest scores over all parameters; which of equal ones, ``perturb.ties`` says."""
    best: list[tuple[float, int, _Point]] = []
    for path, screen in screens.items():
        table, marks = _table(screen.score), Marks(_table(screen.weight))
        top = least(-table, min(count, table.numel()), marks.at)
        places = top.reshape(-1).nonzero()[:, 0]
        for place, mark in zip(places, marks.at(top), strict=True):
            best.append((float(table.reshape(-1)[place]), int(mark), _Point(path, int(place))))
    ranked = sorted(best, key=lambda candidate: (-candidate[0], candidate[1]))[:count]
    return [(score, point) for score, _, point in ranked]


def _in_turn(lists: list[list[_Ranked]]) -> list[_Ranked]:
    """The first of each list, then the second of each, and so on; none twice."""
    found: dict[_Point, float] = {}
    for of_one_rank in zip_longest(*lists):
        for score, point in filter(None, of_one_rank):
            found.setdefault(point, score)
    return [(score, point) for point, score in found.items()]


def _table(tensor: Tensor) -> Tensor:
    """As ``[first index, rest]``; a vector as one row."""
    return tensor.reshape(len(tensor) if tensor.ndim > 1 else 1, -1)


@dataclass
class _Nulls:
    """Draws random numbers of a given size from all parameters, none twice."""

    screens: Screens
    rng: np.random.Generator
    taken: set[_Point]

    def drawn(self, points: Sequence[_Point], settings: SinglePointSettings) -> list[_Point]:
        """As many as the settings say, shared out among the sizes of ``points``."""
        found: list[_Point] = []
        for rank, point in enumerate(points):
            share = len(range(rank, settings.nulls, len(points)))
            if share:
                found += self._like(abs(point.value(self.screens)), count=share, within=settings.within)
        return found

    def _like(self, size: float, *, count: int, within: float) -> list[_Point]:
        """``count`` numbers of about this size, or as many as there are."""
        wanted = count + len(self.taken)
        everything = sum(screen.weight.numel() for screen in self.screens.values())
        sizes = self._counts(size, within)
        while sizes.sum() < min(wanted, everything) and size > 0.0:
            within *= 2.0
            sizes = self._counts(size, within)
        found: list[_Point] = []
        # More than are wanted, so that those taken already can be passed over.
        for place in self.rng.choice(int(sizes.sum()), min(wanted, int(sizes.sum())), replace=False):
            point = self._point(sizes, int(place), size, within)
            if point not in self.taken and len(found) < count:
                self.taken.add(point)
                found.append(point)
        return found

    def _near(self, path: str, size: float, within: float) -> Tensor:
        """Which numbers of a parameter are of the wanted size, flattened."""
        sizes = self.screens[path].weight.reshape(-1).abs()
        return torch.logical_and(sizes >= size / within, sizes <= size * within)

    def _counts(self, size: float, within: float) -> NDArray[np.int64]:
        return np.array([int(self._near(path, size, within).sum()) for path in self.screens])

    def _point(self, counts: NDArray[np.int64], place: int, size: float, within: float) -> _Point:
        """The number at one place in the list of all numbers of the wanted size."""
        ends = counts.cumsum()
        at = int(np.searchsorted(ends, place, side="right"))
        path = list(self.screens)[at]
        return _Point(path, int(self._near(path, size, within).nonzero()[place - int(ends[at] - counts[at]), 0]))
