"""Functions of torch that multiply by a weight, and the rows that they multiply it with.

Rows ``[row, in]`` are numbers, patches, outer products or states of a recurrence.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Self, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from wheeltap.core.layer import Layer


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


class RowSource(Source):
    """One whose rows are made."""

    @abstractmethod
    def rows(self) -> Float[Tensor, "row in"]:
        """The rows, in the order of the columns of ``Layer.matrix``."""


@final
@dataclass(frozen=True)
class RowInputs(RowSource):
    """Numbers ``[..., in]``."""

    inputs: Tensor

    def rows(self) -> Tensor:
        """See ``RowSource.rows``."""
        return self.inputs.reshape(-1, self.inputs.shape[-1])

    def by_place(self, batch: Tensor) -> Tensor | None:
        """As ``[example, place, in]`` of a batch of token sequences, also where all places were laid in a row."""
        if self.inputs.ndim == 3:
            return self.inputs if self.inputs.shape[:2] == batch.shape else None
        fits = self.inputs.ndim == 2 and len(self.inputs) == batch.numel()
        return self.inputs.view(*batch.shape, -1) if fits else None


@final
@dataclass(frozen=True)
class TokenInputs(Source):
    """Numbers of tokens: each row is all zero but for a one at the token's place, and so is never made."""

    inputs: Tensor

    def counts(self, tokens: int) -> Tensor:
        """How often each token comes up, ``[token]``."""
        return torch.bincount(self.inputs.flatten(), minlength=tokens)


@final
@dataclass(frozen=True)
class AddedTable(Source):
    """A table that is added as it is: each of its rows ``[place, in]`` is read once."""

    inputs: Tensor


@final
@dataclass(frozen=True)
class OuterProducts(RowSource):
    """Products of every two numbers of two inputs, of a bilinear layer."""

    inputs: Tensor
    other: Tensor

    def rows(self) -> Tensor:
        """See ``RowSource.rows``."""
        one, two = (value.reshape(-1, value.shape[-1]) for value in (self.inputs, self.other))
        return (one[:, :, None] * two[:, None, :]).flatten(1)


@final
@dataclass(frozen=True)
class Patches(RowSource):
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
        """See ``RowSource.rows``."""
        inputs = _channels(self.inputs, self.window, self.group, self.groups)
        padded = functional.pad(inputs, [side for pair in reversed(self.window.sides) for side in pair])
        return _patches(padded, self.window, self.window.stride)


@final
@dataclass(frozen=True)
class TransposedPatches(RowSource):
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
        """See ``RowSource.rows``."""
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


@final
@dataclass(frozen=True)
class WeightView:
    """A tensor that is a layer's weight, or part of it.

    Attributes:
        value: Held, so that its address is not given to another tensor.
        turned: Whether its last two axes have changed places.
        part: Which slice of the first axis; ``None`` for all.
    """

    layer: Layer
    value: Tensor
    turned: bool = False
    part: int | None = None


@final
@dataclass(frozen=True)
class Product:
    """One multiplication.

    Attributes:
        layer: Whose weight was multiplied.
        part: Which of its equal blocks of rows (an expert's; queries, keys or values); 0 where there is one.
        parts: How many blocks there are.
        source: What it was multiplied with.
        weight: What was multiplied, in the layer's layout: where the module computes its weight, that.
    """

    layer: Layer
    part: int
    parts: int
    source: Source
    weight: Tensor


Find = Callable[[Any], WeightView | None]
"""What a value is known as; ``None`` where it is no weight."""


def multiplied(
    function: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any], *, find: Find, result: Any
) -> Iterator[Product]:
    """The products of weights that one call of a function made.

    Args:
        function: Of torch.
        args: What it was given.
        given: By name.
        find: See ``Find``.
        result: What it gave.
    """
    known = _FUNCTIONS.get(function)
    if known is not None:
        names, products = known
        yield from products(find, dict(zip(names, args, strict=False)) | given | {"result": result, "args": args})


