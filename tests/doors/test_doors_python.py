"""The Python door: bare modules, tensors, arrays, data sets and loaders; and the messages of what cannot be used."""

import inspect
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
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

import wheeltap as wt
from wheeltap.core.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.core.task import Task
from wheeltap.runs import examples
from wheeltap.runs.given import subjects_of, task_of
from wheeltap.runs.request import audits_of

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
        [INPUTS, TARGETS],
        (INPUTS.numpy(), TARGETS.numpy()),
        (INPUTS, TARGETS.tolist()),
        (INPUTS.tolist(), TARGETS.tolist()),
        {"inputs": INPUTS, "targets": TARGETS},
        Task(INPUTS, TARGETS),
        TensorDataset(INPUTS, TARGETS),
        Pairs(),
        Stream(),
        [(x, int(y)) for x, y in zip(INPUTS, TARGETS, strict=True)],
        [{"inputs": x, "label": y} for x, y in zip(INPUTS, TARGETS, strict=True)],
        DataLoader(Pairs(), batch_size=7),
        DataLoader(Pairs(), batch_size=7, shuffle=True),
        DataLoader(Pairs(), batch_size=7, shuffle=True, num_workers=1),
        DataLoader(Pairs(), batch_sampler=BatchSampler(SequentialSampler(Pairs()), 7, drop_last=False)),
        DataLoader(Pairs(), sampler=list(range(50))),
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


def test_a_loader_may_collate_itself_and_drop_its_last_batch() -> None:
    def collate(rows: list[Any]) -> dict[str, Tensor]:
        return {name: torch.tensor([row[name] for row in rows]) for name in ("input", "label")}

    loader = DataLoader(Named(), batch_size=8, shuffle=True, collate_fn=collate)
    assert task_of(loader).digest == Task({"input": INPUTS}, TARGETS).digest
    assert len(task_of(DataLoader(Pairs(), batch_size=7, drop_last=True)).targets) == 49
    assert len(task_of(Subset(Pairs(), [3, 1])).targets) == 2


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
    drawing = [(DataLoader(Pairs(), sampler=one), type(one).__name__) for one in samplers]
    own = DataLoader(Pairs(), batch_sampler=BatchSampler(RandomSampler(Pairs()), 7, False))
    for loader, got in (*drawing, (own, "BatchSampler")):
        with pytest.raises(DataError) as caught:
            task_of(loader)
        assert "draws other examples each time" in str(caught.value) and f"its {got} that differ" in str(caught.value)
        assert "torch.utils.data.Subset" in str(caught.value)
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
        ([], "empty"),
        (DataLoader(Pairs(length=0)), "empty"),
        (Pairs(length=100_001), "at most 100,000"),
        (DataLoader(Pairs(length=100_001), batch_size=500), "Subset(dataset, range(2000))"),
        (Odd((torch.zeros(5), 0)), "differ in shape"),
        (Odd((torch.zeros(4), [0, 1])), "differ in shape"),
        (Odd(({"x": torch.zeros(4)}, 0)), "inputs are not numbers"),
        (Odd((torch.zeros(4), 0, 1)), "3 parts: Tensor, int, int"),
        (Odd(torch.zeros(4)), "no inputs and targets"),
        (Odd((torch.zeros(4), "cat")), "targets are not numbers"),
        (Odd(KeyError("gone")), "KeyError: 'gone'"),
        (DataLoader([(INPUTS[:3], TARGETS[:3]), (INPUTS[:3, :2], TARGETS[:3])], batch_size=None), "from example 3 on"),
        (DataLoader(Pairs(), batch_size=None), "a single number"),
        ([{"input": [1.0]}], "a mapping with input"),
        ([{"input": [1.0], "label": 0, "targets": 1}], "a mapping with input, label, targets"),
        ([((INPUTS[0], INPUTS[1]), 0)], "a dict of the model's argument names"),
        ([({"a": [1.0]}, 0), ({"b": [1.0]}, 0)], "names of inputs"),
        ({"input_ids": INPUTS}, "a mapping with input_ids"),
        (3, "These are no examples"),
        ("digits", "These are no examples"),
        (net(), "These are no examples"),
        ([(x, float(y)) for x, y in zip(INPUTS, TARGETS, strict=True)], "reshape(-1, 1)"),  # whole numbers as floats
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
    assert names(wt.compare(net(), net(1), data, audits="score")) == ["Sequential", "Sequential-2"]
    assert names(wt.compare(net(), net(1), data, audits="score", names=("before", "after"))) == ["before", "after"]
    mixed = subjects_of([wt.Subject(net(), name="Sequential"), net(), net()])
    assert [subject.name for subject in mixed] == ["Sequential", "Sequential-2", "Sequential-3"]


