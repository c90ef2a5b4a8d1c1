"""A subject whose layers' subspaces are taken away, and how far its outputs move: one factor, layer by layer."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import measure
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.suites.decodable.engine.activations import (
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
from wheeltap.suites.decodable.engine.erasure import Eraser, Geometry, angles, haar, projection, steepest, telling
from wheeltap.suites.decodable.engine.linear_probe import (
    FEWEST,
    LinearProbe,
    ProbeHalves,
    control_labels,
    explained,
    majority,
    read_off,
)
from wheeltap.suites.decodable.specs.decodable import STATUSES

_TINY: Final = torch.finfo(torch.float64).tiny

_CHUNK: Final = 64
"""Examples whose graph is held at once for slopes of a language model."""

_CACHE_FROM: Final = 2_000_000
"""Parameters from which recorded outputs of earlier blocks save more than they cost."""

Values = NDArray[np.floating[Any]]
Stream = Callable[..., np.random.Generator]  # from names to the random numbers of that use


@final
@dataclass(frozen=True)
class How:
    """How much is looked at.

    Attributes:
        draws: Random subspaces of each layer and rank, for each factor.
        matched: How many of them are tried once more, at the size of the factor's change.
        held: Random subspaces for each factor and layer that are taken away as if they were the factor's.
        controls: Random labellings.
        per_class: Fewest examples of each class in either half.
    """

    draws: int
    matched: int
    held: int
    controls: int
    per_class: int


@dataclass
class Erasing:
    """A subject, the half of the examples that is measured on, and what was read of all.

    Attributes:
        part: The examples that are measured on.
        clean: Their undisturbed scores ``[example, option]``.
        vectors: Of all examples ``[example, feature]``, by place.
        inputs: ``[example]``: which distinct input each example is.
        scores: Those of all examples.
        forwards: Passes over the whole task so far.
    """

    subject: Subject
    task: BaseTask
    part: BaseTask
    halves: ProbeHalves
    clean: Tensor
    scores: Tensor
    vectors: Mapping[Place, Tensor]
    inputs: Tensor
    forwards: float
    cache: PrefixCache | None = None

    @classmethod
    def of(cls, subject: Subject, task: BaseTask, where: Places, rng: np.random.Generator) -> "Erasing":
        """Reads the vectors; see ``activations.read``.

        Raises:
            DataError: If there are too few examples.
            ModelError: If no layer holds a vector per example.
        """
        usable = apart(task)
        require_enough(task, len(usable), least=FEWEST)
        halves = ProbeHalves.drawn(usable, rng)
        vectors, scores = read(subject, task, where)
        require_places(subject, vectors, where)
        part = task.part(halves.measured)
        bench = cls(subject, task, part, halves, scores, scores, vectors, distinct(task), forwards=1.0)
        if isinstance(task, ChoiceTask) and subject.record.parameters >= _CACHE_FROM:
            bench.cache = PrefixCache(subject, part.scores)
            bench.forwards += bench.share * bench.cache.spent
        bench.clean = part.scores(subject.model)
        bench.forwards += bench.share
        return bench

    @property
    def share(self) -> float:
        """Of the examples that are measured on."""
        return len(self.halves.measured) / len(self.task.targets)

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
        if not self.task.targets.is_floating_point():
            return measure.kl(moved, self.part.targets.cpu(), clean)
        spread = (clean - clean.mean(0)).square().sum(1).mean()
        return (moved - clean).square().sum(1) / spread.clamp_min(torch.finfo(spread.dtype).tiny)

    def lost(self, scores: Tensor) -> Tensor:
        """Score lost, ``[example]``, in the task's measure."""
        targets = self.part.targets.cpu()
        of = self.task.measure
        return -of.sign * (of(scores, targets, self.clean) - of(self.clean, targets, self.clean)).double()


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


