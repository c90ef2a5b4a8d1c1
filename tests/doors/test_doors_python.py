"""The Python door: bare modules, tensors, arrays, data sets and loaders; and the messages of what cannot be used."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import wheeltap as wt
from wheeltap.core.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.core.task import Task
from wheeltap.runs.given import subjects_of
from wheeltap.sources import examples
from wheeltap.sources.examples import task_of

INPUTS = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


with torch.no_grad():
    TARGETS = net()(INPUTS).argmax(1)
DIGEST = Task(INPUTS, TARGETS).digest


class Pairs(Dataset[Any]):
    """Examples one by one; may be noisy."""

    def __init__(self, *, noise: float = 0.0, length: int = 50) -> None:
        self.noise, self.length = noise, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        return INPUTS[at] + self.noise * torch.randn(4), int(TARGETS[at])


class Named(Pairs):
    """Examples as mappings, as the data sets of Hugging Face give them."""

    def __getitem__(self, at: int) -> Any:
        return {"input": INPUTS[at].tolist(), "label": int(TARGETS[at])}


class Stream(IterableDataset[Any]):
    """Examples without numbers."""

    def __iter__(self) -> Iterator[Any]:
        return iter(zip(INPUTS, TARGETS, strict=True))


# ---- examples --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        (INPUTS, TARGETS),
        (INPUTS.numpy(), TARGETS.numpy()),
        (INPUTS, TARGETS.tolist()),
        {"inputs": INPUTS, "targets": TARGETS},
        TensorDataset(INPUTS, TARGETS),
        Pairs(),
        Stream(),
        [{"inputs": x, "label": y} for x, y in zip(INPUTS, TARGETS, strict=True)],
        DataLoader(Pairs(), batch_size=7, shuffle=True, num_workers=1),
        DataLoader(Pairs(), batch_sampler=BatchSampler(SequentialSampler(Pairs()), 7, drop_last=False)),
        DataLoader(Stream(), batch_size=9),
        DataLoader([(INPUTS, TARGETS)], batch_size=None),
    ],
)
def test_whatever_holds_the_examples_makes_the_same_task(given: Any) -> None:
    task = task_of(given)
    assert task.digest == DIGEST
    assert wt.plan(net(), given, audits="score").task.digest == DIGEST


def test_named_inputs_reach_the_model_by_name() -> None:
    class Model(nn.Sequential):
        def forward(self, input: Tensor) -> Any:  # noqa: A002 - torch's own name
            return {"logits": super().forward(input)}

    model = Model(*net()).eval()
    by_hand = Task({"input": INPUTS}, TARGETS)
    for given in (({"input": INPUTS}, TARGETS), {"input": INPUTS, "labels": TARGETS}, Named()):
        assert task_of(given).digest == by_hand.digest
        assert wt.audit(model, given, audits="score")["WT001"][0].estimates[0].value == 1.0


def test_reading_leaves_every_random_number_as_it_was() -> None:
    own = torch.Generator().manual_seed(3)
    loader = DataLoader(Pairs(), batch_size=7, shuffle=True, generator=own)
    before = torch.get_rng_state(), own.get_state()
    task_of(loader)
    task_of(Pairs())
    with pytest.raises(DataError):
        task_of(DataLoader(Pairs(), sampler=SubsetRandomSampler(range(30), generator=own)))
    assert torch.equal(before[0], torch.get_rng_state()) and torch.equal(before[1], own.get_state())


def test_a_loader_that_draws_its_examples_or_augments_them_at_random_is_refused() -> None:
    samplers: tuple[Any, ...] = (
        SubsetRandomSampler(range(30)), WeightedRandomSampler([1.0] * 50, 50), RandomSampler(Pairs(), replacement=True),
        RandomSampler(Pairs(), num_samples=20),
    )  # fmt: skip
    own = DataLoader(Pairs(), batch_sampler=BatchSampler(RandomSampler(Pairs()), 7, False))
    for loader in (*(DataLoader(Pairs(), sampler=one) for one in samplers), own):
        with pytest.raises(DataError, match="draws other examples each time"):
            task_of(loader)
    for given in (Pairs(noise=0.1), DataLoader(Pairs(noise=0.1), batch_size=7, shuffle=True)):
        with pytest.raises(DataError, match=r"differ from one reading to the next(.|\n)*augmentation"):
            task_of(given)


class Odd(Pairs):
    """Gives an example of its own kind at number 3."""

    def __init__(self, odd: Any, *, length: int = 6) -> None:
        super().__init__(length=length)
        self.odd = odd

    def __getitem__(self, at: int) -> Any:
        if at == 3 and isinstance(self.odd, Exception):
            raise self.odd
        return self.odd if at == 3 else super().__getitem__(at)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (Pairs(length=0), "empty"),
        (DataLoader(Pairs(length=100_001), batch_size=500), "Subset(dataset, range(2000))"),
        (Odd((torch.zeros(5), 0)), "differ in shape"),
        (Odd((torch.zeros(4), "cat")), "targets are not numbers"),
        (Odd(KeyError("gone")), "KeyError: 'gone'"),
        (DataLoader([(INPUTS[:3], TARGETS[:3]), (INPUTS[:3, :2], TARGETS[:3])], batch_size=None), "from example 3 on"),
        ([{"input": [1.0], "label": 0, "targets": 1}], "a mapping with input, label, targets"),
        ([((INPUTS[0], INPUTS[1]), 0)], "a dict of the model's argument names"),
        (3, "These are no examples"),
    ],
)
def test_what_is_no_examples_says_what_would_be(given: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        task_of(given)
    assert words in str(caught.value), str(caught.value)


def test_too_many_bytes_are_refused_before_they_are_read() -> None:
    seen: list[int] = []

    class Watched(Pairs):
        def __getitem__(self, at: int) -> Any:
            seen.append(at)
            return torch.zeros(4), 0

    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            while True:
                yield torch.zeros(4), 0

    for given in (Watched(length=2000), Endless()):
        with pytest.raises(DataError, match="too much memory"):
            examples.read(given, most=5_000)
    assert len(seen) <= 200


# ---- models ----------------------------------------------------------------------------------------------------


def test_a_bare_module_is_a_subject_and_two_are_told_apart() -> None:
    def names(report: wt.Report) -> list[str]:
        return [subject.name for subject in report.record.subjects]

    data = INPUTS, TARGETS
    assert names(wt.audit(net(), data, audits="score")) == ["Sequential"]
    assert names(wt.audit(net(), data, audits="score", name="mine")) == ["mine"]
    kept = wt.Subject(net(), name="own")
    assert subjects_of(kept) == [kept]
    report = wt.compare(net(), net(1), net(2), data, audits="score")
    pairs = [finding.subject for finding in report["WT001"] if " vs " in finding.subject]
    assert pairs == ["Sequential vs Sequential-2", "Sequential vs Sequential-3"]
    for few in ((), (net(), data)):
        with pytest.raises(UsageError, match="two models or more, and the examples"):
            wt.compare(*few)
    assert names(wt.compare(net(), net(1), data, audits="score", names=("before", "after"))) == ["before", "after"]
    mixed = subjects_of([wt.Subject(net(), name="Sequential"), net(), net()])
    assert [subject.name for subject in mixed] == ["Sequential", "Sequential-2", "Sequential-3"]


def test_a_plan_is_run_with_the_same_bare_module(tmp_path: Any) -> None:
    plan = wt.plan([net(), net(1)], (INPUTS, TARGETS), audits="score")
    first = wt.run(plan, [net(), net(1)], (INPUTS, TARGETS), store=tmp_path / "s.wheeltap")
    again = wt.run(plan, [net(), net(1)], DataLoader(Pairs(), batch_size=7), store=tmp_path / "s.wheeltap")
    assert first.findings == again.findings and again.cost.trials == 0


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: subjects_of(net().train()), ModelError, "model.eval()"),
        (lambda: subjects_of("digits"), UsageError, "wt.load('digits')"),
        (lambda: subjects_of(wt.Subject(net(), name="a"), names=("b",)), UsageError, "has a name already"),
        (lambda: wt.compare(net(), net(1), (INPUTS, TARGETS), names=("a", "a")), UsageError, "different names"),
    ],
)
def test_models_that_cannot_be_used(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


# ---- audits and numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"audits": "scroe"}, UnknownName, "Did you mean 'score'?"),
        ({"alpha": float("nan")}, UsageError, "from 1e-06 to 0.5"),
        ({"alpha": ".05"}, UsageError, "got: '.05'"),
        ({"seed": 0.5}, UsageError, "got: 0.5"),
        ({"effort": 3}, UsageError, "wt.Effort(draws=8)"),
    ],
)
def test_arguments_that_cannot_be_used(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    for door in (wt.audit, wt.plan):
        with pytest.raises(error) as caught:
            door(net(), (INPUTS, TARGETS), **settings)
        assert words in str(caught.value)


def test_numbers_of_numpy_are_numbers() -> None:
    given = (INPUTS, TARGETS)
    plan = wt.plan(net(), given, audits="score", seed=np.int64(3), alpha=np.float32(0.25))
    assert plan.key == wt.plan(net(), given, audits="score", seed=3, alpha=0.25).key
    assert type(plan.seed) is int and type(plan.alpha) is float
