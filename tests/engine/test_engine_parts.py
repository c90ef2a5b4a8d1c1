"""The parts reading: every number by hand, the worst ablation against every subset, and what it refuses."""

import copy
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from engine_nets import ConvNet, numbers, seeded, taught
from torch import Tensor, nn

from wheeltap.core import measure, seeds
from wheeltap.core.errors import DataError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.readings import create
from wheeltap.engine.readings.parts import UnitAblation, UnitSets, halves_of, named, worst
from wheeltap.engine.units import to_drawn_rows
from wheeltap.models.mlp import mlp
from wheeltap.plans.readings.parts import ABLATIONS
from wheeltap.testing.planted import numbers as doubles

UNITS = (6, 5)


class Net(nn.Sequential):
    """Two hidden layers, so that ablations upstream change what is kept downstream."""

    def __init__(self) -> None:
        super().__init__(*mlp((4, *UNITS, 3)))


@pytest.fixture
def subject() -> Subject:
    return Subject(seeded(Net), name="net")


@pytest.fixture
def task(subject: Subject) -> Task:
    return taught(subject.model, numbers(60, 4, seed=1))


def bench_of(subject: Subject, task: BaseTask, behaviour: int | None = None) -> UnitSets:
    return UnitSets(subject, task, halves_of(task, behaviour, seeds.generator(0, "parts", 0, "halves")))


def slowly(model: nn.Module, inputs: Tensor, units: Tensor, value: list[Tensor]) -> Tensor:
    """The net with units at fixed values, by zeroed columns and moved biases of a copy."""
    altered = copy.deepcopy(model)
    readers = [altered.get_submodule(path) for path in ("2", "4")]
    for reader, gone, held in zip(readers, units.split(UNITS), value, strict=True):
        assert isinstance(reader, nn.Linear)
        for unit in range(len(gone)):
            if gone[unit]:
                reader.bias.data += reader.weight.data[:, unit] * held[unit].float()
                reader.weight.data[:, unit] = 0.0
    with torch.no_grad():
        return altered(inputs)


def activations(model: nn.Module, inputs: Tensor) -> list[Tensor]:
    with torch.no_grad():
        first = model.get_submodule("0")(inputs).relu()
        return [first, model.get_submodule("2")(first).relu()]


def masks(count: int, seed: int = 0) -> list[Tensor]:
    return list(torch.rand(count, sum(UNITS), generator=torch.Generator().manual_seed(seed)) < 0.4)


