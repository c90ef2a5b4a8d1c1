"""Every product of a layer's weight with what it reads, seen where torch is called, and what becomes of it.

A module may be given something else than it multiplies, compute its weight first, use one slice of it for each expert,
or multiply in one fused call. Each of torch's functions that multiplies is known here, with what its rows are. So is
what reads a layer's output next: where that is a batch norm, or one other layer alone, the two are one map.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from wheeltap.core.layer import COMPUTED, Layer
from wheeltap.core.subject import Subject
from wheeltap.engine.needs.multiplied import Product, WeightView, multiplied


@final
@dataclass(frozen=True)
class Norm:
    """A batch norm in eval mode, which alone reads a layer's output y: ``scale (y - mean) + offset``.

    Attributes:
        scale: ``gain / sqrt(variance + eps)``, ``[unit]``.
        mean: ``[unit]``.
        offset: ``[unit]``.
    """

    scale: Tensor
    mean: Tensor
    offset: Tensor


@final
class Products(TorchFunctionMode):
    """While entered, hands over every product of the layers' weights, and notes what reads their outputs.

    Args:
        subject: Whose.
        layers: Those of interest.
        see: Called with each product, after it was made.
    """

    def __init__(self, subject: Subject, layers: Sequence[Layer], see: Callable[[Product], None]) -> None:
        super().__init__()
        self._see = see
        held = [(layer, subject.parameter(layer.weight)) for layer in layers]
        self._base = {id(parameter): WeightView(layer, parameter) for layer, parameter in held}
        self._made: dict[int, WeightView] = {}
        self._outputs: dict[int, tuple[weakref.ref[Tensor], str]] = {}
        self.products: Counter[str] = Counter()
        self.readers: dict[str, Counter[str]] = {}
        self.norms: dict[str, Norm] = {}

    def begin(self) -> None:
        """Forgets what the last batch computed."""
        self._made.clear()
        self._outputs.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        result = func(*args, **given)
        if not holds_tensor(result):
            return result
        found = list(multiplied(func, args, given, find=self._weight, result=result))
        self._follow(func, args, given, result, found)
        for product in found:
            self.products[product.layer.name] += 1
            self._see(product)
        if len(found) == 1 and isinstance(result, Tensor) and found[0].parts == 1:
            self._outputs[id(result)] = weakref.ref(result), found[0].layer.name
        self._alias(func, args, result)
        return result

    def _weight(self, value: Any) -> WeightView | None:
        known = self._made.get(id(value))
        return self._base.get(id(value)) if known is None else known

    # ---- what a layer's weight is, under another name ---------------------------------------------------------------

    def _alias(self, func: Callable[..., Any], args: tuple[Any, ...], result: Any) -> None:
        """Notes what a function makes of a weight: a view with axes turned, a slice, the same in another dtype."""
        known = self._weight(args[0]) if args else None
        for made in _derived(func, args, known, result) if known else ():
            self._made[id(made.value)] = made
        # What is computed from several parameters, by any function, is the weight where it has the weight's shape.
        for arg in args:
            held = self._weight(arg)
            if held is None or not isinstance(result, Tensor):
                continue
            if held.layer.length is None and held.layer.unread != COMPUTED:
                continue
            if result.shape == held.value.shape and result is not held.value:
                self._made[id(result)] = replace(held, value=result)

    # ---- what reads a layer's output --------------------------------------------------------------------------------

    def _follow(
        self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any], result: Any, found: list[Product]
    ) -> None:
        for part in flat((*args, *given.values())):
            output = self._outputs.get(id(part))
            # Dropout in eval mode hands its input on.
            if output is None or output[0]() is not part or result is part:
                continue
            name = output[1]
            reader = "other"
            if func is functional.batch_norm and part is args[0]:
                norm = _norm(dict(zip(_NORMED, args, strict=False)) | given)
                if norm is not None:
                    reader, self.norms[name] = "norm", norm
            elif len(found) == 1 and found[0].source.inputs is part:
                reader = f"layer {found[0].layer.name}"
            self.readers.setdefault(name, Counter())[reader] += 1

    def norm_of(self, name: str) -> Norm | None:
        """The batch norm that alone reads a layer's output."""
        return self.norms.get(name) if set(self.readers.get(name, ())) == {"norm"} else None

    def reader_of(self, name: str) -> str | None:
        """The layer that alone reads this layer's output, and reads nothing else."""
        readers = self.readers.get(name, Counter())
        if len(readers) != 1:
            return None
        (reader, times), *_ = readers.items()
        read = reader.removeprefix("layer ")
        alone = reader != read and times == self.products[name] == self.products[read]
        return read if alone else None


_NORMED: Final = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


def _norm(called: dict[str, Any]) -> Norm | None:
    """What a batch norm does with running statistics; ``None`` where it uses those of the batch."""
    mean, variance = called.get("running_mean"), called.get("running_var")
    if called.get("training") or mean is None or variance is None:
        return None
    gain, offset = called.get("weight"), called.get("bias")
    scale = (variance.double() + called.get("eps", _EPS)).rsqrt()
    if gain is not None:
        scale = scale * gain.detach().double()
    return Norm(scale, mean.double(), torch.zeros_like(scale) if offset is None else offset.detach().double())


_EPS: Final = 1e-5
"""What torch's function takes where it is given nothing."""

_TURNS: Final = frozenset({torch.transpose, torch.Tensor.transpose, torch.swapaxes, torch.Tensor.swapaxes})
_TENSOR: Any = torch.Tensor
_TURNED: Final[frozenset[Any]] = frozenset({_TENSOR.T.__get__, _TENSOR.mT.__get__})
_SAME: Final = frozenset(
    {"to", "float", "double", "half", "bfloat16", "contiguous", "clone", "detach", "type_as", "type"}
)


_RESHAPED: Final = frozenset({"squeeze", "unsqueeze", "view", "reshape"})
"""What gives the same numbers in the same order: the weight again where its shape is."""


def _derived(func: Callable[..., Any], args: tuple[Any, ...], known: WeightView, result: Any) -> Iterator[WeightView]:
    value, whole = known.value, known.part is None and not known.turned
    name = getattr(func, "__name__", "")
    turns = func in _TURNS and {axis % value.ndim for axis in args[1:3]} == {value.ndim - 1, value.ndim - 2}
    if func in _TURNED or turns:
        yield replace(known, value=result, turned=not known.turned)
    elif isinstance(result, Tensor) and (name in _SAME or (whole and name in _RESHAPED)):
        yield replace(known, value=result)
    elif whole and value.ndim == 3 and name in ("__getitem__", "select"):
        index = args[-1]
        if isinstance(index, int) or (isinstance(index, Tensor) and index.ndim == 0 and index.dtype != torch.bool):
            yield replace(known, value=result, part=int(index) % len(value))
    elif whole and value.ndim == 3 and name == "unbind" and not any(args[1:]):
        for part, piece in enumerate(cast("Sequence[Tensor]", result)):
            yield replace(known, value=piece, part=part)


def holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor, or a list that holds one."""
    return any(isinstance(part, Tensor) for part in flat((value,)))


def flat(parts: tuple[Any, ...]) -> Iterator[Any]:
    """Values one by one, those in lists too."""
    for part in parts:
        if isinstance(part, list | tuple):
            yield from flat(tuple(cast("list[Any]", part)))
        else:
            yield part
