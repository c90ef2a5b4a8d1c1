"""Tasks of arrays, of named inputs and for models in other precisions; what is refused; how long models read."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from task_nets import Reader, numbers, seeded
from torch import Tensor, nn
from twins import Wired

import wheeltap as wt
from wheeltap.core import inputs
from wheeltap.core.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.core.task import Task

EFFORT = wt.Effort(draws=4, control_draws=4, block_draws=0)


class Gated(nn.Module):
    """Two inputs by name; answers as Hugging Face models do."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 24), nn.Linear(24, 3)

    def forward(self, features: Tensor, mask: Tensor) -> Any:
        return SimpleNamespace(logits=self.two(torch.relu(self.one(features * mask))))


# ---- arrays and names ------------------------------------------------------------------------------------------


def test_arrays_make_the_task_that_their_tensors_make_and_digests_see_every_name() -> None:
    inputs, targets = numbers(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    more = Task(inputs, targets, more=inputs[:2])
    assert Task(inputs.numpy(), targets.numpy(), more=inputs[:2].numpy()).digest == more.digest
    assert Task(inputs.numpy().astype(">f4"), targets.tolist()).digest == Task(inputs, targets).digest
    given = {"features": inputs, "mask": torch.ones(6, 4)}
    assert Task(dict(reversed(given.items())), targets).digest == Task(given, targets).digest
    others = [
        Task(given, targets),
        Task({**given, "mask": torch.zeros(6, 4)}, targets),
        Task({"features": inputs}, targets),
        Task({"other": inputs, "mask": torch.ones(6, 4)}, targets),
        Task(inputs, targets),
        Task(given, targets, more=given),
    ]
    assert len({task.digest for task in others}) == 6


def test_named_inputs_are_the_models_arguments_in_an_audit_that_measures_moments_too() -> None:
    model, features = seeded(Gated), numbers(120, 4)
    mask = (numbers(120, 4, seed=1) > 0).float()
    scores = model(features, mask).logits.detach()
    task = Task({"features": features, "mask": mask.numpy()}, scores.argmax(1), batch=7)
    torch.testing.assert_close(task.scores(model), scores)
    assert task.tokens == 120
    torch.testing.assert_close(task.part(torch.arange(0, 120, 2)).scores(model), scores[::2])
    report = wt.audit(model, task, audits=["score", "function-noise", "quantization"], effort=EFFORT)
    assert {finding.status for finding in report.findings} <= {"found", "excluded", "inconclusive", "measured"}
    assert report["WT001"][0].estimates[0].value == 1.0


def test_inputs_that_are_no_examples() -> None:
    cases: tuple[tuple[Any, str], ...] = (
        ({}, "no inputs"),
        ({"a": torch.ones(6, 1), "b": torch.ones(5, 1)}, "a: 6, b: 5"),
        ({"a": torch.tensor([[0.0]] * 5 + [[float("nan")]])}, "inputs a are not all finite"),
        ([[1.0, 2.0], [3.0]], "inputs are not numbers"),
    )
    for given, message in cases:
        with pytest.raises(DataError) as caught:
            Task(given, torch.zeros(6, dtype=torch.long))
        assert message in str(caught.value)
    given = {"a": torch.ones(2, 3), "b": torch.ones(2, 1)}
    with pytest.raises(DataError, match=r"expected: a \[row, 3\], b \[row, 1\]\n  got: a \[row, 3\]"):
        Task(given, torch.tensor([0, 1]), more={"a": torch.ones(4, 3)})


# ---- precision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_inputs_take_the_models_precision(dtype: torch.dtype) -> None:
    model, inputs = seeded(lambda: nn.Linear(4, 3)).to(dtype), numbers(5, 4)
    task = Task(inputs, torch.tensor([0, 1, 2, 0, 1]))
    torch.testing.assert_close(task.scores(model), model(inputs.to(dtype)).detach().float())
    assert task.inputs.dtype is torch.float32


def test_a_model_of_mixed_precision_is_given_what_it_has_and_one_in_single_precision_no_doubles() -> None:
    def made() -> nn.Module:  # half precision first, but what reads the inputs is in single precision
        late, early = nn.Linear(8, 3).bfloat16(), nn.Linear(4, 8)
        return Wired(lambda net, x: net.late(net.early(x).bfloat16()), late=late, early=early)

    mixed, single, inputs = seeded(made), seeded(lambda: nn.Linear(4, 3)), numbers(5, 4)
    for model, given in ((mixed, inputs), (single, inputs.numpy().astype("float64"))):
        task = Task(given, torch.tensor([0, 1, 2, 0, 1]))
        torch.testing.assert_close(task.scores(model), model(inputs).detach().float())


def test_a_model_may_write_into_its_inputs() -> None:
    class Writing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            x.mul_(0.0)
            return self.out(x)

    inputs = numbers(5, 4)
    task, before = Task(inputs, torch.tensor([0, 1, 2, 0, 1])), inputs.clone()
    task.scores(seeded(Writing))
    next(iter(task.moments())).run(seeded(Writing))
    assert torch.equal(inputs, before)


# ---- targets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bool])
def test_one_hot_rows_are_refused(dtype: torch.dtype) -> None:
    targets = torch.eye(3)[torch.tensor([0, 1, 2, 0])].to(dtype)
    for measure in (None, "nll"):
        with pytest.raises(DataError, match=r"one-hot(.|\n)*targets\.argmax\(1\)"):
            Task(torch.zeros(4, 2), targets, measure=measure)


def test_one_number_per_example_is_a_column_where_numbers_are_wanted() -> None:
    class Flat(nn.Linear):
        def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's own name
            return super().forward(input)[:, 0]

    model, rows = seeded(lambda: Flat(2, 1)), numbers(4, 2)
    for targets in (torch.zeros(4), torch.zeros(4, 1)):
        assert Task(rows, targets).targets.shape == (4, 1)
        assert torch.equal(Task(rows, targets).scores(model), model(rows)[:, None])
    with pytest.raises(ModelError, match=r"output\.reshape\(-1, 1\)"):
        Task(rows, torch.tensor([0, 1, 0, 1])).scores(model)


# ---- measures and groups ---------------------------------------------------------------------------------------


class Powered(wt.measure.Measure):
    name = "powered"

    def __init__(self, power: float) -> None:
        self.power = power

    def __call__(self, scores: Tensor, targets: Tensor, clean: Tensor) -> Tensor:
        return scores[:, 0] ** self.power


def test_measures_that_cannot_be_used() -> None:
    cases: tuple[tuple[Any, type[Exception], str], ...] = (
        ("nil", UnknownName, "Did you mean 'nll'?"),
        (Powered, UsageError, "the class Powered: "),
        ("squared_error", UsageError, "whole numbers as targets"),
    )
    for given, error, words in cases:
        with pytest.raises(error) as caught:
            Task(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1]), measure=given, name="mine")
        assert words in str(caught.value)
    with pytest.raises(UsageError):
        wt.measure.named(3, where="mine")


