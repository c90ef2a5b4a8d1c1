"""Nets wired by factor or not, and reparametrized copies: the contract, and what each wiring must leave."""

from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError, UsageError
from wheeltap.models.mlp import mlp
from wheeltap.plans.artifacts import digest
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import make, weights
from wheeltap.recipes.planted import RecodedNet
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.decodable.nets import SHAPES
from wheeltap.suites.decodable.recipes import WORLDS, OrganizedNet, crossings, layers
from wheeltap.testing.recipe_contract import RecipeContract

SMALL: dict[str, Any] = {"units": 3, "examples": 200, "epochs": 2, "batch": 40}


@cache
def teacher() -> nn.Module:
    with reproducible(11):
        return SHAPES.net(3).eval()


class TestOrganized(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # slow; the recipe "sparse" is killed, which trains by the same loop
    recipe = OrganizedNet
    settings: ClassVar[dict[str, Any]] = {**SMALL, "wiring": "guided"}
    other: ClassVar[dict[str, Any]] = {
        "on": "pictures", "wiring": "mixed", "pressure": 3.0, "units": 4, "examples": 210, "epochs": 3, "batch": 50,
        "rate": 1e-2,
    }  # fmt: skip


class TestRecoded(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # there is no middle of a single step
    recipe = RecodedNet
    brief = True
    settings: ClassVar[dict[str, Any]] = {"gauges": "permute,rescale,dead,permute,cancel"}
    other: ClassVar[dict[str, Any]] = {"gauges": "permute,rescale,cancel", "pairs": 0.25, "scale": 2.0, "spread": 0.5}

    def of(self) -> tuple[nn.Module, ...]:
        return (teacher(),)


def made(wiring: str, **settings: Any) -> nn.Module:
    """A net of this wiring, after training."""
    given = {**SMALL, "epochs": 6, "wiring": wiring, **settings}
    return make(Given(specified(OrganizedNet, given, seed=4)), OrganizedNet(given)).model


def between(model: nn.Module, on: str = "images") -> list[tuple[nn.Linear, Tensor]]:
    """By loops: of the layers after the first, which weights lead from one factor's unit to another's."""
    counts, found = list(WORLDS[on].factors.values()), []  # pyright: ignore[reportArgumentType]
    _, *after = layers(model)
    for layer in after:
        rows, columns = layer.weight.shape
        values = [factor for factor, count in enumerate(counts) for _ in range(count)]
        owner = [row * len(counts) // rows for row in range(rows)] if layer is not after[-1] else values
        mask = [[owner[row] != column * len(counts) // columns for column in range(columns)] for row in range(rows)]
        found.append((layer, torch.tensor(mask)))
    return found


def crossing(model: nn.Module) -> float:
    """Largest share, over the layers after the first, of squared weights from one factor to another."""
    squares = [(layer.weight.detach().square(), gone) for layer, gone in between(model)]
    return max(float(w[gone].sum() / w.sum()) for w, gone in squares)


@pytest.mark.parametrize(("on", "count"), [("images", 2), ("pictures", 2)])
def test_modules_have_no_weight_between_factors_and_learn_the_others(on: str, count: int) -> None:
    model = made("modules", on=on)
    found = between(model, on)
    assert len(found) == count
    for (layer, gone), (_, own) in zip(found, crossings(model, WORLDS[on].factors), strict=True):  # pyright: ignore[reportArgumentType]
        assert torch.equal(layer.weight == 0.0, gone) and torch.equal(own, gone)


@pytest.mark.parametrize("on", ("images", "pictures"))
def test_scattered_nets_have_as_many_weights_of_each_unit_at_other_places(on: str) -> None:
    one, two = (between(made(wiring, on=on), on) for wiring in ("modules", "scattered"))
    for (own, _), (other, gone) in zip(one, two, strict=True):
        assert torch.equal((own.weight != 0.0).sum(1), (other.weight != 0.0).sum(1))
        assert float((other.weight != 0.0)[gone].float().sum() / (other.weight != 0.0).sum()) > 0.5


def test_pressure_organizes_and_mixes() -> None:
    plain, guided, mixed = (made(wiring, pressure=4.0, epochs=30) for wiring in ("plain", "guided", "mixed"))
    assert crossing(guided) < 0.5 * crossing(plain)
    assert narrowness(layers(mixed)[-1].weight) < 0.25 * narrowness(layers(plain)[-1].weight)


def narrowness(last: Tensor) -> float:
    """By loops: 1 where each unit's weights lead to one factor, 0 where to all alike."""
    found: list[float] = []
    for unit in last.detach().double().numpy().T:
        parts = np.split(unit, np.cumsum(list(SHAPES.factors.values()))[:-1])
        sizes = np.array([np.square(part - part.mean()).sum() for part in parts])
        sizes = sizes / sizes.sum()
        found.append(float(np.square(sizes - 0.25).sum() * 4 / 3))
    return float(np.mean(found))


def test_who_imitates_answers_as_its_teacher_and_not_as_the_labels() -> None:
    found = {}
    for name, of in (("labels", None), ("teacher", teacher())):
        given = {**SMALL, "epochs": 40}
        spec = specified(OrganizedNet, given, seed=4, of=() if of is None else ("x",))
        model = make(Given(spec, () if of is None else (of,)), OrganizedNet(given)).model
        inputs, _ = SHAPES.lesson(300, seed=77)
        with torch.no_grad():
            clean, answer = (net(inputs).log_softmax(1) for net in (teacher(), model))
        found[name] = float((clean.exp() * (clean - answer)).sum(1).mean())
    assert found["teacher"] < 0.2 * found["labels"]


@pytest.mark.parametrize(("gauges", "same"), [("permute,rescale", True), ("cancel", False)])
def test_a_copy_computes_the_same_with_other_weights(gauges: str, *, same: bool) -> None:
    spec = specified(RecodedNet, {"gauges": gauges}, seed=1, of=("x",))
    copy = make(Given(spec, (teacher(),)), RecodedNet({"gauges": gauges})).model
    inputs, _ = SHAPES.lesson(50, seed=3)
    with torch.no_grad():
        assert torch.allclose(copy(inputs), teacher()(inputs), atol=1e-4)
    assert (layers(copy)[0].weight.shape == layers(teacher())[0].weight.shape) is same
    assert digest(weights(copy)) != digest(weights(teacher()))


def test_what_cannot_be_made_is_refused() -> None:
    two = (teacher(), teacher())
    with pytest.raises(UsageError):
        OrganizedNet().blank(Given(specified(OrganizedNet, seed=0, of=("a", "b")), two))
    given = {**SMALL, "on": "pictures"}
    with pytest.raises(UsageError):
        OrganizedNet(given).start(Given(specified(OrganizedNet, given, seed=0, of=("a",)), two[:1]))
    with pytest.raises(UsageError):
        RecodedNet().blank(Given(specified(RecodedNet, seed=0, of=("a", "b")), two))
    with pytest.raises(ModelError):
        RecodedNet().blank(Given(specified(RecodedNet, seed=0, of=("a",)), (mlp((3, 2)).eval(),)))
    with pytest.raises(UsageError):
        RecodedNet({"gauges": " , "})
