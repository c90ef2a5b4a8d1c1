"""Layers: every weight that a disturbance can touch, once, as one row per output unit."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from wheeltap.core.layer import Layer, LayerKind, find_blocks, find_layers
from wheeltap.sources import hf
from wheeltap.testing.planted import TiedNet, numbers, planted


def described(model: nn.Module) -> list[tuple[str, str, str, str | None, tuple[int, ...]]]:
    return [(layer.name, layer.kind, layer.weight, layer.bias, layer.shape) for layer in find_layers(model)]


class Own(nn.Linear):
    """A subclass of a known module."""


FOUND: list[tuple[nn.Module, list[tuple[str, str, str, str | None, tuple[int, ...]]]]] = [
    (
        nn.Sequential(
            nn.Embedding(7, 4), nn.Linear(4, 3), nn.Conv1d(3, 2, 5, bias=False), nn.Conv2d(4, 6, (3, 2), groups=2),
            nn.Conv3d(1, 2, 2), nn.LayerNorm(3), nn.BatchNorm1d(3), nn.ReLU(),
        ),
        [
            ("0", "embedding", "0.weight", None, (7, 4)),
            ("1", "linear", "1.weight", "1.bias", (3, 4)),
            ("2", "conv", "2.weight", None, (2, 3, 5)),
            ("3", "conv", "3.weight", "3.bias", (6, 2, 3, 2)),
            ("4", "conv", "4.weight", "4.bias", (2, 1, 2, 2, 2)),
        ],
    ),
    (nn.Sequential(Own(2, 3)), [("0", "linear", "0.weight", "0.bias", (3, 2))]),
    (nn.Linear(2, 3), [("", "linear", "weight", "bias", (3, 2))]),  # a lone module has an empty name
    (
        nn.ModuleDict({"a": nn.MultiheadAttention(4, 2)}),  # a packed projection, and that of the output
        [
            ("a", "attention", "a.in_proj_weight", "a.in_proj_bias", (12, 4)),
            ("a.out_proj", "linear", "a.out_proj.weight", "a.out_proj.bias", (4, 4)),
        ],
    ),
]  # fmt: skip


def test_every_kind_of_module_is_found() -> None:
    for model, layers in FOUND:
        assert described(model) == layers


def test_a_weight_that_several_modules_share_is_one_layer() -> None:
    def ties(model: nn.Module) -> list[tuple[str, bool]]:
        return [(layer.name, layer.tied) for layer in find_layers(model)]

    assert ties(TiedNet()) == [("embed", True), ("inner", False)]
    shared = nn.Linear(3, 3)
    assert ties(nn.Sequential(shared, nn.ReLU(), shared)) == [("0", False)], "a module that is used twice is not tied"
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3, bias=False))
    model[1].weight = model[2].weight = model[0].weight
    assert ties(model) == [("0", True)]


def test_gpt2_style_conv1d_is_transposed() -> None:
    pytest.importorskip("transformers", reason="needs the extra llm")
    transformers = hf.library(needed_for="tests")
    small = {"vocab_size": 11, "n_positions": 8, "n_embd": 4, "n_layer": 2, "n_head": 2}
    config = transformers.GPT2Config(**small, bos_token_id=0, eos_token_id=0)
    with torch.random.fork_rng(devices=[]), hf.quiet(transformers):
        model = transformers.GPT2LMHeadModel(config).eval()
    layers = {layer.name: layer for layer in find_layers(model)}
    fused = layers["transformer.h.0.attn.c_attn"]
    assert (fused.kind, fused.shape, fused.units, fused.fan_in) == ("transposed", (4, 12), 12, 4)
    assert layers["transformer.wte"].tied
    assert "lm_head" not in layers
    assert find_blocks(model, tuple(layers.values())) == (
        "transformer.wte", "transformer.wpe", "transformer.h.0", "transformer.h.1",
    )  # fmt: skip
    # The matrix is what the module multiplies by, whatever the layout.
    inputs = numbers(5, 4, seed=0).float()
    matrix = fused.matrix(model.get_parameter(fused.weight))
    expected = inputs @ matrix.T + model.get_parameter(fused.bias or "")
    torch.testing.assert_close(model.get_submodule(fused.name)(inputs), expected)


def computed(layer: Layer, module: nn.Module) -> tuple[Tensor, Tensor]:
    """A module's output on some input, and the layer's matrix times that input by hand."""
    matrix = layer.matrix(module.get_parameter("weight")).double()
    if layer.kind == "embedding":
        ids = torch.tensor([0, 3, 3, 1])
        return module(ids).double(), torch.eye(layer.fan_in, dtype=torch.float64)[ids] @ matrix.T
    if layer.kind == "linear":
        inputs = numbers(4, layer.fan_in, seed=1)
        return module.double()(inputs), inputs @ matrix.T + module.get_parameter("bias").double()
    kernel = layer.shape[2:]
    inputs = numbers(4, layer.shape[1], *kernel, seed=1)
    out = inputs.flatten(1) @ matrix.T + module.get_parameter("bias").double()
    return module.double()(inputs).flatten(1), out


def test_the_matrix_is_what_the_module_multiplies_by() -> None:
    for module in (
        nn.Linear(3, 2), nn.Embedding(5, 3), nn.Conv1d(2, 3, 4), nn.Conv2d(2, 3, (2, 3)), nn.Conv3d(1, 2, 2),
    ):  # fmt: skip
        (layer,) = find_layers(module)
        torch.testing.assert_close(*computed(layer, module))


@given(st.sampled_from(get_args(LayerKind)), st.lists(st.integers(1, 4), min_size=3, max_size=4), st.integers(1, 3))
def test_stored_is_the_inverse_of_matrix(kind: LayerKind, sizes: list[int], groups: int) -> None:
    shape = tuple(sizes if kind in ("conv", "conv_transposed", "bilinear", "plain", "stacked") else sizes[:2])
    groups = groups if kind == "conv_transposed" else 1
    shape = (groups * shape[0], *shape[1:])
    layer = Layer(name="x", kind=kind, weight="x.weight", bias=None, shape=shape, groups=groups)
    weight = torch.arange(float(math.prod(shape))).reshape(shape)
    matrix = layer.matrix(weight)
    assert matrix.shape == (layer.units, layer.fan_in)
    assert torch.equal(layer.stored(matrix), weight)


def test_blocks_are_the_children_of_the_longest_list() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(3, 4)
            self.layers = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)) for _ in range(11))
            self.norms = nn.ModuleList(nn.LayerNorm(4) for _ in range(20))
            self.pair = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
            self.head = nn.Linear(4, 3)

    net = Net()
    blocks = find_blocks(net, find_layers(net))
    assert blocks == ("embed", *(f"layers.{k}" for k in range(11)), "pair.0", "pair.1", "head")
    # Where there is no list every layer is its own.
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 4)), nn.Linear(4, 1))
    assert find_blocks(model, find_layers(model)) == ("0", "2.0", "3")
    lone = nn.ModuleList([nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))])
    assert find_blocks(lone, find_layers(lone)) == ("0.0", "0.1")


@pytest.mark.parametrize("kind", ["attention", "tied"])
def test_blocks_cover_every_layer_once(kind: str) -> None:
    record = planted(kind).subject.record
    for name in record.layers:
        assert sum(name == block or name.startswith(f"{block}.") for block in record.blocks) >= 1
    assert len(set(record.blocks)) == len(record.blocks)
