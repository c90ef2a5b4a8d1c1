"""What of a model its layers hold, what no disturbance can touch, and where its tokens come in and go out."""

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from operator import attrgetter
from typing import Any, Final, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wheeltap.core.layer import Layer, main_list
from wheeltap.core.records import UntouchedModule
from wheeltap.core.typed import inner, named_modules

MOST_NAMED: Final = 50
"""Modules with untouched weights that a record names, at most."""

_NORM: Final = re.compile(r"norm(\d+d)?$", re.IGNORECASE)
"""How the name of a class of norms ends."""

_ROOT: Final = "the model itself"
_COMPUTED: Final = ".parametrizations."
_ADAPTER: Final = "peft.tuners.tuners_utils.BaseTunerLayer"
_PAIRS: Final = ({"lora_a", "lora_b"}, {"lora_down", "lora_up"})


PACKED: Final = (torch.int8, torch.uint8, torch.int32, torch.qint8, torch.quint8, torch.qint32)
"""Types in which weights are packed. Positions and masks are of 64 bits or booleans."""


def sizes(model: nn.Module, *, buffers: bool = True) -> dict[str, int]:
    """How many weights each parameter has, by its path, a tied one once; and packed ones, by the module that has them.

    Args:
        model: Whose weights.
        buffers: Whether in buffers too, or only in objects of torch's own.
    """
    beside: dict[str, int] = {}
    for path, module in named_modules(model):
        count = sum(one.numel() for one in _beside(module, buffers=buffers))
        if count:
            name = ".".join(part for part in (_holder(path), "packed weights") if part)
            beside[name] = beside.get(name, 0) + count
    return {name: parameter.numel() for name, parameter in model.named_parameters()} | beside


def packed(model: nn.Module) -> tuple[UntouchedModule, ...]:
    """Modules that hold weights as integers, or in an object of torch's own, the largest first."""
    found: dict[str, int] = {}
    for path, module in named_modules(model):
        own = [held for held in module.parameters(recurse=False) if held.dtype in PACKED or inner(held)]
        count = sum(one.numel() for one in (*own, *_beside(module)))
        if count:
            name = _holder(path) or _ROOT
            found[name] = found.get(name, 0) + count
    return tuple(UntouchedModule(path, count) for path, count in sorted(found.items(), key=lambda item: -item[1]))


def _holder(path: str) -> str:
    """The module that a reader knows: torch's quantized layers keep what they pack in modules of their own."""
    parts = path.split(".")
    return ".".join(parts[: next((at for at, part in enumerate(parts) if part.startswith("_")), len(parts))])


def _beside(module: nn.Module, *, buffers: bool = True) -> Iterator[Tensor]:
    """The packed matrices of a module beside parameters: in buffers, and in objects that torch's layers pack."""
    found = [one for one in module.buffers(recurse=False) if buffers and one.dtype in PACKED]
    for held in vars(module).values():
        if isinstance(held, torch.ScriptObject) and not isinstance(held, torch.ScriptModule):
            found += _unpacked(held)
    yield from (one for one in found if sum(size > 1 for size in one.shape) >= 2)


def _unpacked(part: Any) -> Iterator[Tensor]:
    """The tensors that an object of torch would be stored as."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, list | tuple):
        for one in cast("Iterable[Any]", part):
            yield from _unpacked(one)
    elif isinstance(part, torch.ScriptObject):
        try:
            state = cast("Any", part).__getstate__()
        except (AttributeError, RuntimeError):  # it cannot be stored
            return
        yield from _unpacked(state)


def held(layers: Iterable[Layer], size: Mapping[str, int], *, biases: bool = True) -> int:
    """How many weights some layers have, each once: with their biases, which noise disturbs too, or without."""
    return sum(size.get(name, 0) for name in _names(layers, biases=biases))  # an idle one has none


def vectors(model: nn.Module, layers: Iterable[Layer]) -> set[str]:
    """Paths of what every format keeps in full precision: biases of layers, and gains and shifts of norms."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    norms = (module for module in model.modules() if _NORM.search(type(module).__name__))
    own = {names[id(parameter)] for norm in norms for parameter in norm.parameters(recurse=False)}
    return (own | {layer.bias for layer in layers if layer.bias is not None}) - {layer.weight for layer in layers}


