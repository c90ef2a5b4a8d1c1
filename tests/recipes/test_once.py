"""Nets that are made once: in memory, in a folder, by one process of several; and never one in the place of another."""

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from msgspec.structs import replace
from torch import Tensor, nn

from wheeltap.core.canon import Scalar
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.task import Task
from wheeltap.models.mlp import mlp
from wheeltap.recipes.fit import TrainSettings
from wheeltap.recipes.make import FOLDER, place
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TaughtNet, train_classifier, train_once
from wheeltap.sources import digits
from wheeltap.testing.contract import RecipeContract

_RANDOM = torch.Generator().manual_seed(1)
INPUTS, TARGETS = torch.randn(60, 4, generator=_RANDOM), torch.randint(3, (60,), generator=_RANDOM)
SHORT = TrainSettings(seed=2, epochs=2, batch=16)


def net(seed: int = 0, *, dropout: float = 0.0) -> nn.Sequential:
    with reproducible(seed):
        return mlp((4, 8, 3), dropout=dropout)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    return tmp_path


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.safetensors"))


class TestTaught(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # as of classifiers, whose training it is
    recipe = TaughtNet
    settings: ClassVar[Mapping[str, Scalar]] = {"epochs": 2, "batch": 20}
    other: ClassVar[Mapping[str, Scalar]] = {
        "epochs": 3, "batch": 10, "rate": 1e-2, "decay": 0.1, "optimizer": "sgd", "momentum": 0.5,
        "schedule": "constant", "steps": 4,
    }  # fmt: skip
    beside: ClassVar[Mapping[str, Mapping[str, Scalar]]] = {"momentum": {"optimizer": "sgd"}}

    def task(self) -> Task:
        return Task(INPUTS, TARGETS)

    def of(self) -> tuple[nn.Module, ...]:
        return (net(dropout=0.2),)


@pytest.mark.parametrize(("dropout", "steps"), [(0.3, None), (0.0, 0), (0.0, 5)])
def test_bits_are_those_of_plain_training(folder: Path, dropout: float, steps: int | None) -> None:
    how = TrainSettings(seed=3, epochs=2, batch=16, optimizer="sgd", momentum=0.5, schedule="cosine", steps=steps)
    model = net(dropout=dropout)
    plain = train_classifier(copy.deepcopy(model), INPUTS, targets=TARGETS, settings=how)
    assert train_once(model, INPUTS, targets=TARGETS, settings=how) is model
    assert weights_digest(model) == weights_digest(plain)
    assert (steps == 0) == (weights_digest(model) == weights_digest(net(dropout=dropout)))
    assert not model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
    assert len(files(folder)) == 1


def test_each_call_gives_a_net_of_its_own() -> None:
    one, two = (train_once(net(), INPUTS, targets=TARGETS, settings=SHORT) for _ in range(2))
    held, demo = weights_digest(two), digits.train(0)
    with torch.no_grad():
        for changed in (one, demo):
            next(changed.parameters()).zero_()
    again = train_once(net(), INPUTS, targets=TARGETS, settings=SHORT)
    assert weights_digest(two) == weights_digest(again) == held != weights_digest(one)
    assert weights_digest(digits.train(0)) != weights_digest(demo)


def _others() -> Iterator[tuple[nn.Sequential, Tensor, Tensor, TrainSettings]]:
    """The net that is trained first, and others of which each differs from it in one thing."""
    first = TrainSettings(seed=11, epochs=2, batch=16)
    yield net(), INPUTS, TARGETS, first
    yield net(1), INPUTS, TARGETS, first
    yield net(dropout=0.1), INPUTS, TARGETS, first
    yield nn.Sequential(net()[0], nn.Tanh(), net()[2]), INPUTS, TARGETS, first
    frozen = net()
    frozen[0].requires_grad_(requires_grad=False)
    yield frozen, INPUTS, TARGETS, first
    yield net(), INPUTS + 1.0, TARGETS, first
    yield net(), INPUTS, TARGETS.flip(0), first
    yield net(), INPUTS, TARGETS, replace(first, seed=4)
    yield net(), INPUTS, TARGETS, replace(first, rate=1e-2)
    yield net(), INPUTS, TARGETS, replace(first, optimizer="sgd")


def test_whatever_differs_makes_another_net(folder: Path) -> None:
    made = list[str]()
    for count, (model, inputs, targets, settings) in enumerate(_others(), start=1):
        plain = train_classifier(copy.deepcopy(model), inputs, targets=targets, settings=settings)
        train_once(model, inputs, targets=targets, settings=settings)
        assert weights_digest(model) == weights_digest(plain)
        assert len(files(folder)) == count
        made.append(weights_digest(model))
    assert len(set(made)) == len(made)


def test_nets_of_other_libraries_lie_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    here = place("zoo")
    assert here is not None and here.parent == tmp_path / "zoo"
    assert torch.__version__ in here.name and torch.backends.cpu.get_cpu_capability().replace(" ", "-") in here.name
    monkeypatch.delenv(FOLDER)
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert place("zoo") is None  # what cannot be written is no cache


def test_what_cannot_be_trained_is_refused_each_time(folder: Path) -> None:
    for _ in range(2):
        with pytest.raises(ModelError, match="diverged"):
            train_once(net(), INPUTS * 1e15, targets=TARGETS, settings=TrainSettings(rate=1e30))
    for inputs, targets in ((INPUTS[:0], TARGETS[:0]), (INPUTS, TARGETS[1:])):
        with pytest.raises(DataError):
            train_once(net(), inputs, targets=targets, settings=SHORT)
