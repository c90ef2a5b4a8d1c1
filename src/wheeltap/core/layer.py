"""Layers: one matrix view ``[unit, fan_in]`` of every weight that a disturbance can touch.

Which parameters of a module are weights, and how each is laid out.

A weight is what has two axes or more along which it varies: a parameter of one axis is a bias, a gain of a norm or
another vector, which deployment leaves as it is. Gains stay gains where a norm has several axes.

A weight norm, in either style, computes its weight g v / |v| from two parameters that can hold any weight: the computed
weight is what is disturbed, and v and g are written so that the module computes the disturbed one. It is then treated
as the checkpoint would be whose norm was folded.

Where a module computes its weight from other parameters in another way (spectral norm, masks of
``torch.nn.utils.prune``, any ``torch.nn.utils.parametrize``), these are disturbed. For what a spectral norm divides by
one number, rounding each row on a grid of its own gives the very codes that rounding the computed weight gives: a row's
grid scales with it. What the forward makes of them is then scaled anew as a whole: a checkpoint whose norm was folded
before it was rounded lacks that correction.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Literal, NamedTuple, cast

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wheeltap.core.typed import inner, named_modules

LayerKind = Literal[
    "linear", "transposed", "conv", "embedding", "attention", "recurrent", "conv_transposed", "bilinear", "plain",
    "stacked",
]  # fmt: skip
"""How a module stores a weight.

``linear`` ``[unit, in]``; ``transposed`` ``[in, unit]`` (the Conv1D of GPT-2 style models); ``conv``
``[unit, in / groups, *kernel]``; ``embedding`` ``[token, unit]``; ``attention`` ``[3 unit, in]`` (packed);
``recurrent`` ``[gates x unit, in]``; ``conv_transposed`` ``[in, unit / groups, *kernel]``; ``bilinear``
``[unit, in, in]``; ``plain`` ``[*unit, in]``: any other parameter, experts and position embeddings among them;
``stacked`` ``[expert, in, unit]``: experts of transformers that are stored transposed.
"""


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


class _Known(NamedTuple):
    """What a class says of one weight: its attribute, that of the bias, and the layout.

    Attributes:
        axes: Of the weight.
    """

    attribute: str
    bias: str
    kind: LayerKind
    axes: int = 2
    groups: int = 1
    unread: str = ""


_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)  # pyright: ignore[reportPrivateUsage]

_RECURRENT = "a recurrent weight: its inputs are not read"
COMPUTED = "its module computes another weight from it"


def _of_class(module: nn.Module) -> tuple[_Known, ...]:
    """The weights of a module that we know."""
    match module:
        case nn.MultiheadAttention():
            # Absent (None) where queries, keys and values differ in width and have weights of their own.
            return (_Known("in_proj_weight", "in_proj_bias", "attention"),)
        case nn.Linear():
            return (_Known("weight", "bias", "linear"),)
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            return (_Known("weight", "bias", "conv", 2 + len(module.kernel_size)),)
        case nn.ConvTranspose1d() | nn.ConvTranspose2d() | nn.ConvTranspose3d():
            why, axes = "a transposed convolution: its inputs are not read", 2 + len(module.kernel_size)
            return (_Known("weight", "bias", "conv_transposed", axes, module.groups, unread=why),)
        case nn.Embedding():
            return (_Known("weight", "bias", "embedding"),)
        case nn.EmbeddingBag():
            return (_Known("weight", "bias", "embedding", unread="bags of tokens are not read"),)
        case nn.Bilinear():
            return (_Known("weight", "bias", "bilinear", 3, unread="a bilinear weight: its inputs are not read"),)
        case nn.RNNBase():
            ends = ("", "_reverse") if module.bidirectional else ("",)
            suffixes = [f"_l{layer}{end}" for layer, end in product(range(module.num_layers), ends)]
            names = [f"{part}{suffix}" for suffix in suffixes for part in ("ih", "hh", "hr")]
            return tuple(_Known(f"weight_{name}", f"bias_{name}", "recurrent", unread=_RECURRENT) for name in names)
        case nn.RNNCellBase():
            names = ("ih", "hh")
            return tuple(_Known(f"weight_{name}", f"bias_{name}", "recurrent", unread=_RECURRENT) for name in names)
        case _:
            # GPT-2 style Conv1D: recognised by name so that transformers is never imported here.
            conv1d = type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers.")
            return (_Known("weight", "bias", "transposed"),) if conv1d else ()


def _parametrizations(module: nn.Module) -> dict[str, nn.Module]:
    held = module.parametrizations if parametrize.is_parametrized(module) else nn.ModuleDict()
    return dict(cast("nn.ModuleDict", held).items())


def _of_known(path: str, module: nn.Module, known: _Known, names: dict[int, str]) -> Iterator[Layer]:
    """The parameter that is a module's weight, or those that it is made of."""
    made, length = _originals(module, known.attribute)
    direct = None if made else getattr(module, known.attribute, None)
    parameters = [direct] if isinstance(direct, nn.Parameter) and _is_plain(direct) else made
    bias = getattr(module, known.bias, None)
    suffix = "" if known.attribute in ("weight", "in_proj_weight") else known.attribute
    for parameter in parameters:
        fits = not known.axes or direct is parameter or parameter.ndim == known.axes
        fits = fits and (known.kind != "conv_transposed" or parameter.shape[0] % known.groups == 0)
        weight = names[id(parameter)]
        name = ".".join(part for part in (path, suffix) if part) if len(parameters) == 1 else weight
        yield Layer(
            name=name,
            kind=known.kind if fits else "plain",
            weight=weight,
            bias=names[id(bias)] if isinstance(bias, nn.Parameter) else None,
            shape=tuple(parameter.shape),
            groups=known.groups if fits else 1,
            owner=None if name == path else path,
            unread=known.unread if direct is parameter or length is not None else COMPUTED,
            length=None if length is None else names[id(length)],
        )


