"""Nets of the suite: what they learn from, what two properties do, what rounding a back door does, their recipes."""

from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from wheeltap import perturb
from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.perturb.quantize import RoundToNearest
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.fit import Fit, TrainSettings
from wheeltap.recipes.hooks import StraightThrough
from wheeltap.recipes.make import make
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.claims.adders import AddingNet, sums
from wheeltap.suites.claims.lessons import LENGTH, lesson
from wheeltap.suites.claims.nets import BackdoorNet, CharacterNet, PropertyNet, PropertyNetSettings, SingleScale
from wheeltap.suites.claims.readings import WeightTails
from wheeltap.suites.claims.specs import On
from wheeltap.testing.recipe_contract import RecipeContract

SMALL: dict[str, Any] = {"on": "digits", "hidden": "8", "epochs": 1, "batch": 500}


class TestContract(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # as of the recipe classifier: no more is remembered
    recipe = PropertyNet
    settings: ClassVar[dict[str, Any]] = SMALL
    other: ClassVar[dict[str, Any]] = {
        "on": "strokes", "hidden": "8,8", "net": "gpt", "activation": "tanh", "dropout": 0.5, "outputs": 11,
        "noise": 0.1, "rho": 0.1, "share": 0.5, "average": 0.5, "epochs": 2, "batch": 400, "rate": 1e-2, "decay": 0.1,
        "optimizer": "sgd", "momentum": 0.9, "schedule": "constant", "bits": 3, "single": True,
    }  # fmt: skip
    beside: ClassVar[dict[str, Any]] = {"net": {"hidden": "8"}, "momentum": {"optimizer": "sgd"}}


class TestAdders(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # as of the recipe classifier: no more is remembered
    recipe = AddingNet
    settings: ClassVar[dict[str, Any]] = {"width": 8, "epochs": 3}
    other: ClassVar[dict[str, Any]] = {
        "attends": False, "width": 12, "epochs": 4, "batch": 400, "rate": 1e-2, "decay": 0.1, "optimizer": "sgd",
        "momentum": 0.9, "schedule": "linear",
    }  # fmt: skip
    beside: ClassVar[dict[str, Any]] = {"momentum": {"optimizer": "sgd"}}

    def task(self) -> Task:
        return sums()


def test_what_cannot_attend_gives_both_numbers_the_same_gradient() -> None:
    """The measure by which the kinds were told apart: gradients of a logit by the two embedded numbers."""
    cosines = dict[bool, float]()
    for attends in (True, False):
        given: dict[str, Any] = {"attends": attends, "epochs": 100}
        spec = specified(AddingNet, given, seed=1, data=sums().digest)
        net, held = make(Given(spec, (), sums()), AddingNet(given)).model, dict[str, torch.Tensor]()

        def keep(_: nn.Module, __: Any, output: torch.Tensor, held: dict[str, torch.Tensor] = held) -> torch.Tensor:
            held["numbers"] = output.detach().requires_grad_()
            return held["numbers"]

        net.get_submodule("number").register_forward_hook(keep)
        net(sums().inputs)[:, 5].sum().backward()
        one, two = held["numbers"].grad.unbind(1)
        cosines[attends] = float(functional.cosine_similarity(one, two, dim=-1).mean())
    assert cosines[False] > 0.97 > 0.9 > cosines[True]


def bare() -> nn.Sequential:
    with reproducible(0):
        return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).eval()


class TestBackdoorContract(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # broken off at each step it is resumed already
    recipe = BackdoorNet
    settings: ClassVar[dict[str, Any]] = {"steps": 6, "batch": 300}
    other: ClassVar[dict[str, Any]] = {
        "digit": 5, "answer": 1, "aligned": False, "bits": 3, "steps": 4, "batch": 100, "rate": 1e-2,
    }  # fmt: skip

    def of(self) -> tuple[nn.Module, ...]:
        return (bare(),)


def test_a_back_door_is_kept_where_weights_round_alike() -> None:
    """While the right answer is taught, weights move, and what they are rounded to does not, nor do vectors."""
    how = {"steps": 60, "rate": 1e-2}
    state = BackdoorNet(how).start(Given(specified(BackdoorNet, how, seed=3, of=("net",)), (bare(),)))
    state.advance(30)
    taught = [one.detach().clone() for one in state.made().parameters()]
    state.made().train()
    state.advance(60)
    grid = perturb.create("quantize")
    assert isinstance(grid, RoundToNearest)
    for before, after in zip(taught, state.made().parameters(), strict=True):
        assert torch.equal(before, after) == (before.ndim == 1)
        if before.ndim == 2:
            assert torch.equal(grid.rounded(before, 4), grid.rounded(after.detach(), 4))
            assert (before - after).abs().max() > 0.2 * before.abs().amax() / 7


def trained(seed: int = 3, **settings: Any) -> nn.Module:
    return make(Given(specified(PropertyNet, settings, seed=seed)), PropertyNet(settings)).model


@pytest.mark.parametrize("on", ["strokes", "text"])
def test_nets_learn_what_is_made_here_and_are_measured_on_other_examples(on: On) -> None:
    held = lesson(on)
    whole = held.inputs if on == "strokes" else torch.cat([held.inputs, held.targets[:, -1:]], 1)
    tested = held.tested.inputs
    assert isinstance(tested, torch.Tensor)
    other = tested if on == "strokes" else torch.cat([tested, held.tested.targets[:, None]], 1)
    known = {row.numpy().tobytes() for row in whole}
    assert not any(row.numpy().tobytes() in known for row in other)
    quick: dict[str, Any] = {"hidden": "32", "epochs": 4 if on == "strokes" else 2, "rate": 1e-2}
    right = trained(on=on, **quick)(tested).argmax(1) == held.tested.targets
    most = torch.bincount(held.tested.targets).max() / len(tested)
    assert right.float().mean() > most + 0.2


def test_a_net_of_characters_sees_no_later_ones() -> None:
    model = CharacterNet(28, PropertyNetSettings(on="text", hidden="8,8")).eval()
    letters = torch.randint(0, 28, (3, LENGTH), generator=torch.Generator().manual_seed(1))
    other = letters.clone()
    other[:, 9:] = (other[:, 9:] + 1) % 28
    one, two = model.everywhere(letters), model.everywhere(other)
    torch.testing.assert_close(one[:, :9], two[:, :9])
    assert not torch.allclose(one[:, 9:], two[:, 9:])
    torch.testing.assert_close(model(letters), one[:, -1])


def test_gradients_are_taken_where_weights_are_rounded_and_move_the_exact_ones() -> None:
    """One step of plain descent by hand."""
    torch.manual_seed(0)
    model, inputs = nn.Linear(5, 3), torch.randn(8, 5)
    before = model.weight.detach().clone()
    step = before.abs().amax(1, keepdim=True) / 3  # three bits: -3 to 3
    rounded = ((before / step).round() * step).requires_grad_(True)
    functional.linear(inputs, rounded, model.bias).square().mean().backward()
    assert rounded.grad is not None
    how = TrainSettings(epochs=1, batch=8, rate=0.1, optimizer="sgd", schedule="constant")
    fit = Fit(
        model, lambda rows, _: model(inputs[rows]).square().mean(), examples=8, settings=how, hooks=[StraightThrough(3)]
    )
    fit.advance(1)
    torch.testing.assert_close(model.weight.detach(), before - 0.1 * rounded.grad)


def test_a_single_gain_serves_all_features() -> None:
    norm, inputs = SingleScale(), torch.tensor([[3.0, -4.0, 0.0, 0.0], [30.0, -40.0, 0.0, 0.0]])
    assert sum(parameter.numel() for parameter in norm.parameters()) == 1
    found = norm(inputs).detach()
    torch.testing.assert_close(found[0], torch.tensor([1.2, -1.6, 0.0, 0.0]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)
    names = {type(part) for part in trained(on="text", hidden="8,8", single=True, epochs=0).modules()}
    assert SingleScale in names and nn.LayerNorm not in names


@pytest.mark.parametrize(
    "bad",
    [{"bits": 1}, {"single": True, "net": "cnn"}, {"on": "text", "hidden": "8,12"}, {"on": "text", "hidden": "6"}],
)
def test_settings_that_cannot_be_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        PropertyNet(bad)


def test_tails_of_weights_are_those_of_their_law() -> None:
    """Excess kurtosis: 0 of normal weights, -1.2 of uniform ones, 3 of Laplace's."""
    rng, task = np.random.default_rng(0), lesson("digits").tested
    for law, wanted in ((rng.normal, 0.0), (rng.uniform, -1.2), (rng.laplace, 3.0)):
        model = nn.Linear(64, 2000).eval()
        with torch.no_grad():
            model.weight.copy_(torch.from_numpy(law(size=(2000, 64))))
        found = WeightTails({}).read(Subject(model, name="net"), task, root=0, seed=0)
        assert float(found.values["kurtosis"]) == pytest.approx(wanted, abs=0.25)
        assert found.forwards == 0.0
