"""Heads of many families, ablated in shared passes: equal to a deep copy whose output weights for them are zero."""

import copy
from typing import Any

import pytest
import torch
from tiny_families import VOCABULARY, made
from torch import Tensor, nn

from wheeltap.core import measure
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.fast.heads import HeadAblation, first_order

WIDTHS = {
    "neox": 8, "bloom": 8, "falcon-grouped": 8, "gpt-oss": 8, "deepseek-v3": 6, "bert": 8, "vit": 8, "t5": 6, "opt": 8,
}  # fmt: skip
STEP = 2e-3


class Scores(nn.Module):
    """A member that gives one row of scores per example."""

    def __init__(self, name: str) -> None:
        super().__init__()
        # Smooth, since slopes are compared with differences.
        self.name, self.body = name, made(name, **{"activation_function": "gelu"} if name == "opt" else {})

    def forward(self, inputs: Tensor) -> Tensor:
        if self.name == "t5":
            return self.body(input_ids=inputs, decoder_input_ids=inputs[:, :3]).logits[:, -1]
        logits = self.body(inputs).logits
        return logits[:, -1] if logits.ndim == 3 else logits


def task(name: str) -> Task:
    random = torch.Generator().manual_seed(1)
    inputs = torch.randint(2, VOCABULARY, (6, 12), generator=random)
    images = torch.randn(6, 1, 8, 8, generator=random)
    return Task(images if name == "vit" else inputs, torch.arange(6), batch=4, measure=measure.nll)


def without(model: nn.Module, projection: str, columns: slice, of: Task, *, keep: float = 0.0) -> Tensor:
    copied: Any = copy.deepcopy(model)
    with torch.no_grad():
        copied.get_submodule(projection).weight[:, columns] *= keep
    return of.scores(copied)


@pytest.mark.parametrize("name", WIDTHS)
def test_every_head(name: str) -> None:
    subject, of, width = Subject(Scores(name).eval(), name=name), task(name), WIDTHS[name]
    before = weights_digest(subject.model)
    bench = HeadAblation(subject, of)
    assert len(bench.heads) == (24 if name == "t5" else 8)
    found = bench.ablated(bench.heads, lambda scores: scores)
    assert weights_digest(subject.model) == before
    assert not any("forward" in vars(module) or module._forward_hooks for module in subject.model.modules())
    columns = {head: slice(head.index * width, (head.index + 1) * width) for head in bench.heads}
    slow = torch.stack([without(subject.model, bench.projection(h), columns[h], of) for h in bench.heads])
    scale = float(slow.abs().max())
    assert float((found - slow).abs().max()) <= 1e-5 * scale
    assert float((slow - bench.clean).abs().amax((1, 2)).min()) > 1e-4 * scale, "every head does something"
    predicted = first_order(subject, of, measure.nll)
    for at in (0, len(bench.heads) - 1):
        head = bench.heads[at]
        more, less = (
            without(subject.model, bench.projection(head), columns[head], of, keep=1.0 + sign * STEP)
            for sign in (1.0, -1.0)
        )
        slope = -(measure.nll(more, of.targets, bench.clean) - measure.nll(less, of.targets, bench.clean)) / (2 * STEP)
        assert torch.allclose(predicted[at], slope, atol=5e-3 * max(1.0, float(slope.abs().max())), rtol=2e-2)


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
    subject, of = Subject(Encoder(layers=layers, bias=bias).eval(), name="torch"), task("torch")
    before, shortcut = weights_digest(subject.model), torch.backends.mha.get_fastpath_enabled()
    bench = HeadAblation(subject, of)
    found = bench.ablated(bench.heads, lambda scores: scores)
    assert weights_digest(subject.model) == before and torch.backends.mha.get_fastpath_enabled() == shortcut
    assert not any("forward" in vars(module) or module._forward_hooks for module in subject.model.modules())
    assert bench.projection(bench.heads[0]) == "body.layers.0.self_attn.out_proj" and len(bench.heads) == 4 * layers
    columns = {head: slice(6 * head.index, 6 * head.index + 6) for head in bench.heads}
    slow = torch.stack([without(subject.model, bench.projection(head), columns[head], of) for head in bench.heads])
    assert torch.allclose(found, slow, atol=1e-5 * float(slow.abs().max()))
    assert float((slow - bench.clean).abs().amax((1, 2)).min()) > 1e-3 * float(slow.abs().max())
    predicted = first_order(subject, of, measure.nll)
    head = bench.heads[-1]
    more, less = (
        without(subject.model, bench.projection(head), columns[head], of, keep=1.0 + sign * STEP)
        for sign in (1.0, -1.0)
    )
    slope = -(measure.nll(more, of.targets, bench.clean) - measure.nll(less, of.targets, bench.clean)) / (2 * STEP)
    assert torch.allclose(predicted[-1], slope, atol=5e-3, rtol=2e-2)


class OwnAttention(nn.Module):
    """Attention of one's own class.

    Args:
        mixed: What heads give is mixed among all of them before it is read.
    """

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
    subject, of = Subject(Own().eval(), name="own"), task("own")
    bench = HeadAblation(subject, of)
    assert [(head.layer, head.index) for head in bench.heads] == [
        (f"blocks.{k}", h) for k in range(2) for h in range(4)
    ]
    found = bench.ablated(bench.heads, lambda scores: scores)
    slow = [
        without(subject.model, bench.projection(head), slice(6 * head.index, 6 * head.index + 6), of)
        for head in bench.heads
    ]
    assert torch.allclose(found, torch.stack(slow), atol=1e-5 * float(found.abs().max()))
    assert first_order(subject, of, measure.nll).shape == (8, 6)
    with pytest.raises(ModelError, match="how many heads it has is not proven"):
        HeadAblation(Subject(Own(mixed=True).eval(), name="own"), of)
