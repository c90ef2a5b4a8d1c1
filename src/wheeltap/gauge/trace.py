"""One pass of a model, watched where torch is called: which weights multiply what, and what lies between the products.

The tensors that a model holds are known again where its code hands on a part or a view of one. What a weight multiplies
is cut off from what made it, and every product is kept. So the gradient of what a product reads goes back to the
products before it and no further, whatever the code between them does.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Final, cast, final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrize
from torch.overrides import TorchFunctionMode


@final
@dataclass(frozen=True)
class TensorView:
    """A tensor seen as a part or a view of one that the model holds.

    Attributes:
        name: Of that one: the first of its names.
        axes: For each axis of what is seen, the axis of what is held; ``None`` where there is none.
        starts: For each axis of what is seen, the index in what is held of its first entry.
        steps: And from one entry to the next.
    """

    name: str
    axes: tuple[int | None, ...]
    starts: tuple[int, ...]
    steps: tuple[int, ...]

    def positions(self, axis: int, index: Tensor) -> Tensor:
        """Indices along an axis of what is seen, as indices along that of what is held."""
        return self.starts[axis] + self.steps[axis] * index


@final
@dataclass(frozen=True)
class _Block:
    """A block of memory whose axes are known: of a held tensor, or of a copy of parts of one."""

    name: str
    axes: tuple[int | None, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    start: int

    def seen(self, tensor: Tensor) -> TensorView:
        """How ``tensor``, which lies in this memory, is made of what is held."""
        rest = int(tensor.storage_offset()) - self.start
        firsts: dict[int, int] = {}
        for axis in sorted(range(len(self.sizes)), key=lambda axis: -self.strides[axis]):
            firsts[axis], rest = divmod(rest, self.strides[axis] or 1)
        axes: list[int | None] = []
        starts: list[int] = []
        steps: list[int] = []
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            axis, step = self._along(size, stride)
            axes.append(None if axis is None else self.axes[axis])
            starts.append(0 if axis is None else firsts[axis])
            steps.append(step)
        return TensorView(self.name, tuple(axes), tuple(starts), tuple(steps))

    def _along(self, size: int, stride: int) -> tuple[int | None, int]:
        fit = [
            axis
            for axis, own in enumerate(self.strides)
            if own and stride and size > 1 and stride % own == 0 and (size - 1) * (stride // own) < self.sizes[axis]
        ]
        if not fit:
            return None, 1
        axis = max(fit, key=lambda axis: self.strides[axis])
        return axis, stride // self.strides[axis]


@final
class TensorIndex:
    """Every floating-point parameter and buffer of a model, by name, as its code gets to see them.

    A parametrized weight is what its parametrization gives; hold ``parametrize.cached()`` around this and the pass.

    Attributes:
        held: By the first name of each.
        names: All names of each, by the first.
    """

    def __init__(self, model: nn.Module, *, buffers: bool) -> None:
        """Look at ``model``; its buffers count where ``buffers``."""
        self.held: dict[str, Tensor] = {}
        self.names: dict[str, tuple[str, ...]] = {}
        self._entries: dict[int, list[_Block]] = {}
        self._kept: list[Tensor] = []
        first: dict[int, str] = {}
        for name, tensor in held(model, buffers=buffers):
            if id(tensor) in first:
                self.names[first[id(tensor)]] += (name,)
            elif tensor.numel():
                first[id(tensor)] = name
                self.held[name], self.names[name] = tensor, (name,)
                self._enter(tensor, name, tuple(range(tensor.ndim)))

    def _enter(self, tensor: Tensor, name: str, axes: tuple[int | None, ...]) -> None:
        entry = _Block(name, axes, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))
        self._entries.setdefault(_memory(tensor), []).append(entry)

    def use(self, tensor: Any) -> TensorView | None:
        """What ``tensor`` is a part or a view of; ``None`` if of nothing that the model holds."""
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            return None
        at = int(tensor.storage_offset())
        for entry in self._entries.get(_memory(tensor), ()):
            last = sum((size - 1) * stride for size, stride in zip(entry.sizes, entry.strides, strict=True))
            if entry.start <= at <= entry.start + last:
                return entry.seen(tensor)
        return None

    def derive(self, func: Callable[..., Any], tensor: Tensor, results: list[Tensor], given: list[Tensor]) -> bool:
        """Whether a call made of a held tensor nothing but a view, a cast, or a choice of its slices."""
        if any(_memory(one) == _memory(tensor) for one in results):
            return True
        use, name, made = self.use(tensor), getattr(func, "__name__", ""), results[0]
        assert use is not None, "only what is held is derived from"
        axes: tuple[int | None, ...] = ()
        if name in _CASTS and made.shape == tensor.shape:
            axes = use.axes
        indices = [one for one in given if not one.is_floating_point()]
        if name == "__getitem__" and len(indices) == 1 and made.ndim == indices[0].ndim + tensor.ndim - 1:
            axes = (*[None] * indices[0].ndim, *use.axes[1:])
        if not axes or any(start for start in use.starts) or any(step != 1 for step in use.steps):
            return False
        self._enter(made, use.name, axes)
        self._kept.append(made)  # so that nothing else comes to lie where it is
        return True


_CASTS: Final = ("to", "float", "double", "half", "bfloat16", "type", "type_as", "contiguous", "clone")


def held(model: nn.Module, *, buffers: bool) -> Iterator[tuple[str, Tensor]]:
    """Each floating-point tensor that a module of ``model`` holds, as its code sees it, by every name that it has."""
    for path, module in cast("Iterator[tuple[str, nn.Module]]", model.named_modules(remove_duplicate=False)):
        if "parametrizations" in path.split("."):
            continue
        own = list(module.named_parameters(recurse=False, remove_duplicate=False))
        own += list(module.named_buffers(recurse=False, remove_duplicate=False)) if buffers else []
        own += [(name, getattr(module, name)) for name in parametrized(module)]
        for name, tensor in own:
            if tensor.is_floating_point():
                yield (f"{path}.{name}" if path else name), tensor


def parametrized(module: nn.Module) -> list[str]:
    """The names of the tensors of ``module`` that a parametrization makes."""
    return list(cast("Any", module).parametrizations) if parametrize.is_parametrized(module) else []


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


@final
@dataclass(frozen=True)
class TracedProduct:
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

    operands: tuple[tuple[TensorView, Tensor], ...]
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
        inside: Paths of the modules whose forward is under way, by ``followed``; the innermost last.

    Args:
        weights: The tensors that the model holds.
    """

    def __init__(self, weights: TensorIndex) -> None:
        super().__init__()
        self.products: list[TracedProduct] = []
        self.loose: dict[str, Tensor] = {}
        self.used: set[str] = set()
        self.deciding: set[str] = set()
        self._weights = weights
        self.inside: list[str] = []
        self._compared: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        tensors = list(tensors_in([*args, *given.values()]))
        with self._recorded(func, args):
            if func is functional.batch_norm:
                return self._normed(func, args, given)
            for read in _reads(func, args, given):
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
        self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any], read: "tuple[_Read, TensorView]"
    ) -> Tensor:
        how, weight = read
        kept = None if how.inputs is None else how.inputs.clone()
        cut = None if how.inputs is None else how.inputs.detach()

        def swapped(value: Any) -> Any:
            if value is how.inputs and cut is not None:
                return cut
            return type(value)(map(swapped, value)) if type(value) in (list, tuple) else value

        output = func(*map(swapped, args), **{name: swapped(value) for name, value in given.items()})
        seen = [(self._weights.use(tensor), tensor) for tensor in tensors_in([*args, *given.values()])]
        operands = tuple((use, tensor) for use, tensor in seen if use is not None)
        self.used |= {use.name for use, _ in operands}
        reads = None
        if kept is not None and how.along is not None:
            along = weight.axes[how.along]
            whole = along is not None and kept.shape[how.axis] == self._weights.held[weight.name].shape[along]
            reads = (weight.name, along) if along is not None and whole else None
        self.products.append(TracedProduct(operands, output, kept, reads, how.axis, "".join(self.inside[-1:])))
        # The model may go on to write into what it was given.
        return output.clone()

    def _normed(self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any]) -> Tensor:
        """A batch norm in eval mode, spelled out: torch gives no gradient for its running statistics."""
        called: dict[str, Any] = dict(zip(NORM_ARGUMENTS, args, strict=False)) | given
        mean, variance = called.get("running_mean"), called.get("running_var")
        if called.get("training", False) or mean is None or variance is None:
            result = func(*args, **given)
            self._note(func, list(tensors_in([*args, *given.values()])), result)
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
        results = list(tensors_in([result]))
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
            if not results and getattr(func, "__name__", "") in _ASKING and self.inside:
                self.deciding.add(self.inside[-1])


