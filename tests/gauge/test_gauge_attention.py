"""Attention: heads permuted and bases mixed in real tiny transformers, and what must be refused."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_transformers import assert_same_function, causal, hooked, in_float64, logits, moved, with_part
from torch import nn

from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import attention as attentions
from wheeltap.gauge.attention import AttentionLayer, mix_queries, mix_values, permute_heads
from wheeltap.gauge.base import SharedTensors

CONDITION = 4.0
NAMES = ("Llama", "Mistral", "Qwen2", "Qwen3", "GPT2")


def permute(model: nn.Module, layer: AttentionLayer, rng: np.random.Generator) -> None:
    permute_heads(model, layer, rng)


def values(model: nn.Module, layer: AttentionLayer, rng: np.random.Generator) -> None:
    mix_values(model, layer, rng, condition=CONDITION)


def queries(model: nn.Module, layer: AttentionLayer, rng: np.random.Generator) -> None:
    if "query" in layer.moves:
        mix_queries(model, layer, rng, condition=CONDITION)


def every(model: nn.Module, layer: AttentionLayer, rng: np.random.Generator) -> None:
    for move in (queries, permute, values):
        move(model, layer, rng)


Move = Callable[[nn.Module, AttentionLayer, np.random.Generator], None]
MOVES: dict[str, Move] = {"heads": permute, "value": values, "query": queries, "all": every}


def found(model: nn.Module) -> tuple[AttentionLayer, ...]:
    return attentions.find(model, SharedTensors(model))[0]


def refused(model: nn.Module) -> str:
    return "; ".join(attentions.find(model, SharedTensors(model))[1])


def twin_of(model: nn.Module, move: Move, *, seed: int = 0) -> Any:
    twin = copy.deepcopy(model)
    rng = np.random.default_rng(seed)
    for layer in found(model):
        move(twin, layer, rng)
    return twin


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("move", MOVES)
def test_twins_compute_the_same(name: str, move: str) -> None:
    model = causal(name)
    before = weights_digest(model)
    twin = twin_of(model, MOVES[move])
    assert_same_function(model, twin, bound=1e-4)
    changed = (name, move) != ("Qwen3", "query")
    assert (weights_digest(twin) != before) == changed
    assert weights_digest(model) == before
    model = in_float64(model)
    assert_same_function(model, twin_of(model, MOVES[move]), bound=1e-9)


def test_every_weight_moves_a_lot() -> None:
    model = causal("Llama")
    parts = {"heads": "qkvo", "value": "vo", "query": "qk"}
    for move, changed in parts.items():
        twin = twin_of(model, MOVES[move])
        for part in "qkvo":
            # A permutation of few heads may leave one layer as it is: all layers together.
            paths = [f"model.layers.{k}.self_attn.{part}_proj.weight" for k in range(3)]
            change = np.mean([moved(model, twin, path) for path in paths])
            assert (change > 0.3) if part in changed else (change == 0), (move, part, change)


def test_what_is_found() -> None:
    layer = found(causal("Mistral"))[1]
    assert (layer.path, layer.heads, layer.groups, layer.width) == ("model.layers.1.self_attn", 4, 2, 12)
    assert layer.rotary
    assert layer.moves == ("heads", "value", "query")
    layer = found(causal("GPT2"))[2]
    assert (layer.path, layer.heads, layer.groups, layer.width) == ("transformer.h.2.attn", 4, 4, 8)
    assert not layer.rotary
    assert (layer.value.path, layer.value.first, layer.value.last) == ("transformer.h.2.attn.c_attn", 64, 96)


def test_heads_stay_with_their_group() -> None:
    """Each new key head is an old one, and the queries that read it are those that read the old one."""
    model = causal("Llama")
    twin = twin_of(model, permute, seed=3)
    for k in range(3):
        old, new = (m.model.layers[k].self_attn for m in (model, twin))
        keys, queries = ([part.weight.detach().reshape(-1, 8, 32) for part in (a.k_proj, a.q_proj)] for a in (old, new))
        came: list[int] = []
        for group in range(2):
            source = next(g for g in range(2) if torch.equal(queries[0][group], keys[0][g]))
            heads = [
                next(h for h in range(4) if torch.equal(queries[1][q], keys[1][h])) for q in (2 * group, 2 * group + 1)
            ]
            assert sorted(heads) == [2 * source, 2 * source + 1]
            came.append(source)
        assert sorted(came) == [0, 1]


def test_condition_is_kept() -> None:
    model = causal("Llama").double()
    twin = twin_of(model, every)
    twin = twin_of(model, values)
    spreads: list[float] = []
    for k in range(3):
        old, new = (m.model.layers[k].self_attn.v_proj.weight.detach() for m in (model, twin))
        for group in (slice(0, 8), slice(8, 16)):
            basis = new[group] @ torch.linalg.pinv(old[group])
            torch.testing.assert_close(basis @ old[group], new[group])
            assert float((basis - torch.eye(8)).norm()) > 1
            spreads.append(float(torch.linalg.cond(basis)))
    assert 1.5 < min(spreads) <= max(spreads) <= CONDITION + 1e-9
    plain = copy.deepcopy(model)
    for layer in found(model):
        mix_values(plain, layer, np.random.default_rng(0), condition=1.0)
    value = [m.model.layers[0].self_attn.v_proj.weight.detach()[:8] for m in (model, plain)]
    assert float(torch.linalg.cond(value[1] @ torch.linalg.pinv(value[0]))) == pytest.approx(1)


def test_rotary_queries_are_turned_in_pairs() -> None:
    model = causal("Llama").double()
    twin = twin_of(model, queries)
    old, new = (m.model.layers[0].self_attn for m in (model, twin))
    pairs = torch.eye(4).repeat(2, 2).bool()
    scales: list[torch.Tensor] = []
    for part, head in (("q_proj", slice(0, 8)), ("q_proj", slice(8, 16)), ("k_proj", slice(0, 8))):
        weights = [attention.get_submodule(part).weight.detach()[head] for attention in (old, new)]
        basis = weights[1] @ torch.linalg.pinv(weights[0])
        assert float(basis[~pairs].abs().max()) < 1e-12
        scales.append(torch.linalg.svdvals(basis))
        bias = [attention.get_submodule(part).bias.detach()[head] for attention in (old, new)]
        torch.testing.assert_close(basis @ bias[0], bias[1])
    # Both query heads of the group share a basis; the key takes it back.
    torch.testing.assert_close(scales[0], scales[1])
    torch.testing.assert_close(scales[0], (1 / scales[2]).flip(0))
    assert float(scales[0][0] / scales[0][-1]) > 1.2


def test_a_wrong_gauge_is_seen() -> None:
    """A basis that does not commute with the rotary embedding: outputs move."""
    model = causal("Llama")
    twin = copy.deepcopy(model)
    queries(twin, replace(found(model)[0], rotary=False), np.random.default_rng(0))
    assert gauge.check(logits(model), logits(twin)).difference > 0.1


@pytest.mark.parametrize("bias", [True, False])
def test_multihead_attention_of_torch(bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True, bias=bias).eval()
    if bias:
        nn.init.normal_(layer.self_attn.in_proj_bias)
        nn.init.normal_(layer.self_attn.out_proj.bias)
    inputs = torch.randn(20, 30, 24)
    for move in MOVES.values():
        twin = twin_of(layer, move)
        with torch.no_grad():
            likeness = gauge.check(layer(inputs).flatten(0, 1).numpy(), twin(inputs).flatten(0, 1).numpy())
        assert likeness.difference < 1e-4
        assert likeness.agreement == 1
        assert moved(layer, twin, "self_attn.in_proj_weight") > 0.1


def test_odd_multihead_attention_is_refused() -> None:
    assert "bias_k, bias_v, which is not known" in refused(nn.MultiheadAttention(8, 2, add_bias_kv=True))
    assert "q_proj_weight" in refused(nn.MultiheadAttention(8, 2, kdim=4, vdim=4))
    assert "add_zero_attn" in refused(nn.MultiheadAttention(8, 2, add_zero_attn=True))


def test_query_norms_leave_the_other_moves() -> None:
    model = causal("Qwen3")
    layers, reasons = attentions.find(model, SharedTensors(model))
    assert [layer.moves for layer in layers] == [("heads", "value")] * 3
    assert reasons[0] == "model.layers.0.self_attn: query: q_norm and k_norm act on each coordinate of queries and keys"


class Lora(nn.Linear):
    pass


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            with_part("model.layers.0.self_attn.sinks", lambda _: nn.Parameter(torch.zeros(4))),
            "it holds sinks, which is not known",
        ),
        (
            with_part("model.layers.0.self_attn.q_proj", lambda _: Lora(32, 32)),
            "q_proj: it is a Lora, not a plain Linear",
        ),
        (hooked("model.layers.0.self_attn.v_proj"), "v_proj: it has forward hooks"),
        (
            with_part("model.layers.0.self_attn.forward", lambda _: lambda *args, **kwargs: None),
            "its forward method was replaced",
        ),
        (
            with_part("model.layers.0.self_attn.v_proj", lambda model: model.model.layers[1].self_attn.v_proj),
            "v_proj: it shares its weights with another module",
        ),
        (with_part("model.layers.0.self_attn.k_proj", lambda _: nn.Linear(32, 12)), "not whole heads of 8"),
        (
            with_part("model.layers.0.self_attn.o_proj", lambda _: nn.Linear(24, 32)),
            "o_proj reads 24 columns, not 4 heads of 8",
        ),
        (
            with_part("config._attn_implementation_internal", lambda _: "sinks"),
            "its attention function 'sinks' is not known",
        ),
        (
            with_part(
                "model.layers.0.self_attn.q_proj.weight",
                lambda _: nn.Parameter(torch.ones(32, 32).int(), requires_grad=False),
            ),
            "q_proj: its weights are of type torch.int32",
        ),
    ],
)
def test_refusals_say_why(change: Callable[[Any], None], reason: str) -> None:
    model = causal("Llama")
    change(model)
    assert reason in refused(model)
    assert "model.layers.0.self_attn" not in {layer.path for layer in found(model)}


def test_rotary_embeddings_must_be_known() -> None:
    model = causal("Llama")
    model.model.rotary_emb.inv_freq = model.model.rotary_emb.inv_freq[:2]
    assert "query: the rotary embedding turns 4 of 8 coordinates" in refused(model)
    model.model.rotary_emb = nn.Identity()
    assert "query: the rotary embedding Identity is not known" in refused(model)
    assert "the model: query: no rotary embedding was found above it" in refused(model.model.layers[0].self_attn)
    assert {layer.moves for layer in found(model)} == {("heads", "value")}


def test_unknown_classes_are_refused() -> None:
    model = causal("Llama")

    class MyAttention(type(model.model.layers[0].self_attn)):
        pass

    model.model.layers[1].self_attn = MyAttention(model.config, 1)
    assert "model.layers.1.self_attn: attention of the class MyAttention is not known" in refused(model)
    assert len(found(model)) == 2


def test_odd_gpt2_attention_is_refused() -> None:
    assert "reorder_and_upcast_attn is set" in refused(causal("GPT2", reorder_and_upcast_attn=True))
    crossed = causal("GPT2", add_cross_attention=True)
    assert "h.0.crossattention: it holds q_attn" in refused(crossed)
    assert [layer.path for layer in found(crossed)] == [f"transformer.h.{k}.attn" for k in range(3)]
    scaled = causal("GPT2", scale_attn_by_inverse_layer_idx=True, scale_attn_weights=False)
    assert_same_function(scaled, twin_of(scaled, every), bound=1e-4)


def test_orthogonal_is_uniform() -> None:
    """Columns are orthonormal and, unlike plain QR's, as often of one sign as of the other."""
    rng = np.random.default_rng(0)
    drawn = torch.stack([attentions.orthogonal(rng, 5) for _ in range(2000)])
    torch.testing.assert_close(drawn @ drawn.mT, torch.eye(5).double().expand(2000, 5, 5))
    assert float(drawn.mean(0).abs().max()) < 4 / math.sqrt(5 * 2000)
