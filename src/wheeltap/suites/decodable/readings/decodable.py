"""Factors that a linear probe reads off a layer, and what the outputs lose with the subspaces that encode them.

For each factor and layer, what was fitted on one half of the examples is measured on the other: how often a probe is
right (beside random labels), and how far the outputs move when the factor's subspace is ablated, beside random
subspaces of the same rank and the one that the outputs depend on most, all at the same size of change.

Source: Elazar et al. 2021, "Amnesic probing"; Belrose et al. 2023, arXiv:2306.03819; Hewitt & Liang 2019,
arXiv:1909.03368.
"""

from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import UnknownName
from wheeltap.core.records import OWN
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.inside.units import centred
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.decodable.engine.activations import named, places
from wheeltap.suites.decodable.engine.erasing import Erasing, FactorEffects, How, Layer, Stream, Yardsticks, laid_out
from wheeltap.suites.decodable.engine.erasure import svd
from wheeltap.suites.decodable.engine.linear_probe import renumbered, singled
from wheeltap.suites.decodable.specs.decodable import DECODABLE, KINDS, DecodableSettings

Values = NDArray[np.floating[Any]]


@final
class Decodable(Reading):
    """Probes for factors, and the outputs without the subspaces that encode them.

    Of examples with the same input one is looked at, drawn at random. All factors of a rank are held against the same
    random subspaces, ``draws`` for each factor that is measured: a test of many factors needs as many times more.
    """

    spec = DECODABLE

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: factors, layers and the group."""
        _of_group(task, self.settings.group)
        chosen_factors(task, self.settings.factors)
        named(subject, self.settings.layers)

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; about ``draws + matched + held + 2`` passes over half of the task a factor and layer.

        Raises:
            UnknownName: If a factor or layer that is named does not exist.
            DataError: If there are too few examples, or too few different inputs.
            ModelError: If no layer holds a vector per example.
        """
        settings: DecodableSettings = self.settings
        factors, where = chosen_factors(task, settings.factors), places(subject, task, settings.layers)
        values: dict[str, Values] = {"kind": np.array(float(KINDS.index(where.kind)))}
        if not factors:
            return Readings(values, forwards=0.0)

        def stream(*name: str) -> np.random.Generator:
            return seeds.generator(root, self.name, seed, *name)

        given, some = len(task.targets), _of_group(task, settings.group)
        task = singled(some, stream("copies"))
        values["copies"] = np.array(float(len(some.targets) - len(task.targets)))
        where = where if settings.layers else where.some(settings.most)
        bench = Erasing.of(subject, task, where, stream("halves"))
        where = where.without([place for place in where.all if place not in bench.vectors])
        values["layers"] = np.array(where.index, dtype=float)
        layers = laid_out(bench, where, most=settings.options, rng=stream("options"))
        labels = {name: renumbered(task.annotations.factors[name]) for name in factors}
        values |= self._measured(bench, layers, labels, stream)
        return Readings(values, bench.forwards * len(task.targets) / given)

    def _measured(
        self, bench: Erasing, layers: Sequence[Layer], labels: Mapping[str, Tensor], stream: Stream
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


def _of_group(task: BaseTask, group: int | None) -> BaseTask:
    """The examples of a group alone; all of them where none is named.

    Raises:
        UnknownName: If the task has no such group.
    """
    if group is None:
        return task
    known = sorted({int(one) for one in task.behaviors})
    if group not in known:
        raise UnknownName("group", str(group), map(str, known))
    return task.part((task.behaviors == group).nonzero()[:, 0])


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
