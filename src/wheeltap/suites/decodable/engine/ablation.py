"""How far a subject's outputs move where a subspace of a layer is ablated: one factor, layer by layer."""

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
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.settings import SMALL
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.fast.prefix import PrefixCache
from wheeltap.engine.places import (
    WIDEST,
    Change,
    Place,
    Places,
    apart,
    changed,
    distinct,
    read,
    slopes,
)
from wheeltap.suites.decodable.engine import subspaces
from wheeltap.suites.decodable.specs import STATUSES, DecodableSettings

_TINY: Final = torch.finfo(torch.float64).tiny

_CHUNK: Final = 64
"""Examples whose graph is held at once for slopes of a language model."""

Values = NDArray[np.floating[Any]]
Stream = Callable[..., np.random.Generator]  # from names to the random numbers of that use


@dataclass
class Bench:
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
    halves: subspaces.ProbeHalves
    clean: Tensor
    scores: Tensor
    vectors: Mapping[Place, Tensor]
    inputs: Tensor
    forwards: float
    cache: PrefixCache | None = None

    @classmethod
    def of(cls, subject: Subject, task: BaseTask, where: Places, rng: np.random.Generator) -> "Bench":
        """Reads the vectors; see ``activations.read``.

        Raises:
            DataError: If there are too few examples.
            ModelError: If no layer, or not one that a user named, holds a vector per example.
        """
        usable = apart(task)
        if len(usable) < subspaces.FEWEST:
            raise DataError(
                "There are too few examples to fit a probe on one half and measure it on the other.",
                where=task.name,
                expected=f"at least {subspaces.FEWEST} examples",
                got=str(len(usable)),
                do="Give more examples.",
            )
        halves = subspaces.ProbeHalves.drawn(usable, rng)
        vectors, scores = read(subject, task, where)
        missing = [place.name for place in where.all if place not in vectors]
        if not vectors or (missing and where.kind == "named"):
            raise ModelError(
                "A layer that was named does not hold one vector per example."
                if vectors
                else "No layer of this model holds one vector per example.",
                where=subject.name,
                expected=f"modules that are called once a pass and give out one row of at most {WIDEST:,} finite "
                "numbers for each example",
                got=", ".join(missing[:8]) or "no layers before the outputs",
                do="Name modules that do with the setting layers.",
            )
        part = task.part(halves.measured)
        bench = cls(subject, task, part, halves, scores, scores, vectors, distinct(task), forwards=1.0)
        if isinstance(task, ChoiceTask) and subject.record.parameters >= SMALL:
            bench.cache = PrefixCache(subject, part.scores)
            bench.forwards += bench.share * bench.cache.spent
        bench.clean = part.scores(subject.model)
        bench.forwards += bench.share
        return bench

    @property
    def share(self) -> float:
        """The share of the examples that are measured on."""
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
class LayerVectors:
    """A layer's vectors, their geometry, and how the outputs depend on them.

    Attributes:
        vectors: ``[example, feature]`` of all examples.
        geometry: From the half that is fitted on.
        slopes: ``[row, direction]``, weighted slopes of the outputs, whitened; ``None`` if there are none.
        size: Root mean square length of the measured vectors about their mean.
    """

    place: Place
    vectors: Tensor
    geometry: subspaces.Geometry
    slopes: Tensor | None
    size: float


def laid_out(bench: Bench, where: Places, *, most: int, rng: np.random.Generator) -> list[LayerVectors]:
    """The layers at some places.

    Slopes are weighted so that the mean square along a small change is twice its KL divergence (its squared change, for
    outputs); they are taken on the half that is fitted on.

    Args:
        bench: What was read there.
        where: The places.
        most: Options (outputs) whose slopes are taken, at most.
        rng: Draws them where there are more.
    """
    fitted = bench.halves.fitted
    geometries = {place: subspaces.Geometry.of(bench.vectors[place][fitted]) for place in where.all}
    rows: dict[Place, list[Tensor]] = {place: [] for place in geometries}
    chunk = _CHUNK if isinstance(bench.task, ChoiceTask) else len(fitted)
    options = bench.scores.shape[1]
    chosen = range(options) if options <= most else sorted(int(o) for o in rng.choice(options, most, replace=False))
    for index in cast("tuple[Tensor, ...]", fitted.split(chunk)):  # pyright: ignore[reportUnknownMemberType]
        for place, found in _slopes(bench, geometries, index, list(chosen)).items():
            rows[place].append(found)
    bench.forwards += 3.0 * len(chosen) * len(fitted) / len(bench.task.targets)
    layers: list[LayerVectors] = []
    for place, geometry in geometries.items():
        about = bench.vectors[place][bench.halves.measured] - geometry.mean
        size = float(about.square().sum(1).mean().sqrt())
        whole = torch.cat(rows[place]) if rows[place] else None
        layers.append(LayerVectors(place, bench.vectors[place], geometry, whole, size))
    return layers


def _slopes(
    bench: Bench, geometries: Mapping[Place, subspaces.Geometry], index: Tensor, chosen: list[int]
) -> dict[Place, Tensor]:
    """Weighted slopes ``[row, direction]`` of the outputs in whitened coordinates, of some examples."""
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

    random: Sequence[subspaces.Eraser]
    values: dict[str, Tensor]
    drawn: Tensor
    steep: Tensor
    sizes: tuple[float, float]
    angle: float


