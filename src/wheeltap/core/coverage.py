"""What of a model its layers hold, what no disturbance can touch, and where its tokens come in and go out."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from wheeltap.core.layer import Layer, main_list
from wheeltap.core.records import Untouched
from wheeltap.core.typed import named_modules

MOST_NAMED: Final = 50
"""Modules with untouched weights that a record names, at most."""

_ROOT: Final = "the model itself"
_COMPUTED: Final = ".parametrizations."


PACKED: Final = (torch.int8, torch.uint8, torch.int32, torch.qint8, torch.quint8, torch.qint32)
"""Types in which weights are packed. Positions and masks are of 64 bits or booleans."""


def sizes(model: nn.Module) -> dict[str, int]:
    """How many weights each parameter has, by its path, a tied one once; and each module that holds packed ones."""
    found = {name: parameter.numel() for name, parameter in model.named_parameters()}
    for path, module in named_modules(model):
        count = sum(held.numel() for held in _beside(module) if held.dtype in PACKED and _is_matrix(held))
        if count:
            found[f"{path}.packed weights" if path else "packed weights"] = count
    return found


def packed(model: nn.Module) -> tuple[Untouched, ...]:
    """Modules that hold weights as integers, the largest first."""
    found: dict[str, int] = {}
    for path, module in named_modules(model):
        held = [one for one in (*module.parameters(recurse=False), *_beside(module)) if one.dtype in PACKED]
        count = sum(one.numel() for one in held if isinstance(one, nn.Parameter) or _is_matrix(one))
        if count:
            found[path or _ROOT] = count
    return tuple(Untouched(path, count) for path, count in sorted(found.items(), key=lambda item: -item[1]))


def _is_matrix(tensor: Tensor) -> bool:
    return sum(size > 1 for size in tensor.shape) >= 2


def _beside(module: nn.Module) -> Iterator[Tensor]:
    """What a module holds beside parameters: buffers, and what torch's own quantized layers keep in an object."""
    yield from module.buffers(recurse=False)
    if ".quantized" in type(module).__module__ and callable(getattr(module, "weight", None)):
        yield cast("Any", module).weight()


def held(layers: Iterable[Layer], size: Mapping[str, int]) -> int:
    """How many weights some layers have: their weights and their biases, which noise disturbs too, each once."""
    return sum(size[name] for name in _names(layers))


def untouched(layers: Iterable[Layer], size: Mapping[str, int]) -> tuple[Untouched, ...]:
    """Modules with parameters in no layer, the largest number of weights first.

    That of a computed weight (the length of a weight norm, say) is the one whose weight it is.
    """
    touched = _names(layers)
    found: dict[str, int] = {}
    for name, count in size.items():
        if name not in touched:
            path = f".{name}".partition(_COMPUTED)[0] if _COMPUTED in f".{name}" else f".{name}".rpartition(".")[0]
            module = path.removeprefix(".") or _ROOT
            found[module] = found.get(module, 0) + count
    largest = sorted(found.items(), key=lambda item: -item[1])
    return tuple(Untouched(name, count) for name, count in largest[:MOST_NAMED])


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
        if layer.kind == "embedding" or id(model.get_parameter(layer.weight)) in tables
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


def _names(layers: Iterable[Layer]) -> set[str]:
    return {name for layer in layers for name in (layer.weight, layer.bias, layer.length) if name is not None}
