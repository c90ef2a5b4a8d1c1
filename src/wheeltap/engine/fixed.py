"""What a forward computes its answers from, number by number: parameters, and weights that are no parameters.

A frozen backbone in buffers, weights in a list, a closure, an array or a scripted graph, a table that is read by index,
a codebook, a copy that a module keeps of its own weights: all of them decide the answers as parameters do. They are
seen where they meet what comes from the inputs, below torch's own functions.

What no rule knows is a weight. No weights are, where they are used in no other way:

- what is added to activations, or scales them, number by number: positions, rotary tables, gains, statistics of norms;
- masks, and indices into activations;
- what varies along one axis, unless it is looked up, or summed and has two signs;
- what has one sign and at most one bit of information a number: adjacency, averages, filter banks;
- vectors and masks that go into a weight beside parameters: what a spectral norm or a pruning keeps.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, NamedTuple, cast, final

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_INDICES: Final = ("index", "indices", "idx", "offsets")
"""Names of arguments that say which numbers are read."""

_BESIDE: Final = ("mask", "attn_mask", "attn_bias", "condition", "grid", "running_mean", "running_var")
"""Names of arguments that choose or shift what is computed."""

_SUMS: Final = (
    "sum", "mean", "nansum", "prod", "logsumexp", "cumsum", "index_add", "scatter_add", "scatter_reduce",
    "index_reduce", "segment_reduce",
)  # fmt: skip
"""Functions that make a product of what was multiplied number by number. Transforms of Fourier do as well."""

_SCALES: Final = ("mul", "div")

_SHIFTS: Final = ("add", "sub", "rsub")

_SQUARES: Final = ("pow", "square", "abs")
"""Functions after which a sum of differences is a distance."""

_PARITIES: Final = ("bitwise_xor", "logical_xor", "eq", "ne")
"""Functions that truth values are weights of one bit in; masks meet in others."""

_READINGS: Final = ("set_", "from_file")
"""Functions that give numbers which were somewhere: in a file, say, or in another tensor."""

_CHOICES: Final = ("where", "masked_fill")
"""Functions that activations meet truth values in."""

_COPIES: Final = ("clone", "_to_copy", "copy")
"""Functions that give the same numbers in another place."""

_KNOWN: Final = ("aten", "prims", "prim", "quantized", "onednn", "mkldnn", "mkl", "fbgemm", "torchvision", "torchaudio")
"""Whose functions compute with what they are given alone."""

_MOST_BYTES: Final = 2**28
"""Of activations that are kept alive; of later ones the key may be that of an earlier one, which is one as well."""

_BITS: Final = 1.0
"""Information of a number, above which a table of one sign is a weight."""

_SEVERAL: Final = 2
"""Rows or planes that the same activations meet one by one, from which they are judged together."""

_PLANE_BITS: Final = (0.85, 3.0, 0.5)
"""Information of planes of bits at one place, above which they are digits of weights, not masks: of a few nearly a bit
each, which nested masks never have; of more three bits in all, and half a bit each."""

_MATRIX: Final = 2
"""Axes of a weight."""

_EVERYWHERE: Final = 2**63
"""A byte behind the last one of any tensor."""


class _Origin(NamedTuple):
    """What a tensor was computed from.

    Attributes:
        inputs: Whether from the inputs.
        leaves: From which stored tensors: a set of bits.
        masks: From which others as masks of parameters.
        scaled: Which of these its numbers were multiplied by, one by one, and not summed since.
        rows: Which rows and planes its numbers met, and were not summed since: bits of their numbers.
        shifts: Which rows were added or subtracted, and not squared since: the same.
    """

    inputs: bool = False
    leaves: int = 0
    masks: int = 0
    scaled: int = 0
    rows: int = 0
    shifts: int = 0


class _Row(NamedTuple):
    """A vector or a table that activations met number by number, or a plane of bits.

    Attributes:
        beside: Of the activations: what they were, and where.
        tensor: The row.
        leaves: What it was computed from.
    """

    beside: tuple[str, int, int]
    tensor: Tensor
    leaves: int


@final
@dataclass
class Leaf:
    """A tensor that no function of the forward made.

    Attributes:
        tensor: That.
        parameter: Its path, where it is a parameter.
        unpacked: Numbers of the largest weight that it went into.
        digits: How many of its numbers make one weight: planes of bits hold a digit each.
    """

    tensor: Tensor
    parameter: str = ""
    unpacked: int = 0
    digits: float = 1.0

    @property
    def size(self) -> int:
        """How many weights it holds: several to a number where integers are unpacked."""
        stored = numbers(self.tensor)
        whole = not self.tensor.is_floating_point() and not self.tensor.is_complex()
        held = min(max(stored, self.unpacked), 8 * self.tensor.element_size() * stored) if whole else stored
        return round(held / self.digits)


class _Argument(NamedTuple):
    """A tensor that a function is called with, and what the argument is called."""

    role: str
    tensor: Tensor
    origin: _Origin


@final
class OriginTrace(TorchDispatchMode):
    """Follows, while a forward runs, what every tensor is computed from.

    Args:
        parameters: By their paths.

    Attributes:
        reached: Leaves that the answers depend on, once ``answer`` was called: a set of bits.
        weights: Leaves that are weights: a set of bits.
        outside: Whether the answers do not come from the inputs by functions of torch.
        scalars: Numbers of the code that activations are combined with, each once.
    """

    def __init__(self, parameters: Iterable[tuple[str, Tensor]]) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._held: list[Tensor] = []  # as long as one lives, no other has its key
        self._bytes = 0
        self._regions: dict[int, list[tuple[int, int, _Origin]]] = {}
        self.leaves: list[Leaf] = []
        self.weights = self.reached = 0
        self._rows: list[_Row] = []
        self._summed = 0
        self.outside = False
        self.scalars: set[float] = set()
        for path, parameter in parameters:
            self._leaf(parameter, path)
        self._parameters = (1 << len(self.leaves)) - 1

    def inputs(self, given: Any) -> None:
        """Takes what the model is called with."""
        for tensor in tensors(given):
            self._make(tensor, _Origin(inputs=True))

    def answer(self, output: Any) -> None:
        """Takes what the model gives."""
        origins = [self._origin(tensor) for tensor in tensors(output)]
        self.outside |= not any(origin.inputs for origin in origins)
        for origin in origins:
            self.reached |= origin.leaves | origin.masks
        together: dict[tuple[Any, ...], list[_Row]] = {}
        for at, row in enumerate(self._rows):
            if self._summed >> at & 1:
                together.setdefault((*row.beside, row.tensor.numel()), []).append(row)
        for (kind, *_), rows in together.items():
            some = list({place(row.tensor): row.tensor for row in rows}.values())
            leaves = _union(row.leaves for row in rows)
            if _are_planes(some):
                self.weights |= leaves
                stored = sum(numbers(leaf.tensor) for leaf in self.of(leaves))
                for leaf in self.of(leaves):
                    leaf.digits = max(stored / some[0].numel(), 1.0)
            elif _are_weights(some, shifts=kind == "shift"):
                self.weights |= leaves

    def of(self, bits: int) -> list[Leaf]:
        """The leaves of a set of bits."""
        return [leaf for at, leaf in enumerate(self.leaves) if bits >> at & 1]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        name = str(func.overloadpacket.__name__)
        if name == "lift_fresh":  # a constant, at a place that an activation may have had
            for tensor in tensors(args):
                if self._origin(tensor).inputs:
                    self._regions.pop(place(tensor)[0])
        names = [argument.name for argument in func._schema.arguments]
        called = (*zip(names, args, strict=False), *given.items())
        parts = [_Argument(role, one, self._origin(one)) for role, value in called for one in tensors(value)]
        before = {place(part.tensor)[0] for part in parts}
        if any(part.origin.inputs for part in parts):
            # A function of a library of its own may compute with whatever that holds.
            self.outside |= func.namespace not in _KNOWN
            self.scalars |= {value for value in (*args, *given.values()) if isinstance(value, float)}
        result = func(*args, **given)
        if name in _READINGS:
            return result
        if func is torch.ops.aten.view.dtype:  # bytes are read as numbers
            for leaf in self.of(parts[0].origin.leaves & ~self._parameters):
                leaf.tensor = result
        shared = any(place(tensor)[0] in before for tensor in tensors(result))
        origin = self._merged(func, parts, result, shared=shared)
        for tensor in tensors(result):
            (self._write if shared else self._make)(tensor, origin)
        if name.endswith("_") or given.get("out") is not None:  # written in place, under whatever name it has
            for tensor in tensors([args[:1], given.get("out")]):
                self._write(tensor, origin)
        return result

    # ---- what is a weight -------------------------------------------------------------------------------------

    def _merged(self, func: Any, parts: list[_Argument], result: Any, *, shared: bool) -> _Origin:
        """The origin of what is computed from some tensors; weights among them are noted."""
        base = str(func.overloadpacket.__name__).removesuffix("_")
        if "_like" in base or base.startswith(("new_", "empty")):
            return _Origin()  # of the shape alone
        leaves, masks = _union(part.origin.leaves for part in parts), _union(part.origin.masks for part in parts)
        if any(part.origin.inputs for part in parts):
            pointwise = torch.Tag.pointwise in func.tags
            scales = self._met(base, parts, result, pointwise=pointwise)
            rows, shifts = self._one_by_one(base, parts, pointwise=pointwise)
            alone = base in _SHIFTS and len(parts) == 1  # a number is added
            if alone or base in _SCALES or base in _COPIES or base == "neg" or (shared and not pointwise):  # a view
                scales |= _union(part.origin.scaled for part in parts)
                rows |= _union(part.origin.rows for part in parts)
                shifts |= _union(part.origin.shifts for part in parts)
            return _Origin(inputs=True, leaves=leaves, masks=masks, scaled=scales, rows=rows, shifts=shifts)
        if leaves & self._parameters and (base in _SCALES or base == "where"):
            alone = [part for part in parts if self._fixed(part.origin.leaves) == part.origin.leaves]
            new = _union(p.origin.leaves for p in alone if p.role in _BESIDE or not is_informative(p.tensor))
            leaves, masks = leaves & ~new, masks | new
        return _Origin(leaves=leaves, masks=masks)

    def _met(self, base: str, parts: list[_Argument], result: Any, *, pointwise: bool) -> int:
        """Notes weights among what meets activations; gives what these are scaled by, number by number."""
        if base in _SUMS or base.startswith("_fft"):
            self.weights |= _union(part.origin.scaled for part in parts)
        beside = (*_BESIDE, *_INDICES)
        moving = [part for part in parts if part.origin.inputs]
        still = [part for part in parts if not part.origin.inputs and part.role not in beside]
        still = [part for part in still if self._fixed(part.origin.leaves)]
        if not still or "norm" in base:  # gains and statistics
            return 0
        if all(part.role in _INDICES for part in moving):  # looked up
            self._note(part for part in still if is_informative(part.tensor))
            return 0
        some = [
            part for part in still
            if (base in _PARITIES if part.tensor.dtype is torch.bool else is_weight(part.tensor))
        ]  # fmt: skip
        most = max(_varying(part.tensor) for part in moving)
        if not pointwise:
            self._note(some)
        elif max((one.numel() for one in tensors(result)), default=0) > most:  # each number meets several
            self._note(part for part in some if _axes(part.tensor) >= _MATRIX)
        elif base in _SCALES:
            return _union(self._fixed(part.origin.leaves) for part in some)
        return 0

    def _one_by_one(self, base: str, parts: list[_Argument], *, pointwise: bool) -> tuple[int, int]:
        """Keeps rows and planes that activations meet; gives those that they are combined with, and are shifted by."""
        moving = [part for part in parts if part.origin.inputs]
        if base in _SUMS:
            self._summed |= _union(part.origin.rows for part in moving)
        if "vector_norm" in base or base == "norm":
            self._summed |= _union(part.origin.shifts for part in moving)
        rows = shifts = 0
        if base in _SQUARES or (base == "mul" and len(moving) > 1):
            rows = moving[0].origin.shifts & moving[-1].origin.shifts
        kind = "shift" if base in _SHIFTS else "row"
        if pointwise and base not in (*_SCALES, *_SHIFTS, *_CHOICES):
            return rows, shifts
        for part in parts:
            leaves = 0 if part.origin.inputs or part.tensor.layout is not torch.strided else part.origin.leaves
            leaves = self._fixed(leaves)
            truths = part.tensor.dtype is torch.bool
            if not leaves or not _axes(part.tensor) or truths != (base in _CHOICES):
                continue
            other = part.role in (*_BESIDE, *_INDICES) or "norm" in base or _axes(part.tensor) < _MATRIX
            if part.tensor.is_complex() or part.tensor.is_quantized or (not pointwise and other):
                continue
            bit = 1 << len(self._rows)
            self._rows.append(_Row((kind, *place(moving[0].tensor)[:2]), part.tensor, leaves))
            if not pointwise:
                self._summed |= bit
            elif kind == "shift":
                shifts |= bit
            else:
                rows |= bit
        return rows, shifts

    def _note(self, parts: Iterable[_Argument]) -> None:
        for part in parts:
            bits = self._fixed(part.origin.leaves)
            self.weights |= bits
            whole = [leaf for leaf in self.of(bits) if not leaf.tensor.is_floating_point()]
            for leaf in sorted(whole, key=lambda leaf: -numbers(leaf.tensor))[:1]:
                leaf.unpacked = max(leaf.unpacked, _varying(part.tensor))

    def _fixed(self, bits: int) -> int:
        """Those of some leaves that are no parameters; beside parameters vectors are none of these either."""
        fixed = bits & ~self._parameters
        if bits & self._parameters:
            for at, leaf in enumerate(self.leaves):
                if fixed >> at & 1 and _axes(leaf.tensor) < _MATRIX:
                    fixed &= ~(1 << at)
        return fixed

    # ---- where tensors are ------------------------------------------------------------------------------------

    def _leaf(self, tensor: Tensor, parameter: str = "") -> _Origin:
        origin = _Origin(leaves=1 << len(self.leaves))
        self.leaves.append(Leaf(tensor, parameter))
        key, start, end = place(tensor)
        self._held.append(tensor)
        self._regions.setdefault(key, []).append((start, end, origin))
        return origin

    def _make(self, tensor: Tensor, origin: _Origin) -> None:
        """Takes a tensor with memory of its own."""
        key = place(tensor)[0]
        if key:
            if not origin.inputs or self._bytes < _MOST_BYTES:
                self._held.append(tensor)
                self._bytes += tensor.nbytes if origin.inputs else 0
            self._regions[key] = [(0, _EVERYWHERE, origin)]

    def _write(self, tensor: Tensor, origin: _Origin) -> None:
        """Takes what was written into memory that was there, or is a view of it."""
        key, start, end = place(tensor)
        if key and self._origin(tensor) != origin:
            self._regions[key].append((start, end, origin))

    def _origin(self, tensor: Tensor) -> _Origin:
        """What is known of a tensor; one that was never seen is a leaf."""
        key, start, end = place(tensor)
        found = [origin for first, last, origin in self._regions.get(key, ()) if first < end and start < last]
        if not found:
            return self._leaf(tensor) if key else _Origin()
        if len(found) == 1:
            return found[0]
        return _Origin(
            inputs=any(origin.inputs for origin in found),
            leaves=_union(origin.leaves for origin in found),
            masks=_union(origin.masks for origin in found),
            scaled=found[-1].scaled,
        )


def _union(sets: Iterable[int]) -> int:
    return reduce(int.__or__, sets, 0)


def numbers(tensor: Tensor) -> int:
    """How many numbers a tensor stores."""
    return _stored(tensor).numel()


def _stored(tensor: Tensor) -> Tensor:
    """What holds the numbers of a tensor: of a sparse one, those that are not zero."""
    match tensor.layout:
        case torch.sparse_coo:
            return tensor._values()
        case torch.sparse_csr | torch.sparse_csc | torch.sparse_bsr | torch.sparse_bsc:
            return tensor.values()
        case _:
            return tensor


def place(tensor: Tensor) -> tuple[int, int, int]:
    """Of a tensor's memory: its key, the first byte, and the one behind the last; zeros where there are no numbers."""
    stored = _stored(tensor)
    if not stored.numel():
        return 0, 0, 0
    try:
        storage, start = stored.untyped_storage().data_ptr(), stored.data_ptr()
    except (NotImplementedError, RuntimeError):  # a layout or class of its own
        storage = start = 0
    if not storage:
        return -id(tensor), 0, 1
    reach = sum((size - 1) * step for size, step in zip(stored.shape, stored.stride(), strict=True))
    return storage, start, start + (reach + 1) * stored.element_size()


