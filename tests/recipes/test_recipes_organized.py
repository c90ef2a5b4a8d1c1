"""Nets wired by factor or not, and reparametrized copies: the contract, and what each wiring must leave."""

from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError, UsageError
from wheeltap.models import shapes
from wheeltap.models.mlp import mlp
from wheeltap.plans.artifacts import digest
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import make, weights
from wheeltap.recipes.organized import Organized, crossings, layers
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.recoded import Recoded
from wheeltap.testing.recipe_contract import RecipeContract

SMALL: dict[str, Any] = {"units": 3, "examples": 200, "epochs": 2, "batch": 40}


@cache
def teacher() -> nn.Module:
    with reproducible(11):
        return shapes.net(3).eval()


class TestOrganized(RecipeContract):
    recipe = Organized
    settings: ClassVar[dict[str, Any]] = {**SMALL, "wiring": "guided"}
    other: ClassVar[dict[str, Any]] = {
        "wiring": "mixed", "pressure": 3.0, "units": 4, "examples": 210, "epochs": 3, "batch": 50, "rate": 1e-2,
    }  # fmt: skip


class TestImitating(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # as of the one above
    recipe = Organized
    settings: ClassVar[dict[str, Any]] = {**SMALL, "wiring": "scattered"}
    other: ClassVar[dict[str, Any]] = {**TestOrganized.other, "pressure": 3.0}
    beside: ClassVar[dict[str, Any]] = {"pressure": {"wiring": "mixed"}}

    def of(self) -> tuple[nn.Module, ...]:
        return (teacher(),)


class TestRecoded(RecipeContract):
    recipe = Recoded
    settings: ClassVar[dict[str, Any]] = {"gauges": "permute,rescale,dead,permute,cancel"}
    other: ClassVar[dict[str, Any]] = {"gauges": "permute,rescale,cancel", "pairs": 0.25, "scale": 2.0}

    def of(self) -> tuple[nn.Module, ...]:
        return (teacher(),)


def made(wiring: str, *, of: nn.Module | None = None, **settings: Any) -> list[Tensor]:
    """The weights of a net of this wiring, after training."""
    given = {**SMALL, "epochs": 6, "wiring": wiring, **settings}
    names = () if of is None else (digest(weights(of)),)
    spec = specified(Organized, given, seed=4, of=names)
    model = make(Given(spec, () if of is None else (of,)), Organized(given)).model
    return [layer.weight for layer in layers(model)]


def crossing(found: list[Tensor]) -> float:
    """Largest share, over the layers after the first, of squared weights from one factor to another."""
    squares = [weight.detach().square() for weight in found[1:]]
    shares = [float(w[gone].sum() / w.sum()) for w, gone in zip(squares, crossings(3), strict=True)]
    return max(shares)


def test_modules_have_no_weight_between_factors_and_learn_the_others() -> None:
    found = made("modules")
    for weight, gone in zip(found[1:], crossings(3), strict=True):
        assert torch.equal(weight == 0.0, gone)


def test_scattered_nets_have_as_many_weights_of_each_unit_at_other_places() -> None:
    one, two = made("modules"), made("scattered")
    for own, other in zip(one[1:], two[1:], strict=True):
        assert torch.equal((own != 0.0).sum(1), (other != 0.0).sum(1))
    assert crossing(two) > 0.5


def test_pressure_organizes_and_mixes() -> None:
    plain, guided, mixed = (made(wiring, pressure=4.0, epochs=30) for wiring in ("plain", "guided", "mixed"))
    assert crossing(guided) < 0.5 * crossing(plain)
    assert narrowness(mixed[-1]) < 0.25 * narrowness(plain[-1])


def narrowness(last: Tensor) -> float:
    """By loops: 1 where each unit's weights lead to one factor, 0 where to all alike."""
    found: list[float] = []
    for unit in last.detach().double().numpy().T:
        parts = np.split(unit, np.cumsum(list(shapes.FACTORS.values()))[:-1])
        sizes = np.array([np.square(part - part.mean()).sum() for part in parts])
        sizes = sizes / sizes.sum()
        found.append(float(np.square(sizes - 0.25).sum() * 4 / 3))
    return float(np.mean(found))


def test_who_imitates_answers_as_its_teacher_and_not_as_the_labels() -> None:
    found = {}
    for name, of in (("labels", None), ("teacher", teacher())):
        given = {**SMALL, "epochs": 40}
        spec = specified(Organized, given, seed=4, of=() if of is None else ("x",))
        model = make(Given(spec, () if of is None else (of,)), Organized(given)).model
        inputs, _ = shapes.lesson(300, seed=77)
        with torch.no_grad():
            clean, answer = (net(inputs).log_softmax(1) for net in (teacher(), model))
        found[name] = float((clean.exp() * (clean - answer)).sum(1).mean())
    assert found["teacher"] < 0.2 * found["labels"]


@pytest.mark.parametrize(("gauges", "same"), [("permute,rescale", True), ("cancel", False)])
def test_a_copy_computes_the_same_with_other_weights(gauges: str, *, same: bool) -> None:
    spec = specified(Recoded, {"gauges": gauges}, seed=1, of=("x",))
    copy = make(Given(spec, (teacher(),)), Recoded({"gauges": gauges})).model
    inputs, _ = shapes.lesson(50, seed=3)
    with torch.no_grad():
        assert torch.allclose(copy(inputs), teacher()(inputs), atol=1e-4)
    assert (layers(copy)[0].weight.shape == layers(teacher())[0].weight.shape) is same
    assert digest(weights(copy)) != digest(weights(teacher()))


def test_what_cannot_be_made_is_refused() -> None:
    two = (teacher(), teacher())
    with pytest.raises(UsageError, match="imitates"):
        Organized().blank(Given(specified(Organized, seed=0, of=("a", "b")), two))
    with pytest.raises(UsageError, match="of one net"):
        Recoded().blank(Given(specified(Recoded, seed=0, of=("a", "b")), two))
    with pytest.raises(ModelError, match="rewritten"):
        Recoded().blank(Given(specified(Recoded, seed=0, of=("a",)), (mlp((3, 2)).eval(),)))
    with pytest.raises(UsageError, match="gauge"):
        Recoded({"gauges": " , "})