def laid_out(bench: Erasing, where: Places, *, most: int, rng: np.random.Generator) -> list[Layer]:
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
    bench: Erasing, geometries: Mapping[Place, Geometry], *, most: int, rng: np.random.Generator
) -> dict[Place, Tensor]:
    """Slopes ``[row, direction]`` of the outputs in whitened coordinates, on the half that is fitted on.

    Weighted so that the mean square along a small change is twice its KL divergence (its squared change, for outputs).
    """
    rows: dict[Place, list[Tensor]] = {place: [] for place in geometries}
    chunk = _CHUNK if isinstance(bench.task, ChoiceTask) else len(bench.halves.fitted)
    options = bench.scores.shape[1]
    chosen = range(options) if options <= most else sorted(int(o) for o in rng.choice(options, most, replace=False))
    for index in cast("tuple[Tensor, ...]", bench.halves.fitted.split(chunk)):  # pyright: ignore[reportUnknownMemberType]
        for place, found in _slopes_of(bench, geometries, index, list(chosen)).items():
            rows[place].append(found)
    bench.forwards += 3.0 * len(chosen) * len(bench.halves.fitted) / len(bench.task.targets)
    return {place: torch.cat(found) for place, found in rows.items() if found}


def _slopes_of(
    bench: Erasing, geometries: Mapping[Place, Geometry], index: Tensor, chosen: list[int]
) -> dict[Place, Tensor]:
    part, scores = bench.task.part(index), bench.scores[index]
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
class Yardstick:
    """What the outputs lose with other subspaces of a layer, of one rank.

    Attributes:
        random: Some of the random subspaces' erasers.
        values: ``steepest`` ``[example]``, ``random`` ``[draw, example]`` and ``lost_random`` ``[example]`` as in the
            reading; ``expected``, to first order, of random subspaces as a share of the steepest.
        drawn: Mean effect of each random subspace ``[draw]``.
        steep: The steepest subspace ``[direction, rank]``.
        sizes: Root mean square change without the steepest, and (mean) without a random one.
        angle: Mean smallest principal angle between these, in degrees.
    """

    random: Sequence[Eraser]
    values: dict[str, Tensor]
    drawn: Tensor
    steep: Tensor
    sizes: tuple[float, float]
    angle: float

    @classmethod
    def of(cls, beside: "Yardsticks", layer: Layer, rank: int) -> "Yardstick":
        """Takes them away, one after the other."""
        bench, how, geometry = beside.bench, beside.how, layer.geometry
        assert layer.slopes is not None, "without slopes nothing is taken away"
        vectors, rng = layer.vectors[bench.halves.measured], beside.stream("beside", layer.place.name, str(rank))
        steep = steepest(layer.slopes, rank)
        nulls = [haar(geometry.directions, rank, rng) for _ in range(how.draws * beside.factors)]
        steepest_eraser, *random = (geometry.eraser(one) for one in (steep, *nulls))
        scores = [bench.run(layer.place, one) for one in random]
        effects = torch.stack([bench.effect(one) for one in scores])
        most = (layer.slopes @ steep).square().sum()
        values = {
            "steepest": bench.effect(bench.run(layer.place, steepest_eraser)),
            "random": effects[: how.draws],
            "lost_random": torch.stack([bench.lost(one) for one in scores]).mean(0),
            "expected": rank / geometry.directions * layer.slopes.square().sum() / most.clamp_min(_TINY),
        }
        sizes = steepest_eraser.size(vectors), float(np.mean([one.size(vectors) for one in random]))
        angle = float(np.mean([float(angles(steep, one)[0]) for one in nulls]))
        return cls(random[: how.matched], values, effects.mean(1), steep, sizes, angle)