def is_weight(factor: Tensor) -> bool:
    """Whether it tells enough: along two axes, or with two signs."""
    return is_informative(factor) if _axes(factor) >= _MATRIX else _has_signs(factor)


def _are_weights(rows: list[Tensor], *, shifts: bool) -> bool:
    """Whether several rows tell enough together, as one table."""
    if len(rows) < _SEVERAL or (not shifts and min(map(_axes, rows)) >= _MATRIX):
        return False
    table = torch.stack([row.flatten() for row in rows])
    low, high = table.amin(1, keepdim=True), table.amax(1, keepdim=True)
    return is_informative(table if shifts or bool((low < 0).any()) else table / high)


def _are_planes(rows: list[Tensor]) -> bool:
    """Whether several tables of two values each are digits of numbers."""
    if len(rows) < _SEVERAL or min(map(_axes, rows)) < _MATRIX:
        return False
    table = torch.stack([row.flatten() for row in rows])
    low, high = table.amin(1, keepdim=True), table.amax(1, keepdim=True)
    truths = table > low
    each, most, half = _PLANE_BITS
    least = min(each * len(rows), max(most, half * len(rows)))
    return bool((table == torch.where(truths, high, low)).all()) and _information(truths, axis=1) > least


def _has_signs(tensor: Tensor) -> bool:
    stored = _stored(tensor)
    if stored.is_complex() or stored.is_quantized:
        return True
    return bool((stored < 0).any()) and bool((stored > 0).any())


def _axes(tensor: Tensor) -> int:
    if tensor.layout is not torch.strided:
        return _MATRIX
    return sum(size > 1 and step != 0 for size, step in zip(tensor.shape, tensor.stride(), strict=True))


def _varying(tensor: Tensor) -> int:
    """How many numbers it has, what is expanded once."""
    if tensor.layout is not torch.strided:
        return numbers(tensor)
    return math.prod(size for size, step in zip(tensor.shape, tensor.stride(), strict=True) if step)


def is_informative(tensor: Tensor) -> bool:
    """Whether numbers have two signs, or more than a bit of information each."""
    return _has_signs(tensor) or _information(_stored(tensor)) > _BITS


def _information(values: Tensor, *, axis: int | None = None) -> float:
    """Bits of a number, or of a slice along an axis."""
    torched: Any = torch
    counts: Tensor = torched.unique(values, return_counts=True, dim=axis)[1]
    share = counts.double() / counts.sum()
    return float(-(share * share.log2()).sum())


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in a value: itself, or what containers hold."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in cast("Iterable[Any]", value):
            yield from tensors(part)
    elif isinstance(value, Mapping):
        for part in cast("Mapping[Any, Any]", value).values():
            yield from tensors(part)
