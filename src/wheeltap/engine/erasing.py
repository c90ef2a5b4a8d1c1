"""A subject whose layers' subspaces are taken away, and how far its outputs move: one factor, layer by layer."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap import measure
from wheeltap.choices import ChoiceProbe
from wheeltap.engine.activations import (
    Change,
    Place,
    Places,
    apart,
    changed,
    distinct,
    read,
    require_enough,
    require_places,
    slopes,
)
from wheeltap.engine.erasure import Eraser, Geometry, angles, haar, one_hot, projection, steepest, telling
from wheeltap.engine.linear_probe import Halves, LinearProbe, control_labels, majority, read_off
from wheeltap.engine.prefix import PrefixCache
from wheeltap.probe import BaseProbe
from wheeltap.subject import Subject
from wheeltap.typed import to_array

STATUSES: Final = ("measured", "one class", "too few examples", "too many classes")
"""Of a factor, in the order of the reading's numbers."""

FEWEST: Final = 40
"""Examples that can be divided into two halves with something to fit on each."""

_DRAWN: Final = ("random", "matched")

_CHUNK = 64
"""Examples whose graph is held at once for slopes of a language model."""

_CACHE_FROM = 2_000_000
"""Parameters from which recorded outputs of earlier blocks save more than they cost."""

Values = NDArray[np.floating[Any]]


@final
@dataclass(frozen=True)
class How:
    """How much is looked at.

    Attributes:
        draws: Random subspaces for each factor and layer.
        matched: How many of them are tried once more, at the size of the factor's change.
        controls: Random labellings.
        per_class: Fewest examples of each class in either half.
        options: Options (outputs) at most whose slopes say what the outputs hang on.
    """

    draws: int
    matched: int
    controls: int
    per_class: int
    options: int


@dataclass
class Bench:
    """A subject, the half of the examples that is measured on, and what was read of all.

    Attributes:
        part: The examples that are measured on.
        clean: Their undisturbed scores ``[example, option]``.
        vectors: Of all examples ``[example, feature]``, by place.
        inputs: ``[example]``: which distinct input each example is.
        scores: Those of all examples.
        forwards: Passes over the whole probe so far.
    """

    subject: Subject
    probe: BaseProbe
    part: BaseProbe
    halves: Halves
    clean: Tensor
    scores: Tensor
    vectors: Mapping[Place, Tensor]
    inputs: Tensor
    forwards: float
    cache: PrefixCache | None = None

    @classmethod
    def of(cls, subject: Subject, probe: BaseProbe, where: Places, rng: np.random.Generator) -> "Bench":
        """Reads the vectors; see ``activations.read``.

        Raises:
            DataError: If there are too few examples.
            ModelError: If no layer holds a vector per example.
        """
        usable = apart(probe)
        require_enough(probe, len(usable), least=FEWEST)
        halves = Halves.drawn(usable, rng)
        vectors, scores = read(subject, probe, where)
        require_places(subject, vectors, where)
        part = probe.part(halves.measured)
        bench = cls(subject, probe, part, halves, scores, scores, vectors, distinct(probe), forwards=1.0)
        if isinstance(probe, ChoiceProbe) and subject.record.parameters >= _CACHE_FROM:
            bench.cache = PrefixCache(subject, part.scores)
            bench.forwards += bench.share * bench.cache.spent
        bench.clean = part.scores(subject.model)
        bench.forwards += bench.share
        return bench

    @property
    def share(self) -> float:
        """Of the examples that are measured on."""
        return len(self.halves.measured) / len(self.probe.targets)

    def run(self, place: Place, change: Change) -> Tensor:
        """Scores ``[example, option]`` of the measured half with the vectors of a place changed."""
        shortened: AbstractContextManager[None] = nullcontext()
        cost = self.share
        if self.cache is not None and self.cache.covers(place.module):
            shortened, cost = self.cache.starting_at(place.module), cost * self.cache.share(place.module)
        with shortened, changed(self.subject, self.part, [(place, change)]):
            scores = self.part.scores(self.subject.model)
        self.forwards += cost
        return scores

    def effect(self, scores: Tensor) -> Tensor:
        """How far the outputs moved, ``[example]``: KL in nats, or the squared change as a share of their variance."""
        moved, clean = scores.double(), self.clean.double()
        if not self.probe.targets.is_floating_point():
            return measure.kl(moved, self.part.targets.cpu(), clean)
        spread = (clean - clean.mean(0)).square().sum(1).mean()
        return (moved - clean).square().sum(1) / spread.clamp_min(torch.finfo(spread.dtype).tiny)

    def lost(self, scores: Tensor) -> Tensor:
        """Score lost, ``[example]``, in the probe's measure."""
        targets = self.part.targets.cpu()
        sign = -1.0 if self.probe.measure.higher_is_better else 1.0
        of = self.probe.measure
        return sign * (of(scores, targets, self.clean) - of(self.clean, targets, self.clean)).double()


