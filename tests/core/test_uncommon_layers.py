"""Weights of modules that are no plain layers: each found once, under a name of its own, as rows of its units."""

from typing import Any

import pytest
import torch
from torch import nn
from twins import Wired

from tests.nets.uncommon import MODELS, uncommon
from wheeltap.core.layer import Layer, find_blocks, find_layers
from wheeltap.core.records import UntouchedModule
from wheeltap.core.subject import Subject
from wheeltap.testing.planted import planted


def named(model: nn.Module) -> dict[str, Layer]:
    return {layer.name: layer for layer in find_layers(model)}


def told(model: nn.Module) -> list[tuple[str, str, str, str | None, int, int]]:
    return [(x.name, x.kind, x.weight, x.bias, x.units, x.fan_in) for x in find_layers(model)]


def share(model: nn.Module) -> float:
    """Share of the numbers that are in layers, counted by hand."""
    size = {name: p.numel() for name, p in model.named_parameters()}
    parts = [name for layer in find_layers(model) for name in (layer.weight, layer.bias, layer.length)]
    held = {name for name in parts if name is not None}
    return sum(size[name] for name in held) / sum(size.values())


@pytest.mark.parametrize("kind", ["mixtral", "gpt-oss", "weight norm", "pruned"])
def test_nine_of_ten_weights_are_in_layers(kind: str) -> None:
    subject = uncommon(kind).subject
    assert share(subject.model) >= 0.9
    record = subject.record
    assert record.covered / record.parameters == pytest.approx(share(subject.model))
    assert record.covered + sum(one.size for one in record.untouched) == record.parameters


@pytest.mark.parametrize("kind", ["mixtral", "gpt-oss", "weight norm of an lstm", "attention", "conv"])
def test_names_are_unique_and_tell_the_module_and_matrices_have_a_row_for_each_unit(kind: str) -> None:
    subject = (uncommon if kind in MODELS else planted)(kind).subject
    names = [layer.name for layer in subject.layers]
    assert len(set(names)) == len(names) == len({layer.weight for layer in subject.layers})
    for layer in subject.layers:
        held = subject.model.get_submodule(layer.module)
        assert any(own is subject.parameter(layer.weight) for own in held.parameters())
        assert layer.name in (layer.module, layer.weight) or layer.name.startswith(f"{layer.module}.")
        assert subject.parameter(layer.weight).shape == layer.shape
        weight = subject.parameter(layer.weight).detach()
        matrix = layer.matrix(weight)
        assert matrix.shape == (layer.units, layer.fan_in)
        assert torch.equal(layer.stored(matrix), weight)
        assert layer.bias is None or subject.parameter(layer.bias).numel() == layer.units


@pytest.mark.parametrize(("make", "groups"), [(nn.ConvTranspose1d, 4), (nn.ConvTranspose3d, 2)])
def test_a_row_of_a_transposed_convolution_is_all_that_makes_one_channel(make: Any, groups: int) -> None:
    module = make(4, 8, 2, groups=groups)
    (layer,) = find_layers(module)
    inputs = torch.randn(1, 4, *[3] * (module.weight.ndim - 2))
    before = module(inputs)
    for unit in (0, 3, 7):
        matrix = layer.matrix(module.weight.detach()).clone()
        matrix[unit] = 0.0
        changed = make(4, 8, 2, groups=groups)
        changed.load_state_dict({"weight": layer.stored(matrix), "bias": module.bias})
        moved = (changed(inputs) != before).flatten(2).any(2)[0]
        assert moved.nonzero()[:, 0].tolist() == [unit]


def test_experts_are_rows_of_all_experts_also_where_they_are_stored_transposed() -> None:
    layers = named(uncommon("mixtral").subject.model)
    gate = layers["inner.model.layers.0.mlp.gate"]
    assert (gate.kind, gate.weight, gate.shape) == ("plain", "inner.model.layers.0.mlp.gate.weight", (4, 8))
    up, down = (layers[f"inner.model.layers.1.mlp.experts.{name}_proj"] for name in ("gate_up", "down"))
    assert (up.kind, up.units, up.fan_in) == ("plain", 4 * 24, 8)
    assert (down.kind, down.units, down.fan_in) == ("plain", 4 * 8, 12)
    subject = uncommon("gpt-oss").subject
    up = named(subject.model)["inner.model.layers.0.mlp.experts.gate_up_proj"]
    assert (up.kind, up.shape, up.units, up.fan_in) == ("stacked", (4, 8, 24), 4 * 24, 8)
    assert up.bias == "inner.model.layers.0.mlp.experts.gate_up_proj_bias"
    weight = subject.parameter(up.weight)
    assert torch.equal(up.matrix(weight)[24 + 5], weight[1, :, 5])