@contextmanager
def followed(modules: Iterable[tuple[str, nn.Module]], inside: list[str]) -> Generator[None]:
    """While the block runs, ``inside`` ends with the path of the module whose forward is under way."""
    with ExitStack() as undo:
        for path, module in modules:

            def enter(module: nn.Module, args: Any, path: str = path) -> None:
                inside.append(path)

            def leave(module: nn.Module, args: Any, output: Any) -> None:
                inside.pop()

            undo.callback(module.register_forward_pre_hook(enter).remove)
            undo.callback(module.register_forward_hook(leave).remove)
        yield


_ASKING: Final = ("__bool__", "item", "__int__", "__float__", "__index__", "tolist")
NORM_ARGUMENTS: Final = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in a value: itself, or what lists, tuples and mappings hold."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | Mapping):
        held = cast("Any", value)
        for part in held.values() if isinstance(value, Mapping) else held:
            yield from tensors_in(part)


@final
@dataclass(frozen=True)
class _Read:
    """How a call multiplies: ``axis`` of the inputs is summed over with the axis ``along`` of the weight."""

    inputs: Tensor | None
    weight: Any
    axis: int = -1
    along: int | None = None


def _read_einsum(args: tuple[Any, ...]) -> tuple[_Read, ...]:
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


WEIGHTED: Final = ("input", "weight", "bias")
CONVOLVED: Final = (*WEIGHTED, "stride", "padding", "dilation", "groups")
TRANSPOSED: Final = (*WEIGHTED, "stride", "padding", "output_padding", "groups", "dilation")
_PRODUCT: Final = ("input", "other")
_ADDED: Final = ("input", "one", "two")
_ARGUMENTS: Final[dict[Any, tuple[str, ...]]] = {
    functional.linear: WEIGHTED,
    functional.embedding: WEIGHTED,
    **dict.fromkeys((functional.conv1d, functional.conv2d, functional.conv3d), CONVOLVED),
    **dict.fromkeys(
        (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d), TRANSPOSED
    ),
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm, torch.mv), _PRODUCT),
    **dict.fromkeys((Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.mv, Tensor.__matmul__), _PRODUCT),
    **dict.fromkeys((torch.addmm, torch.baddbmm, Tensor.addmm, Tensor.baddbmm), _ADDED),
}
"""The arguments of what multiplies; an einsum is read by its letters."""


def _reads(func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]) -> tuple[_Read, ...]:
    """The ways in which a call may multiply by a weight."""
    names = _ARGUMENTS.get(func)
    if names is None:
        return _read_einsum(args) if func is torch.functional.einsum else ()
    called: dict[str, Any] = dict(zip(names, args, strict=False)) | dict(given)
    if names in (_PRODUCT, _ADDED):
        one, two = list(called.values())[len(names) - 2 : len(names)]
        if not isinstance(one, Tensor) or not isinstance(two, Tensor):
            return ()
        first = _Read(one, two, axis=-1, along=max(two.ndim - 2, 0))  # either may be the weight
        return first, _Read(two, one, axis=-2 if two.ndim > 1 else -1, along=one.ndim - 1)
    inputs, weight, groups = called["input"], called["weight"], called.get("groups", 1)
    if func is functional.embedding:
        return (_Read(None, weight),)
    if names == WEIGHTED:
        return (_Read(inputs, weight, along=weight.ndim - 1),)
    if names == CONVOLVED and groups > 1 and weight.shape[1] == 1:
        return ()  # depthwise: one filter per channel is no product of channels
    return (_Read(inputs, weight, axis=1 - weight.ndim, along=int(names == CONVOLVED) if groups == 1 else None),)
