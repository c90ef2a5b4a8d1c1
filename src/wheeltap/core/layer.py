"""Layers: one matrix view ``[unit, fan_in]`` of every weight that a disturbance can touch."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from wheeltap.core.kinds import Candidate, LayerKind, candidates
from wheeltap.core.typed import named_modules


@dataclass(frozen=True)
class Layer:
    """One weight (and bias) of a module, seen as a matrix with one row per output unit.

    Attributes:
        name: Module path; with the parameter's own name behind it where a module may have several such weights
            (``lstm.weight_ih_l0``, ``experts.down_proj``).
        kind: How the module stores the weight: see ``LayerKind``.
        weight: Parameter path of the weight.
        bias: Parameter path of the bias, if any.
        tied: Whether another module uses the same parameter; it is disturbed once, with both.
        groups: Of a transposed convolution.
        owner: Module path, where the name is another one.
        unread: Why what the weight is multiplied with cannot be read, in words; empty where it can. Disturbances that
            need to know a layer's inputs leave such a layer alone, and say so.
        length: Parameter path of what a weight norm sets the norms of rows to; ``weight`` is then that of their
            directions, and the layer's weight is computed from the two.
    """

    name: str
    kind: LayerKind
    weight: str
    bias: str | None
    shape: tuple[int, ...]
    tied: bool = False
    groups: int = 1
    owner: str | None = None
    unread: str = ""
    length: str | None = None

    @property
    def module(self) -> str:
        """Path of the module that has the weight."""
        return self.name if self.owner is None else self.owner

    @property
    def units(self) -> int:
        """Number of output units (of all experts, where they are stacked)."""
        match self.kind:
            case "transposed" | "embedding":
                return self.shape[-1]
            case "conv_transposed":
                return self.groups * self.shape[1]
            case "stacked":
                return math.prod(self.shape[:-2]) * self.shape[-1]
            case "plain":
                return math.prod(self.shape[:-1])
            case _:
                return self.shape[0]

    @property
    def fan_in(self) -> int:
        """Number of inputs of one unit (tokens, for an embedding)."""
        return math.prod(self.shape) // self.units

    @property
    def by_rows(self) -> bool:
        """Whether the module stores the matrix row after row, or column after column: else rows are in pieces."""
        return self.kind not in ("conv_transposed", "stacked")

    def matrix(self, weight: Tensor) -> Float[Tensor, "unit fan_in"]:
        """The weight as ``[unit, fan_in]``; a view where the layout allows."""
        match self.kind:
            case "transposed" | "embedding":
                return weight.T
            case "conv_transposed":
                inputs, outputs = self.shape[0] // self.groups, self.shape[1]
                return weight.reshape(self.groups, inputs, outputs, -1).transpose(1, 2).reshape(self.units, -1)
            case "stacked":
                return weight.mT.reshape(self.units, -1)
            case _:
                return weight.reshape(self.units, -1)

    def stored(self, matrix: Float[Tensor, "unit fan_in"]) -> Tensor:
        """The inverse of ``matrix``: back to the layout that the module stores."""
        match self.kind:
            case "transposed" | "embedding":
                return matrix.T
            case "conv_transposed":
                inputs, outputs = self.shape[0] // self.groups, self.shape[1]
                return matrix.reshape(self.groups, outputs, inputs, -1).transpose(1, 2).reshape(self.shape)
            case "stacked":
                return matrix.reshape(*self.shape[:-2], self.shape[-1], self.shape[-2]).mT
            case _:
                return matrix.reshape(self.shape)


def norms(weight: Tensor, *, like: Tensor) -> Tensor:
    """Norms of what belongs to each number of ``like``, the lengths of a weight norm; in its shape."""
    axes = [axis for axis in range(weight.ndim) if like.ndim != weight.ndim or like.shape[axis] == 1]
    return weight.square().sum(axes, keepdim=True).sqrt().reshape(like.shape)


def weight_in(model: nn.Module, layer: Layer) -> Tensor:
    """The weight of a layer as ``model`` multiplies by it, as stored: of a weight norm the computed one, a copy."""
    weight = model.get_parameter(layer.weight)
    if layer.length is None:
        return weight
    length = model.get_parameter(layer.length)
    scale = length / norms(weight, like=length)
    return (weight * (scale if scale.ndim == weight.ndim else scale.reshape([1] * weight.ndim))).detach()


def find_layers(model: nn.Module) -> tuple[Layer, ...]:
    """Every layer of ``model`` in module order, a tied weight once.

    That is under the first module whose class says how it is stored, else under the first that holds it.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = list(candidates(model))
    users: dict[int, list[Candidate]] = {}
    for candidate in found:
        users.setdefault(id(candidate.parameter), []).append(candidate)
    layers: list[Layer] = []
    for candidate in found:
        sharing = users[id(candidate.parameter)]
        if candidate is next((one for one in sharing if one.known), sharing[0]):
            layers.append(_layer(candidate, names, tied=len(sharing) > 1))
    return tuple(layers)


def _layer(candidate: Candidate, names: dict[int, str], *, tied: bool) -> Layer:
    weight = names[id(candidate.parameter)]
    named = [candidate.path, candidate.suffix] if candidate.path else [candidate.suffix]
    name = ".".join(part for part in named if part) if candidate.alone else weight
    return Layer(
        name=name,
        kind=candidate.kind,
        weight=weight,
        bias=None if candidate.bias is None else names[id(candidate.bias)],
        shape=tuple(candidate.parameter.shape),
        tied=tied,
        groups=candidate.groups,
        owner=None if name == candidate.path else candidate.path,
        unread=candidate.unread,
        length=None if candidate.length is None else names[id(candidate.length)],
    )


def find_blocks(model: nn.Module, layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """Module paths (or names of layers) that a block map disturbs one by one.

    The children of the longest ``ModuleList`` whose children hold layers, with every layer outside it as a block
    of its own; every layer its own block where there is no such list.
    """
    best = main_list(model, layers)
    blocks: list[str] = []
    for layer in layers:
        owner = next((b for b in best if layer.name == b or layer.name.startswith(f"{b}.")), layer.name)
        if owner not in blocks:
            blocks.append(owner)
    return tuple(blocks)


def main_list(model: nn.Module, layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """Module paths of the children of the longest ``ModuleList`` whose children hold layers; none where none does."""
    best: tuple[str, ...] = ()
    for path, module in named_modules(model):
        if not isinstance(module, nn.ModuleList):
            continue
        children = tuple(f"{path}.{index}" if path else str(index) for index in range(len(module)))
        held = tuple(c for c in children if any(layer.name == c or layer.name.startswith(f"{c}.") for layer in layers))
        if len(held) > max(len(best), 1):
            best = held
    return best
