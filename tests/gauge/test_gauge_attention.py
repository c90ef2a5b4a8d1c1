"""Attention of known classes, and of others found by trying: heads permuted, bases mixed, and what is refused."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import made, run_on
from tiny_transformers import assert_same_function, causal, hooked, in_float64, logits, moved, with_part
from torch import Tensor, nn
from twins import BOUND, Wired, apart, attention_in, on, require_same_numbers, turned

from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import attention as attentions
from wheeltap.gauge.attention import REWRITES, AttentionLayer, mix_queries, permute_heads
from wheeltap.gauge.base import GaugeSettings, SharedTensors

EVERY = ("query", "heads", "value")
FIRST = "model.layers.0.self_attn"
member = cache(made)


def refused(model: nn.Module) -> str:
    return "; ".join(attention_in(model)[1])


@pytest.mark.parametrize("name", ["Llama", "Qwen3", "GPT2"])
def test_twins_compute_the_same(name: str) -> None:
    model = causal(name)
    before = weights_digest(model)
    twin = turned(model, *EVERY)
    assert_same_function(model, twin, bound=BOUND)
    assert weights_digest(twin) != before == weights_digest(model)
    model = in_float64(model)
    assert_same_function(model, turned(model, *EVERY), bound=1e-9)


@pytest.mark.parametrize("name", ["gemma3", "gpt-oss", "deepseek-v3", "neox", "falcon-grouped", "bloom", "bert", "t5"])
def test_twins_of_many_families_compute_the_same(name: str) -> None:
    model, run = member(name), run_on(name, seed=1)
    (layers, _), before = attention_in(model), weights_digest(model)
    assert len(layers) == (6 if name == "t5" else 2)
    missing = {"query"} if name == "gemma3" else {"heads"} if name == "bloom" else set[str]()
    for layer in layers:
        shared = {"heads"} if name == "t5" and not layer.path.endswith("EncDecAttention") else missing
        assert set(layer.moves) == set(REWRITES) - shared
    for move in REWRITES:
        twin = turned(model, move)
        assert (weights_digest(twin) != before) == (move not in missing), move
        assert apart(run, model, twin) <= BOUND, move
    assert weights_digest(model) == before


@pytest.mark.parametrize("name", ["falcon-grouped", "gpt-oss", "deepseek-v3"])
def test_heads_keep_every_bit_of_16_bit_weights(name: str) -> None:
    model = copy.deepcopy(member(name)).bfloat16()
    twin = turned(model, "heads")
    assert require_same_numbers(model, twin) >= 2
    assert apart(run_on(name, seed=1), model.float(), twin.float()) <= BOUND


def test_a_wrong_gauge_is_seen() -> None:
    """A basis that does not commute with the rotary embedding, sinks that stay: outputs move."""
    model = causal("Llama")
    twin = copy.deepcopy(model)
    mix_queries(twin, replace(attention_in(model)[0][0], rotary=0), np.random.default_rng(0), GaugeSettings())
    assert gauge.check(logits(model), logits(twin)).difference > 0.1
    for name in ("phi", "neox", "gpt-oss"):
        model = copy.deepcopy(member(name))
        layers, _ = attention_in(model)
        for layer in layers:
            for own in layer.per_head:
                model.get_submodule(layer.path).get_parameter(own).data.mul_(10)
        twin = copy.deepcopy(model)
        for layer in layers:
            if layer.per_head:
                permute_heads(twin, replace(layer, per_head=()), np.random.default_rng(3), GaugeSettings())
            else:
                mix_queries(twin, replace(layer, rotary=0), np.random.default_rng(0), GaugeSettings())
        assert apart(run_on(name, seed=1), model, twin) > 100 * BOUND, name


@pytest.mark.parametrize("name", ["bloom", "t5"])
def test_heads_that_differ_in_position_do_not_change_places(name: str) -> None:
    model = member(name)
    assert ": heads: each head has a" in refused(model)
    twin, rng = copy.deepcopy(model), np.random.default_rng(0)
    for layer in attention_in(model)[0]:
        permute_heads(twin, layer, rng, GaugeSettings())
    assert apart(run_on(name, seed=1), model, twin) > 100 * BOUND


def test_multihead_attention_of_torch() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True).eval()
    nn.init.normal_(layer.self_attn.in_proj_bias)
    nn.init.normal_(layer.self_attn.out_proj.bias)
    inputs = torch.randn(20, 30, 24)
    for moves in (*([move] for move in EVERY), EVERY):
        twin = turned(layer, *moves)
        with torch.no_grad():
            likeness = gauge.check(layer(inputs).flatten(0, 1).numpy(), twin(inputs).flatten(0, 1).numpy())
        assert likeness.difference < 1e-4
        assert likeness.agreement == 1
        assert moved(layer, twin, "self_attn.in_proj_weight") > 0.1


class Lora(nn.Linear):
    pass


REFUSED: list[Callable[[Any], Any]] = [
    with_part(f"{FIRST}.sinks", lambda _: nn.Parameter(torch.zeros(4))),
    with_part(f"{FIRST}.q_proj", lambda _: Lora(32, 32)),
    hooked(f"{FIRST}.v_proj"),
    with_part(f"{FIRST}.forward", lambda _: lambda *args, **kwargs: None),
    with_part(f"{FIRST}.v_proj", lambda model: model.model.layers[1].self_attn.v_proj),
    with_part(f"{FIRST}.k_proj", lambda _: nn.Linear(32, 12)),
    with_part("config._attn_implementation_internal", lambda _: "sinks"),
]
"""Changes of a Llama after which its first attention layer is not known."""


@pytest.mark.parametrize("change", REFUSED)
def test_layers_that_are_not_plain_are_refused(change: Callable[[Any], None]) -> None:
    model = causal("Llama")
    change(model)
    layers, reasons = attention_in(model)
    assert FIRST not in {layer.path for layer in layers}
    assert any(reason.startswith(FIRST) for reason in reasons)


def test_what_is_left_of_odd_attention() -> None:
    """Norms of queries, and rotary embeddings that are not known, leave the other moves; cross attention is apart."""
    layers, reasons = attention_in(causal("Qwen3"))
    assert [layer.moves for layer in layers] == [("heads", "value")] * 3
    assert reasons[0] == f"{FIRST}: query: q_norm and k_norm act on each coordinate of queries and keys"
    model = causal("Llama")
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq[:2]
    assert "query: the rotary embedding turns 4 of 8 coordinates" in refused(model)
    model.model.rotary_emb = nn.Identity()
    assert "query: the rotary embedding Identity is not known" in refused(model)
    assert "the model: query: no rotary embedding was found above it" in refused(model.model.layers[0].self_attn)
    assert {layer.moves for layer in attention_in(model)[0]} == {("heads", "value")}
    crossed = causal("GPT2", add_cross_attention=True)
    assert "h.0.crossattention: it holds q_attn" in refused(crossed)
    assert [layer.path for layer in attention_in(crossed)[0]] == [f"transformer.h.{k}.attn" for k in range(3)]
    scaled = causal("GPT2", scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False)
    assert_same_function(scaled, turned(scaled, *EVERY), bound=BOUND)


WIDTH, HEADS = 24, 4
PROBED = on(torch.randn(10, 6, WIDTH, generator=torch.Generator().manual_seed(0)))
FRESH = on(torch.randn(20, 9, WIDTH, generator=torch.Generator().manual_seed(1)))


def attended(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | float = 0.0) -> Tensor:
    """``[row, head, place, width]`` each; ``[row, place, head x width]``."""
    scores = query @ key.mT / query.shape[-1] ** 0.5 + bias
    places = torch.ones(scores.shape[-2:]).tril().bool()
    mixed = scores.masked_fill(~places, float("-inf")).softmax(-1) @ value
    return mixed.transpose(1, 2).flatten(2)


def split(x: Tensor, heads: int) -> Tensor:
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def rotated(x: Tensor, *, interleaved: bool = False) -> Tensor:
    """By place: halves, or neighbors."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * torch.tensor([0.3**k for k in range(half)])
    one, two = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    cos, sin = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


