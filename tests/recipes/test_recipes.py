"""Every registered recipe keeps the contract."""

import re
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import test_recipes_defects  # noqa: F401  (whose contracts count below)
import torch
from torch import nn

from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.task import Task
from wheeltap.plans.artifacts import digest
from wheeltap.recipes.base import Given, recipe_of, recipes, spec
from wheeltap.recipes.classifier import ClassifierNet
from wheeltap.recipes.make import make, weights
from wheeltap.sources import digits
from wheeltap.sources.digits import DigitNet, ForgettingNet, MislabeledNet, lesson
from wheeltap.testing.recipe_contract import RecipeContract

KINDS: dict[str, Any] = {
    "net": "cnn", "hidden": "5,4", "activation": "tanh", "dropout": 0.5, "outputs": 11, "epochs": 3, "batch": 20,
    "rate": 2e-2, "decay": 0.1, "optimizer": "sgd", "momentum": 0.5, "schedule": "cosine", "noise": 0.3, "rho": 0.1,
    "share": 0.5, "average": 0.5,
}  # fmt: skip


@cache
def small() -> Task:
    """Every ninth image."""
    data = digits.split()
    return Task(data.train_inputs[::9], data.train_targets[::9], name="some digits")


class TestClassifier(RecipeContract):
    recipe = ClassifierNet
    # Everything on: so all of it must be resumed.
    settings: ClassVar[dict[str, Any]] = {
        "hidden": "6,5", "epochs": 4, "batch": 30, "dropout": 0.1, "noise": 0.1, "rho": 0.05, "share": 0.3,
        "average": 0.8, "optimizer": "adamw", "decay": 0.01,
    }  # fmt: skip
    other: ClassVar[dict[str, Any]] = KINDS
    beside: ClassVar[dict[str, Any]] = {"momentum": {"optimizer": "sgd"}}

    def task(self) -> Task:
        return small()


class TestConvolutions(TestClassifier):
    test_killed_it_comes_to_the_same_bits = None  # as its parent
    test_every_setting_is_used = None
    settings: ClassVar[dict[str, Any]] = {
        "net": "cnn", "hidden": "3,4", "epochs": 2, "batch": 30, "optimizer": "sgd", "momentum": 0.9,
    }  # fmt: skip


