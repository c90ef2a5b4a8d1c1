"""Factors that a linear probe reads off a layer, with what the outputs lose without them; what units do to each factor.

For each factor and layer, what was fitted on one half of the examples is measured on the other: how often a probe is
right (beside random labels), and how far the outputs move when the factor's subspace is ablated, beside random
subspaces of the same rank and the one that the outputs depend on most, all at the same size of change.

Source: Elazar et al. 2021, "Amnesic probing"; Belrose et al. 2023, arXiv:2306.03819; Hewitt & Liang 2019,
arXiv:1909.03368.
"""

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, UnknownName
from wheeltap.core.records import OWN
from wheeltap.core.settings import comma_separated
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.places import named, places
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.engine.units import Session, centred, hidden_units, means, to_value
from wheeltap.suites.decodable.engine.ablation import Bench, FactorAblation, laid_out
from wheeltap.suites.decodable.engine.subspaces import renumbered, singled, svd
from wheeltap.suites.decodable.specs import DECODABLE, FACTOR_EFFECTS, KINDS, DecodableSettings

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
        bench = Bench.of(subject, task, where, stream("halves"))
        where = where.without([place for place in where.all if place not in bench.vectors])
        values["layers"] = np.array(where.index, dtype=float)
        layers = laid_out(bench, where, most=settings.options, rng=stream("options"))
        labels = {name: renumbered(task.annotations.factors[name]) for name in factors}
        measured = sum(bench.halves.status(one, least=settings.per_class) == "measured" for one in labels.values())
        ablation = FactorAblation(bench, settings, max(measured, 1), stream)
        found = {name: ablation.factor(one, layers, stream("factor", name)) for name, one in labels.items()}
        if not isinstance(task, ChoiceTask):  # whose options mean something else in each example
            found[OWN] = ablation.factor(own_answers(bench.scores), layers[-1:], stream("own"))
        values |= {f"{name}|{key}": array for name, arrays in found.items() for key, array in arrays.items()}
        return Readings(values, bench.forwards * len(task.targets) / given)


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
    known, names = dict(task.annotations.factors), comma_separated(text)
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


@final
class FactorEffects(Reading):
    """Sets one hidden unit after another to its mean, and compares the answers to each factor with the clean ones."""

    spec = FACTOR_EFFECTS

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task knows no factors, or its options are no combinations of their values.
        """
        session, hiddens = Session(subject, task), hidden_units(subject, task)
        values = _values(task, session.clean.shape[1])
        value = means(subject, task, hiddens)
        groups, member = np.unique(task.behaviors.cpu().numpy(), return_inverse=True)
        share = functional.one_hot(to_tensor(member)).double()
        share = share / share.sum(0)
        clean = [_marginal(session.clean, column) for column in values]
        rows: list[Tensor] = []
        for hidden in hiddens:
            for unit in range(hidden.units):
                index = torch.tensor([unit], device=subject.device)
                scores = session.without({hidden: to_value(index, value[hidden][index])})
                pairs = [(one, _marginal(scores, column)) for one, column in zip(clean, values, strict=True)]
                moved = [(one.exp() * (one - other)).sum(1).clamp_min(0.0) for one, other in pairs]  # nats
                rows.append(share.T @ torch.stack(moved, 1))
        arrays: dict[str, NDArray[Any]] = {
            "effect": to_array(torch.stack(rows, 1)),
            "groups": groups.astype(float),
            "belongs": member.astype(float),
            "layer": np.repeat(np.arange(len(hiddens)), [hidden.units for hidden in hiddens]).astype(float),
            "unit": np.concatenate([np.arange(hidden.units) for hidden in hiddens]).astype(float),
        }
        return Readings(arrays, forwards=1.0 + session.passes)


def _values(task: BaseTask, options: int) -> list[Tensor]:
    """The value of each factor that an option stands for, ``[option]`` each, from the examples it is right for.

    Raises:
        DataError: If there are no factors, an option is right for no example, or for examples of different values.
    """
    if task.targets.is_floating_point() or not task.annotations.factors:
        raise DataError(
            "The answers cannot be divided into factors.",
            where=task.name,
            expected="options, and factors of the examples (task.with_factors)",
            got="outputs that are no options" if task.targets.is_floating_point() else "no factors",
        )
    right, found = task.targets.cpu().numpy(), list[Tensor]()
    first = {int(option): at for at, option in reversed(list(enumerate(right)))}
    missing = sorted(set(range(options)) - first.keys())
    for name, factor in task.annotations.factors.items():
        own = factor.cpu().numpy()
        apart = next((at for at, option in enumerate(right) if own[at] != own[first[int(option)]]), None)
        if missing or apart is not None:
            raise DataError(
                "The options are no combinations of the factors' values.",
                where=f"{task.name}, factor {name}",
                expected="of every option an example that it is right for, and one value of the factor in all of them",
                got=f"none of option {missing[0]}" if apart is None else f"two values of option {int(right[apart])}",
            )
        found.append(to_tensor(np.unique(own, return_inverse=True)[1][[first[at] for at in range(options)]]))
    return found


def _marginal(scores: Tensor, values: Tensor) -> Tensor:
    """Log-probability of each value of a factor, ``[example, value]``."""
    likely = scores.double().log_softmax(1)
    return torch.stack([likely[:, values == one].logsumexp(1) for one in range(int(values.max()) + 1)], 1)
