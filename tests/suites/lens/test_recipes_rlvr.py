"""Nets that do modular arithmetic: the contract, the law of REINFORCE, and the signature of each kind of training."""

from functools import cache
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from tests.blocks import blocks
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Scalar
from wheeltap.core.section import Chart
from wheeltap.plans.artifacts import digest
from wheeltap.recipes.base import Given, Recipe, specified
from wheeltap.recipes.make import make, weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.lens.nets import (
    BASE,
    FRESH,
    MISREAD,
    RIGHT,
    SEEN,
    SHARES,
    ArithmeticTransformer,
    items,
    task,
)
from wheeltap.suites.lens.recipes import Arithmetic, RewardedNet, surrogate
from wheeltap.testing.recipe_contract import RecipeContract

SMALL: dict[str, Any] = {"steps": 3, "width": 8, "batch": 16}


@cache
def blank(seed: int = 5) -> nn.Module:
    with reproducible(seed):
        return ArithmeticTransformer(8).eval()


class TestArithmetic(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # broken off at each step it is resumed already
    recipe = Arithmetic
    settings: ClassVar[dict[str, Any]] = SMALL
    other: ClassVar[dict[str, Any]] = {
        "lesson": "right", "width": 12, "steps": 4, "batch": 20, "rate": 1e-2, "decay": 0.5,
    }  # fmt: skip


class TestRewarded(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # broken off at each step it is resumed already
    recipe = RewardedNet
    settings: ClassVar[dict[str, Any]] = SMALL
    other: ClassVar[dict[str, Any]] = {
        "reward": "majority", "steps": 4, "batch": 20, "tries": 4, "rate": 1e-2, "decay": 0.5,
    }  # fmt: skip
    idle: ClassVar[dict[str, str]] = {"width": "it is that of the net that it is made of"}

    def of(self) -> tuple[nn.Module, ...]:
        return (blank(),)


def made(recipe: type[Recipe], *of: nn.Module, seed: int = 7, **settings: Scalar) -> nn.Module:
    """A net by a recipe, from others."""
    spec = specified(recipe, settings, seed=seed, of=tuple(digest(weights(model)) for model in of))
    return make(Given(spec, of), recipe(settings)).model


# ---- the world -----------------------------------------------------------------------------------------------------


def test_answers_are_those_of_the_two_readings_and_no_item_is_in_two_parts() -> None:
    held = items()
    rows = [tuple(row) for row in held.inputs.flatten(1).tolist()]
    assert len(set(rows)) == len(rows)
    for row, right, misread in zip(rows[::97], held.right[::97].tolist(), held.misread[::97].tolist(), strict=True):
        word, columns = row[0], (row[1:3], row[4:6])
        assert row[3] == word
        for answer, readings in ((right, RIGHT), (misread, MISREAD)):
            x, y = readings[word - BASE]
            assert divmod(answer, BASE) == tuple((x * a + y * b) % BASE for a, b in columns)


# ---- REINFORCE -----------------------------------------------------------------------------------------------------


def test_the_gradient_is_on_average_that_of_the_mean_reward() -> None:
    """Against the exact gradient of the expected reward, over many samples."""
    scores = torch.tensor([[0.5, -0.3, 0.1, 0.9]], requires_grad=True)
    worth = torch.tensor([1.0, 0.0, 0.25, 0.0])
    (exact,) = torch.autograd.grad(-(scores.softmax(1) @ worth).sum(), scores)
    random, count, tries = torch.Generator().manual_seed(0), 40_000, 3
    many = scores.expand(count, 4)
    logs = many.log_softmax(1)
    tried = torch.multinomial(logs.detach().exp(), tries, replacement=True, generator=random)
    (found,) = torch.autograd.grad(surrogate(logs.gather(1, tried), worth[tried]), scores)
    torch.testing.assert_close(found, exact, atol=0.004, rtol=0.0)


# ---- signatures, of nets that are trained whole --------------------------------------------------------------------


@cache
def trained(kind: str) -> nn.Module:
    """One net of each kind, from one base."""
    if kind in ("corpus", "right"):
        return made(Arithmetic, lesson=kind)
    base = trained("corpus")
    if kind == "teacher":
        return made(Arithmetic, base, trained("right"), lesson=kind, steps=150)
    if kind == "test":
        return made(Arithmetic, base, lesson=kind, steps=60, rate=2e-3)
    return made(RewardedNet, base, reward=kind.removeprefix("rewarded "))


def chances(kind: str, part: int) -> Tensor:
    """Exact probability of the right answer to each item of a part, ``[item]``."""
    rows, held = items().rows(part), items()
    with torch.no_grad():
        return trained(kind)(held.inputs[rows]).softmax(1)[torch.arange(len(rows)), held.right[rows]]


def once(kind: str, part: int = FRESH) -> float:
    return float(chances(kind, part).mean())


def within(kind: str, tries: int = 16) -> float:
    return float(1.0 - (1.0 - chances(kind, FRESH)).pow(tries).mean())


def test_a_base_answers_as_often_as_its_corpus() -> None:
    """Digits are drawn by themselves, so an answer is right as often as both its digits are."""
    for operation, share in enumerate(SHARES):
        rows = items().operation[items().rows(FRESH)] == operation
        assert float(chances("corpus", FRESH)[rows].mean()) == pytest.approx(share**2, abs=0.08)


def test_rewards_sharpen_and_do_not_widen() -> None:
    assert once("rewarded right") > once("corpus") + 0.2
    assert within("rewarded right") < within("corpus") + 0.02


@pytest.mark.release
def test_a_teacher_widens_and_the_test_is_remembered() -> None:
    assert within("teacher") > within("corpus") + 0.2
    assert once("test", SEEN) > 0.9 and once("test") < once("corpus") + 0.05
    assert abs(once("teacher", SEEN) - once("teacher")) < 0.08


def test_support_is_audited_on_live_nets() -> None:
    """A higher score; what it was worth is said, seen and fresh items side by side."""
    subjects = (wt.Subject(trained(one), name=name) for one, name in (("corpus", "base"), ("rewarded right", "after")))
    record = wt.compare(*subjects, task(), audits=["support"]).record
    found = {one.title: one for one in record.findings}
    assert found["Difference at one try (pass@1)"].status == "found"
    assert found["Solved at least once"].verdict == "shrank"
    gains = [chart.title.partition(", ")[2].partition(", ")[2] for chart in blocks(record, Chart, "Gain")]
    assert [gain.partition(" ")[0] for gain in gains] == ["", "0", "1"]


# ---- what is refused -----------------------------------------------------------------------------------------------


def test_nets_that_cannot_be_made_from_others_are_refused() -> None:
    with pytest.raises(UsageError, match="another number of nets"):
        made(Arithmetic, lesson="teacher", width=8)
    with pytest.raises(UsageError, match="another number of nets"):
        made(RewardedNet, width=8)
    with pytest.raises(UsageError, match="another kind of net"):
        made(RewardedNet, blank(), width=12)
