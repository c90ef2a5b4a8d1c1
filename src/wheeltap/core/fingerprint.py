"""Identity of a model: digests of its named tensors and of the source text of its module classes.

Nothing else is hashed. Whatever else decides the outputs (closures, globals, settings, files) is caught where stored
outcomes would be reused: ``wheeltap.runs.reuse`` compares the clean outputs first.
"""

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, cast, final

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from wheeltap.core import canon
from wheeltap.core.stages import stage
from wheeltap.core.typed import inner, named_modules

_VERSION = 3
"""Part of every fingerprint. Version 2 also hashed Python objects."""

PARAMETER, BUFFER, ATTRIBUTE, CLASS = "parameter ", "buffer ", "tensor ", "class "
"""Prefixes of the names of an identity's items."""

_MAX_DEPTH = 3
"""Nesting of lists, tuples and dicts up to which tensors in attributes are read: deeper ones are caches."""

_THREADED_BYTES = 2**24
"""Size of a model from which hashing in threads pays for starting them."""


@final
@dataclass(frozen=True)
class Identity:
    """What identifies a model.

    Attributes:
        items: Digest of each parameter, buffer and tensor attribute, and of each module's class, by prefixed name.
    """

    items: dict[str, str]

    def digest(self, *, without: Set[str] = frozenset()) -> str:
        """Fingerprint: one digest of all items, except those in ``without``."""
        return canon.key("model", [_VERSION, *sorted(item for item in self.items.items() if item[0] not in without)])

    def differing(self, other: "Identity") -> frozenset[str]:
        """Names of the items that differ between two identities or that only one of them has."""
        names = self.items.keys() | other.items.keys()
        return frozenset(name for name in names if self.items.get(name) != other.items.get(name))


@stage("fingerprints")
def identify(model: nn.Module) -> Identity:
    """Return the identity of a model as it is now."""
    classes = {f"{CLASS}{path}": _source_digest(module) for path, module in named_modules(model)}
    attributes = {f"{ATTRIBUTE}{name}": _tensor_digest(tensor) for name, tensor in tensor_attributes(model)}
    return Identity(classes | attributes | tensor_digests(model))


def tensor_attributes(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors that modules hold as plain attributes, also inside lists, tuples and dicts, with their paths."""
    registered = {id(tensor) for tensor in chain(model.parameters(), model.buffers())}
    for path, module in named_modules(model):
        for name, value in vars(module).items():
            if name not in ("_parameters", "_buffers", "_modules"):
                for inner_path, tensor in _tensors_in(value, f"{path}.{name}".lstrip("."), _MAX_DEPTH):
                    if id(tensor) not in registered:
                        yield inner_path, tensor


def _tensors_in(value: object, path: str, depth: int) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    elif depth and isinstance(value, dict | list | tuple):
        container = cast("dict[Any, Any] | list[Any] | tuple[Any, ...]", value)
        pairs = list(container.items() if isinstance(container, dict) else enumerate(container))
        for key, element in pairs:
            yield from _tensors_in(element, f"{path}.{key}", depth - 1)


def _source_digest(module: nn.Module) -> str:
    """Digest of the code of a module's class; of scripted and traced modules, of the code that torch generated."""
    if isinstance(module, torch.jit.ScriptModule | GraphModule):
        return canon.key("class", [str(getattr(module, "original_name", "")), str(getattr(module, "code", ""))])
    return _class_digest(type(module))


@lru_cache(maxsize=4096)
def _class_digest(module_class: type) -> str:
    # Inherited code counts: a subclass without code of its own computes what its bases compute.
    bases = [base for base in module_class.__mro__ if base not in (nn.Module, object)]
    return canon.key("class", [[base.__qualname__, source_of(base)] for base in bases])


def source_of(code: object) -> str:
    """Return the source text of a class or function; an empty string if Python cannot find it."""
    try:
        return inspect.getsource(cast("Any", code))
    except (OSError, TypeError):  # compiled, or made by exec: the clean outputs have to tell
        return ""


@stage("fingerprints")
def tensor_digests(model: nn.Module) -> dict[str, str]:
    """Return the digest of each parameter and buffer, by prefixed name as in ``Identity.items``."""
    named = {f"{PARAMETER}{name}": tensor for name, tensor in model.named_parameters()}
    named |= {f"{BUFFER}{name}": tensor for name, tensor in model.named_buffers()}
    if sum(tensor.nbytes for tensor in named.values()) < _THREADED_BYTES:
        return {name: _tensor_digest(tensor) for name, tensor in named.items()}
    with ThreadPoolExecutor(torch.get_num_threads()) as threads:  # hashlib releases the interpreter lock
        return dict(zip(named, threads.map(_tensor_digest, named.values()), strict=True))


@stage("fingerprints")
def weights_digest(model: nn.Module) -> str:
    """Return one digest of all parameters and buffers: name, dtype, shape, bytes. Equal means bit-identical."""
    return _digest_of(chain(model.named_parameters(), model.named_buffers()))


def _tensor_digest(tensor: Tensor) -> str:
    return _digest_of([("", tensor)])


def _digest_of(tensors: Iterable[tuple[str, Tensor]]) -> str:
    state = hashlib.blake2b(digest_size=16)
    for name, tensor in tensors:
        dtype, shape, data = tensor_parts(tensor)
        state.update(canon.canonical([name, dtype, shape]))
        state.update(data)
    return state.hexdigest()


def tensor_parts(tensor: Tensor) -> tuple[str, list[int], memoryview | bytes]:
    """Return a tensor's dtype (with the scales of quantized numbers), shape, and bytes, without a copy if possible."""
    if parts := [tensor_parts(part) for part in inner(tensor)]:
        kinds = ", ".join(f"{dtype} {shape}" for dtype, shape, _ in parts)
        return f"{type(tensor).__name__} of {kinds}", list(tensor.shape), b"".join(data for *_, data in parts)
    dtype, values = _dtype_and_values(tensor.detach())
    if values.is_meta:
        return f"meta {dtype}", list(values.shape), b""
    flat = values.cpu().contiguous()
    # Bytes through an integer view: numpy has no bfloat16.
    return dtype, list(flat.shape), flat.reshape(-1).view(torch.uint8).numpy().data


def _dtype_and_values(tensor: Tensor) -> tuple[str, Tensor]:
    """Dtype as text and the stored numbers: integer codes of a quantized tensor, dense values of a sparse one."""
    if tensor.is_quantized:
        if tensor.qscheme() in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            scales: list[Any] = [tensor.q_scale(), tensor.q_zero_point()]
        else:
            per_channel: list[Any] = [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]
            scales = [tensor.q_per_channel_axis(), *(values.tolist() for values in per_channel)]
        return f"{tensor.dtype} {tensor.qscheme()} {scales}", tensor.int_repr()
    if tensor.layout is not torch.strided:
        return f"{tensor.dtype} {tensor.layout}", tensor.to_dense()
    return str(tensor.dtype), tensor.resolve_conj().resolve_neg()