@final
@dataclass(frozen=True)
class FactorAblation:
    """The ablation of factors, each beside random subspaces and the one that the outputs depend on most.

    Attributes:
        how: Settings of the reading.
        factors: That are measured: each brings its draws, and all of its rank are held against all of these.
        stream: Of the random subspaces.
        beside: What the outputs lose with other subspaces, of each layer and rank: measured once.
    """

    bench: Bench
    how: DecodableSettings
    factors: int
    stream: Stream
    beside: dict[tuple[Place, int], Yardstick] = field(default_factory=dict[tuple[Place, int], Yardstick])

    def factor(
        self, labels: Tensor, layers: Sequence[LayerVectors], rng: np.random.Generator, *, blind: bool = False
    ) -> dict[str, Values]:
        """Every number about one factor; see the reading ``decodable`` for the arrays.

        Args:
            labels: ``[example]``, from 0.
            layers: Where it is looked for.
            rng: Of every draw.
            blind: Whether a random subspace is held in place of the factor's, and the probe reads off that alone: a
                null, of which nothing may be found.
        """
        bench, halves = self.bench, self.bench.halves
        status = halves.status(labels, least=self.how.per_class)
        values: dict[str, Values] = {
            "status": np.array(float(STATUSES.index(status))),
            "classes": np.array(float(labels.max()) + 1.0),
        }
        if status != "measured":
            return values
        values["labels"] = to_array(labels[halves.measured])
        values["majority"] = to_array(subspaces.majority(labels, halves))
        values["targets"] = to_array(torch.stack(subspaces.explained(bench.part.targets, labels[halves.measured])))
        rows = [self._layer(layer, labels, rng, blind=blind) for layer in layers]
        return values | {name: np.stack([to_array(one[name]) for one in rows]) for name in rows[0]}

    @property
    def _matched(self) -> int:
        return min(self.how.matched, self.how.draws)

    def _layer(
        self, layer: LayerVectors, labels: Tensor, rng: np.random.Generator, *, blind: bool
    ) -> dict[str, Tensor]:
        bench, geometry, vectors, halves = self.bench, layer.geometry, layer.vectors, self.bench.halves
        basis = subspaces.telling(geometry.whitened(vectors[halves.fitted]), labels[halves.fitted])
        if blind:
            basis = subspaces.haar(geometry.directions, basis.shape[1], rng)
            vectors = geometry.mean - geometry.eraser(basis).change(vectors)  # what lies in the subspace alone
        probe, correct = subspaces.read_off(vectors, labels, halves, geometry)
        randoms = [subspaces.control_labels(labels, bench.inputs, rng) for _ in range(self.how.controls)]
        control = torch.stack([subspaces.read_off(vectors, drawn, halves, geometry)[1] for drawn in randoms])
        baseline = max(float(control.mean()), float(subspaces.majority(labels, halves).mean()))
        decoded = float(correct.mean()) > baseline and layer.slopes is not None
        fits = 0 < basis.shape[1] < geometry.directions
        rank = float(basis.shape[1] * decoded if fits else -basis.shape[1])
        values = {"correct": correct, "control": control, "rank": torch.tensor(rank)}
        if rank > 0.0:
            return values | self._effects(layer, probe, basis, rng) | {"left": self._left(layer, labels, basis)}
        # The same arrays where nothing is ablated.
        one, how = torch.zeros(len(halves.measured)), self.how
        return {
            **values,
            **dict.fromkeys(("erased", "projected", "steepest", "lost", "lost_random"), one),
            "random": one.expand(how.draws, -1),
            "matched": one.expand(self._matched, -1),
            "held": one.expand(how.held, -1),
            "moved": torch.zeros(1 + how.held + how.draws * self.factors),
            "expected": torch.tensor(0.0),
            "left": one[1::2],
            "sizes": torch.zeros(4),
            "angles": torch.zeros(2),
        }

    def _effects(
        self, layer: LayerVectors, probe: subspaces.LinearProbe, basis: Tensor, rng: np.random.Generator
    ) -> dict[str, Tensor]:
        bench, geometry, rank = self.bench, layer.geometry, basis.shape[1]
        vectors = layer.vectors[bench.halves.measured]
        beside = self._yardstick(layer, rank)
        eraser, aside = geometry.eraser(basis), subspaces.projection(geometry.mean, probe.directions)
        held = [subspaces.haar(geometry.directions, rank, rng) for _ in range(self.how.held)]
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
            "sizes": sizes / max(layer.size, _TINY),
            "angles": torch.tensor([float(subspaces.angles(beside.steep, basis)[0]), beside.angle]),
        }

    def _yardstick(self, layer: LayerVectors, rank: int) -> Yardstick:
        """What the outputs lose with other subspaces of a layer, one after the other."""
        bench, how, geometry, key = self.bench, self.how, layer.geometry, (layer.place, rank)
        if key in self.beside:
            return self.beside[key]
        assert layer.slopes is not None, "without slopes nothing is ablated"
        vectors, rng = layer.vectors[bench.halves.measured], self.stream("beside", layer.place.name, str(rank))
        steep = subspaces.steepest(layer.slopes, rank)
        nulls = [subspaces.haar(geometry.directions, rank, rng) for _ in range(how.draws * self.factors)]
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
        angle = float(np.mean([float(subspaces.angles(steep, one)[0]) for one in nulls]))
        self.beside[key] = Yardstick(random[: self._matched], values, effects.mean(1), steep, sizes, angle)
        return self.beside[key]

    def _left(self, layer: LayerVectors, labels: Tensor, basis: Tensor) -> Tensor:
        """Whether a new probe, fitted on every other measured example without the subspace, is right on the rest."""
        measured = self.bench.halves.measured
        vectors = layer.vectors[measured]
        again = subspaces.ProbeHalves(torch.arange(0, len(vectors), 2), torch.arange(1, len(vectors), 2))
        without = vectors + layer.geometry.eraser(basis).change(vectors)
        return subspaces.read_off(without, labels[measured], again, subspaces.Geometry.of(without[again.fitted]))[1]