class Packed(nn.Module):
    """Queries, keys and values in one layer, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head = HEADS
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(attended(*(split(part, HEADS) for part in self.c_attn(x).chunk(3, -1))))


class Grouped(nn.Module):
    """Four layers; two heads read one key; rotated by place."""

    def __init__(self) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = HEADS, 2, WIDTH // HEADS
        self.wq, self.wo = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.wk, self.wv = (nn.Linear(WIDTH, WIDTH // 2, bias=False) for _ in range(2))

    def shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return rotated(split(self.wq(x), HEADS)), rotated(split(self.wk(x), 2).repeat_interleave(2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.wo(attended(*self.shaped(x), split(self.wv(x), 2).repeat_interleave(2, 1)))


class Slopes(nn.Module):
    """Each head has a slope of its own over places."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.to_query, self.to_key, self.to_value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.to_out = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Dropout(0.5))

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        slopes = 0.5 ** torch.arange(HEADS)[:, None, None] * (places - places[:, None])
        parts = (split(part(x), HEADS) for part in (self.to_query, self.to_key, self.to_value))
        return self.to_out(attended(*parts, bias=slopes))


class Gated(Packed):
    """What heads give is multiplied by a number for each place in each head."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.randn(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        mixed = attended(*(split(part, HEADS) for part in self.c_attn(x).chunk(3, -1)))
        return self.c_proj(mixed * self.gate)


def _stacked(net: Any, x: Tensor) -> Tensor:
    for block in net.blocks:
        x = x + block(x)
    return net.head(x[:, -1])


def net(kind: Callable[[], nn.Module]) -> Any:
    torch.manual_seed(0)
    model = Wired(_stacked, blocks=nn.ModuleList(kind() for _ in range(2)), head=nn.Linear(WIDTH, 7))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    return model.eval()


def found(model: nn.Module) -> tuple[AttentionLayer, ...]:
    return attentions.find(model, SharedTensors(model), run=PROBED)[0]


HOLD: dict[type[nn.Module], tuple[str, ...]] = {
    Packed: ("heads", "value", "query"),
    Grouped: ("heads", "value", "query"),
    Slopes: ("value", "query"),
    Gated: ("query",),
}


@pytest.mark.parametrize("kind", HOLD)
def test_what_holds_is_found(kind: type[nn.Module]) -> None:
    model = net(kind)
    before = weights_digest(model)
    assert attentions.find(model, SharedTensors(model))[0] == ()
    layers = found(model)
    assert weights_digest(model) == before
    assert [layer.path for layer in layers] == (["blocks.0", "blocks.1"] if HOLD[kind] else [])
    for layer in layers:
        groups = 2 if issubclass(kind, Grouped) else HEADS
        assert (layer.heads, layer.groups, layer.moves) == (HEADS, groups, HOLD[kind])
    for move in HOLD[kind]:
        twin = copy.deepcopy(model)
        for layer in layers:
            REWRITES[move](twin, layer, np.random.default_rng(5), GaugeSettings())
        assert weights_digest(twin) != before
        assert apart(FRESH, model, twin) <= BOUND
