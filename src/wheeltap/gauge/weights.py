"""The tensors that a model holds, and how they are known again where its code hands on a part or a view of one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, cast, final

from torch import Tensor, nn
from torch.nn.utils import parametrize


@final
@dataclass(frozen=True)
class Use:
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
class _Entry:
    """A block of memory whose axes are known: of a held tensor, or of a copy of parts of one."""

    name: str
    axes: tuple[int | None, ...]
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    start: int

    def seen(self, tensor: Tensor) -> Use:
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
        return Use(self.name, tuple(axes), tuple(starts), tuple(steps))

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
class Weights:
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
        self._entries: dict[int, list[_Entry]] = {}
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
        entry = _Entry(name, axes, tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))
        self._entries.setdefault(_memory(tensor), []).append(entry)

    def use(self, tensor: Any) -> Use | None:
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
