"""Factors that a linear probe reads off a layer, and what the outputs lose with the subspaces that tell them.

For each factor and layer, what was fitted on one half of the examples is measured on the other: how often a probe is
right (beside random labels), and how far the outputs move when the factor's subspace is taken away, beside random
subspaces of the same rank and the one that the outputs hang on most, all at the same size of change.

Source: Elazar et al. 2021, "Amnesic probing"; Belrose et al. 2023, arXiv:2306.03819; Hewitt & Liang 2019,
arXiv:1909.03368.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, final

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.records import OWN
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.activations import KINDS, named, places
from wheeltap.engine.inside.erasing import Bench, FactorEffects, How, Layer, Stream, Yardsticks, laid_out
from wheeltap.engine.inside.erasure import svd
from wheeltap.engine.inside.linear_probe import renumbered, singled
from wheeltap.engine.inside.units import centred
from wheeltap.engine.readings.base import Reading, Readings, ReadingSettings

Values = NDArray[np.floating[Any]]
Count = Annotated[int, msgspec.Meta(ge=1)]


class DecodableSettings(ReadingSettings, frozen=True, kw_only=True):
    """What is looked at.

    Attributes:
        factors: Names of factors, separated by commas; all that the task knows where empty.
        layers: Module paths whose outputs are looked at, separated by commas; chosen by the model where empty.
        most: Layers at most, evenly spaced.
        draws: Random subspaces of each layer and rank, for each factor that is measured.
        matched: How many of them are tried once more, at the size of the factor's change.
        held: Further random subspaces for each factor and layer, each taken away as if it were the factor's.
        controls: Random labellings.
        per_class: Fewest examples of each class in either half.
        options: Options (outputs) at most whose slopes say what the outputs hang on; more are drawn from.
    """

    factors: str = ""
    layers: str = ""
    most: Count = 12
    draws: Annotated[int, msgspec.Meta(ge=8)] = 32
    matched: Count = 8
    held: Count = 4
    controls: Annotated[int, msgspec.Meta(ge=2)] = 16
    per_class: Annotated[int, msgspec.Meta(ge=2)] = 5
    options: Count = 16


@final
class Decodable(Reading):
    """Probes for factors, and the outputs without the subspaces that tell them.

    Of examples with the same input one is looked at, drawn at random. All factors of a rank are held against the same
    random subspaces, ``draws`` for each factor that is measured: a test of many factors needs as many times more.

    Values: ``kind``, of the layers' names, in ``KINDS``; ``layers`` ``[layer]``, their numbers there; ``copies``, how
    many examples were left out because another one has their input. For each factor, behind its name and ``|``:
    ``status`` in ``STATUSES`` and ``classes``; and, where it was measured, on half of the examples: ``labels``
    ``[example]``, from 0; ``targets`` ``[2, example]``, squared distances of the targets from their mean and from that
    of the factor's class; ``correct`` ``[layer, example]``, ``majority`` ``[example]`` and ``control`` ``[layer,
    labelling, example]``, right answers of the probe, of the most frequent class, and of probes for random labels;
    ``left`` ``[layer, example]``, right answers of a new probe on half of these, once the subspace is gone; ``rank``
    ``[layer]``, 0 where nothing was taken away because the probe told nothing (or the outputs have no slopes), below 0
    where there are too few directions. Per layer and example, how far the outputs move (KL in nats; the squared change
    as a share of the outputs' variance) without: ``erased`` the factor's subspace, ``projected`` the probe's
    directions, ``steepest`` the subspace that the outputs hang on most, ``held`` ``[layer, subspace, example]`` random
    subspaces in the place of the factor's, ``random`` ``[layer, draw, example]`` the first ``draws`` subspaces, and
    ``matched``, some of these with their change at the size of that of ``erased``. ``moved`` ``[layer, 1 + subspace +
    draw]``: means over examples of ``erased``, of each of ``held``, and of all random subspaces; ``expected``
    ``[layer]``: what these should move to first order, as a share of what the steepest should. ``lost`` and
    ``lost_random`` ``[layer, example]``: score lost; ``sizes`` ``[layer, 4]``: root mean square change of the vectors
    in the first four cases, as a share of that of the vectors; ``angles`` ``[layer, 2]``: smallest principal angle in
    degrees between the steepest subspace and the factor's, and the mean of random ones'.
    """

    name = "decodable"
    version = 2
    title = "Factors that can be read off a layer, and the outputs without them"
    settings_type = DecodableSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; about ``draws + matched + held + 2`` passes over half of the task a factor and layer.

        Raises:
            UsageError: If a factor or layer that is named does not exist.
            DataError: If there are too few examples, or too few different inputs.
            ModelError: If no layer holds a vector per example.
        """
        settings: DecodableSettings = self.settings
        try:
            factors, where = chosen_factors(task, settings.factors), places(subject, task, settings.layers)
        except UnknownName as error:
            # Of the error of a trial that is under way, only what went wrong is told as its reason.
            do = "Correct the setting factors or layers."
            raise UsageError(
                f"{error.what} {error.do}", where=subject.name, expected=error.expected, got=error.got, do=do
            ) from error
        values: dict[str, Values] = {"kind": np.array(float(KINDS.index(where.kind)))}
        if not factors:
            return Readings(values, forwards=0.0)

        def stream(*name: str) -> np.random.Generator:
            return seeds.generator(root, self.name, seed, *name)

        task, given = singled(task, stream("copies")), len(task.targets)
        values["copies"] = np.array(float(given - len(task.targets)))
        where = where if settings.layers else where.some(settings.most)
        bench = Bench.of(subject, task, where, stream("halves"))
        where = where.without([place for place in where.all if place not in bench.vectors])
        values["layers"] = np.array(where.index, dtype=float)
        layers = laid_out(bench, where, most=settings.options, rng=stream("options"))
        labels = {name: renumbered(task.annotations.factors[name]) for name in factors}
        values |= self._measured(bench, layers, labels, stream)
        return Readings(values, bench.forwards * len(task.targets) / given)

    def _measured(
        self, bench: Bench, layers: Sequence[Layer], labels: Mapping[str, Tensor], stream: Stream
    ) -> dict[str, Values]:
        """Every factor, and the model's own answers."""
        settings: DecodableSettings = self.settings
        how = How(
            settings.draws, min(settings.matched, settings.draws), settings.held, settings.controls, settings.per_class
        )
        measured = sum(bench.halves.status(own, least=how.per_class) == "measured" for own in labels.values())
        beside = Yardsticks(bench, how, max(measured, 1), stream)
        values: dict[str, Values] = {}
        for name, own in labels.items():
            values |= _prefixed(name, FactorEffects(beside, own, stream("factor", name)).all(layers))
        if not isinstance(bench.task, ChoiceTask):  # whose options mean something else in each example
            effects = FactorEffects(beside, own_answers(bench.scores), stream("own"))
            values |= _prefixed(OWN, effects.all(layers[-1:]))
        return values


def chosen_factors(task: BaseTask, text: str) -> dict[str, Tensor]:
    """The task's factors of these names, separated by commas; all of them where empty.

    Raises:
        UnknownName: If it knows no factor of such a name.
    """
    known = dict(task.annotations.factors)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise UnknownName("factor", name, known)
    return {name: known[name] for name in names} if names else known


def require_asked(subject: Subject, task: BaseTask, *, factors: str, layers: str) -> None:
    """Refuses, before anything runs, factors and layers that there are not; both separated by commas.

    Raises:
        UnknownName: If one that is named does not exist.
    """
    chosen_factors(task, factors)
    named(subject, layers)


def own_answers(scores: Tensor) -> Tensor:
    """A factor that every model has and uses.

    On which side of the median the scores lie along what varies most about them, ``[example]`` of 0 and 1.
    """
    spread = centred(scores.double())
    spread = spread - spread.mean(0)
    along = spread @ svd(spread)[2][0]
    return (along > along.quantile(0.5)).long()


def _prefixed(name: str, values: Mapping[str, Values]) -> dict[str, Values]:
    return {f"{name}|{key}": array for key, array in values.items()}
