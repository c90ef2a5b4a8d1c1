"""Which single weights a network may depend on, and random ones of similar size to compare them with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.screens import COST, Screen, screened
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.perturb.ties import Marks, least
from wheeltap.plans.readings.single_point import SINGLE_POINT, SinglePointSettings

Screens = dict[int, Screen]
"""By index in ``subject.layers``."""


@dataclass(frozen=True)
class _Point:
    """One weight: index of its layer, row and column of the layer's matrix."""

    layer: int
    row: int
    column: int

    def of(self, matrices: dict[int, Tensor]) -> float:
        return float(matrices[self.layer][self.row, self.column])


@dataclass(frozen=True)
class _Candidate:
    """A weight with what the screens say of it, first-order and spike; ``rank`` is their product."""

    rank: float
    scores: tuple[float, float]
    point: _Point


@final
class SinglePoint(Reading):
    """Weights whose loss may ruin the network, and random ones.

    Candidates rank highest by the product of the two screens of ``engine.screens``: by how far the answers heed the
    weight, times how far out of the ordinary it is. On SmolLM2-135M each of the first four of that list costs 4 to 17
    points of accuracy; of either screen's own first four, one or two do. The others are embeddings of common tokens
    (first-order) and outsize weights that nothing heeds (spike).
    """

    spec = SINGLE_POINT

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """One forward and one backward pass.

        Raises:
            ModelError: If no gradient can be had of this model, or the task reaches none of its weights.
        """
        rng = seeds.generator(root, self.name, seed)
        screens = screened(subject, task, signs=rng)
        ranked = _ranked(screens, self.settings.confirm)
        points = [candidate.point for candidate in ranked]
        nulls = _Nulls(screens, rng, taken=set(points)).drawn(points, self.settings)
        matrices = {index: screen.matrix for index, screen in screens.items()}
        everything = sum(subject.parameter(layer.weight).numel() for layer in subject.layers)
        values: dict[str, Any] = {
            "candidates": _table(points),
            "candidate_places": _places(screens, points),
            "candidate_values": [point.of(matrices) for point in points],
            "scores": [candidate.scores for candidate in ranked],
            "nulls": _table(nulls),
            "null_places": _places(screens, nulls),
            "null_values": [point.of(matrices) for point in nulls],
            "screened": sum(matrix.numel() for matrix in matrices.values()) / everything,
        }
        return Readings({name: np.asarray(value, dtype=np.float64) for name, value in values.items()}, COST)


def _table(points: Sequence[_Point]) -> NDArray[np.float64]:
    return np.array([(p.layer, p.row, p.column) for p in points], dtype=np.float64).reshape(-1, 3)


def _places(screens: Screens, points: Sequence[_Point]) -> NDArray[np.float64]:
    """Where each weight is in its parameter, and which of its first two indices is the input; -1 fills up."""
    axes = max(len(screens[point.layer].layer.shape) for point in points) if points else 2
    table = np.full((len(points), 1 + axes), -1.0)
    for at, point in enumerate(points):
        layer = screens[point.layer].layer
        if layer.kind in ("transposed", "embedding"):
            table[at, :3] = 0, point.column, point.row
        else:
            table[at, : 1 + len(layer.shape)] = 1, point.row, *np.unravel_index(point.column, layer.shape[1:])
    return table


def _ranked(screens: Screens, count: int) -> list[_Candidate]:
    """The weights of the highest rank, over all layers; which of equal ones in a layer, ``perturb.ties`` says."""
    best: list[_Candidate] = []
    for index, screen in screens.items():
        first_order, spikes = screen.first_order(), screen.spikes()
        rank = first_order * spikes
        top = least(-rank, min(count, rank.numel()), Marks(screen.matrix).at)
        for row, column in top.nonzero():
            scores = (float(first_order[row, column]), float(spikes[row, column]))
            best.append(_Candidate(float(rank[row, column]), scores, _Point(index, int(row), int(column))))
    return sorted(best, key=lambda candidate: -candidate.rank)[:count]


@dataclass
class _Nulls:
    """Draws random weights of a given size from all layers, none twice."""

    screens: Screens
    rng: np.random.Generator
    taken: set[_Point]

    def drawn(self, points: Sequence[_Point], settings: SinglePointSettings) -> list[_Point]:
        """As many as the settings say, shared out among the sizes of ``points``."""
        found: list[_Point] = []
        for rank, point in enumerate(points):
            size = abs(point.of({point.layer: self.screens[point.layer].matrix}))
            share = len(range(rank, settings.nulls, len(points)))
            found += self._like(size, count=share, within=settings.within)
        return found

    def _like(self, size: float, *, count: int, within: float) -> list[_Point]:
        """``count`` weights of about this size, or as many as there are."""
        wanted = count + len(self.taken)
        everything = sum(screen.matrix.numel() for screen in self.screens.values())
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

    def _near(self, index: int, size: float, within: float) -> Tensor:
        """Which weights of a layer are of the wanted size, ``[unit, fan_in]``."""
        sizes = self.screens[index].matrix.abs()
        return (sizes >= size / within) & (sizes <= size * within)

    def _counts(self, size: float, within: float) -> NDArray[np.int64]:
        return np.array([int(self._near(index, size, within).sum()) for index in self.screens])

    def _point(self, counts: NDArray[np.int64], place: int, size: float, within: float) -> _Point:
        """The weight at one place in the list of all weights of the wanted size."""
        ends = counts.cumsum()
        at = int(np.searchsorted(ends, place, side="right"))
        index = list(self.screens)[at]
        row, column = self._near(index, size, within).nonzero()[place - int(ends[at] - counts[at])]
        return _Point(index, int(row), int(column))