@final
@dataclass(frozen=True)
class Layer:
    """A layer's vectors, their geometry, and where its outputs hang on them.

    Attributes:
        vectors: ``[example, feature]`` of all examples.
        geometry: From the half that is fitted on.
        slopes: ``[row, direction]``, weighted slopes of the outputs, whitened; ``None`` if there are none.
        size: Root mean square length of the measured vectors about their mean.
    """

    place: Place
    vectors: Tensor
    geometry: Geometry
    slopes: Tensor | None
    size: float


def laid_out(bench: Bench, where: Places, *, most: int, rng: np.random.Generator) -> list[Layer]:
    """The layers at some places.

    Args:
        bench: What was read there.
        where: The places.
        most: Options (outputs) whose slopes are taken, at most.
        rng: Draws them where there are more.
    """
    geometries = {place: Geometry.of(bench.vectors[place][bench.halves.fitted]) for place in where.all}
    slopes = _weighted_slopes(bench, geometries, most=most, rng=rng)
    layers: list[Layer] = []
    for place, geometry in geometries.items():
        about = bench.vectors[place][bench.halves.measured] - geometry.mean
        size = float(about.square().sum(1).mean().sqrt())
        layers.append(Layer(place, bench.vectors[place], geometry, slopes.get(place), size))
    return layers


def _weighted_slopes(
    bench: Bench, geometries: Mapping[Place, Geometry], *, most: int, rng: np.random.Generator
) -> dict[Place, Tensor]:
    """Slopes ``[row, direction]`` of the outputs in whitened coordinates, on the half that is fitted on.

    Weighted so that the mean square along a small change is twice its KL divergence (its squared change, for outputs).
    """
    rows: dict[Place, list[Tensor]] = {place: [] for place in geometries}
    chunk = _CHUNK if isinstance(bench.probe, ChoiceProbe) else len(bench.halves.fitted)
    options = bench.scores.shape[1]
    chosen = range(options) if options <= most else sorted(int(o) for o in rng.choice(options, most, replace=False))
    for index in cast("tuple[Tensor, ...]", bench.halves.fitted.split(chunk)):  # pyright: ignore[reportUnknownMemberType]
        for place, found in _slopes_of(bench, geometries, index, list(chosen)).items():
            rows[place].append(found)
    bench.forwards += 3.0 * len(chosen) * len(bench.halves.fitted) / len(bench.probe.targets)
    return {place: torch.cat(found) for place, found in rows.items() if found}


def _slopes_of(
    bench: Bench, geometries: Mapping[Place, Geometry], index: Tensor, chosen: list[int]
) -> dict[Place, Tensor]:
    part, scores = bench.probe.part(index), bench.scores[index]
    regression = part.targets.is_floating_point()
    by_option: list[dict[Place, Tensor]] = []
    for option in chosen:
        targets = torch.full((len(index),), option)
        if regression:
            unit = torch.zeros(scores.shape[1])
            unit[option] = 0.5 * scores.shape[1]  # the gradient of the mean square is then that of this output
            targets = scores - unit
        raw = slopes(bench.subject, part, list(geometries), targets)
        # Whitened at once: a wide layer's slopes are many times as large.
        by_option.append({place: slope @ geometries[place].outwards for place, slope in raw.items()})
    shares = torch.ones(len(scores), len(chosen)).double() if regression else scores.double()[:, chosen].softmax(1)
    found: dict[Place, Tensor] = {}
    for place in geometries:
        if all(place in each for each in by_option):
            stacked = torch.stack([each[place] for each in by_option])
            middle = 0.0 if regression else torch.einsum("eo,oed->ed", shares, stacked)
            found[place] = ((stacked - middle) * shares.T.sqrt()[:, :, None]).flatten(0, 1)
    return found


