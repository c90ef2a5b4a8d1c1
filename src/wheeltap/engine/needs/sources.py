"""What a weight is multiplied with, as rows ``[row, in]``: numbers, patches, outer products, states of a recurrence."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Self, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


@final
@dataclass(frozen=True)
class Window:
    """How a convolution goes over its input: sizes by axis, or ``same`` and ``valid`` as padding."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, kernel: Any, stride: Any, padding: Any, *, dilation: Any) -> Self:
        """As torch's functions are given it."""
        axes = len(kernel)
        padded = padding if isinstance(padding, str) else _sizes(padding, axes)
        return cls(tuple(kernel), _sizes(stride, axes), padded, _sizes(dilation, axes))

    @property
    def reach(self) -> tuple[int, ...]:
        """Places from the first to the last tap, by axis."""
        return tuple(dilation * (size - 1) for size, dilation in zip(self.kernel, self.dilation, strict=True))

    @property
    def sides(self) -> list[tuple[int, int]]:
        """Zeros before and behind, by axis."""
        if isinstance(self.padding, str):
            same = self.padding == "same"
            return [(total // 2, total - total // 2) if same else (0, 0) for total in self.reach]
        return [(size, size) for size in self.padding]


def _sizes(given: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    found = (given,) if isinstance(given, int) else tuple(given)
    return found * axes if len(found) == 1 else found


class Source(ABC):
    """An input, and how rows are read off it.

    Attributes:
        inputs: What the function was given.
    """

    inputs: Tensor

    @property
    def how(self) -> tuple[object, ...]:
        """What else than the input decides the rows."""
        return (type(self),)


class Rowed(Source):
    """One whose rows are made."""

    @abstractmethod
    def rows(self) -> Float[Tensor, "row in"]:
        """The rows, in the order of the columns of ``Layer.matrix``."""


@final
@dataclass(frozen=True)
class Rows(Rowed):
    """Numbers ``[..., in]``."""

    inputs: Tensor

    def rows(self) -> Tensor:
        """See ``Rowed.rows``."""
        return self.inputs.reshape(-1, self.inputs.shape[-1])

    def by_place(self, batch: Tensor) -> Tensor | None:
        """As ``[example, place, in]`` of a batch of token sequences, also where all places were laid in a row."""
        if self.inputs.ndim == 3:
            return self.inputs if self.inputs.shape[:2] == batch.shape else None
        fits = self.inputs.ndim == 2 and len(self.inputs) == batch.numel()
        return self.inputs.view(*batch.shape, -1) if fits else None


@final
@dataclass(frozen=True)
class Tokens(Source):
    """Numbers of tokens: each row is all zero but for a one at the token's place, and so is never made."""

    inputs: Tensor

    def counts(self, tokens: int) -> Tensor:
        """How often each token comes up, ``[token]``."""
        return torch.bincount(self.inputs.flatten(), minlength=tokens)


@final
@dataclass(frozen=True)
class Places(Source):
    """A table that is added as it is: each of its rows ``[place, in]`` is read once."""

    inputs: Tensor


@final
@dataclass(frozen=True)
class Outer(Rowed):
    """Products of every two numbers of two inputs, of a bilinear layer."""

    inputs: Tensor
    other: Tensor

    def rows(self) -> Tensor:
        """See ``Rowed.rows``."""
        one, two = (value.reshape(-1, value.shape[-1]) for value in (self.inputs, self.other))
        return (one[:, :, None] * two[:, None, :]).flatten(1)


@final
@dataclass(frozen=True)
class Patches(Rowed):
    """What a convolution multiplies at each place: of the channels of one of its groups."""

    inputs: Tensor
    window: Window
    group: int
    groups: int

    @property
    def how(self) -> tuple[object, ...]:
        """See ``Source.how``."""
        return (type(self), self.window, self.group, self.groups)

    def rows(self) -> Tensor:
        """See ``Rowed.rows``."""
        inputs = _channels(self.inputs, self.window, self.group, self.groups)
        padded = functional.pad(inputs, [side for pair in reversed(self.window.sides) for side in pair])
        return _patches(padded, self.window, self.window.stride)


@final
@dataclass(frozen=True)
class Stuffed(Rowed):
    """What a transposed convolution multiplies at each place of its output.

    It is a convolution, with its taps in reverse, over its input with zeros between the places.

    Attributes:
        places: Sizes of the output.
    """

    inputs: Tensor
    window: Window
    group: int
    groups: int
    places: tuple[int, ...]

    @property
    def how(self) -> tuple[object, ...]:
        """See ``Source.how``."""
        return (type(self), self.window, self.group, self.groups, self.places)

    def rows(self) -> Tensor:
        """See ``Rowed.rows``."""
        inputs, window = _channels(self.inputs, self.window, self.group, self.groups), self.window
        stuffed = [(size - 1) * step + 1 for size, step in zip(inputs.shape[2:], window.stride, strict=True)]
        spread = inputs.new_zeros(*inputs.shape[:2], *stuffed)
        spread[(..., *(slice(None, None, step) for step in window.stride))] = inputs
        sides: list[int] = []
        for axis in reversed(range(len(stuffed))):
            before = window.reach[axis] - window.sides[axis][0]
            sides += [before, self.places[axis] + window.reach[axis] - before - stuffed[axis]]
        rows = _patches(functional.pad(spread, sides), window, (1,) * len(stuffed))
        return rows.reshape(len(rows), inputs.shape[1], -1).flip(2).flatten(1)


def _channels(inputs: Tensor, window: Window, group: int, groups: int) -> Tensor:
    """``[example, channel, *place]`` of one group's channels."""
    batch = inputs if inputs.ndim == len(window.kernel) + 2 else inputs[None]
    share = batch.shape[1] // groups
    return batch[:, group * share : (group + 1) * share]


def _patches(padded: Tensor, window: Window, stride: tuple[int, ...]) -> Tensor:
    """``[example x place, channel x tap]`` over any number of axes."""
    found, axes = padded, len(window.kernel)
    for axis in range(axes):
        found = found.unfold(2 + axis, window.reach[axis] + 1, stride[axis])[..., :: window.dilation[axis]]
    # From [example, channel, *place, *tap] to [example, *place, channel, *tap].
    return found.movedim(1, 1 + axes).flatten(0, axes).flatten(1)


def states_of(hidden: Any) -> list[Tensor]:
    """The states of a recurrent net: h, or h and c."""
    return [hidden] if isinstance(hidden, Tensor) else list(hidden)


@final
@dataclass(frozen=True)
class Recurrence:
    """What torch's functions for whole recurrent nets are given, in their order."""

    inputs: Tensor
    hidden: Any
    weights: list[Tensor]
    biased: bool
    layers: int
    dropout: float
    training: bool
    both_ways: bool
    batch_first: bool


def unrolled(function: Callable[..., Any], given: Recurrence) -> Iterator[tuple[Tensor, Tensor]]:
    """Each weight of a recurrent net with what it is multiplied with, ``[place, example, in]``, layer by layer.

    Args:
        function: Torch's own, such as ``torch.lstm``; called with one layer and direction at a time.
        given: What it was called with.
    """
    read = given.inputs.transpose(0, 1) if given.batch_first else given.inputs
    states = states_of(given.hidden)
    ways = 2 if given.both_ways else 1
    each = len(given.weights) // (given.layers * ways)
    for layer in range(given.layers):
        outs: list[Tensor] = []
        for way in range(ways):
            at = layer * ways + way
            own, first = given.weights[at * each : (at + 1) * each], [state[at : at + 1] for state in states]
            inputs = read.flip(0) if way else read
            state: Any = tuple(first) if len(first) > 1 else first[0]
            out: Tensor = function(inputs, state, own, given.biased, 1, 0.0, False, False, False)[0]
            yield own[0], inputs
            yield own[1], torch.cat([first[0], out[:-1]])
            outs.append(out.flip(0) if way else out)
        read = torch.cat(outs, -1)
