"""Weights that are no parameters: tensors that activations are multiplied by or looked up in, listed in one pass.

A frozen backbone in buffers, weights in a list, a closure, or a file, a codebook, a copy that a module keeps of its own
weights: the outputs depend on them as on parameters, and no perturbation reaches them. They are seen where they meet
what comes from the inputs, below torch's own functions.

Not listed are vectors of one sign, tensors of one sign with at most one bit a number (masks, adjacency), and those that
are only added to activations or multiply them number by number (positions, rotary tables). Not seen are weights kept
outside of torch tensors, such as arrays of numpy or Python lists.
"""

import math
from collections.abc import Iterable, Set
from dataclasses import dataclass
from functools import reduce
from itertools import chain
from typing import Any, Final, NamedTuple, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wheeltap.core.fingerprint import tensor_attributes
from wheeltap.gauge.trace import tensors_in

_PRODUCTS: Final = (
    "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "matmul", "linear", "bilinear", "_trilinear", "convolution",
    "_convolution", "_cdist_forward", "_euclidean_dist", "mkldnn_rnn_layer", "lstm", "gru", "rnn", "_cudnn_rnn",
    "_sparse_addmm", "_sparse_mm", "sparse_sampled_addmm", "_scaled_mm", "_int_mm", "_grouped_mm",
)  # fmt: skip
"""Functions that sum products."""

_LOOKUPS: Final = (
    "embedding", "_embedding_bag", "_embedding_bag_forward_only", "index", "index_select", "gather", "take",
)  # fmt: skip
"""Functions that read numbers at places that activations choose."""
_READINGS: Final = ("set_", "from_file")  # their results hold numbers that were somewhere: in a file, or a tensor
_MAX_BYTES: Final = 2**28  # of activations kept alive; later ones may take each other's address, and are alike
_BITS: Final = 1.0  # information of a number, above which a table of one sign is a weight
_MATRIX: Final = 2  # axes of a weight
_END: Final = 2**63  # a byte behind the last one of any tensor


class _Origin(NamedTuple):
    """What a tensor was computed from: the inputs or not, and which leaves (a set of bits)."""

    inputs: bool = False
    leaves: int = 0


@final
@dataclass
class _Leaf:
    """A tensor that no function of the forward made; ``unpacked`` counts the numbers of a weight made of integers."""

    tensor: Tensor
    unpacked: int = 0

    @property
    def size(self) -> int:
        """Number of weights: several to a number where integers are unpacked."""
        stored = _stored(self.tensor).numel()
        if self.tensor.is_floating_point() or self.tensor.is_complex():
            return stored
        return min(max(stored, self.unpacked), 8 * self.tensor.element_size() * stored)