def test_zero_and_mean_are_zeroed_columns_and_moved_biases(subject: Subject, task: Task) -> None:
    bench = bench_of(subject, task)
    held = [values.mean(0) for values in activations(subject.model, task.inputs)]
    for units in masks(8):
        zero = slowly(subject.model, task.inputs, units, [torch.zeros(n) for n in UNITS])
        mean = slowly(subject.model, task.inputs, units, held)
        torch.testing.assert_close(bench.zero(units).scores, zero, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(bench.mean(units).scores, mean, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(zero, mean)


def test_resampling_takes_all_units_together_from_one_other_example(subject: Subject, task: Task) -> None:
    bench, [units] = bench_of(subject, task), masks(1)
    got = bench.resampled(units, 5).scores
    source = to_drawn_rows(torch.arange(1), seed=5)(torch.arange(60.0)[:, None, None]).long().flatten()
    assert sorted(source.tolist()) == list(range(60)) and not bool((source == torch.arange(60)).any())
    clean = activations(subject.model, task.inputs)
    first = torch.where(units[:6], clean[0][source], clean[0])
    with torch.no_grad():
        second = subject.model.get_submodule("2")(first).relu()
        # What is given is what the layer holds in this very pass, not in the clean one.
        second = torch.where(units[6:], second[source], second)
        wanted = subject.model.get_submodule("4")(second)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(bench.resampled(units, 6).scores, got)


def test_channels_of_a_convolution_are_units() -> None:
    subject = Subject(seeded(ConvNet), name="conv")
    task = taught(subject.model, numbers(40, 1, 8, 8, seed=2))
    bench = bench_of(subject, task)
    assert bench.sizes == [6, 8]
    units = bench.none()
    units[[1, 4, 6 + 3]] = True
    altered = copy.deepcopy(subject.model)
    altered.get_submodule("second").weight.data[:, [1, 4]] = 0.0  # type: ignore[union-attr,index,operator]
    altered.get_submodule("head").weight.data[:, 27:36] = 0.0  # type: ignore[union-attr,index,operator]
    torch.testing.assert_close(bench.zero(units).scores, task.scores(altered), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(bench.zero(units).scores, bench.mean(units).scores)


def test_the_reading_is_what_its_parts_are(subject: Subject, task: Task) -> None:
    before = weights_digest(subject.model)
    settings: dict[str, Any] = {"units": "0:0,3;2:1", "nulls": 3, "draws": 2, "tries": 3}
    read = create("parts", settings).read(subject, task, root=0, seed=0)
    assert weights_digest(subject.model) == before
    shape = (len(ABLATIONS), 4, 30)
    assert {k: v.shape for k, v in read.values.items()} == {
        "rows": (30,), "clean_score": (30,), "clean_loss": (30,), "without_score": shape, "without_loss": shape,
        "alone_score": shape, "alone_loss": shape, "units": (3, 2), "total": (), "guided": (),
    }  # fmt: skip
    assert read.values["units"].tolist() == [[0, 0], [0, 3], [1, 1]]
    assert float(read.values["total"]) == 11 and float(read.values["guided"]) == 1
    bench = bench_of(subject, task)
    chosen = named(bench.hiddens, "0:0,3;2:1", where="net")
    half = bench.halves[1]
    for name, side in (("without", chosen), ("alone", ~chosen)):
        for place, run in enumerate((bench.zero(side), bench.mean(side))):
            loss = torch.nn.functional.cross_entropy(run.scores[half], task.targets[half], reduction="none")
            right = (run.scores[half].argmax(1) == task.targets[half]).float()
            np.testing.assert_allclose(read.values[f"{name}_loss"][place, 0], loss, rtol=1e-5)
            np.testing.assert_allclose(read.values[f"{name}_score"][place, 0], right)
    again = create("parts", settings).read(subject, task, root=0, seed=0)
    assert all(np.array_equal(again.values[k], v) for k, v in read.values.items())
    other = create("parts", settings).read(subject, task, root=1, seed=0)
    assert not np.array_equal(other.values["alone_loss"], read.values["alone_loss"])


class Cancelling(nn.Module):
    """One unit that answers, and eight pairs that all say the same thing with both signs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 18), nn.Linear(18, 2)
        signs = torch.tensor([1.0, -1.0])
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.zero_()
            self.inner.weight[:2, 0], self.inner.weight[2:, 1] = signs, 1.0
            self.outer.weight[0] = torch.cat([signs, 0.5 * signs.repeat(8)])
            self.outer.weight[1] = -self.outer.weight[0]

    def forward(self, inputs: Tensor) -> Tensor:
        return self.outer(self.inner(inputs).relu())


def test_the_search_finds_the_worst_of_all_subsets_or_one_nearly_as_bad() -> None:
    """Four pairs, so all 256 subsets can be tried; either sign may be the worse one to lose, and it finds one."""
    subject = Subject(Cancelling().eval(), name="cancelling")
    task = taught(subject.model, numbers(80, 3, seed=3))
    reached: list[float] = []
    for split in range(6):
        bench = UnitSets(subject, task, halves_of(task, None, seeds.generator(split, "halves")))
        side = bench.none()
        side[2:10] = True
        subsets = [side.clone().masked_scatter(side, torch.tensor(bits)) for bits in product((False, True), repeat=8)]
        most = max(bench.mean(units).harm for units in subsets)
        whole = bench.mean(side)
        assert whole.harm < 0.65 * most, "together they cancel"
        found = worst(bench, side, known=[whole], tries=4, rng=seeds.generator(0, "search"))
        assert not bool((found.units & ~side).any()), "nothing outside the side may be ablated"
        assert worst(bench, side, known=[whole], tries=0, rng=seeds.generator(0)).harm == whole.harm
        reached.append(found.harm / most)
    assert min(reached) > 0.75
    assert sum(share > 0.999 for share in reached) >= 3, reached


def test_the_slope_promises_what_small_steps_do() -> None:
    """In double precision, against differences of partly ablated passes made by hand."""
    model, inputs = seeded(Net, scale=1.0).double(), doubles(60, 4, seed=5)
    task = taught(model, inputs)
    bench = bench_of(Subject(model, name="double"), task)
    [units] = masks(1)
    predicted = bench.predicted_rise(UnitAblation(units, bench.clean, 0.0), seeds.generator(0))
    held, half = [values.mean(0) for values in activations(model, inputs)], bench.halves[0]

    def harm(degree: Tensor) -> float:
        with torch.no_grad():
            first = model[0](inputs).relu()
            first = first + degree[:6] * (held[0] - first)
            second = model[2](first).relu()
            second = second + degree[6:] * (held[1] - second)
            return float(torch.nn.functional.cross_entropy(model[4](second)[half], task.targets[half]))

    for unit in range(11):
        step = torch.zeros(11, dtype=torch.float64)
        step[unit] = 1e-6
        slope = (harm(units.double() + step) - harm(units.double() - step)) / 2e-6
        assert float(predicted[unit]) == pytest.approx(-slope if units[unit] else slope, abs=1e-5)


def test_regression_is_read_by_its_own_measure() -> None:
    subject, inputs = Subject(seeded(lambda: mlp((4, 6, 2)), scale=1.0), name="regression"), numbers(40, 4, seed=1)
    task = Task(inputs, subject.model(inputs).detach(), measure=measure.squared_error)
    read = create("parts", {"nulls": 2, "draws": 1, "tries": 1}).read(subject, task, root=0, seed=0)
    np.testing.assert_array_equal(read.values["without_score"], read.values["without_loss"])
    assert float(read.values["clean_loss"].max()) == 0.0 and float(read.values["without_loss"][1, 0].mean()) > 0.0
    with pytest.raises(DataError, match="Too few examples"):
        create("parts", {"behaviour": 1}).read(subject, task, root=0, seed=0)