def test_groups_may_be_names_and_lie_in_groups() -> None:
    task = Task(torch.zeros(6, 2), torch.tensor([0, 1] * 3))
    assert task.with_groups(np.array([3, 4, 4] * 2)).digest == task.with_groups([3, 4, 4] * 2).digest
    named = task.with_groups(["b", "b", "a", "a", "c", "c"]).clusters
    assert named is not None and named.tolist() == [0, 0, 1, 1, 2, 2]
    nested = task.with_groups([["d", "p"], ["d", "q"], ["e", "r"], ["e", "r"], ["e", "s"], ["d", "p"]]).clusters
    assert nested is not None and len({int(one) for one in nested[[0, 1, 5]]}) == 1 and len(nested.unique()) == 2
    crossed = [[0, 0], [0, 1], [0, 2], [1, 2], [1, 3], [1, 4]]
    for groups, words in ((crossed, "not nested"), (["a"] * 5, "do not fit"), ([None] * 6, "not numbers")):
        with pytest.raises(DataError, match=words):
            task.with_groups(groups)
    # Groups that are the right options are kinds.
    task = Task(torch.randn(6, 2), torch.tensor([0, 1, 2] * 2))
    assert task.with_groups([7, 3, 5] * 2).clusters is None
    assert task.with_groups([0, 0, 0, 1, 1, 1]).clusters is not None


def ids(*rows: int, width: int) -> Tensor:
    return torch.ones(len(rows), width, dtype=torch.long) * torch.tensor(rows)[:, None]


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        (lambda: Reader(6), 6),
        (lambda: Reader(6, table="relative_position_embedding"), None),
        (lambda: Reader(6, max_position_embeddings=4), 4),
        (lambda: Reader(6, max_position_embeddings=40), 6),
        (lambda: Reader(6, table="tags", text_config=SimpleNamespace(max_position_embeddings=3)), 3),
        (lambda: Reader(6, table="tags", max_position_embeddings=8, rope_scaling={"factor": 4.0}), 32),
        (lambda: nn.Linear(2, 2), None),
    ],
)
def test_how_long_a_model_reads(model: Callable[[], nn.Module], tokens: int | None) -> None:
    found = inputs.longest(seeded(model))
    assert (found[0] if found else None) == tokens


def test_an_example_that_is_too_long_is_named() -> None:
    model = seeded(lambda: Reader(6))
    mask = torch.tensor([[1] * 4 + [0] * 4, [1] * 8, [1] * 7 + [0]])
    task = Task({"input_ids": ids(1, 2, 3, width=8), "attention_mask": mask}, torch.tensor([0, 1, 2]), name="mine")
    with pytest.raises(DataError) as caught:
        wt.audit(model, task, audits="score")
    text = str(caught.value)
    assert "mine: example 1" in text and "at most 6 tokens (wpe" in text and "8 tokens; 2 of 3" in text
    Task(ids(1, 2, 3, width=6), torch.tensor([0, 1, 2])).require_readable(model)
    Task(numbers(3, 9), torch.tensor([0, 1, 2])).require_readable(model)