_Called = dict[str, Any]
_STORED_TURNED: Final = ("transposed", "stacked")
"""Kinds that store ``[in, unit]``."""


def _linear(find: Find, called: _Called) -> Iterator[Product]:
    return _by_rows(find(called["weight"]), called["input"], right=False)


def _matmul(find: Find, called: _Called) -> Iterator[Product]:
    known = find(called["input"])
    if known is not None and isinstance(called["weight"], Tensor):  # W x: what is read lies in columns
        return _by_rows(known, called["weight"].mT if called["weight"].ndim > 1 else called["weight"], right=False)
    return _by_rows(find(called["weight"]), called["input"], right=True)


def _by_rows(known: WeightView | None, inputs: Any, *, right: bool) -> Iterator[Product]:
    """A product with rows of ``inputs``; ``right`` where the weight is its right factor, ``[in, unit]``."""
    if known is None or known.layer.kind not in ("linear", "transposed", "attention", "plain", "stacked"):
        return
    layer, value = known.layer, known.value
    if right != (known.turned != (layer.kind in _STORED_TURNED)) or value.ndim not in (2, 3):
        return
    shape = layer.shape if known.part is None else layer.shape[1:]
    if tuple(value.shape) != (*shape[:-2], *(shape[:-3:-1] if known.turned else shape[-2:])):
        return  # reshaped on the way
    parts = layer.shape[0] if len(layer.shape) == 3 else 1
    if value.ndim == 2:
        yield Product(layer, known.part or 0, parts, RowInputs(inputs), value)
    elif inputs.ndim == 3 and len(inputs) == parts:
        for part in range(parts):
            yield Product(layer, part, parts, RowInputs(inputs[part]), value)
    elif inputs.ndim == 2:
        for part in range(parts):
            yield Product(layer, part, parts, RowInputs(inputs), value)


def _grouped(find: Find, called: _Called) -> Iterator[Product]:
    """Rows up to each offset go to one expert."""
    known, inputs, ends = find(called["weight"]), called["input"], called.get("offs")
    if known is None or ends is None or known.value.ndim != 3 or inputs.ndim != 2:
        return
    if known.turned == (known.layer.kind in _STORED_TURNED):
        return
    first = 0
    for part, end in enumerate(ends.tolist()):
        yield Product(known.layer, part, len(known.value), RowInputs(inputs[first:end]), known.value)
        first = end


def _embedding(find: Find, called: _Called) -> Iterator[Product]:
    known = find(called["weight"])
    if known is not None and known.layer.kind == "embedding":
        yield Product(known.layer, 0, 1, TokenInputs(called["input"]), known.value)


def _convolved(find: Find, called: _Called) -> Iterator[Product]:
    known, groups = find(called["weight"]), called.get("groups", 1)
    if known is not None and known.layer.kind == "conv" and tuple(known.value.shape) == known.layer.shape:
        window = _window(called)
        for part in range(groups):
            yield Product(known.layer, part, groups, Patches(called["input"], window, part, groups), known.value)


def _back_convolved(find: Find, called: _Called) -> Iterator[Product]:
    known, groups = find(called["weight"]), called.get("groups", 1)
    if known is not None and known.layer.kind == "conv_transposed" and tuple(known.value.shape) == known.layer.shape:
        window, places = _window(called), tuple(called["result"].shape[-len(called["weight"].shape[2:]) :])
        for part in range(groups):
            source = TransposedPatches(called["input"], window, part, groups, places)
            yield Product(known.layer, part, groups, source, known.value)


def _window(called: _Called) -> Window:
    kernel = called["weight"].shape[2:]
    return Window.of(kernel, called.get("stride", 1), called.get("padding", 0), dilation=called.get("dilation", 1))


def _bilinear(find: Find, called: _Called) -> Iterator[Product]:
    known = find(called["weight"])
    if known is not None and known.layer.kind == "bilinear":
        yield Product(known.layer, 0, 1, OuterProducts(called["input"], called["other"]), known.value)


