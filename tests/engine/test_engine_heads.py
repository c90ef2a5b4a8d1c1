"""Heads ablated in shared passes equal a deep copy whose output weights for that head are zero; else it is refused."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import VOCABULARY as WORDS
from tiny_families import made
from tiny_transformers import TOKENS, VOCABULARY, causal
from torch import Tensor, nn
from twins import Wired

from tests.nets.tiny_lm import tiny_lm
from wheeltap.core import measure
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.engine.fast.heads import HeadAblation, HeadAddress, first_order, screened
from wheeltap.models.mlp import mlp

FAMILIES = (("GPT2", "last"), ("Llama", "mean"), ("Qwen3", "last"))
OTHERS = ("falcon-grouped", "gpt-oss", "bert", "t5")
CACHED = "heads folded, prefix cached"
STEP = 2e-3


class Wrapped(nn.Module):
    """One row of scores per example: the ``last`` place, the ``mean``, or the last less its mean over the batch."""

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


class Scores(nn.Module):
    """A member that gives one row of scores per example."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.body = name, made(name)

    def forward(self, inputs: Tensor) -> Tensor:
        if self.name == "t5":
            return self.body(input_ids=inputs, decoder_input_ids=inputs[:, :3]).logits[:, -1]
        logits = self.body(inputs).logits
        return logits[:, -1] if logits.ndim == 3 else logits


def other_task(name: str) -> Task:
    random = torch.Generator().manual_seed(1)
    inputs = torch.randint(2, WORDS, (6, 12), generator=random)
    images = torch.randn(6, 1, 8, 8, generator=random)
    return Task(images if name == "vit" else inputs, torch.arange(6), batch=4, measure=measure.nll)


def without(bench: HeadAblation, head: HeadAddress, of: BaseTask, *, keep: float = 0.0) -> Tensor:
    """Scores of a deep copy in which what a head writes is multiplied by ``keep``."""
    model = copy.deepcopy(bench.subject.model)
    layer: Any = model.get_submodule(bench.projection(head))
    columns = layer.weight if type(layer).__name__ == "Conv1D" else layer.weight.T
    width = len(columns) // sum(other.layer == head.layer for other in bench.heads)
    with torch.no_grad():
        columns[head.index * width : (head.index + 1) * width] *= keep
    return of.scores(model)


def slope(bench: HeadAblation, head: HeadAddress, of: BaseTask) -> Tensor:
    """Of each example's loss by the size of what a head writes, negative; by differences."""
    more, less = (without(bench, head, of, keep=1.0 + sign * STEP) for sign in (1.0, -1.0))
    rise = measure.nll(more, of.targets, bench.clean) - measure.nll(less, of.targets, bench.clean)
    return -rise / (2.0 * STEP)


def require_exact(subject: Subject, of: BaseTask, *, heads: int, path: str = "", least: float = 1e-3) -> HeadAblation:
    """Every head against the slow way, and the slopes of some; the model is as it was."""
    before, model = weights_digest(subject.model), subject.model
    flags = [parameter.requires_grad for parameter in model.parameters()]
    bench = HeadAblation(subject, of)
    assert len(bench.heads) == heads and path in ("", bench.path)
    found = bench.ablated(bench.heads, lambda scores: scores)
    slow = torch.stack([without(bench, head, of) for head in bench.heads])
    scale = float(slow.abs().max())
    assert float((found - slow).abs().max()) <= 1e-5 * scale
    assert float((slow - bench.clean).abs().amax((1, 2)).min()) > least * scale, "every head does something"
    if isinstance(of, Task):
        predicted = first_order(subject, of, measure.nll)
        for at in (0, heads // 2, heads - 1):
            known = slope(bench, bench.heads[at], of)
            within = 5e-3 * max(1.0, float(known.abs().max()))
            assert torch.allclose(predicted[at], known, atol=within, rtol=2e-2)
    assert weights_digest(model) == before
    assert not any("forward" in vars(module) or module._forward_hooks for module in model.modules())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert all(parameter.grad is None for parameter in model.parameters())
    return bench


@pytest.mark.parametrize(("family", "read"), FAMILIES)
def test_every_head_of_every_family(family: str, read: str) -> None:
    bench = require_exact(wrapped(family, read), task(), heads=12, path=CACHED)
    # Twelve loops of whole passes would cost 12 and the clean one; here later layers skip what comes before them.
    assert bench.spent < 12


@pytest.mark.parametrize("name", OTHERS)
def test_every_head_of_other_families(name: str) -> None:
    subject = Subject(Scores(name).eval(), name=name)
    require_exact(subject, other_task(name), heads=24 if name == "t5" else 8, least=1e-4)


def test_items_with_options() -> None:
    tiny = tiny_lm("gpt2", steps=60, examples=40)
    require_exact(tiny.subject, tiny.task, heads=8, path=CACHED)


class Encoder(nn.Module):
    """Torch's own encoder, which takes short cuts around its modules."""

    def __init__(self, *, layers: int, bias: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(VOCABULARY, 24), nn.Linear(24, VOCABULARY)
        layer = nn.TransformerEncoderLayer(24, 4, 32, batch_first=True, bias=bias)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.embed(tokens)).mean(1))