@final
class NonParameterTrace(TorchDispatchMode):
    """Follows one forward of ``model``, and notes which tensors act as weights and are no parameters."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._alive: list[Tensor] = []  # as long as one lives, no other has its address
        self._bytes = 0
        self._regions: dict[int, list[tuple[int, int, _Origin]]] = {}
        self._leaves: list[_Leaf] = []
        self._weights = self._answers = 0
        for parameter in model.parameters():
            self._add_leaf(parameter)
        self._parameters = (1 << len(self._leaves)) - 1
        self._names: dict[int, str] = {}
        for name, tensor in chain(model.named_buffers(), tensor_attributes(model)):
            self._names.setdefault(_place(tensor)[1], name)

    def inputs(self, given: Any) -> None:
        """Note what the model is called with."""
        for tensor in tensors_in(given):
            self._make(tensor, _Origin(inputs=True))

    def answer(self, output: Any) -> None:
        """Note what the model returns."""
        self._answers |= _union(self._origin(tensor).leaves for tensor in tensors_in(output))

    def sizes(self, volatile: Set[str]) -> dict[str, int]:
        """Return the number of weights in each tensor that the outputs depend on, by name; not of ``volatile`` ones."""
        found: dict[str, int] = {}
        for at, leaf in enumerate(self._leaves):
            name = self._names.get(_place(leaf.tensor)[1], f"a constant {list(leaf.tensor.shape)} of the forward")
            is_volatile = not volatile.isdisjoint((f"buffer {name}", f"tensor {name}"))
            if (self._weights & self._answers) >> at & 1 and not is_volatile:
                found[name] = found.get(name, 0) + leaf.size
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        name = str(func.overloadpacket.__name__)
        if name == "lift_fresh":  # a constant, at an address that an activation may have had
            for tensor in tensors_in(args):
                if self._origin(tensor).inputs:
                    self._regions.pop(_place(tensor)[0])
        parts = [(tensor, self._origin(tensor)) for tensor in tensors_in((args, given))]
        if any(origin.inputs for _, origin in parts):
            self._note(name.removesuffix("_"), parts)
        before = {_place(tensor)[0] for tensor, _ in parts}
        result = func(*args, **given)
        if name in _READINGS:
            return result
        if func is torch.ops.aten.view.dtype:  # bytes are read as numbers
            for at, leaf in enumerate(self._leaves):
                leaf.tensor = result if (parts[0][1].leaves & ~self._parameters) >> at & 1 else leaf.tensor
        made_of_shape = "_like" in name or name.startswith(("new_", "empty"))
        inputs = any(origin.inputs for _, origin in parts)
        origin = _Origin() if made_of_shape else _Origin(inputs, _union(origin.leaves for _, origin in parts))
        is_view = any(_place(tensor)[0] in before for tensor in tensors_in(result))
        for tensor in tensors_in(result):
            (self._write if is_view else self._make)(tensor, origin)
        if name.endswith("_") or given.get("out") is not None:
            for tensor in tensors_in([args[:1], given.get("out")]):
                self._write(tensor, origin)
        return result

    def _note(self, name: str, parts: list[tuple[Tensor, _Origin]]) -> None:
        """Note weights among what meets activations in a product, or is looked up by them."""
        if name in _LOOKUPS:
            parts = parts[:1]
        elif name not in _PRODUCTS:
            return
        for tensor, origin in parts:
            leaves = origin.leaves & ~self._parameters
            if origin.inputs or not leaves:
                continue
            packed: list[_Leaf] = []
            for at, leaf in enumerate(self._leaves):
                is_float = leaf.tensor.is_floating_point() or leaf.tensor.is_complex()
                weight = leaf.tensor if is_float else tensor  # integers and bits are unpacked into it
                # A spectral norm keeps vectors beside its parameter.
                fits = not origin.leaves & self._parameters or _axes(leaf.tensor) >= _MATRIX
                if leaves >> at & 1 and fits and _is_informative(weight, axes=_axes(tensor)):
                    self._weights |= 1 << at
                    packed += [] if is_float else [leaf]
            for leaf in sorted(packed, key=lambda leaf: -_stored(leaf.tensor).numel())[:1]:
                leaf.unpacked = max(leaf.unpacked, _varying(tensor))

    def _add_leaf(self, tensor: Tensor) -> _Origin:
        origin = _Origin(leaves=1 << len(self._leaves))
        self._leaves.append(_Leaf(tensor))
        key, start, end = _place(tensor)
        self._alive.append(tensor)
        self._regions.setdefault(key, []).append((start, end, origin))
        return origin

    def _make(self, tensor: Tensor, origin: _Origin) -> None:
        """Note a tensor with memory of its own."""
        if key := _place(tensor)[0]:
            if not origin.inputs or self._bytes < _MAX_BYTES:
                self._alive.append(tensor)
                self._bytes += tensor.nbytes if origin.inputs else 0
            self._regions[key] = [(0, _END, origin)]

    def _write(self, tensor: Tensor, origin: _Origin) -> None:
        """Note what was written into memory that was there, or is a view of it."""
        key, start, end = _place(tensor)
        if key and self._origin(tensor) != origin:
            self._regions[key].append((start, end, origin))

    def _origin(self, tensor: Tensor) -> _Origin:
        """What is known of a tensor; one that was never seen is a leaf."""
        key, start, end = _place(tensor)
        found = [origin for first, last, origin in self._regions.get(key, ()) if first < end and start < last]
        if not found:
            return self._add_leaf(tensor) if key else _Origin()
        return _Origin(any(origin.inputs for origin in found), _union(origin.leaves for origin in found))


def _union(sets: Iterable[int]) -> int:
    return reduce(int.__or__, sets, 0)


def _stored(tensor: Tensor) -> Tensor:
    """What holds the numbers of a tensor: of a sparse one, those that are not zero."""
    if tensor.layout is torch.sparse_coo:
        return tensor._values()
    return tensor if tensor.layout is torch.strided else tensor.values()


def _place(tensor: Tensor) -> tuple[int, int, int]:
    """A tensor's memory: its key, the first byte, and the one behind the last; zeros where there are no numbers."""
    try:
        stored = _stored(tensor)
        if not stored.numel():
            return 0, 0, 0
        storage, start = stored.untyped_storage().data_ptr(), stored.data_ptr()
    except (NotImplementedError, RuntimeError):  # a layout or class of its own
        return -id(tensor), 0, 1
    if not storage:
        return -id(tensor), 0, 1
    reach = sum((size - 1) * step for size, step in zip(stored.shape, stored.stride(), strict=True))
    return storage, start, start + (reach + 1) * stored.element_size()


def _axes(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided:
        return _MATRIX
    return sum(size > 1 and step != 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True))


def _varying(tensor: Tensor) -> int:
    """Numbers of a tensor, expanded ones once."""
    return math.prod(size for size, step in zip(tensor.shape, tensor.stride(), strict=True) if step)


def _is_informative(tensor: Tensor, *, axes: int) -> bool:
    """Whether numbers have two signs or, along two axes or more, more than a bit of information each."""
    stored = _stored(tensor)
    if stored.is_complex() or stored.is_quantized or (bool((stored < 0).any()) and bool((stored > 0).any())):
        return True
    torched: Any = torch
    counts: Tensor = torched.unique(stored, return_counts=True)[1]
    fractions = counts.double() / counts.sum()
    return axes >= _MATRIX and float(-(fractions * fractions.log2()).sum()) > _BITS
