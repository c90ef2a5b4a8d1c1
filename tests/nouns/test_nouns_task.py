"""Tasks: examples in a fixed order, scored in batches, refused where they cannot be."""

from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core import measure
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.task import Task, as_scores
from wheeltap.testing.planted import numbers

NAN = float("nan")


class Causal(nn.Module):
    """Token ids to next-token logits; each position sees those before it, the order of them too."""

    def __init__(self, vocabulary: int = 7, width: int = 6) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.mix = nn.RNN(width, width, batch_first=True)
        self.out = nn.Linear(width, vocabulary)
        self.shapes: list[tuple[int, ...]] = []

    def forward(self, ids: Tensor) -> Tensor:
        self.shapes.append(tuple(ids.shape))
        return self.out(self.mix(self.embed(ids))[0])


class Sparing(Causal):
    """The same, but able to leave out all but the last positions, as Hugging Face models are."""

    def forward(self, input_ids: Tensor, logits_to_keep: int = 0, *, use_cache: bool = True) -> Any:
        logits = super().forward(input_ids)
        return SimpleNamespace(logits=logits[:, -logits_to_keep:] if logits_to_keep else logits)


def causal(kind: type[Causal] = Causal) -> Causal:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind().eval()


def slowly(model: nn.Module, task: ChoiceTask) -> Tensor:
    """One forward per item, option and token; log-probabilities summed one by one."""
    table = torch.zeros(len(task.contexts), len(task.choices[0]), dtype=torch.float64)
    for row, (context, options) in enumerate(zip(task.contexts, task.choices, strict=True)):
        for column, option in enumerate(options):
            for k, token in enumerate(option):
                with torch.no_grad():
                    logits = as_scores(model(torch.tensor([[*context, *option[:k]]])))[0, -1]
                table[row, column] += logits.double().log_softmax(-1)[token]
    return table


TOKENS = st.lists(st.integers(0, 6), min_size=1, max_size=4)


@st.composite
def choice_items(draw: Any) -> tuple[list[list[int]], list[list[list[int]]], list[int], int]:
    """Contexts, options, answers, tokens per batch. Made into a task by the test: shape checks use ``random``."""
    options = draw(st.integers(2, 3))
    item = st.tuples(TOKENS, st.lists(TOKENS, min_size=options, max_size=options))
    items = draw(st.lists(item, min_size=1, max_size=6))
    targets = draw(st.lists(st.integers(0, options - 1), min_size=len(items), max_size=len(items)))
    batch = draw(st.sampled_from([1, 9, 1024]))
    return [c for c, _ in items], [o for _, o in items], targets, batch


@pytest.mark.parametrize("kind", [Causal, Sparing])
@given(items=choice_items())
@settings(max_examples=20)
def test_choices_score_as_slowly_computed(kind: type[Causal], items: Any) -> None:
    contexts, options, targets, batch = items
    model, task = causal(kind), ChoiceTask(contexts, options, targets, tokens_per_batch=batch)
    torch.testing.assert_close(task.scores(model).double(), slowly(model, task), atol=1e-5, rtol=1e-5)


def test_a_sequence_that_another_one_starts_with_is_never_run_and_one_token_needs_its_context_alone() -> None:
    task = ChoiceTask([[1, 2], [1, 2], [1, 2, 3]], [[[3, 4, 5], [3]], [[6], [0]], [[4], [5]]], [0, 0, 0])
    assert task.sequences == ((1, 2, 3, 4),)
    model = causal()
    torch.testing.assert_close(task.scores(model).double(), slowly(causal(), task), atol=1e-5, rtol=1e-5)
    assert model.shapes == [(1, 4)]
    task, model = ChoiceTask([[1, 2], [3, 4]], [[[1], [2], [3]], [[4], [5], [6]]], [0, 2]), causal()
    assert task.scores(model).shape == (2, 3) and model.shapes == [(2, 2)]