@pytest.mark.parametrize(("layers", "bias"), [(2, True), (1, False)])
def test_heads_of_torch_itself(layers: int, *, bias: bool) -> None:
    shortcut = torch.backends.mha.get_fastpath_enabled()
    bench = require_exact(
        Subject(Encoder(layers=layers, bias=bias).eval(), name="torch"), other_task("torch"), heads=4 * layers
    )
    assert torch.backends.mha.get_fastpath_enabled() == shortcut
    assert bench.projection(bench.heads[0]) == "body.layers.0.self_attn.out_proj"


class OwnAttention(nn.Module):
    """Attention of one's own class; what heads give may be mixed among all of them before it is read."""

    def __init__(self, *, mixed: bool) -> None:
        super().__init__()
        self.n_head, self.mixed = 4, mixed
        self.c_attn, self.c_proj = nn.Linear(24, 72), nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (part.unflatten(-1, (4, 6)).transpose(1, 2) for part in self.c_attn(x).chunk(3, -1))
        given = ((query @ key.mT / 6**0.5).softmax(-1) @ value).transpose(1, 2).flatten(2)
        return self.c_proj(given.tanh().roll(1, -1) if self.mixed else given)


class Own(nn.Module):
    """Blocks of it over tokens."""

    def __init__(self, *, mixed: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(VOCABULARY, 24), nn.Linear(24, VOCABULARY)
        self.blocks = nn.ModuleList(OwnAttention(mixed=mixed) for _ in range(2))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x[:, -1])


def test_heads_of_an_unknown_class_that_outputs_prove() -> None:
    bench = require_exact(Subject(Own().eval(), name="own"), other_task("own"), heads=8)
    assert [(one.layer, one.index) for one in bench.heads] == [(f"blocks.{k}", h) for k in range(2) for h in range(4)]
    with pytest.raises(ModelError, match="how many heads it has is not proven"):
        HeadAblation(Subject(Own(mixed=True).eval(), name="own"), other_task("own"))


def test_a_model_whose_rows_see_each_other_is_refused() -> None:
    bench = HeadAblation(wrapped("GPT2", "centred"), task(batch=6))
    with pytest.raises(ModelError, match="does not give this model's scores"):
        bench.ablated(bench.heads, lambda scores: scores)


def test_attention_that_is_not_known_and_weights_of_16_bits_are_refused() -> None:
    halved = Wrapped(causal("Llama"), "last").bfloat16()

    def read(net: Any, tokens: Tensor) -> Tensor:
        inputs = net.embed(tokens).transpose(0, 1)
        return net.out(net.attention(inputs, inputs, inputs, need_weights=False)[0][-1])

    parts = {"embed": nn.Embedding(VOCABULARY, 8), "attention": nn.MultiheadAttention(8, 2)}
    places_first = Wired(read, **parts, out=nn.Linear(8, VOCABULARY))
    unknown = {"without batch_first": places_first, "no attention layer": mlp((30, 8, VOCABULARY)), "bfloat16": halved}
    for because, model in unknown.items():
        with pytest.raises(ModelError, match=because):
            HeadAblation(Subject(model.eval()), task())


def test_what_the_screen_ranks_highest_is_confirmed_exactly_and_the_rest_sampled() -> None:
    subject, of = wrapped("GPT2"), task()
    bench = HeadAblation(subject, of)
    found = screened(bench, measure.nll, top=3, sample=4, rng=np.random.default_rng(0))
    assert len(found.top) == 3 and len(found.sampled) == 4 and not set(found.top) & set(found.sampled)
    size = found.predicted.mean(1).abs()
    assert list(found.top) == [int(at) for at in size.argsort(descending=True)[:3]]
    clean = of.scores(subject.model)
    before = measure.nll(clean, of.targets, clean)
    exact = torch.stack([measure.nll(without(bench, h, of), of.targets, clean) - before for h in bench.heads])
    numbers = [*found.top, *found.sampled]
    assert torch.allclose(found.exact, exact[numbers], atol=1e-4)
    moved = exact.mean(1).abs()
    least = float(moved[list(found.top)].min())
    assert found.missed == sum(float(moved[at]) > least for at in found.sampled)
    wanted = np.corrcoef(found.predicted.mean(1)[numbers], exact.mean(1)[numbers])[0, 1]
    assert found.correlation == pytest.approx(wanted, abs=1e-3)


def test_the_screen_of_choices_is_the_mean_slope_by_each_head() -> None:
    tiny = tiny_lm("gpt2", steps=60, examples=40)
    task = mixed_choices()
    before = weights_digest(tiny.subject.model)
    for of in (task, tiny.task):
        predicted, bench = first_order(tiny.subject, of, measure.nll), HeadAblation(tiny.subject, of)
        assert predicted.shape == (8, len(of.targets)) and weights_digest(tiny.subject.model) == before
        for at, head in enumerate(bench.heads):
            known = float(slope(bench, head, of).mean())
            assert float(predicted[at].mean()) == pytest.approx(known, abs=2e-3 * max(1.0, abs(known)), rel=2e-2)


def mixed_choices() -> ChoiceTask:
    """Contexts of many lengths, some shared; options of one token to three, in several batches."""
    rng = np.random.default_rng(0)

    def drawn(most: int) -> list[int]:
        return [int(token) for token in rng.integers(0, 32, rng.integers(1, most))]

    contexts = [drawn(9) for _ in range(50)]
    contexts[3], contexts[7] = contexts[4], contexts[8][:1]
    options = [[drawn(4) for _ in range(3)] for _ in range(50)]
    return ChoiceTask(contexts, options, [int(at) for at in rng.integers(0, 3, 50)], tokens_per_batch=96)