def untouched(
    layers: Iterable[Layer], size: Mapping[str, int], *, fixed: Set[str] = frozenset()
) -> tuple[UntouchedModule, ...]:
    """Modules with weights in no layer, the largest number of weights first.

    That of a computed weight (the length of a weight norm, say) is the one whose weight it is.

    Args:
        layers: What is disturbed.
        size: How many weights there are, by path.
        fixed: Paths of tensors that are no parameters: each is named by its own.
    """
    touched = _names(layers)
    found: dict[str, int] = {}
    for name, count in size.items():
        if name in fixed:
            called = name.partition("._packed_params")[0]
            found[called] = found.get(called, 0) + count
        elif name not in touched:
            path = f".{name}".partition(_COMPUTED)[0] if _COMPUTED in f".{name}" else f".{name}".rpartition(".")[0]
            module = path.removeprefix(".") or _ROOT
            found[module] = found.get(module, 0) + count
    largest = sorted(found.items(), key=lambda item: -item[1])
    return tuple(UntouchedModule(name, count) for name, count in largest[:MOST_NAMED])


def composed(model: nn.Module) -> tuple[str, ...] | None:
    """Modules whose weights the forward computes from parts: parametrized ones, and adapters that are not merged.

    An adapter is a layer of peft, or a pair of low rank by its names: LoRA's, or A and B beside the matrix they change.
    """
    found = list[str]()
    for path, module in named_modules(model):
        peft = any(f"{one.__module__}.{one.__name__}".startswith(_ADAPTER) for one in type(module).__mro__)
        apart = (peft or _low_rank(module)) and not getattr(module, "merged", False)
        if (apart and _COMPUTED not in f".{path}.") or parametrize.is_parametrized(module):
            found.append(path or _ROOT)
    return tuple(found) or None


def _low_rank(module: nn.Module) -> bool:
    """Whether it holds a pair of matrices of low rank, by their names."""
    held = {name.casefold(): weight for name, weight in module.named_parameters(recurse=False)}
    children = {name.casefold(): child for name, child in module.named_children()}
    if any(pair <= held.keys() | children.keys() for pair in _PAIRS):
        return True
    held |= {name: child.weight for name, child in children.items() if isinstance(child, nn.Linear)}
    shapes = {name: (*weight.shape,) for name, weight in held.items() if weight.ndim == 2}
    both = (*shapes.pop("a", ()), *shapes.pop("b", ()))
    rank = min(both, default=0)
    return any(rank < min(one) and sorted(both) == sorted((*one, rank, rank)) for one in shapes.values())


def ends(model: nn.Module, layers: tuple[Layer, ...]) -> tuple[str, ...]:
    """Layers of a language model that turn tokens into vectors, and vectors into scores of tokens; none of any other.

    The latter is a layer outside the blocks with one unit for each token of the largest embedding; where it is tied to
    that, the two are one layer. A model that embeds tokens without scoring them is no language model: its embedding may
    be nearly all there is of it.
    """
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    embeddings = {
        layer.name: layer.shape[0]
        for layer in layers
        if layer.kind == "embedding" or id(attrgetter(layer.weight)(model)) in tables
    }
    # Positions and types of tokens are embedded as well, but are never what a head scores.
    tokens = max(embeddings.values(), default=0)
    blocks = main_list(model, layers)

    def is_head(layer: Layer) -> bool:
        inside = any(layer.name == block or layer.name.startswith(f"{block}.") for block in blocks)
        return layer.kind in ("linear", "transposed") and layer.units == tokens and not inside

    scored = any(isinstance(module, nn.Linear) and id(module.weight) in tables for module in model.modules())
    if not scored and not any(is_head(layer) for layer in layers):
        return ()
    return tuple(layer.name for layer in layers if layer.name in embeddings or is_head(layer))


def _names(layers: Iterable[Layer], *, biases: bool = True) -> set[str]:
    held = ((layer.weight, layer.bias if biases else None, layer.length) for layer in layers)
    return {name for names in held for name in names if name is not None}