def test_a_computed_weight_is_the_parameter_behind_it() -> None:
    layers = named(uncommon("weight norm").subject.model)
    assert {name: layer.weight for name, layer in layers.items()} == {
        name: f"{name}.parametrizations.weight.original1" for name in ("0", "3", "5")
    }
    assert [layer.kind for layer in layers.values()] == ["conv", "linear", "linear"]
    hooked = named(uncommon("weight norm by hooks").subject.model)
    assert [layer.weight for layer in hooked.values()] == ["0.weight_v", "3.weight_v", "5.weight_v"]
    assert {layer.length for layer in hooked.values()} == {"0.weight_g", "3.weight_g", "5.weight_g"}
    assert not any(layer.unread for layer in (*layers.values(), *hooked.values()))
    pruned = named(uncommon("pruned").subject.model)["3"]
    assert "computes another weight" in pruned.unread and pruned.weight == "3.weight_orig"
    lstm = named(uncommon("weight norm of an lstm").subject.model)
    assert lstm["layer.weight_hh_l0"].weight == "layer.weight_hh_l0_v"


def test_a_parametrization_may_have_weights_of_its_own() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    parts = {"inner": nn.Parameter(torch.randn(2, 4)), "outer": nn.Parameter(torch.randn(3, 2))}
    low_rank = Wired(lambda net, weight: weight + net.outer @ net.inner, **parts)
    nn.utils.parametrize.register_parametrization(model[0], "weight", low_rank)
    assert list(named(model)) == ["0", "0.parametrizations.weight.0.inner", "0.parametrizations.weight.0.outer"]


class Own(nn.Module):
    """Parameters of every shape."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.bias = nn.Parameter(torch.randn(3))
        self.table = nn.Parameter(torch.randn(1, 6, 4))
        self.stack = nn.Parameter(torch.randn(2, 3, 4))
        self.stack_bias = nn.Parameter(torch.randn(2, 3))
        self.rel = nn.Parameter(torch.randn(5, 2))
        self.rel_bias = nn.Parameter(torch.randn(7, 2))
        self.token = nn.Parameter(torch.randn(1, 1, 4))
        self.gain = nn.Parameter(torch.ones(1, 4))
        self.scale = nn.Parameter(torch.ones(()))
        self.codes = nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False)
        self.norm = nn.LayerNorm((3, 4))


def test_plain_parameters_are_layers_where_they_vary_along_two_axes() -> None:
    """Not vectors, gains of norms of any shape, or codes; a bias of a stack is no weight of its own."""
    assert told(Own()) == [
        ("", "plain", "weight", "bias", 3, 4),
        ("table", "plain", "table", None, 6, 4),
        ("stack", "plain", "stack", "stack_bias", 6, 4),
        ("rel", "plain", "rel", None, 5, 2),
        ("rel_bias", "plain", "rel_bias", None, 7, 2),
    ]
    inside = nn.ModuleDict({"own": Own()})
    assert [layer.name for layer in find_layers(inside)] == [
        "own",
        *(f"own.{x}" for x in ("table", "stack", "rel", "rel_bias")),
    ]
    assert find_blocks(inside, find_layers(inside)) == tuple(layer.name for layer in find_layers(inside))
    record = Subject(inside.eval()).record
    assert record.untouched == (UntouchedModule("own", 4 + 4 + 1 + 16), UntouchedModule("own.norm", 24))
    assert Subject(Own().eval()).record.untouched[0].name == "the model itself"


# Ends of a language model.


class Ends(nn.Module):
    """Token embedding, positions, blocks with a layer as wide as the vocabulary, and a head."""

    def __init__(self, *, tied: bool, head_first: bool = False) -> None:
        super().__init__()
        head = nn.Linear(8, 12, bias=False)
        if head_first:
            self.out = head
        self.tokens, self.positions = nn.Embedding(12, 8), nn.Embedding(8, 8)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(8, 12), nn.Linear(12, 8)) for _ in range(2))
        self.mix = nn.Linear(8, 8)
        self.out = head
        if tied:
            self.out.weight = self.tokens.weight


def test_ends_are_embeddings_and_the_head_outside_the_blocks() -> None:
    for tied, first, expected in (
        (False, False, ("tokens", "positions", "out")),
        (True, False, ("tokens", "positions")),
        (True, True, ("out", "positions")),
    ):
        assert Subject(Ends(tied=tied, head_first=first).eval()).record.ends == expected
    assert all(planted(kind).subject.record.ends == () for kind in ("mlp", "conv", "attention"))
    assert uncommon("mixtral").subject.record.ends == ("inner.model.embed_tokens", "inner.lm_head")
    assert planted("tied").subject.record.ends == ("embed",)