def test_any_number_of_models_is_compared_with_the_first() -> None:
    report = wt.compare(net(), net(1), net(2), (INPUTS, TARGETS), audits="score")
    pairs = [finding.subject for finding in report["WT001"] if " vs " in finding.subject]
    assert pairs == ["Sequential vs Sequential-2", "Sequential vs Sequential-3"]
    named = wt.compare(net(), net(1), net(2), task=(INPUTS, TARGETS), audits="score")
    assert named.findings == report.findings
    for few in ((), (net(), (INPUTS, TARGETS))):
        with pytest.raises(UsageError, match="two models or more, and the examples"):
            wt.compare(*few)


def test_a_door_shows_what_it_passes_on() -> None:
    shown, plan = inspect.signature(wt.compare).parameters, inspect.signature(wt.plan).parameters
    assert {"audits", "schemes", "margin", "store", "workers"} <= shown.keys() >= {"models", "task", "names"}
    assert shown["alpha"] == plan["alpha"] and "    margin: Smallest loss of score" in (wt.audit.__doc__ or "")


def test_schemes_join_an_audit_of_deployment_that_is_named_with_settings() -> None:
    for asked in (["score", "deployment"], [wt.AuditSpec("score"), wt.AuditSpec("deployment", {"draws": 4})]):
        plan = wt.plan(net(), (INPUTS, TARGETS), audits=asked, schemes="nf4")
        assert [one.name for one in plan.audits] == ["score", "deployment", "census"]
        own = {"draws": 4} if isinstance(asked[1], wt.AuditSpec) else {}
        assert plan.audits[1].settings == {**own, "schemes": "nf4"}


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
        (lambda: subjects_of([net(), net()], names=("b",)), UsageError, "2 names"),
        (lambda: subjects_of([lambda x: x]), ModelError, "not a torch module"),
        (lambda: wt.compare(net(), net(1), (INPUTS, TARGETS), names=("a", "a")), UsageError, "different names"),
    ],
)
def test_models_that_cannot_be_used(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


# ---- audits and numbers ----------------------------------------------------------------------------------------


def test_one_audit_may_stand_by_itself() -> None:
    spec = wt.AuditSpec("score")
    keys = {wt.plan(net(), (INPUTS, TARGETS), audits=given).key for given in ("score", ["score"], spec, (spec,))}
    assert len(keys) == 1
    assert audits_of(None) == [] and audits_of(()) == []


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"audits": "scroe"}, UnknownName, "Did you mean 'score'?"),
        ({"audits": [3]}, UsageError, "wt.AuditSpec"),
        ({"audits": {"score": 1}.items()}, UsageError, "names no audit"),
        ({"alpha": float("nan")}, UsageError, "above 0, and at most 0.5"),
        ({"alpha": 0}, UsageError, "got: 0"),
        ({"alpha": 1.0}, UsageError, "got: 1.0"),
        ({"alpha": ".05"}, UsageError, "got: '.05'"),
        ({"alpha": None}, UsageError, "got: None"),
        ({"seed": "a"}, UsageError, "a whole number"),
        ({"seed": 0.5}, UsageError, "got: 0.5"),
        ({"seed": None}, UsageError, "got: None"),
        ({"effort": 3}, UsageError, "wt.Effort(draws=8)"),
    ],
)
def test_arguments_that_cannot_be_used(settings: dict[str, Any], error: type[Exception], words: str) -> None:
    for door in (wt.audit, wt.plan):
        with pytest.raises(error) as caught:
            door(net(), (INPUTS, TARGETS), **settings)
        assert words in str(caught.value)


def test_arguments_of_a_run_that_cannot_be_used() -> None:
    for name, wrong, words in (
        ("workers", 0, "workers=1"), ("workers", "2", "workers=1"), ("memory", "4GB", "4_000_000_000 is 4 GB"),
        ("memory", 0.5, "4_000_000_000"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=f"(?s)a whole number from 1 on.*{words}"):
            wt.audit(net(), (INPUTS, TARGETS), audits="score", **{name: wrong})


def test_a_name_is_a_text_and_one_example_is_one_example() -> None:
    name: Any = 3
    for door in (wt.Subject, lambda made, name: wt.audit(made, (INPUTS, TARGETS), audits="score", name=name)):
        with pytest.raises(UsageError, match="The argument name is a text"):
            door(net(), name=name)
    report = wt.audit(net(), (INPUTS[:1], TARGETS[:1]), audits="score")
    said = report.markdown() + report.headline + report.findings[0].because
    assert "1 example " in said and "1 examples" not in said


def test_numbers_of_numpy_are_numbers() -> None:
    given = (INPUTS, TARGETS)
    plan = wt.plan(net(), given, audits="score", seed=np.int64(3), alpha=np.float32(0.25))
    assert plan.key == wt.plan(net(), given, audits="score", seed=3, alpha=0.25).key
    assert type(plan.seed) is int and type(plan.alpha) is float