class TestDigits(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # as of classifiers
    test_every_setting_is_used = None
    recipe = DigitNet
    settings: ClassVar[dict[str, Any]] = {"hidden": "4", "epochs": 1, "batch": 200}


class TestMislabeled(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # as of the one above
    test_every_setting_is_used = None
    recipe = MislabeledNet
    settings: ClassVar[dict[str, Any]] = {"hidden": "4", "epochs": 1, "batch": 200}


class TestForgetting(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None
    recipe = ForgettingNet
    settings: ClassVar[dict[str, Any]] = {"steps": 4}
    other: ClassVar[dict[str, Any]] = {"digit": 4, "steps": 5, "batch": 20, "rate": 1e-2}

    def of(self) -> tuple[nn.Module, ...]:
        return (digits.train(0),)


def test_every_recipe_has_a_contract() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parents[1].rglob("test_*.py"))
    held = set(re.findall(r"^    recipe(?:: [^=]+)? = (\w+)$", tests, re.MULTILINE))
    assert {recipes.get(name).__name__ for name in recipes} <= held
    assert all(recipes.get(name).name == name for name in recipes)


class TestSpecs:
    def test_it_is_filled_with_defaults_and_the_version(self) -> None:
        short, long = spec("digits", seed=1), spec("digits", {"epochs": 40, "rate": 3e-3}, seed=1)
        assert short == long and short.key == long.key
        assert short.version == DigitNet.version and short.settings["hidden"] == "128,128"
        assert spec("digits", {"decay": 0}, seed=1).key == short.key  # a whole number for a fraction
        others = [spec("digits", seed=0), spec("digits", seed=2), spec("digits", {"epochs": 1}, seed=1)]
        assert len({short.key, *(other.key for other in others)}) == 4
        assert recipe_of(short).settings == DigitNet().settings

    @pytest.mark.parametrize(
        ("name", "settings", "words"),
        [
            ("digit", {}, "Did you mean 'digits'"),
            ("digits", {"hiden": "4"}, "hidden"),
            ("digits", {"hidden": "0"}, "such as 128,128"),
            ("digits", {"rate": -1.0}, "a positive rate"),
            ("picture", {"fold": "abs-z"}, "abs-x"),
        ],
    )
    def test_what_cannot_be_used_is_refused(self, name: str, settings: dict[str, Any], words: str) -> None:
        with pytest.raises((UsageError, UnknownName), match=words):
            spec(name, settings, seed=0)


def test_digits_by_default_is_the_net_of_the_demo() -> None:
    asked = spec("digits", seed=2)
    made = make(Given(asked), recipe_of(asked))
    assert made.digest == digest(weights(digits.train(2)))
    dropped = spec("digits", {"dropout": 0.2, "epochs": 1}, seed=2)
    assert "Dropout" in str(make(Given(dropped), recipe_of(dropped)).model)


def test_kinds_are_what_they_say() -> None:
    task = lesson()

    def made(**settings: Any) -> torch.nn.Module:
        asked = spec("classifier", {"hidden": "30", "epochs": 4, **settings}, seed=0, data=task.digest)
        found = make(Given(asked, task=task), recipe_of(asked))
        assert found.status == "done"
        assert found.report["losses"][-1] < found.report["losses"][0]
        return found.model

    sparse = made(share=0.1, average=0.5)
    for parameter in sparse.parameters():
        if parameter.ndim == 2:
            assert np.count_nonzero(parameter.detach()) == round(0.1 * parameter.numel())
    assert [type(module).__name__ for module in made(activation="silu")] == ["Linear", "SiLU", "Linear"]
    assert [type(module).__name__ for module in made(net="cnn", hidden="3,4")][:3] == ["Unflatten", "Conv2d", "ReLU"]
    asked = spec("digits", {"epochs": 0}, seed=0)
    untrained = make(Given(asked), recipe_of(asked))
    assert digest(weights(recipe_of(asked).blank(Given(asked)))) == untrained.digest


def test_a_net_that_nothing_moves_is_resumed_to_the_same_end() -> None:
    nowhere = Task(torch.zeros(16, 4), torch.full((16, 3), 0.5))
    asked = spec("picture", {"layout": "2;cache:3,sin:2", "steps": 30}, seed=0, data=nowhere.digest)
    given = Given(asked, task=nowhere)
    whole = make(given, recipe_of(asked))
    assert whole.status == "stuck" and whole.report["restarts"] == 4
    state = recipe_of(asked).start(given)
    while state.status == "training":
        anew = recipe_of(asked).start(given)
        anew.resume(state.arrays(), state.note())
        anew.advance(anew.step + 1)
        state = anew
    assert (state.status, digest(weights(state.made()))) == ("stuck", whole.digest)
    assert state.report()["restarts"] == 4


def test_wanted_outputs_are_learnt_too() -> None:
    inputs = torch.linspace(-1, 1, 64)[:, None]
    task = Task(inputs, torch.cat([inputs.square(), -inputs], 1))
    asked = spec("classifier", {"hidden": "20", "epochs": 60, "batch": 16, "rate": 1e-2}, seed=0, data=task.digest)
    made = make(Given(asked, task=task), recipe_of(asked))
    assert float((made.model(task.inputs) - task.targets).detach().square().mean()) < 0.01


def test_without_the_right_examples_nothing_is_made() -> None:
    rows = Task(torch.rand(9, 5), torch.arange(9) % 3)
    mine, their = small().digest, lesson().digest
    cases: tuple[tuple[Any, Task | None, type[Exception], str], ...] = (
        (spec("classifier", seed=0, data=mine), None, UsageError, f"not at hand(.|\n)*{mine}"),
        (spec("classifier", seed=0, data=mine), lesson(), DataError, f"not those(.|\n)*{mine}(.|\n)*{their}"),
        (spec("classifier", seed=0, of=("f" * 32,)), None, UsageError, "made from is not at hand"),
        (spec("classifier", {"net": "cnn"}, seed=0, data=rows.digest), rows, UsageError, "square images"),
    )
    for asked, task, error, words in cases:
        with pytest.raises(error, match=words):
            make(Given(asked, task=task), recipe_of(asked))
