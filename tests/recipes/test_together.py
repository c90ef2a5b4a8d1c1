"""Nets that are trained as a batch have the bits that they have when they are trained alone."""

from pathlib import Path
from typing import Any, final

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from wheeltap.core.task import Task
from wheeltap.plans.artifacts import ArtifactFile, Artifacts
from wheeltap.recipes.base import Given, recipe_of, spec, specified
from wheeltap.recipes.classifier import ClassifierNet
from wheeltap.recipes.fit import Fit
from wheeltap.recipes.make import ArtifactMaker
from wheeltap.recipes.together import make_together

GENERATOR = torch.Generator().manual_seed(0)
TASK = Task(torch.rand(72, 16, generator=GENERATOR), torch.randint(0, 4, (72,), generator=GENERATOR), name="to learn")
SMALL: dict[str, Any] = {"hidden": "16,32", "epochs": 5, "batch": 16}


def alike() -> bool:
    """Whether this machine takes the sums of a batched product in the order of a single one."""
    weight, rows = torch.rand(5, 32, 16, generator=GENERATOR), torch.rand(5, 16, 16, generator=GENERATOR)
    out = torch.rand(5, 16, 32, generator=GENERATOR)
    pairs = [(rows, weight.transpose(1, 2)), (out, weight), (out.transpose(1, 2), rows)]
    return all(torch.equal(torch.bmm(a, b), torch.stack([*map(torch.mm, a, b)])) for a, b in pairs)


together = pytest.mark.skipif(not alike(), reason="products of a batch have other bits on this machine")


def makers(folder: Path, how: dict[str, Any], *, of: range) -> list[ArtifactMaker]:
    asked = [spec("classifier", {**SMALL, **how}, seed=seed, data=TASK.digest) for seed in of]
    return [ArtifactMaker(Given(one, (), TASK), recipe_of(one), Artifacts(folder)) for one in asked]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def alone(folder: Path, how: dict[str, Any], *, of: range) -> dict[str, bytes]:
    for one in makers(folder, how, of=of):
        one.artifact()
    return files(folder)


def contents(folder: Path) -> dict[str, dict[str, bytes]]:
    """Of every file but the mark, which is of its path."""
    from safetensors.numpy import load

    return {name: {key: array.tobytes() for key, array in load(data).items()} for name, data in files(folder).items()}


@together
@pytest.mark.parametrize(
    "how",
    [
        {"activation": "gelu", "optimizer": "adamw", "decay": 0.1, "schedule": "cosine"},
        {"activation": "tanh", "optimizer": "sgd", "momentum": 0.9, "batch": 72},
    ],
)
def test_a_net_has_the_same_bits_in_every_batch(tmp_path: Path, how: dict[str, Any]) -> None:
    alone(tmp_path / "alone", how, of=range(7))
    for parts in ((7,), (3, 4)):
        folder, begin = tmp_path / str(parts), 0
        for size in parts:
            make_together(makers(folder, how, of=range(begin, begin + size)), Artifacts(folder))
            begin += size
        assert len(files(folder)) == 7
        assert contents(folder) == contents(tmp_path / "alone")


class BrokenOff(Exception):
    pass


@together
def test_broken_off_it_goes_on_alone_or_together_to_the_same_bits(tmp_path: Path) -> None:
    alone(tmp_path / "alone", {}, of=range(4))

    def watch(step: int, steps: int) -> None:
        if step > 7:
            raise BrokenOff

    for then in ("alone", "together", "some"):
        folder = tmp_path / f"then {then}"
        with pytest.raises(BrokenOff):
            make_together(makers(folder, {}, of=range(4)), Artifacts(folder), watch=watch)
        assert len(list(folder.glob("*.state.safetensors"))) == 4
        if then == "some":  # one is at its end, the others are where they were
            makers(folder, {}, of=range(1))[0].artifact()
        if then != "alone":
            make_together(makers(folder, {}, of=range(4)), Artifacts(folder))
            assert len(files(folder)) == 4
        assert alone(folder, {}, of=range(4)).keys() == files(tmp_path / "alone").keys()
        assert contents(folder) == contents(tmp_path / "alone")


@together
def test_a_state_within_a_batch_is_that_of_the_net_alone(tmp_path: Path) -> None:
    """Kept at a step in the middle of an epoch, and at the end of one."""
    for stop in (7, 10):
        folder = tmp_path / str(stop)

        def watch(step: int, steps: int, stop: int = stop) -> None:
            if step >= stop:
                raise BrokenOff

        several = makers(folder, {}, of=range(3))
        with pytest.raises(BrokenOff):
            make_together(several, Artifacts(folder), watch=watch)
        for one in several:
            state = one.recipe.start(one.given)
            kept = Artifacts(folder).load_state(one.given.spec, like=state.arrays())
            assert kept is not None
            state.advance(int(kept.note["step"]))
            assert ArtifactFile(state.arrays(), state.note()).whole == kept.whole


@pytest.mark.parametrize("how", [{"dropout": 0.5}, {"net": "cnn"}])
def test_what_cannot_be_stacked_is_left_to_be_made_alone(tmp_path: Path, how: dict[str, Any]) -> None:
    make_together(makers(tmp_path, how, of=range(3)), Artifacts(tmp_path))
    assert not files(tmp_path)


def test_a_batch_in_which_one_diverges_is_made_alone(tmp_path: Path) -> None:
    how = {"rate": 1e30, "optimizer": "sgd"}
    make_together(makers(tmp_path, how, of=range(3)), Artifacts(tmp_path))
    assert not files(tmp_path)
    assert makers(tmp_path, how, of=range(1))[0].artifact().status == "diverged"


@together
def test_a_net_that_diverges_says_nothing_of_the_others_of_its_batch(tmp_path: Path) -> None:
    # Weights that grow by the same factor at each step: after the steps that prove the batch, and not all at once.
    how = {"rate": 1e-3, "decay": 2080.0, "optimizer": "sgd", "schedule": "constant", "epochs": 16}

    def watch(step: int, steps: int) -> None:
        if step == steps:  # the batch has diverged just now
            raise BrokenOff

    with pytest.raises(BrokenOff):
        make_together(makers(tmp_path / "batch", how, of=range(4)), Artifacts(tmp_path / "batch"), watch=watch)
    several = makers(tmp_path / "batch", how, of=range(4))
    assert [one.artifact().status for one in several] == ["diverged", "done", "done", "done"]
    alone(tmp_path / "alone", how, of=range(4))
    assert contents(tmp_path / "batch") == contents(tmp_path / "alone")


@final
class OtherLoss(ClassifierNet):
    """Says that its loss is plain cross-entropy, which it is not."""

    name = "other-loss"

    def start(self, given: Given) -> Fit:
        model, task = self.blank(given), self.lesson(given)
        inputs, targets = task.inputs, task.targets
        assert isinstance(inputs, Tensor)

        def loss(rows: Tensor, step: int) -> Tensor:
            return functional.cross_entropy(model(inputs[rows]), targets[rows], label_smoothing=1e-4)

        return Fit(model, loss, examples=72, settings=self.settings.training(given.spec.seed), lesson=(inputs, targets))


def test_a_batch_without_the_bits_of_its_nets_alone_is_not_kept(tmp_path: Path) -> None:
    asked = [specified(OtherLoss, SMALL, seed=seed, data=TASK.digest) for seed in range(3)]
    several = [ArtifactMaker(Given(one, (), TASK), OtherLoss(dict(one.settings)), Artifacts(tmp_path)) for one in asked]
    make_together(several, Artifacts(tmp_path))
    assert not files(tmp_path)