def _added(find: Find, called: _Called) -> Iterator[Product]:
    """A parameter that is added, place by place (position embeddings)."""
    values = called["input"], called["weight"]
    for value, beside in (values, values[::-1]):
        known = find(value)
        whole = known is not None and known.part is None and not known.turned
        if known is not None and whole and known.layer.kind == "plain" and isinstance(beside, Tensor):
            yield Product(known.layer, 0, 1, AddedTable(known.value), known.value)


_PACKED: Final = ("query", "key", "value")


def _attention(find: Find, called: _Called) -> Iterator[Product]:
    """Packed projections of queries, keys and values; the output's, from the same call with no output projection."""
    known = find(called.get("in_proj_weight"))
    if known is not None:
        for part, name in enumerate(_PACKED):
            yield Product(known.layer, part, len(_PACKED), RowInputs(called[name]), known.value)
    for name in _PACKED:
        yield from _by_rows(find(called.get(f"{name[0]}_proj_weight")), called[name], right=False)
    last = find(called.get("out_proj_weight"))
    if last is not None:
        weight: Tensor = called["out_proj_weight"]
        still = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
        again: Any = {name: value for name, value in called.items() if name not in ("result", "args")}
        heads = functional.multi_head_attention_forward(**again | {"out_proj_weight": still, "out_proj_bias": None})
        yield from _by_rows(last, heads[0], right=False)


def _cell(find: Find, called: _Called) -> Iterator[Product]:
    hidden = states_of(called["hx"])[0]
    for weight, inputs in ((called["ih"], called["input"]), (called["hh"], hidden)):
        known = find(weight)
        if known is not None:
            yield Product(known.layer, 0, 1, RowInputs(inputs), known.value)


def _recurrent(function: Callable[..., Any]) -> Callable[[Find, _Called], Iterator[Product]]:
    def products(find: Find, called: _Called) -> Iterator[Product]:
        if not isinstance(called["weights"], list | tuple):
            return  # a packed sequence
        for weight, inputs in unrolled(function, Recurrence(*called["args"])):
            known = find(weight)
            if known is not None:
                yield Product(known.layer, 0, 1, RowInputs(inputs), known.value)

    return products


_WEIGHTED: Final = ("input", "weight", "bias")
_CONVOLVED: Final = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_BACK: Final = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_CELL: Final = ("input", "hx", "ih", "hh")
_ATTENTION: Final = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias",
)  # fmt: skip
_GROUPED: Final = [
    held for where in (torch, functional) for name, held in vars(where).items() if name in ("_grouped_mm", "grouped_mm")
]  # whichever this version of torch has

_FUNCTIONS: dict[Callable[..., Any], tuple[tuple[str, ...], Callable[[Find, _Called], Iterator[Product]]]] = {
    functional.linear: (_WEIGHTED, _linear),
    functional.embedding: (_WEIGHTED, _embedding),
    functional.bilinear: (("input", "other", "weight"), _bilinear),
    functional.multi_head_attention_forward: (_ATTENTION, _attention),
    **dict.fromkeys((torch.addmm, torch.baddbmm), (("bias", "input", "weight"), _matmul)),
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm), (_WEIGHTED, _matmul)),
    **dict.fromkeys((torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.bmm), (_WEIGHTED, _matmul)),
    **dict.fromkeys(_GROUPED, (_WEIGHTED, _grouped)),
    **dict.fromkeys((torch.add, torch.Tensor.add, torch.Tensor.add_), (_WEIGHTED, _added)),
    **dict.fromkeys((functional.conv1d, functional.conv2d, functional.conv3d), (_CONVOLVED, _convolved)),
    **dict.fromkeys(
        (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d),
        (_BACK, _back_convolved),
    ),
    **dict.fromkeys((torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell), (_CELL, _cell)),
    **{
        function: (("input", "hx", "weights"), _recurrent(function))
        for function in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
    },
}
"""By function, the names of its arguments, and what finds its products."""