@final
@dataclass(frozen=True)
class FactorEffects:
    """One factor on all layers; see the reading ``decodable`` for the arrays.

    Attributes:
        labels: ``[example]``, from 0.
        rng: Of every draw.
        blind: Whether a random subspace is held in place of the factor's, and the probe reads off that alone: a null,
            of which nothing may be found.
    """

    bench: Bench
    labels: Tensor
    how: How
    rng: np.random.Generator
    blind: bool = False

    def all(self, layers: Sequence[Layer]) -> dict[str, Values]:
        """Every number about this factor."""
        status = self._status()
        values: dict[str, Values] = {
            "status": np.array(float(STATUSES.index(status))),
            "classes": np.array(float(self.labels.max()) + 1.0),
        }
        if status != "measured":
            return values
        halves = self.bench.halves
        values["labels"] = to_array(self.labels[halves.measured])
        values["majority"] = to_array(majority(self.labels, halves))
        values["targets"] = to_array(torch.stack(_explained(self.bench.part.targets, self.labels[halves.measured])))
        told = [self._layer(layer) for layer in layers]
        return values | {name: np.stack([to_array(one[name]) for one in told]) for name in told[0]}

    def _status(self) -> str:
        halves, classes = self.bench.halves, int(self.labels.max()) + 1
        if classes < 2:
            return "one class"
        least = min(
            int(torch.bincount(self.labels[half], minlength=classes).min()) for half in (halves.fitted, halves.measured)
        )
        if least < self.how.per_class:
            return "too few examples" if classes == 2 else "too many classes"
        return "measured"

    def _layer(self, layer: Layer) -> dict[str, Tensor]:
        halves, geometry, vectors = self.bench.halves, layer.geometry, layer.vectors
        basis = telling(geometry.whitened(vectors[halves.fitted]), self.labels[halves.fitted])
        if self.blind:
            basis = haar(geometry.directions, basis.shape[1], self.rng)
            vectors = geometry.mean - geometry.eraser(basis).change(vectors)  # what lies in the subspace alone
        probe, correct = read_off(vectors, self.labels, halves, geometry)
        randoms = [control_labels(self.labels, self.bench.inputs, self.rng) for _ in range(self.how.controls)]
        control = torch.stack([read_off(vectors, labels, halves, geometry)[1] for labels in randoms])
        baseline = max(float(control.mean()), float(majority(self.labels, halves).mean()))
        told = float(correct.mean()) > baseline and layer.slopes is not None
        fits = 0 < basis.shape[1] < geometry.directions
        rank = float(basis.shape[1] * told if fits else -basis.shape[1])
        values = {"correct": correct, "control": control, "rank": torch.tensor(rank)}
        return values | (self._effects(layer, probe, basis) if rank > 0.0 else self._nothing())

    def _nothing(self) -> dict[str, Tensor]:
        """The same arrays where nothing was taken away."""
        one = torch.zeros(len(self.bench.halves.measured))
        names = ("erased", "projected", "steepest", "lost", "lost_random")
        return {
            **dict.fromkeys(names, one),
            "random": one.expand(self.how.draws, -1),
            "matched": one.expand(self.how.matched, -1),
            "left": one[1::2],
            "sizes": torch.zeros(4),
            "angles": torch.zeros(2),
        }

    def _effects(self, layer: Layer, probe: LinearProbe, basis: Tensor) -> dict[str, Tensor]:
        bench, geometry = self.bench, layer.geometry
        vectors = layer.vectors[bench.halves.measured]
        assert layer.slopes is not None, "without slopes nothing is taken away"
        steep = steepest(layer.slopes, basis.shape[1])
        nulls = [haar(geometry.directions, basis.shape[1], self.rng) for _ in range(self.how.draws)]
        eraser, steepest_eraser = geometry.eraser(basis), geometry.eraser(steep)
        aside, random = projection(geometry.mean, probe.directions), [geometry.eraser(null) for null in nulls]
        runs = {
            name: [bench.run(layer.place, one) for one in erasers]
            for name, erasers in (
                ("erased", [eraser]),
                ("projected", [aside]),
                ("steepest", [steepest_eraser]),
                ("random", random),
                ("matched", [one.sized(vectors, eraser.size(vectors)) for one in random[: self.how.matched]]),
            )
        }
        sizes = [one.size(vectors) for one in (eraser, aside, steepest_eraser)]
        sizes.append(float(np.mean([one.size(vectors) for one in random])))
        apart = [float(angles(steep, one)[0]) for one in (basis, *nulls)]
        effects = {name: torch.stack([bench.effect(scores) for scores in run]) for name, run in runs.items()}
        return {
            **{name: effect if name in _DRAWN else effect[0] for name, effect in effects.items()},
            "lost": bench.lost(runs["erased"][0]),
            "lost_random": torch.stack([bench.lost(scores) for scores in runs["random"]]).mean(0),
            "left": self._left(vectors, eraser),
            "sizes": torch.tensor(sizes) / max(layer.size, torch.finfo(torch.float64).tiny),
            "angles": torch.tensor([apart[0], float(np.mean(apart[1:]))]),
        }

    def _left(self, vectors: Tensor, eraser: Eraser) -> Tensor:
        """Whether a new probe, fitted on every other measured example without the subspace, is right on the rest."""
        count = len(vectors)
        again = Halves(torch.arange(0, count, 2), torch.arange(1, count, 2))
        without = vectors + eraser.change(vectors)
        geometry = Geometry.of(without[again.fitted])
        return read_off(without, self.labels[self.bench.halves.measured], again, geometry)[1]


def _explained(targets: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distance of each example's targets from their mean, and from the mean of its class, ``[example]``."""
    wanted = targets.cpu().double() if targets.is_floating_point() else one_hot(targets.cpu())
    members = one_hot(labels)
    means = members.T @ wanted / members.sum(0).clamp_min(1.0)[:, None]
    return (wanted - wanted.mean(0)).square().sum(1), (wanted - means[labels]).square().sum(1)
