"""Attention of many families: moves proven on outputs, and those that do not hold refused."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tiny_families import FAMILIES, made, run_on
from tiny_transformers import hooked, with_part
from torch import nn

from wheeltap import gauge
from wheeltap.core.fingerprint import weights_digest
from wheeltap.gauge import attention as attentions
from wheeltap.gauge.attention import AttentionLayer, mix_queries, mix_values, permute_heads
from wheeltap.gauge.base import SharedTensors

MOVES: dict[str, Callable[[nn.Module, AttentionLayer, np.random.Generator], None]] = {
    "heads": permute_heads,
    "value": lambda model, layer, rng: mix_values(model, layer, rng, condition=4.0),
    "query": lambda model, layer, rng: mix_queries(model, layer, rng, condition=4.0),
}
NORMED = ("gemma3", "qwen3-moe", "phi-normed")
SLOPES = ("bloom", "falcon-alibi")
BOUND = 1e-4


@cache
def member(name: str) -> Any:
    return made(name)


def found(model: nn.Module) -> tuple[AttentionLayer, ...]:
    return attentions.find(model, SharedTensors(model))[0]


def refused(model: nn.Module) -> tuple[str, ...]:
    return attentions.find(model, SharedTensors(model))[1]


def twin_of(model: nn.Module, move: str, *, seed: int = 0) -> Any:
    twin, rng = copy.deepcopy(model), np.random.default_rng(seed)
    for layer in found(model):
        if move in layer.moves:
            MOVES[move](twin, layer, rng)
    return twin


def difference(name: str, model: nn.Module, twin: nn.Module) -> float:
    run = run_on(name, seed=1)
    return gauge.check(run(model).numpy(), run(twin).numpy()).difference


@pytest.mark.parametrize("name", [name for name in FAMILIES if not name.startswith("mamba")])
def test_twins_compute_the_same(name: str) -> None:
    model = member(name)
    layers, before = found(model), weights_digest(model)
    assert len(layers) == (6 if name in ("t5", "bart") else 2)
    missing = {"query"} if name in NORMED else {"heads"} if name in SLOPES else set[str]()
    for layer in layers:
        shared = {"heads"} if name == "t5" and not layer.path.endswith("EncDecAttention") else missing
        assert set(layer.moves) == set(MOVES) - shared
    for move in MOVES:
        twin = twin_of(model, move)
        assert (weights_digest(twin) != before) == (move not in missing), move
        assert difference(name, model, twin) <= BOUND, move
    assert weights_digest(model) == before


@pytest.mark.parametrize("name", ["neox", "falcon-grouped", "gpt-oss", "deepseek-v3", "bert", "phi3"])
def test_heads_keep_every_bit_of_16_bit_weights(name: str) -> None:
    model = copy.deepcopy(member(name)).bfloat16()
    twin = twin_of(model, "heads")
    moved = 0
    for old, new in zip(model.parameters(), twin.parameters(), strict=True):
        assert new.dtype == torch.bfloat16
        assert torch.equal(old.detach().flatten().sort().values, new.detach().flatten().sort().values)
        moved += not torch.equal(old, new)
    assert moved >= 2
    assert difference(name, model.float(), twin.float()) <= BOUND


@pytest.mark.parametrize("name", ["bloom", "falcon-alibi", "t5"])
def test_heads_that_differ_in_position_do_not_change_places(name: str) -> None:
    model = member(name)
    assert any(": heads: each head has a" in reason for reason in refused(model))
    twin, rng = copy.deepcopy(model), np.random.default_rng(0)
    for layer in found(model):
        permute_heads(twin, layer, rng)
    assert difference(name, model, twin) > 100 * BOUND


def test_what_is_found() -> None:
    layer = found(member("neox"))[1]
    assert (layer.path, layer.heads, layer.groups, layer.width, layer.rotary) == (
        "gpt_neox.layers.1.attention", 4, 4, 8, 2,
    )  # fmt: skip
    rows = layer.key.read(member("neox"))
    fused = member("neox").gpt_neox.layers[1].attention.query_key_value
    assert torch.equal(rows[8:16, :-1], fused.weight[32:40].detach().double())
    assert torch.equal(rows[8:16, -1], fused.bias[32:40].detach().double())
    layer = found(member("falcon-grouped"))[0]
    assert (layer.heads, layer.groups, layer.width, layer.rotary) == (4, 2, 8, 8)
    layer = found(member("deepseek-v2"))[0]
    assert (layer.heads, layer.width, len(layer.query.read(member("deepseek-v2")))) == (4, 6, 48)
    assert found(member("gpt-oss"))[0].per_head == ("sinks",)
    assert [layer.path for layer in found(member("bert"))] == [f"bert.encoder.layer.{k}.attention" for k in range(2)]


def _rotary(model: nn.Module, layer: AttentionLayer) -> None:
    mix_queries(model, replace(layer, rotary=0), np.random.default_rng(0), condition=4.0)


def _sinks(model: nn.Module, layer: AttentionLayer) -> None:
    permute_heads(model, replace(layer, per_head=()), np.random.default_rng(3))


@pytest.mark.parametrize(("name", "wrong"), [("phi", _rotary), ("neox", _rotary), ("gpt-oss", _sinks)])
def test_a_wrong_gauge_is_seen(name: str, wrong: Callable[[nn.Module, AttentionLayer], None]) -> None:
    model = copy.deepcopy(member(name))
    for layer in found(model):
        for own in layer.per_head:
            model.get_submodule(layer.path).get_parameter(own).data.mul_(10)
    twin = copy.deepcopy(model)
    for layer in found(model):
        wrong(twin, layer)
    assert difference(name, model, twin) > 100 * BOUND


def _missing(model: Any) -> None:
    del model.bert.encoder.layer[0].attention.self.key


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            with_part("bert.encoder.layer.0.attention.self.scale", lambda _: nn.Parameter(torch.ones(4))),
            "it holds self.scale, which is not known",
        ),
        (
            with_part("bert.encoder.layer.0.attention.output.gate", lambda _: nn.Linear(32, 32)),
            "it holds output.gate, which is not known",
        ),
        (hooked("bert.encoder.layer.0.attention.self"), "self: it has forward hooks"),
        (
            with_part("bert.encoder.layer.0.attention.self", lambda _: nn.Identity()),
            "it has no self.key, self.query, self.value",
        ),
        (_missing, "it has no self.key"),
    ],
)
def test_refusals_say_why(change: Callable[[Any], None], reason: str) -> None:
    model = made("bert")
    change(model)
    assert refused(model) == (f"bert.encoder.layer.0.attention: {reason}",)
    assert len(found(model)) == 1


def test_odd_sizes_are_refused() -> None:
    model = made("gpt-oss")
    model.model.layers[0].self_attn.sinks = nn.Parameter(torch.zeros(3))
    assert "its sinks are of shape [3], not one for each of 4 heads" in refused(model)[0]
    model = made("neox")
    model.gpt_neox.layers[0].attention.query_key_value = nn.Linear(32, 90)
    assert "90 fused rows and 32 output columns are not 4 whole heads in 4 groups" in refused(model)[0]
    model = made("phi3")
    model.model.layers[1].self_attn.qkv_proj = nn.Linear(32, 60)
    assert "60 fused rows" in refused(model)[0]
    model = made("deepseek-v3")
    model.model.layers[1].self_attn.kv_b_proj = nn.Linear(16, 60)
    assert "rows of queries, and of keys and values, are not 4 whole heads" in refused(model)[0]
    model = made("phi")
    model.model.rotary_emb.inv_freq = torch.ones(5)
    assert "query: the rotary embedding turns 10 of 8 coordinates" in refused(model)[0]
    model = made("bloom")
    model.transformer.h[0].self_attention.slow_but_exact = True
    model.transformer.h[0].self_attention.pretraining_tp = 2
    assert "slow_but_exact is set" in refused(model)[0]
