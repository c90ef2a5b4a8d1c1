"""What each weight is really multiplied with: read where torch is called, not where a module is.

A module may be given something else than it multiplies (a mask from which it makes positions), pad it first, or share
its input with modules that read it in another way. The call of torch's own function says what happens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Known = TypeVar("Known")


@final
@dataclass(frozen=True)
class Window:
    """How a convolution goes over its input: sizes by axis, or ``same`` and ``valid`` as padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]


@final
@dataclass(frozen=True)
class Read:
    """One call that multiplied a weight.

    Attributes:
        inputs: What was multiplied: ``[..., in]``, token numbers, or ``[example, channel, *place]``.
        window: Of a convolution.
    """

    inputs: Tensor
    window: Window | None = None

    def patches(self) -> Tensor:
        """The patches ``[place, in x kernel]`` that a convolution over one or two axes multiplies."""
        assert self.window is not None
        window, inputs = self.window, self.inputs
        inputs = inputs if inputs.ndim == len(window.kernel) + 2 else inputs[None]
        padding = window.padding
        if isinstance(padding, str):
            sides = [
                (total // 2, total - total // 2) if padding == "same" else (0, 0)
                for total in (d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True))
            ]
            inputs = functional.pad(inputs, [side for pair in reversed(sides) for side in pair])
            padding = (0,) * len(window.kernel)
        columns = functional.unfold(
            inputs if len(window.kernel) == 2 else inputs[:, :, None],
            kernel_size=_plane(window.kernel, 1),
            dilation=_plane(window.dilation, 1),
            stride=_plane(window.stride, 1),
            padding=_plane(padding, 0),
        )
        return columns.transpose(1, 2).flatten(0, 1)


def _plane(sizes: tuple[int, ...], fill: int) -> tuple[int, ...]:
    """Sizes along one axis as those of a plane one row high."""
    return (fill, *sizes) if len(sizes) == 1 else sizes


@final
class Reads(TorchFunctionMode, Generic[Known]):
    """While entered, hands over what each of some parameters is multiplied with.

    Args:
        known: What the caller knows a parameter by, from its ``id``.
        see: Called with that before each multiplication.
    """

    def __init__(self, known: Mapping[int, Known], see: Callable[[Known, Read], None]) -> None:
        super().__init__()
        self._known, self._see = known, see

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        names = _ARGUMENTS.get(func)
        if names is not None:
            called = dict(zip(names, args, strict=False)) | given
            known = self._known.get(id(called.get("weight")))
            read = None if known is None else _read(called)
            if known is not None and read is not None:
                self._see(known, read)
        return func(*args, **given)


_CONVOLVED = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_ARGUMENTS: dict[Callable[..., Any], tuple[str, ...]] = {
    functional.linear: ("input", "weight", "bias"),
    functional.embedding: ("input", "weight"),
    functional.conv1d: _CONVOLVED,
    functional.conv2d: _CONVOLVED,
    functional.conv3d: _CONVOLVED,
    torch.addmm: ("bias", "input", "weight"),
    functional.multi_head_attention_forward: ("input", "key", "value", "width", "heads", "weight"),
}
"""Names of the arguments of every function that is read: ``input`` is multiplied by ``weight``."""


def _read(called: dict[str, Any]) -> Read | None:
    """What a call multiplied; ``None`` where a packed weight is used on several inputs."""
    inputs = called["input"]
    if "key" in called:
        return Read(inputs) if inputs is called["key"] and inputs is called["value"] else None
    if called["weight"].ndim <= 2:
        return Read(inputs)
    kernel = tuple(called["weight"].shape[2:])
    sizes = [_sizes(called.get(name, default), len(kernel)) for name, default in (("stride", 1), ("dilation", 1))]
    padding = called.get("padding", 0)
    padded = padding if isinstance(padding, str) else _sizes(padding, len(kernel))
    return Read(inputs, Window(kernel, sizes[0], padded, sizes[1]))


def _sizes(given: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    found = (given,) if isinstance(given, int) else tuple(given)
    return found * axes if len(found) == 1 else found