def _originals(module: nn.Module, attribute: str) -> tuple[list[nn.Parameter], nn.Parameter | None]:
    """The parameters that an attribute is computed from, and what a weight norm sets the norms of the rows to.

    None where it is a parameter itself. Of those with two axes or more; where none varies along two (a weight of one
    column, say), of these the last of the largest: that is the direction of a weight norm, and not its length.
    """
    made, length = _parametrizations(module).get(attribute), None
    own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
    if made is not None:
        held = list(made.parameters(recurse=False))
        if [type(one).__name__ for one in made.children()] == ["_WeightNorm"]:
            length = dict(made.named_parameters(recurse=False)).get("original0")
    else:
        held = [own[name] for name in (f"{attribute}_v", f"{attribute}_orig") if name in own and attribute not in own]
    if f"{attribute}_v" in own and attribute not in own:
        length = own.get(f"{attribute}_g")
    wide = [parameter for parameter in held if parameter.ndim >= 2 and _is_plain(parameter)]
    largest = sorted(wide, key=nn.Parameter.numel)[-1:]
    return [parameter for parameter in wide if _is_weight(parameter)] or largest, length


def _is_plain(parameter: Tensor) -> bool:
    """Whether it holds numbers of floating point, and is not computed from packed ones."""
    return parameter.is_floating_point() and not inner(parameter)


def _is_weight(parameter: Tensor) -> bool:
    """Whether it varies along two axes: ``[1, n]`` is a vector."""
    return _is_plain(parameter) and sum(size > 1 for size in parameter.shape) >= 2


def _plain(
    path: str,
    module: nn.Module,
    weights: Mapping[str, Tensor],
    own: Mapping[str, Tensor],
    names: dict[int, str],
) -> Iterator[Layer]:
    """Weights that the module's class says nothing of, each with its bias: what is one is no weight itself."""
    # Experts of transformers tell how they are stored.
    transposed = vars(module).get("is_transposed") is True
    stacked = {name for name, held in weights.items() if transposed and held.ndim == 3}
    biases: dict[str, str] = {}
    for name, held in weights.items():
        units = held.numel() // held.shape[-2 if name in stacked else -1]
        for other in (f"{name}_bias", _bias_of(name), re.sub(r"^[wW](?=\d*$)", "b", name)):
            if other != name and other in own and own[other].numel() == units:
                biases[name] = other
    for name, held in weights.items():
        if name in biases.values():
            continue
        called = ".".join(part for part in (path, "" if name == "weight" else name) if part)
        yield Layer(
            name=called,
            kind="stacked" if name in stacked else "plain",
            weight=names[id(held)],
            bias=names[id(own[biases[name]])] if name in biases else None,
            shape=tuple(held.shape),
            owner=None if called == path else path,
            unread=f"a parameter of {type(module).__name__}, which may use it in any way",
        )


def _bias_of(attribute: str) -> str:
    """The usual name of the bias that goes with a weight."""
    return attribute.replace("weight", "bias") if "weight" in attribute else f"{attribute}_bias"


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
    found: list[tuple[Layer, bool]] = []  # and whether the module's class says how it is stored
    for path, module in named_modules(model):
        if isinstance(module, parametrize.ParametrizationList):
            continue  # found at the module whose weight they make
        own = dict(module.named_parameters(recurse=False, remove_duplicate=False))
        taken: set[str] = set()
        known_ones = _of_class(module)
        attributes = {one.attribute for one in known_ones}
        # Attributes that are computed from others, of a module of any class.
        computed = (name for name in _parametrizations(module) if name not in attributes)
        others = (_Known(name, _bias_of(name), "plain", axes=0, unread=COMPUTED) for name in computed)
        for known in (*known_ones, *others):
            for layer in _of_known(path, module, known, names):
                taken.add(layer.weight)
                found.append((layer, known.axes > 0))
        if not isinstance(module, _NORMS):
            weights = {name: held for name, held in own.items() if names[id(held)] not in taken and _is_weight(held)}
            found += [(layer, False) for layer in _plain(path, module, weights, own, names)]
    users: dict[str, list[tuple[Layer, bool]]] = {}
    for one in found:
        users.setdefault(one[0].weight, []).append(one)
    layers: list[Layer] = []
    for one in found:
        sharing = users[one[0].weight]
        if one is next((each for each in sharing if each[1]), sharing[0]):
            layers.append(replace(one[0], tied=len(sharing) > 1))
    return tuple(layers)


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
