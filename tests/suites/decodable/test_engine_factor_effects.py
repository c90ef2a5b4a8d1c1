"""What hidden units do to each factor of the answers, against weights edited by hand."""

import copy
from functools import cache
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wheeltap.core.errors import DataError, UnknownName
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import make
from wheeltap.stats.modularity import effective_number
from wheeltap.suites.decodable.nets import SHAPES, combinations
from wheeltap.suites.decodable.readings import Decodable, FactorEffects
from wheeltap.suites.decodable.recipes import OrganizedNet, layers
from wheeltap.testing.planted import PlantedCase
from wheeltap.testing.reading_contract import ReadingContract


@cache
def net(wiring: str) -> nn.Module:
    given = {"wiring": wiring, "units": 2, "examples": 600, "epochs": 4}
    return make(Given(specified(OrganizedNet, given, seed=2)), OrganizedNet(given)).model


class TestReading(ReadingContract):
    reading = FactorEffects
    settings: ClassVar[dict[str, object]] = {}

    def case(self) -> PlantedCase:
        return PlantedCase(Subject(net("plain"), name="plain"), SHAPES.task())


def read(wiring: str) -> dict[str, np.ndarray]:
    return dict(FactorEffects().read(Subject(net(wiring), name=wiring), SHAPES.task(), root=0, seed=0).values)


def marginals(model: nn.Module, inputs: Tensor) -> list[np.ndarray]:
    """The answer to each factor, by the scores before they are joined."""
    with torch.no_grad():
        parts = model[:-1](inputs).double()  # pyright: ignore[reportIndexIssue]
    return [part.softmax(1).numpy() for part in parts.split(list(SHAPES.factors.values()), 1)]


def test_effects_are_those_of_a_net_whose_unit_is_a_constant() -> None:
    """The oracle edits weights: nothing of the unit is read, and its mean goes into the reader's bias."""
    task, model, found = SHAPES.task(), net("plain"), read("plain")
    inputs = task.inputs
    assert isinstance(inputs, Tensor)
    clean = marginals(model, inputs)
    for row in (0, 5, 8, 13):
        at, unit = int(found["layer"][row]), int(found["unit"][row])
        edited = copy.deepcopy(model)
        reader = layers(edited)[at + 1]
        with torch.no_grad():
            mean = edited[: 2 * at + 2](inputs)[:, unit].mean()  # pyright: ignore[reportIndexIssue]
            reader.bias.add_(reader.weight[:, unit] * mean)
            reader.weight[:, unit] = 0.0
        for factor, (one, two) in enumerate(zip(clean, marginals(edited, inputs), strict=True)):
            apart = (one * np.log(one / two)).sum(1)
            wanted = [apart[task.behaviors.numpy() == group].mean() for group in (0, 1)]
            assert found["effect"][:, row, factor] == pytest.approx(wanted, rel=1e-3, abs=1e-7)


def test_a_unit_of_a_module_moves_its_own_factor_alone() -> None:
    effect = read("modules")["effect"][0]
    own = np.tile(np.repeat(np.arange(4), 2), 2)
    assert effect[np.arange(16), own].max() > 1e-3
    for row, factor in enumerate(own):
        assert np.delete(effect[row], factor).max() < 1e-9
    assert effective_number(effect) == pytest.approx(1.0, abs=1e-6)


def test_mixed_nets_have_more_factors_per_unit() -> None:
    plain, mixed = (effective_number(read(wiring)["effect"][0]) for wiring in ("plain", "mixed"))
    assert mixed > 1.5 and plain > 1.05


def test_tasks_whose_options_are_no_combinations_are_refused() -> None:
    inputs, options = SHAPES.lesson(400, seed=1)
    subject = Subject(net("plain"), name="plain")
    bare = Task(inputs, options, name="bare")
    labels = combinations(SHAPES.factors)[options.numpy()]
    with pytest.raises(DataError):
        FactorEffects().read(subject, bare, root=0, seed=0)
    with pytest.raises(DataError):  # no example of a held-out option
        FactorEffects().read(subject, bare.with_factors({"shape": labels[:, 0]}), root=0, seed=0)
    mixed = SHAPES.task().with_factors({"shape": np.arange(2 * SHAPES.examples) % 3})
    with pytest.raises(DataError):  # two values of an option
        FactorEffects().read(subject, mixed, root=0, seed=0)


def test_probes_of_one_group_are_those_of_its_examples_alone() -> None:
    """The setting ``group`` of the reading of decodable factors, which studies of a shift ask for."""
    subject, task = Subject(net("plain"), name="plain"), SHAPES.task()
    asked = {"layers": "3", "draws": 8, "matched": 1, "held": 1, "controls": 2}
    some = Decodable({**asked, "group": 1}).read(subject, task, root=3, seed=0)
    alone = Decodable(asked).read(subject, task.part((task.behaviors == 1).nonzero()[:, 0]), root=3, seed=0)
    whole = Decodable(asked).read(subject, task, root=3, seed=0)
    assert some.values.keys() == alone.values.keys()
    assert all(np.array_equal(some.values[name], alone.values[name]) for name in some.values)
    assert some.forwards == pytest.approx(alone.forwards / 2)
    assert whole.values["shape|correct"].shape != some.values["shape|correct"].shape
    with pytest.raises(UnknownName):
        Decodable({**asked, "group": 7}).require(subject, task)