@final
@dataclass(frozen=True)
class Yardsticks:
    """What all factors of a rank are held against, at each layer; measured once.

    Attributes:
        factors: That are measured: each brings its draws, and all of its rank are held against all of these.
        stream: Of the random subspaces.
    """

    bench: Erasing
    how: How
    factors: int
    stream: Stream
    known: dict[tuple[Place, int], Yardstick] = field(default_factory=dict[tuple[Place, int], Yardstick])

    def of(self, layer: Layer, rank: int) -> Yardstick:
        """That of a layer and rank."""
        key = (layer.place, rank)
        if key not in self.known:
            self.known[key] = Yardstick.of(self, layer, rank)
        return self.known[key]


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

    beside: Yardsticks
    labels: Tensor
    rng: np.random.Generator
    blind: bool = False

    def all(self, layers: Sequence[Layer]) -> dict[str, Values]:
        """Every number about this factor."""
        bench, halves = self.beside.bench, self.beside.bench.halves
        told = halves.status(self.labels, least=self.beside.how.per_class)
        values: dict[str, Values] = {
            "status": np.array(float(STATUSES.index(told))),
            "classes": np.array(float(self.labels.max()) + 1.0),
        }
        if told != "measured":
            return values
        values["labels"] = to_array(self.labels[halves.measured])
        values["majority"] = to_array(majority(self.labels, halves))
        values["targets"] = to_array(torch.stack(explained(bench.part.targets, self.labels[halves.measured])))
        rows = [self._layer(layer) for layer in layers]
        return values | {name: np.stack([to_array(one[name]) for one in rows]) for name in rows[0]}

    def _layer(self, layer: Layer) -> dict[str, Tensor]:
        bench, geometry, vectors, halves = self.beside.bench, layer.geometry, layer.vectors, self.beside.bench.halves
        basis = telling(geometry.whitened(vectors[halves.fitted]), self.labels[halves.fitted])
        if self.blind:
            basis = haar(geometry.directions, basis.shape[1], self.rng)
            vectors = geometry.mean - geometry.eraser(basis).change(vectors)  # what lies in the subspace alone
        probe, correct = read_off(vectors, self.labels, halves, geometry)
        drawn = range(self.beside.how.controls)
        randoms = [control_labels(self.labels, bench.inputs, self.rng) for _ in drawn]
        control = torch.stack([read_off(vectors, labels, halves, geometry)[1] for labels in randoms])
        baseline = max(float(control.mean()), float(majority(self.labels, halves).mean()))
        told = float(correct.mean()) > baseline and layer.slopes is not None
        fits = 0 < basis.shape[1] < geometry.directions
        rank = float(basis.shape[1] * told if fits else -basis.shape[1])
        values = {"correct": correct, "control": control, "rank": torch.tensor(rank)}
        return values | (self._effects(layer, probe, basis) if rank > 0.0 else self._nothing())

    def _nothing(self) -> dict[str, Tensor]:
        """The same arrays where nothing was taken away."""
        one, how = torch.zeros(len(self.beside.bench.halves.measured)), self.beside.how
        names = ("erased", "projected", "steepest", "lost", "lost_random")
        return {
            **dict.fromkeys(names, one),
            "random": one.expand(how.draws, -1),
            "matched": one.expand(how.matched, -1),
            "held": one.expand(how.held, -1),
            "moved": torch.zeros(1 + how.held + how.draws * self.beside.factors),
            "expected": torch.tensor(0.0),
            "left": one[1::2],
            "sizes": torch.zeros(4),
            "angles": torch.zeros(2),
        }

    def _effects(self, layer: Layer, probe: LinearProbe, basis: Tensor) -> dict[str, Tensor]:
        bench, geometry, rank = self.beside.bench, layer.geometry, basis.shape[1]
        vectors = layer.vectors[bench.halves.measured]
        beside = self.beside.of(layer, rank)
        eraser, aside = geometry.eraser(basis), projection(geometry.mean, probe.directions)
        held = [haar(geometry.directions, rank, self.rng) for _ in range(self.beside.how.held)]
        # Held-out random subspaces go the way of the factor's, so that what is wrong with it is wrong with them.
        scores = [bench.run(layer.place, geometry.eraser(one)) for one in (basis, *held)]
        effects = torch.stack([bench.effect(one) for one in scores])
        matched = [bench.run(layer.place, one.sized(vectors, eraser.size(vectors))) for one in beside.random]
        sizes = torch.tensor([eraser.size(vectors), aside.size(vectors), *beside.sizes])
        return {
            **beside.values,
            "erased": effects[0],
            "held": effects[1:],
            "moved": torch.cat([effects.mean(1), beside.drawn]),
            "projected": bench.effect(bench.run(layer.place, aside)),
            "matched": torch.stack([bench.effect(one) for one in matched]),
            "lost": bench.lost(scores[0]),
            "left": self._left(vectors, eraser),
            "sizes": sizes / max(layer.size, _TINY),
            "angles": torch.tensor([float(angles(beside.steep, basis)[0]), beside.angle]),
        }

    def _left(self, vectors: Tensor, eraser: Eraser) -> Tensor:
        """Whether a new probe, fitted on every other measured example without the subspace, is right on the rest."""
        count = len(vectors)
        again = ProbeHalves(torch.arange(0, count, 2), torch.arange(1, count, 2))
        without = vectors + eraser.change(vectors)
        geometry = Geometry.of(without[again.fitted])
        return read_off(without, self.labels[self.beside.bench.halves.measured], again, geometry)[1]