class Peeking(Causal):
    """Adds to every position what the whole sequence says: not causal."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        scores = super().forward(ids)
        return scores + scores.mean(1, keepdim=True)


def test_a_model_that_reads_ahead_is_refused() -> None:
    task = ChoiceTask([[1, 2, 3], [4]], [[[1], [2]], [[3], [4]]], [0, 1])
    task.require_readable(causal())
    with pytest.raises(ModelError, match="reads ahead"):
        task.require_readable(causal(Peeking))
    with pytest.raises(ModelError, match="reads ahead"):
        wt.audit(wt.Subject(causal(Peeking)), task, audits=["score"])


def test_batches_hold_like_lengths_and_stay_within_their_bound() -> None:
    contexts = [[k, *([0] * (k % 4))] for k in range(7)]
    task = ChoiceTask(contexts, [[[1], [2]]] * 7, [0] * 7, tokens_per_batch=6)
    model = causal()
    task.scores(model)
    assert all(rows == 1 or rows * length <= 6 for rows, length in model.shapes)
    assert sum(rows for rows, _ in model.shapes) == 7


def test_a_choice_digest_sees_all_that_is_scored() -> None:
    def digest(
        contexts: Any = ((1, 2), (3,)), choices: Any = (((1,), (2,)), ((3,), (4,))), targets: Any = (0, 1), **more: Any
    ) -> str:
        return ChoiceTask(contexts, choices, targets, **more).digest

    same = {digest(), digest(name="other"), digest(tokens_per_batch=1), digest(contexts=[[1, 2], [3]])}
    others = {
        digest(contexts=((1, 2), (4,))),
        digest(contexts=((1,), (2, 3))),
        digest(choices=(((1,), (2,)), ((4,), (3,)))),
        digest(targets=(1, 1)),
        digest(more=[[1]]),
        digest(contexts=((3,), (1, 2)), choices=(((3,), (4,)), ((1,), (2,))), targets=(1, 0)),
    }
    assert (len(same), len(others)) == (1, 6) and not same & others


def test_digests_with_groups_are_those_of_stores_written_before() -> None:
    inputs, targets, groups = torch.arange(12.0).reshape(6, 2), torch.tensor([0, 1, 2] * 2), [5, 5, 5, 7, 7, 7]
    factors = {"b": targets.flip(0), "a": targets}
    rows = Task(inputs, targets, more=inputs[:1] + 1).with_behaviors(groups)
    assert rows.digest == "7cce23596819e701a791756d45eacddc"
    assert rows.with_factors(factors).digest == "957faa59d06d723195057e6d8475c05b"
    contexts, choices = [[1, 2], [3], [4], [5, 6], [7], [8]], [[[1], [2, 3]]] * 6
    items = ChoiceTask(contexts, choices, [0, 1] * 3, more=[[1, 9], [2]]).with_behaviors(groups)
    assert items.digest == "74ff3827185b00f15f1d4955ec45a398"
    assert items.with_factors(factors).digest == "bfc87854f50f6b534590a28312f4b2df"


ITEMS: list[tuple[Any, Any, Any, str]] = [
    ([], [], [], "The task is empty"),
    ([[1]], [[[1], [2]]], [], "1 choices, 0 answers"),
    ([[1], []], [[[1], [2]]] * 2, [0, 0], "item 1\n"),
    ([[1]], [[[1]]], [0], "options of [1] tokens"),
    ([[1], [1]], [[[1], [2]], [[1], [2], [3]]], [0, 0], "item 1\n"),
    ([[1], [1]], [[[1], [2]]] * 2, [0, 2], "example 1\n"),
]


def test_items_that_cannot_be_scored() -> None:
    for contexts, choices, targets, message in ITEMS:
        with pytest.raises(DataError) as caught:
            ChoiceTask(contexts, choices, targets, name="mine")
        assert message in str(caught.value) and "mine" in str(caught.value)


# Tasks of examples.


def test_a_digest_sees_inputs_targets_order_and_measure() -> None:
    inputs, targets = numbers(6, 4, seed=0), torch.arange(6) % 3
    same = {Task(inputs, targets).digest, Task(inputs.clone(), targets.int(), name="b", batch=2).digest}
    touched = inputs.clone()
    touched[5, 3] += 1e-9
    others = {
        Task(inputs.flip(0), targets.flip(0)).digest,
        Task(touched, targets).digest,
        Task(inputs.float(), targets).digest,
        Task(inputs.bfloat16(), targets).digest,
        Task(inputs.bfloat16().view(torch.int16), targets).digest,
        Task(inputs.reshape(6, 2, 2), targets).digest,
        Task(inputs, (targets + 1) % 3).digest,
        Task(inputs, targets, measure=measure.nll).digest,
        Task(inputs, targets, more=inputs[:1]).digest,
    }
    assert (len(same), len(others)) == (1, 9) and not same & others


TWO = torch.tensor([0, 0])
EXAMPLES: list[tuple[Tensor, Tensor, Tensor | None, str]] = [
    (torch.zeros(0, 3), torch.zeros(0, dtype=torch.long), None, "The task is empty"),
    (torch.tensor(1.0), torch.tensor(1), None, "The task is empty"),
    (torch.zeros(3, 2), TWO, None, "3 targets, one per input"),
    (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.long), None, "int64 [3, 1]"),
    (torch.tensor([[0.0], [NAN]]), TWO, None, "task: example 1"),
    (torch.zeros(2, 1), torch.tensor([[0.0], [float("inf")]]), None, "targets are not all finite"),
    (torch.zeros(2, 1), TWO, torch.tensor([[NAN]]), "further inputs are not"),
    (torch.zeros(2, 1), TWO, torch.zeros(4, 2), "[row, 1]"),
]


def test_examples_that_cannot_be_used() -> None:
    for inputs, targets, more, message in EXAMPLES:
        with pytest.raises(DataError) as caught:
            Task(inputs, targets, more=more)
        assert message in str(caught.value)


def test_targets_that_the_model_does_not_offer_and_outputs_that_are_no_scores() -> None:
    model, rows = nn.Linear(2, 2).eval(), torch.zeros(3, 2)
    for targets, match in (
        (torch.tensor([0, 1, 2]), "from 0 to 1"),
        (torch.zeros(3, 1), r"expected: \[3, 2\]\n  got: \[3, 1\]"),
        (torch.tensor([0, 1, -1]), "got: -1"),
    ):
        with pytest.raises(DataError, match=match):
            Task(rows, targets).scores(model)
    with pytest.raises(ModelError, match=r"\[3, options\]"):
        Task(rows, torch.tensor([0, 1, 0])).scores(nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (2, 2))).eval())


@dataclass
class Answer:
    out: Tensor
    aux: Tensor


def test_scores_are_found_in_whatever_a_model_returns() -> None:
    scores = torch.zeros(2, 3)
    hidden, loss = torch.zeros(5, 2, 4), torch.tensor(0.3)
    named = namedtuple("named", "loss out")(loss, scores)
    for output in (
        scores, (scores, None), (loss, scores), (hidden, scores), [scores], named,
        {"logits": scores, "hidden": scores * 2}, {"anything": scores}, {"scores": scores, "out": scores * 2},
        SimpleNamespace(logits=scores), Answer(scores, scores * 2),
        {"ids": torch.zeros(2, dtype=torch.long), "y": scores},
    ):  # fmt: skip
        assert as_scores(output, examples=2) is scores
    for output in (None, (), (None, loss), {"scores": loss.tolist()}, SimpleNamespace(logits=None), {"y": hidden}):
        with pytest.raises(ModelError, match="holds no scores"):
            as_scores(output, examples=2)
    for output in ((scores, scores * 2), {"y": scores, "z": scores}):
        with pytest.raises(ModelError, match=r"Which part(.|\n)*\[2, 3\](.|\n)*\[2, 3\](.|\n)*--output"):
            as_scores(output, examples=2)
