"""Hidden units: their contributions, pairs that cancel and what each unit is for, against slow second ways."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from engine_nets import ConvNet, numbers, seeded, taught
from torch import Tensor, nn
from twins import Wired

from wheeltap import gauge
from wheeltap.core import seeds
from wheeltap.core.records import Scalar
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.readings import create
from wheeltap.engine.units import contributions, hidden_units, means, second_moments
from wheeltap.models.mlp import mlp

Values = dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.floating]]"]


def wide_flat() -> nn.Module:
    """A convolution whose flattened map a linear layer reads: every unit is read at nine places."""
    parts = {"conv": nn.Conv2d(1, 5, 3, stride=2), "inner": nn.Linear(5 * 9, 8), "outer": nn.Linear(8, 4)}
    return Wired(lambda net, x: net.outer(net.inner(net.conv(x).relu().flatten(1)).relu()), **parts)


def small() -> nn.Module:
    return mlp((6, 12, 10, 4)).eval()


def image_task(model: nn.Module, examples: int = 60) -> Task:
    return taught(model, numbers(examples, 1, 8, 8, seed=7))


def flat_task(model: nn.Module, examples: int = 60) -> Task:
    return taught(model, numbers(examples, 6, seed=7))


def made(make: Callable[[], nn.Module]) -> tuple[nn.Module, Task]:
    model = seeded(make)
    return model, flat_task(model) if make is small else image_task(model)


def recoded(model: nn.Module, seed: int = 3) -> nn.Module:
    family = gauge.find(model)
    assert isinstance(family, gauge.Family)
    return gauge.twin(model, gauge.describe(family, "permute", "rescale", seed=seed))


def read(model: nn.Module, task: BaseTask, name: str, **settings: Scalar) -> Values:
    return create(name, settings).read(Subject(model, name="net"), task, root=0, seed=0).values


def without(model: nn.Module, path: str, *, reader: str, units: list[int], value: Tensor) -> nn.Module:
    """A copy in which the reader takes ``value`` for the units: their columns go into its bias. Linear layers only."""
    changed = copy.deepcopy(model)
    layer = changed.get_submodule(reader)
    assert isinstance(layer, nn.Linear) and layer.bias is not None
    with torch.no_grad():
        layer.bias += layer.weight[:, units] @ value[units].to(layer.weight.dtype)
        layer.weight[:, units] = 0.0
    return changed


def moved(model: nn.Module, changed: nn.Module, task: BaseTask) -> Tensor:
    change = task.scores(changed) - task.scores(model)
    return change - change.mean(1, keepdim=True)


def losses(model: nn.Module, task: BaseTask) -> Tensor:
    return nn.functional.cross_entropy(task.scores(model), task.targets, reduction="none")


def right(model: nn.Module, task: BaseTask) -> Tensor:
    return (task.scores(model).argmax(1) == task.targets).int()


class TestContributions:
    def test_products_the_slow_way(self) -> None:
        model = seeded(small)
        subject, task = Subject(model, name="net"), flat_task(model)
        last = hidden_units(subject)[-1]
        found = contributions(subject, task, [last])[last]
        with torch.no_grad():
            hidden = nn.Sequential(*list(model.children())[:4])(task.inputs).double()
            weight = model.get_submodule("4").weight.double()
        single = (hidden - hidden.mean(0))[:, :, None] * weight.T  # [example, unit, output]
        slow = torch.einsum("eio,ejo->ij", single, single) / len(hidden)
        ordered = slow[found.order][:, found.order]
        assert torch.allclose(found.products, ordered, atol=1e-6 * float(slow.abs().max()))
        size = slow.diagonal().sqrt().sum() / single.sum(1).square().sum(1).mean().sqrt()
        assert found.cancellation() == pytest.approx(float(size), rel=1e-5)

    def test_units_that_never_move_are_dead(self) -> None:
        model = seeded(small)
        with torch.no_grad():
            model.get_parameter("0.weight")[[2, 5]] = 0.0
            model.get_parameter("0.bias")[2], model.get_parameter("0.bias")[5] = -1.0, 3.0
        subject, task = Subject(model, name="net"), flat_task(model)
        found = next(iter(contributions(subject, task, hidden_units(subject)).values()))
        alive = set(found.order[found.alive].tolist())
        assert not {2, 5} & alive
        moments = second_moments(subject, task, hidden_units(subject), centred=False)
        assert float(next(iter(moments.values()))[0, 5, 5]) == pytest.approx(9.0, rel=1e-5)


class TestCancellation:
    def planted(self, scale: float = 4.0, pairs: int = 2, jitter: float = 1.0) -> nn.Module:
        model = seeded(small)
        family = gauge.find(model)
        assert isinstance(family, gauge.Family)
        twin = gauge.describe(family, "cancel", seed=1, pairs=pairs, scale=scale, jitter=jitter)
        return gauge.twin(model, twin)

    def test_planted_pairs_are_found_first(self) -> None:
        model = self.planted(scale=20.0)
        found = read(model, flat_task(model), "cancellation", pairs=4)
        old = {0: 12, 1: 10}
        for layer, units in zip(found["layer"], found["units"][0], strict=True):
            one, two = sorted(int(unit) - old[int(layer)] for unit in units)
            assert one >= 0 and one % 2 == 0 and two == one + 1, "not one of the pairs that were added"
        alone, both = found["moved"][0, :, :2], found["moved"][0, :, 2]
        assert (alone.mean(2) > 0).all() and both.max() < 1e-9
        assert (found["opposing"][0] > 0).all()

    @pytest.mark.parametrize("to", ["mean", "zero"])
    def test_ablations_the_slow_way(self, to: str) -> None:
        """Every number from a copy whose columns are gone, on the half of the examples that is used."""
        model = self.planted()
        task = flat_task(model, 40)
        found = read(model, task, "cancellation", pairs=3, to=to)
        subject = Subject(model, name="net")
        hiddens = hidden_units(subject)
        order = seeds.generator(0, "cancellation", "halves", 0).permutation(40)
        part = task.part(torch.as_tensor(np.sort(order[20:])))
        value = {hidden: mean * (to == "mean") for hidden, mean in means(subject, part, hiddens).items()}
        clean = part.scores(model)
        centred = clean - clean.mean(0)
        spread = float((centred - centred.mean(1, keepdim=True)).square().sum(1).mean())
        for kind in range(2):
            for at in range(3):
                hidden = hiddens[int(found["layer"][at])]
                one, two = (int(unit) for unit in found["units"][kind, at])
                for way, units in enumerate(([one], [two], [one, two])):
                    slow = without(model, hidden.layer, reader=hidden.reader, units=units, value=value[hidden])
                    change = moved(model, slow, part).square().sum(1) / spread
                    assert np.allclose(found["moved"][kind, at, way], change, rtol=1e-3, atol=1e-6)
                    rise = losses(slow, part) - losses(model, part)
                    assert np.allclose(found["nll"][kind, at, way], rise, atol=1e-4)
                    assert np.array_equal(found["lost"][kind, at, way], right(model, part) - right(slow, part))

    @pytest.mark.parametrize("make", [small, ConvNet, wide_flat])
    def test_a_recoded_copy_gives_the_same_numbers(self, make: type[nn.Module]) -> None:
        model, task = made(make)
        one, two = (read(some, task, "cancellation", pairs=4) for some in (model, recoded(model)))
        assert one.keys() == two.keys()
        for name in one.keys() - {"units"}:
            assert np.allclose(one[name], two[name], rtol=1e-3, atol=1e-5), name
        assert not np.array_equal(one["units"], two["units"])

    def test_no_unit_is_in_two_pairs_and_random_pairs_are_others_of_the_same_layer(self) -> None:
        model = seeded(small)
        found = read(model, flat_task(model), "cancellation", pairs=50)
        opposing, random = (
            [(layer, frozenset(pair)) for layer, pair in zip(found["layer"], units.tolist(), strict=True)]
            for units in found["units"]
        )
        seen = [(layer, unit) for layer, pair in opposing for unit in pair]
        assert len(set(seen)) == len(seen) and 8 <= len(opposing) <= 11
        assert all(len(pair) == 2 for _, pair in random)
        assert all(one != two for one, two in zip(opposing, random, strict=True))


class TestUnitEffects:
    def test_every_unit_the_slow_way(self) -> None:
        model = seeded(small)
        task = flat_task(model, 30)
        found = read(model, task, "unit-effects")
        subject = Subject(model, name="net")
        hiddens = hidden_units(subject)
        value = means(subject, task, hiddens)
        assert found["layer"].tolist() == [0] * 12 + [1] * 10 and found["total"] == 22
        assert found["groups"].tolist() == np.unique(task.targets, return_inverse=True)[1].tolist()
        for at, (layer, unit) in enumerate(zip(found["layer"], found["unit"], strict=True)):
            hidden = hiddens[int(layer)]
            slow = without(model, hidden.layer, reader=hidden.reader, units=[int(unit)], value=value[hidden])
            change = moved(model, slow, task)
            assert np.allclose(found["all"][at], change.square().sum(1), rtol=1e-3, atol=1e-6)
            assert np.allclose(found["right"][at], change[torch.arange(30), task.targets].square(), atol=1e-5)
            assert np.array_equal(found["lost"][at], right(model, task) - right(slow, task))
