"""Layers: one matrix view ``[unit, fan_in]`` of every weight that a disturbance can touch."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from wheeltap.core.typed import named_modules

LayerKind = Literal["linear", "transposed", "conv", "embedding", "attention"]


@dataclass(frozen=True)
class Layer:
    """One weight (and bias) of a module, seen as a matrix with one row per output unit.

    Attributes:
        name: Module path; for the packed query/key/value weight of ``nn.MultiheadAttention`` its own path too.
        kind: How the module stores the weight: ``linear`` ``[unit, in]``, ``transposed`` ``[in, unit]`` (the
            Conv1D of GPT-2 style models), ``conv`` ``[unit, in / groups, *kernel]``, ``embedding``
            ``[token, unit]``, ``attention`` ``[3 unit, in]``.
        weight: Parameter path of the weight.
        bias: Parameter path of the bias, if any.
        tied: Whether another module uses the same parameter; it is disturbed once, with both.
    """

    name: str
    kind: LayerKind
    weight: str
    bias: str | None
    shape: tuple[int, ...]
    tied: bool = False

    @property
    def units(self) -> int:
        """Number of output units."""
        return self.shape[-1] if self.kind in ("transposed", "embedding") else self.shape[0]

    @property
    def fan_in(self) -> int:
        """Number of inputs of one unit (tokens, for an embedding)."""
        return math.prod(self.shape) // self.units

    def matrix(self, weight: Tensor) -> Float[Tensor, "unit fan_in"]:
        """The weight as ``[unit, fan_in]``; a view where the layout allows."""
        return weight.T if self.kind in ("transposed", "embedding") else weight.reshape(self.units, -1)

    def stored(self, matrix: Float[Tensor, "unit fan_in"]) -> Tensor:
        """The inverse of ``matrix``: back to the layout that the module stores."""
        return matrix.T if self.kind in ("transposed", "embedding") else matrix.reshape(self.shape)


def _described(module: nn.Module) -> tuple[LayerKind, str, str] | None:
    """Kind, weight attribute and bias attribute of a module that we know, or ``None``."""
    if isinstance(module, nn.MultiheadAttention):
        # Absent (None) where queries, keys and values differ in width and have weights of their own.
        return "attention", "in_proj_weight", "in_proj_bias"
    if isinstance(module, nn.Linear):
        return "linear", "weight", "bias"
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return "conv", "weight", "bias"
    if isinstance(module, nn.Embedding):
        return "embedding", "weight", "bias"
    # GPT-2 style Conv1D: recognised by name so that transformers is never imported here.
    if type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers."):
        return "transposed", "weight", "bias"
    return None


def _candidates(model: nn.Module) -> Iterator[tuple[str, LayerKind, nn.Parameter, str, str]]:
    for path, module in named_modules(model):
        found = _described(module)
        if found is None:
            continue
        kind, weight, bias = found
        parameter = getattr(module, weight)
        if isinstance(parameter, nn.Parameter):
            yield path, kind, parameter, weight, bias


def find_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Every layer of ``model`` in module order, a tied weight once (under the first module that holds it)."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    users: dict[int, int] = {}
    for _, _, parameter, _, _ in _candidates(model):
        users[id(parameter)] = users.get(id(parameter), 0) + 1
    layers: dict[str, Layer] = {}
    for path, kind, parameter, _, bias in _candidates(model):
        weight = names[id(parameter)]
        if weight in layers:
            continue
        held = getattr(model.get_submodule(path), bias, None)
        layers[weight] = Layer(
            name=path,
            kind=kind,
            weight=weight,
            bias=names[id(held)] if isinstance(held, nn.Parameter) else None,
            shape=tuple(parameter.shape),
            tied=users[id(parameter)] > 1,
        )
    return tuple(layers.values())


def find_blocks(model: nn.Module, layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """Module paths that a block map disturbs one by one.

    The children of the longest ``ModuleList`` whose children hold layers, with every layer outside it as a block
    of its own; every layer its own block where there is no such list.
    """
    best: tuple[str, ...] = ()
    for path, module in named_modules(model):
        if not isinstance(module, nn.ModuleList):
            continue
        children = tuple(f"{path}.{index}" if path else str(index) for index in range(len(module)))
        held = tuple(c for c in children if any(layer.name == c or layer.name.startswith(f"{c}.") for layer in layers))
        if len(held) > max(len(best), 1):
            best = held
    blocks: list[str] = []
    for layer in layers:
        owner = next((b for b in best if layer.name == b or layer.name.startswith(f"{b}.")), layer.name)
        if owner not in blocks:
            blocks.append(owner)
    return tuple(blocks)
