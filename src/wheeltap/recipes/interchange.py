"""The subspace of a layer through which a factor acts, searched for by interchange interventions.

What an example holds in the subspace is replaced by what another one holds there; the outputs should then be those of
the first example had it the other's value of the factor. The subspace that does this best is found by gradient descent
on one half of the examples and measured on the other, beside the subspace that a probe reads and random ones.

Source: Geiger et al. 2023, arXiv:2303.02536 (distributed alignment search), with one subspace in place of a whole
rotation, in the whitened geometry of ``engine.erasure``.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import cast, final

import numpy as np
import torch
from torch import Tensor

from wheeltap.core import measure, seeds
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.activations import (
    Change,
    Place,
    Places,
    apart,
    changed,
    distinct,
    places,
    read,
    require_enough,
    require_places,
)
from wheeltap.engine.inside.erasing import FEWEST
from wheeltap.engine.inside.erasure import Geometry, angles, haar, telling
from wheeltap.engine.inside.linear_probe import Halves, one_of_each, renumbered
from wheeltap.recipes.train import reproducible


@final
@dataclass(frozen=True, kw_only=True)
class InterchangeSettings:
    """How the search is done.

    Attributes:
        layer: Module path as ``activations.places`` names it, or of any module, whose outputs are then meant.
        rank: Of the subspace; one less than the factor's values where 0.
        steps: Of gradient descent.
        batch: Pairs of examples per step.
        rate: Adam's step size.
        draws: Random subspaces that the found one is compared with.
        seed: Of the halves, the pairs and the start.
    """

    layer: str
    rank: int = 0
    steps: int = 100
    batch: int = 64
    rate: float = 0.05
    draws: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 0 or self.steps < 1 or self.batch < 2 or not self.rate > 0.0 or self.draws < 1:
            raise UsageError(
                "These settings of an interchange search cannot be used.",
                where="wheeltap.recipes.interchange",
                expected="steps and draws of at least 1, a batch of at least 2, a positive rate, no negative rank",
                got=f"rank {self.rank}, steps {self.steps}, batch {self.batch}, rate {self.rate}, draws {self.draws}",
            )


@final
@dataclass(frozen=True)
class Interchange:
    """What the search found.

    Attributes:
        subspace: Orthonormal columns ``[direction, rank]`` in whitened coordinates.
        geometry: Of these.
        losses: On the half that was searched, ``[step]``.
        clean: ``[example]`` of the other half: loss towards the wanted outputs without any interchange, over the
            options in nats, or squared error.
        found: The same with the subspace that was found interchanged.
        probed: The same with the subspace that a linear probe reads.
        random: ``[draw, example]``, with random ones.
        angles: Principal angles in degrees between the subspace found and the probe's, smallest first.
        random_angle: The smallest such angle of random subspaces, mean.
    """

    subspace: Tensor
    geometry: Geometry
    losses: Tensor
    clean: Tensor
    found: Tensor
    probed: Tensor
    random: Tensor
    angles: Tensor
    random_angle: float


@dataclass
class _Swap:
    """Puts what each example's source holds in a subspace into the example."""

    vectors: Tensor
    geometry: Geometry
    sources: Tensor
    subspace: Tensor

    def __call__(self, values: Tensor, examples: Tensor) -> Tensor:
        inwards, outwards = (part.to(values) for part in (self.geometry.inwards, self.geometry.outwards))
        basis = self.subspace.to(values)
        gap = self.vectors[self.sources[examples]].to(values) - values
        return values + gap @ inwards @ basis @ basis.T @ outwards.T


@dataclass(frozen=True)
class _Bench:
    subject: Subject
    task: BaseTask
    place: Place
    vectors: Tensor
    geometry: Geometry
    labels: Tensor
    wanted: Tensor

    def loss(self, base: Tensor, sources: Tensor, subspace: Tensor) -> Tensor:
        """Mean loss of some examples with their sources' part put in, towards what is then wanted; with a gradient."""
        part = self.task.part(base)
        with self._swapped(part, sources, subspace):
            return part.loss(self.subject.model, targets=self.wanted[self.labels[sources], base])

    def losses(self, base: Tensor, sources: Tensor, subspace: Tensor | None) -> Tensor:
        """Each one's loss ``[example]`` over its options in nats (or squared error), without a gradient."""
        part = self.task.part(base)
        with self._swapped(part, sources, subspace):
            scores = part.scores(self.subject.model)
        targets = self.wanted[self.labels[sources], base]
        of = measure.squared_error if targets.is_floating_point() else measure.nll
        return of(scores, targets.cpu(), scores)

    def _swapped(self, part: BaseTask, sources: Tensor, subspace: Tensor | None) -> AbstractContextManager[None]:
        if subspace is None:
            return nullcontext()
        swap: Change = _Swap(self.vectors, self.geometry, sources, subspace)
        return changed(self.subject, part, [(self.place, swap)])


