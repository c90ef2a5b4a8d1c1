"""One pass of a model, watched where torch is called: which weights multiply what, and what lies between the products.

What a weight multiplies is cut off from what made it, and every product is kept. So the gradient of what a product
reads goes back to the products before it and no further, whatever the code between them does.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from wheeltap.gauge.weights import Use, Weights


@final
@dataclass(frozen=True)
class Product:
    """One call that multiplied something with weights.

    Attributes:
        operands: The weights that were given, biases too, each with the tensor that was handed over.
        output: What it gave.
        inputs: What was multiplied, with its history; ``None`` where rows were looked up.
        reads: The weight that multiplied it, and the axis of that weight that lies along ``axis`` of the inputs;
            ``None`` where the two do not fit together one to one.
        axis: Of the inputs, from its end.
        module: Path of the module whose forward called.
    """

    operands: tuple[tuple[Use, Tensor], ...]
    output: Tensor
    inputs: Tensor | None
    reads: tuple[str, int] | None
    axis: int
    module: str


@final
class Trace(TorchFunctionMode):
    """While entered, writes down the products of a model's pass; gradients are on, whatever the caller says.

    Attributes:
        products: In the order of the calls.
        loose: Weights that are used in another way than in a product (gains, biases, slopes), by name.
        used: Names of all weights that some call was given.
        deciding: Paths of the modules whose forward asked for the value of something computed, as a branch does.

    Args:
        weights: The tensors that the model holds.
    """

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.products: list[Product] = []
        self.loose: dict[str, Tensor] = {}
        self.used: set[str] = set()
        self.deciding: set[str] = set()
        self._weights = weights
        self._inside: list[str] = []
        self._compared: dict[int, Tensor] = {}

    def follow(self, model: nn.Module) -> None:
        """Hooks ``model``, which must be the caller's own copy, so that each call is known by its module."""
        for path, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules()):

            def enter(module: nn.Module, args: Any, path: str = path) -> None:
                self._inside.append(path)

            def leave(module: nn.Module, args: Any, output: Any) -> None:
                self._inside.pop()

            module.register_forward_pre_hook(enter)
            module.register_forward_hook(leave)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        tensors = list(_tensors([*args, *given.values()]))
        with self._recorded(func, args):
            if func is functional.batch_norm:
                return self._normed(func, args, given)
            for read in _READ[func](args, given) if func in _READ else ():
                use = self._weights.use(read.weight)
                if use is not None and self._weights.use(read.inputs) is None:
                    return self._multiplied(func, args, given, (read, use))
            result = func(*args, **given)
        self._note(func, tensors, result)
        return result

    def _recorded(self, func: Callable[..., Any], args: tuple[Any, ...]) -> AbstractContextManager[Any]:
        """Gradients on; but a weight may be written only as the model itself does it."""
        name = getattr(func, "__name__", "")
        writes = name.endswith("_") and not name.endswith("__")
        first = args[0] if args else None
        own = isinstance(first, Tensor) and first.is_leaf and first.requires_grad
        return nullcontext() if writes and own else torch.enable_grad()

    def _multiplied(
        self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any], read: "tuple[_Read, Use]"
    ) -> Tensor:
        how, weight = read
        kept = None if how.inputs is None else how.inputs.clone()
        cut = None if how.inputs is None else how.inputs.detach()

        def swapped(value: Any) -> Any:
            if value is how.inputs and cut is not None:
                return cut
            return type(value)(map(swapped, value)) if type(value) in (list, tuple) else value

        output = func(*map(swapped, args), **{name: swapped(value) for name, value in given.items()})
        seen = [(self._weights.use(tensor), tensor) for tensor in _tensors([*args, *given.values()])]
        operands = tuple((use, tensor) for use, tensor in seen if use is not None)
        self.used |= {use.name for use, _ in operands}
        reads = None
        if kept is not None and how.along is not None:
            along = weight.axes[how.along]
            whole = along is not None and kept.shape[how.axis] == self._weights.held[weight.name].shape[along]
            reads = (weight.name, along) if along is not None and whole else None
        self.products.append(Product(operands, output, kept, reads, how.axis, self._here))
        # The model may go on to write into what it was given.
        return output.clone()

    @property
    def _here(self) -> str:
        return self._inside[-1] if self._inside else ""

    def _normed(self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Tensor:
        """A batch norm in eval mode, spelled out: torch gives no gradient for its running statistics."""
        called: dict[str, Any] = dict(zip(_NORM_ARGUMENTS, args, strict=False)) | given
        mean, variance = called.get("running_mean"), called.get("running_var")
        if called.get("training", False) or mean is None or variance is None:
            result = func(*args, **given)
            self._note(func, list(_tensors([*args, *given.values()])), result)
            return result
        inputs: Tensor = called["input"]

        def wide(tensor: Tensor) -> Tensor:
            return tensor.reshape(1, -1, *[1] * (inputs.ndim - 2))

        result = (inputs - wide(mean)) * (wide(variance) + called.get("eps", 1e-5)).rsqrt()
        gain, offset = called.get("weight"), called.get("bias")
        result = result if gain is None else result * wide(gain)
        result = result if offset is None else result + wide(offset)
        self._note(func, [one for one in (mean, variance, gain, offset) if one is not None], result)
        return result

    def _note(self, func: Callable[..., Any], tensors: list[Tensor], result: Any) -> None:
        """Remembers the weights that a call was given, and whether it asked for a value."""
        results = list(_tensors([result]))
        floating = [one for one in results if one.is_floating_point()]
        for tensor in tensors:
            use = self._weights.use(tensor)
            if use is None or not floating:
                continue
            self.used.add(use.name)
            if not self._weights.derive(func, tensor, floating, tensors):
                self.loose[use.name] = self._weights.held[use.name]
        values = [one for one in tensors if one.is_floating_point() and self._weights.use(one) is None]
        asked = any(id(one) in self._compared for one in tensors)
        if values or asked:
            for one in results:
                if one.dtype is torch.bool:
                    self._compared[id(one)] = one  # kept, so that no other tensor gets its id
            if not results and getattr(func, "__name__", "") in _ASKING and self._inside:
                self.deciding.add(self._here)


_ASKING: Final = ("__bool__", "item", "__int__", "__float__", "__index__", "tolist")
_NORM_ARGUMENTS: Final = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(cast("Any", value))


@final
@dataclass(frozen=True)
class _Read:
    """How a call multiplies: ``axis`` of the inputs is summed over with the axis ``along`` of the weight."""

    inputs: Tensor | None
    weight: Any
    axis: int = -1
    along: int | None = None


_Reader = Callable[[tuple[Any, ...], Mapping[str, Any]], tuple[_Read, ...]]


def _named(*names: str) -> Callable[[tuple[Any, ...], Mapping[str, Any]], dict[str, Any]]:
    return lambda args, given: dict(zip(names, args, strict=False)) | dict(given)


_linear = _named("input", "weight", "bias")
_conv = _named("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_transposed = _named("input", "weight", "bias", "stride", "padding", "output_padding", "groups")
_added = _named("input", "one", "two")
_two = _named("input", "other")


def _read_linear(args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[_Read, ...]:
    called = _linear(args, given)
    return (_Read(called["input"], called["weight"], along=called["weight"].ndim - 1),)


def _read_rows(args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[_Read, ...]:
    return (_Read(None, _linear(args, given)["weight"]),)


def _read_conv(args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[_Read, ...]:
    called = _conv(args, given)
    weight, groups = called["weight"], called.get("groups", 1)
    if groups > 1 and weight.shape[1] == 1:
        return ()  # depthwise: one filter per channel is no product of channels
    return (_Read(called["input"], weight, axis=1 - weight.ndim, along=1 if groups == 1 else None),)


def _read_transposed(args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[_Read, ...]:
    called = _transposed(args, given)
    weight, groups = called["weight"], called.get("groups", 1)
    return (_Read(called["input"], weight, axis=1 - weight.ndim, along=0 if groups == 1 else None),)


def _of_two(one: Tensor, two: Tensor) -> tuple[_Read, ...]:
    """Of ``one @ two``: either may be the weight."""
    return (
        _Read(one, two, axis=-1, along=max(two.ndim - 2, 0)),
        _Read(two, one, axis=-2 if two.ndim > 1 else -1, along=one.ndim - 1),
    )


def _read_product(args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[_Read, ...]:
    called = list(_two(args, given).values())
    return _of_two(called[0], called[1]) if all(isinstance(one, Tensor) for one in called[:2]) else ()


def _read_added(args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[_Read, ...]:
    called = list(_added(args, given).values())
    return _of_two(called[1], called[2])


def _read_einsum(args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[_Read, ...]:
    if len(args) != 3 or not isinstance(args[0], str) or "." in args[0] or "->" not in args[0]:
        return ()
    left, _, right = args[0].replace(" ", "").partition("->")
    one, _, two = left.partition(",")
    summed = (set(one) & set(two)) - set(right)
    if len(summed) != 1:
        return ()
    letter = summed.pop()
    return (
        _Read(args[1], args[2], axis=one.index(letter) - len(one), along=two.index(letter)),
        _Read(args[2], args[1], axis=two.index(letter) - len(two), along=one.index(letter)),
    )


_READ: Final[dict[Any, _Reader]] = {
    functional.linear: _read_linear,
    functional.embedding: _read_rows,
    torch.functional.einsum: _read_einsum,
    **dict.fromkeys((functional.conv1d, functional.conv2d, functional.conv3d), _read_conv),
    **dict.fromkeys(
        (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d), _read_transposed
    ),
    **dict.fromkeys(
        (
            torch.matmul,
            torch.mm,
            torch.bmm,
            torch.mv,
            Tensor.matmul,
            Tensor.mm,
            Tensor.bmm,
            Tensor.mv,
            Tensor.__matmul__,
        ),
        _read_product,
    ),
    **dict.fromkeys((torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm), _read_added),
}
"""What multiplies; products of two weights are none."""
