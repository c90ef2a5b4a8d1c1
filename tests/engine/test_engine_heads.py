"""Heads ablated in shared passes equal a deep copy whose output weights for that head are zero; else it is refused."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tiny_transformers import TOKENS, VOCABULARY, causal
from torch import Tensor, nn

from benchmarks.nets.tiny_lm import tiny_lm
from wheeltap.core import measure
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.fast.heads import HeadAblation, HeadAddress, first_order, screened
from wheeltap.engine.readings import create
from wheeltap.models.mlp import mlp

FAMILIES = ("GPT2", "Llama", "Mistral", "Qwen2", "Qwen3")


class Wrapped(nn.Module):
    """A language model with one row of scores per example.

    Args:
        lm: The model.
        read: ``last`` place alone, ``mean`` over places, or ``centred``: the last, less the mean of the batch.
    """

    def __init__(self, lm: nn.Module, read: str) -> None:
        super().__init__()
        self.lm, self.read = lm, read

    def forward(self, tokens: Tensor) -> Tensor:
        if self.read == "mean":
            return self.lm(tokens).logits.mean(1)
        scores = self.lm(tokens, logits_to_keep=1).logits[:, -1]
        return scores - scores.mean(0) if self.read == "centred" else scores


def wrapped(family: str, read: str = "last", **settings: Any) -> Subject:
    return Subject(Wrapped(causal(family, **settings), read).eval(), name=family)


def task(*, batch: int = 4, rows: int = 6) -> Task:
    return Task(TOKENS[:rows], TOKENS[:rows, 3] % VOCABULARY, batch=batch, measure=measure.nll)


def without(subject: Subject, head: HeadAddress, of: BaseTask, *, keep: float = 0.0) -> Tensor:
    """Scores of a deep copy in which what a head writes is multiplied by ``keep``."""
    model = copy.deepcopy(subject.model)
    layer: Any = model.get_submodule(head.layer)
    projection = layer.c_proj.weight if type(layer).__name__ == "GPT2Attention" else layer.o_proj.weight.T
    width = len(projection) // layer.config.num_attention_heads
    with torch.no_grad():
        projection[head.index * width : (head.index + 1) * width] *= keep
    return of.scores(model)


def assert_exact(subject: Subject, of: BaseTask, *, path: str) -> HeadAblation:
    before = weights_digest(subject.model)
    bench = HeadAblation(subject, of)
    assert bench.path == path
    found = bench.ablated(bench.heads, lambda scores: scores)
    assert weights_digest(subject.model) == before
    assert not any("forward" in vars(module) or module._forward_hooks for module in subject.model.modules())
    slow = torch.stack([without(subject, head, of) for head in bench.heads])
    scale = float(slow.abs().max())
    assert float((found - slow).abs().max()) <= 1e-5 * scale
    assert float((slow - bench.clean).abs().amax((1, 2)).min()) > 1e-3 * scale, "every head does something"
    return bench


@pytest.mark.parametrize("read", ["last", "mean"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_of_every_family(family: str, read: str) -> None:
    bench = assert_exact(wrapped(family, read), task(), path="heads folded, prefix cached")
    assert len(bench.heads) == 12
    # Twelve loops of whole passes would cost 12 and the clean one; here later layers skip what comes before them.
    assert bench.spent < 12


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_items_with_options(kind: str) -> None:
    tiny = tiny_lm(kind, steps=60, examples=40)
    assert_exact(tiny.subject, tiny.task, path="heads folded, prefix cached")


def test_without_a_stack_of_blocks_whole_passes_are_shared() -> None:
    assert_exact(wrapped("GPT2", n_layer=1), task(), path="heads folded")


@pytest.mark.parametrize(("read", "places"), [("last", 1), ("mean", TOKENS.shape[1])])
def test_the_last_block_runs_only_where_its_output_is_read(read: str, places: int) -> None:
    subject, seen = wrapped("GPT2", read), set[int]()
    bench = HeadAblation(subject, task())
    bench.ablated(bench.heads[:1], lambda scores: scores)  # with the whole pass that proves it
    inner = subject.model.get_submodule("lm.transformer.h.2.mlp.c_proj")
    hook = inner.register_forward_pre_hook(lambda module, args: seen.add(args[0].shape[1]))
    bench.ablated(bench.heads, lambda scores: scores)
    hook.remove()
    assert seen == {places}


def test_order_and_choice_are_the_callers() -> None:
    subject, of = wrapped("Llama"), task()
    bench = HeadAblation(subject, of)
    chosen = [bench.heads[at] for at in (7, 1, 7, 4)]
    some = bench.ablated(chosen, lambda scores: scores)
    every = bench.ablated(bench.heads, lambda scores: scores)
    assert torch.allclose(some, every[[7, 1, 7, 4]], atol=1e-5 * float(every.abs().max()))


def test_a_model_whose_rows_see_each_other_is_refused() -> None:
    bench = HeadAblation(wrapped("GPT2", "centred"), task(batch=6))
    with pytest.raises(ModelError, match="does not give this model's scores"):
        bench.ablated(bench.heads, lambda scores: scores)


class Torch(nn.Module):
    """Attention of torch itself, with places before rows."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attention = nn.Embedding(VOCABULARY, 8), nn.MultiheadAttention(8, 2)
        self.out = nn.Linear(8, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        inputs = self.embed(tokens).transpose(0, 1)
        return self.out(self.attention(inputs, inputs, inputs, need_weights=False)[0][-1])


@pytest.mark.parametrize(
    ("model", "because"),
    [(Torch(), "without batch_first"), (mlp((30, 8, VOCABULARY)), "no attention layer")],
)
def test_attention_that_is_not_known_is_refused(model: nn.Module, because: str) -> None:
    with pytest.raises(ModelError, match=because):
        HeadAblation(Subject(model.eval()), task())


def test_weights_of_16_bits_are_refused() -> None:
    subject = Subject(Wrapped(causal("Llama"), "last").bfloat16().eval())
    with pytest.raises(ModelError, match="bfloat16"):
        HeadAblation(subject, task())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_screen_is_the_slope_by_each_head(family: str) -> None:
    subject, of = wrapped(family), task()
    before = weights_digest(subject.model)
    flags = [parameter.requires_grad for parameter in subject.model.parameters()]
    predicted = first_order(subject, of, measure.nll)
    assert weights_digest(subject.model) == before
    assert [parameter.requires_grad for parameter in subject.model.parameters()] == flags
    assert all(parameter.grad is None for parameter in subject.model.parameters())
    clean, step = of.scores(subject.model), 1e-2
    heads = HeadAblation(subject, of).heads
    for at in (0, 5, 11):
        more, less = (without(subject, heads[at], of, keep=1.0 + sign * step) for sign in (1.0, -1.0))
        rise = measure.nll(more, of.targets, clean) - measure.nll(less, of.targets, clean)
        slope = -rise / (2.0 * step)
        assert torch.allclose(predicted[at], slope, atol=5e-3 * max(1.0, float(slope.abs().max())), rtol=2e-2)


def test_what_the_screen_ranks_highest_is_confirmed_exactly_and_the_rest_sampled() -> None:
    subject, of = wrapped("GPT2"), task()
    bench = HeadAblation(subject, of)
    found = screened(bench, measure.nll, top=3, sample=4, rng=np.random.default_rng(0))
    assert len(found.top) == 3 and len(found.sampled) == 4 and not set(found.top) & set(found.sampled)
    size = found.predicted.mean(1).abs()
    assert list(found.top) == [int(at) for at in size.argsort(descending=True)[:3]]
    clean = of.scores(subject.model)
    before = measure.nll(clean, of.targets, clean)
    exact = torch.stack([measure.nll(without(subject, h, of), of.targets, clean) - before for h in bench.heads])
    numbers = [*found.top, *found.sampled]
    assert torch.allclose(found.exact, exact[numbers], atol=1e-4)
    moved = exact.mean(1).abs()
    least = float(moved[list(found.top)].min())
    assert found.missed == sum(float(moved[at]) > least for at in found.sampled)
    wanted = np.corrcoef(found.predicted.mean(1)[numbers], exact.mean(1)[numbers])[0, 1]
    assert found.correlation == pytest.approx(wanted, abs=1e-3)


def test_a_head_that_the_screen_cannot_see_is_counted_as_missed() -> None:
    """With every head sampled, exactly those that outdo the least of the top ones."""
    bench = HeadAblation(wrapped("Llama"), task())
    found = screened(bench, measure.nll, top=2, sample=10, rng=np.random.default_rng(0))
    moved = found.exact.mean(1).abs()
    assert found.missed == int((moved[2:] > moved[:2].min()).sum()) > 0


@pytest.mark.parametrize("of", [measure.accuracy, measure.agreement])
def test_a_measure_without_a_slope_is_refused(of: measure.Measure) -> None:
    with pytest.raises(ModelError, match="changes smoothly"):
        first_order(wrapped("GPT2"), task(), of)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_screen_of_choices_is_the_mean_slope_by_each_head(kind: str) -> None:
    tiny = tiny_lm(kind, steps=60, examples=40)
    task = mixed_choices()
    subject, step = tiny.subject, 1e-2
    before = weights_digest(subject.model)
    for of in (task, tiny.task):
        predicted = first_order(subject, of, measure.nll)
        assert predicted.shape == (8, len(of.targets)) and weights_digest(subject.model) == before
        for at, head in enumerate(HeadAblation(subject, of).heads):
            more, less = (without(subject, head, of, keep=1.0 + sign * step) for sign in (1.0, -1.0))
            rise = measure.nll(more, of.targets, more) - measure.nll(less, of.targets, more)
            slope = float(-(rise / (2.0 * step)).mean())
            assert float(predicted[at].mean()) == pytest.approx(slope, abs=2e-3 * max(1.0, abs(slope)), rel=2e-2)


def mixed_choices() -> ChoiceTask:
    """Contexts of many lengths, some shared; options of one token to three, in several batches."""
    rng = np.random.default_rng(0)

    def drawn(most: int) -> list[int]:
        return [int(token) for token in rng.integers(0, 32, rng.integers(1, most))]

    contexts = [drawn(9) for _ in range(50)]
    contexts[3], contexts[7] = contexts[4], contexts[8][:1]
    options = [[drawn(4) for _ in range(3)] for _ in range(50)]
    return ChoiceTask(contexts, options, [int(at) for at in rng.integers(0, 3, 50)], tokens_per_batch=96)


class Undivided(BaseTask):
    """A task of its own kind: as a ``Task``, but it cannot be divided, or tells scores without a gradient."""

    def __init__(self, *, divided: bool) -> None:
        self.inner, self.divided = task(), divided
        self.name, self.targets, self.measure = "own", self.inner.targets, self.inner.measure

    @property
    def digest(self) -> str:
        return self.inner.digest

    @property
    def tokens(self) -> int:
        return self.inner.tokens

    def part(self, index: Tensor) -> BaseTask:
        return self if self.divided else super().part(index)

    def forward(self, model: nn.Module) -> Tensor:
        return self.inner.forward(model).detach()

    def moments(self) -> Any:
        return self.inner.moments()


def test_a_task_without_parts_or_gradient_cannot_be_screened() -> None:
    with pytest.raises(DataError, match="cannot be divided"):
        first_order(wrapped("GPT2"), Undivided(divided=False), measure.nll)
    with pytest.raises(ModelError, match="cannot be screened"):
        first_order(wrapped("GPT2"), Undivided(divided=True), measure.nll)


def test_the_reading_of_every_head() -> None:
    subject, of = wrapped("Llama"), task()
    found = create("head-effects").read(subject, of, root=0, seed=0)
    assert found.values["layer"].tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    assert found.values["head"].tolist() == [0.0, 1.0, 2.0, 3.0] * 3
    assert found.values["measured"].tolist() == list(range(12))
    outputs = [subject.record.layers[int(at)] for at in found.values["projection"]]
    assert outputs == [f"lm.model.layers.{layer}.self_attn.o_proj" for layer in range(3) for _ in range(4)]
    clean = of.scores(subject.model)
    head = HeadAblation(subject, of).heads[6]
    rise = measure.nll(without(subject, head, of), of.targets, clean) - measure.nll(clean, of.targets, clean)
    assert np.allclose(found.values["rise"][6], rise.numpy(), atol=1e-4)
    assert 6 < found.forwards < 12


def test_the_reading_with_a_screen() -> None:
    subject, of = wrapped("GPT2"), task()
    found = create("head-effects", {"top": 3, "sample": 4}).read(subject, of, root=5, seed=0).values
    again = create("head-effects", {"top": 3, "sample": 4}).read(subject, of, root=5, seed=0).values
    every = create("head-effects").read(subject, of, root=5, seed=0).values
    assert all(np.allclose(found[name], again[name]) for name in found)
    assert found["rise"].shape == (7, 6) and found["predicted"].shape == (12, 6) and found["top"] == 3
    assert np.allclose(found["rise"], every["rise"][found["measured"].astype(int)], atol=1e-4)


def test_without_more_heads_than_are_ablated_nothing_is_screened() -> None:
    subject, of = wrapped("GPT2"), task()
    every = create("head-effects").read(subject, of, root=5, seed=0)
    for settings in ({"top": 3, "sample": 9}, {"top": 20, "sample": 0}):
        found = create("head-effects", dict(settings)).read(subject, of, root=5, seed=0)
        assert found.values.keys() == every.values.keys() and found.forwards == every.forwards
    assert "missed" in create("head-effects", {"top": 3, "sample": 8}).read(subject, of, root=5, seed=0).values