def search(
    subject: Subject, task: BaseTask, *, factor: str, wanted: Tensor, settings: InterchangeSettings
) -> Interchange:
    """The subspace of a layer through which ``factor`` acts on the outputs as ``wanted``.

    Args:
        subject: The model; its weights stay as they are.
        task: Examples that know the factor.
        factor: Its name.
        wanted: What the outputs of each example should be if the factor had each value, the values in rising order:
            right options ``[value, example]``, or wanted outputs ``[value, example, output]``.
        settings: How to search; equal settings give equal bits.

    Raises:
        UnknownName: If there is no such factor or layer.
        DataError: If there are too few examples, or ``wanted`` does not fit.
        UsageError: If the rank is not below the layer's width.
    """
    known = task.annotations.factors
    if factor not in known:
        raise UnknownName("factor", factor, known)
    labels = renumbered(known[factor])
    _require_wanted(wanted, values=int(labels.max()) + 1, task=task)
    usable = apart(task)
    # Copies of an input in both halves would let the search remember them.
    usable = usable[one_of_each(distinct(task)[usable], seeds.generator(settings.seed, "interchange", "copies"))]
    require_enough(task, len(usable), least=FEWEST)
    halves = Halves.drawn(usable, seeds.generator(settings.seed, "interchange", "halves"))
    where = _place(subject, task, settings.layer)
    held, _ = read(subject, task, where)
    require_places(subject, held, where)
    [place] = held
    geometry = Geometry.of(held[place][halves.fitted])
    rank = settings.rank or int(labels.max())
    if not 0 < rank < geometry.directions:
        raise UsageError(
            "The subspace is no part of the layer.",
            where=f"{subject.name}: {place.name}",
            expected=f"a rank from 1 to {geometry.directions - 1}",
            got=str(rank),
        )
    bench = _Bench(subject, task, place, held[place], geometry, labels, wanted)
    with reproducible(seeds.derive(settings.seed, "interchange", "search")):
        subspace, losses = _searched(bench, halves.fitted, rank, settings)
    return _measured(bench, halves, subspace, losses=losses, settings=settings)


def _searched(bench: _Bench, fitted: Tensor, rank: int, settings: InterchangeSettings) -> tuple[Tensor, Tensor]:
    """The subspace that gradient descent ends at, and the loss at each step."""
    rng = seeds.generator(settings.seed, "interchange", "pairs")
    free = haar(bench.geometry.directions, rank, rng).requires_grad_()
    optimizer, losses = torch.optim.Adam([free], lr=settings.rate), list[Tensor]()
    for _ in range(settings.steps):
        # Each example is once a base at most: its vector is found by the example that it is of.
        base = _drawn(fitted, min(settings.batch, len(fitted)), rng)
        sources = _drawn(fitted, len(base), rng)
        optimizer.zero_grad()
        loss = bench.loss(base, sources, _orthonormal(free))
        loss.backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        losses.append(loss.detach())
    for parameter in bench.subject.model.parameters():
        parameter.grad = None
    return _orthonormal(free).detach(), torch.stack(losses)


def _drawn(among: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    return among[torch.as_tensor(rng.permutation(len(among))[:count])]


def _orthonormal(free: Tensor) -> Tensor:
    return cast("Tensor", torch.linalg.qr(free)[0])  # pyright: ignore[reportUnknownMemberType]


def _measured(
    bench: _Bench, halves: Halves, subspace: Tensor, *, losses: Tensor, settings: InterchangeSettings
) -> Interchange:
    """The subspace on the other half, beside the probe's and random ones."""
    rng = seeds.generator(settings.seed, "interchange", "measure")
    base = halves.measured
    sources = _drawn(base, len(base), rng)
    whitened = bench.geometry.whitened(bench.vectors[halves.fitted])
    probed = telling(whitened, bench.labels[halves.fitted])
    randoms = [haar(bench.geometry.directions, subspace.shape[1], rng) for _ in range(settings.draws)]
    clean, found, told, *drawn = (bench.losses(base, sources, one) for one in (None, subspace, probed, *randoms))
    return Interchange(
        subspace,
        bench.geometry,
        losses,
        clean,
        found,
        told,
        torch.stack(drawn),
        angles(subspace, probed),
        float(torch.stack([angles(one, probed)[0] for one in randoms]).mean()),
    )


def _place(subject: Subject, task: BaseTask, name: str) -> Places:
    """The one place of this name."""
    for at, place in enumerate((found := places(subject, task)).all):
        if place.name == name:
            return Places(found.kind, (place,), (found.index[at],))
    return places(subject, task, name)


def _require_wanted(wanted: Tensor, *, values: int, task: BaseTask) -> None:
    shape = (values, *task.targets.shape)
    if values < 2 or wanted.shape != shape or wanted.is_floating_point() != task.targets.is_floating_point():
        raise DataError(
            "The wanted outputs do not fit the factor and the examples.",
            where=task.name,
            expected=f"{'numbers' if task.targets.is_floating_point() else 'options'} {list(shape)}",
            got=f"{str(wanted.dtype).removeprefix('torch.')} {list(wanted.shape)}",
            do="Say for each value of the factor what each example's outputs should then be.",
        )
