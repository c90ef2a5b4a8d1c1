"""Every product of a layer's weight with what it reads, seen where torch is called, and what becomes of it.

A module may be given something else than it multiplies, compute its weight first, use one slice of it for each expert,
or multiply in one fused call. Each of torch's functions that multiplies is known here, with what its rows are:
numbers, patches, outer products or states of a recurrence. So is what reads a layer's output next: where that is a
batch norm, or one other layer alone, the two are one map.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, cast, final

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from wheeltap.core.layer import COMPUTED, Layer, LayerKind
from wheeltap.core.subject import Subject
from wheeltap.gauge.trace import CONVOLVED, NORM_ARGUMENTS, TRANSPOSED, WEIGHTED, tensors_in


@final
@dataclass(frozen=True)
class ProductInput:
    """An input, and how rows are read off it.

    Attributes:
        inputs: What the function was given: numbers ``[..., in]``, unless ``how`` says otherwise.
        how: What else decides the rows. They are numbers of ``tokens``, whose rows (all zero but for a one at the
            token's place) are never made; of a ``table`` that is added as it is each row ``[place, in]`` is read once.
        made: Makes rows of anything else than numbers.
    """

    inputs: Tensor
    how: tuple[object, ...] = ("numbers",)
    made: Callable[[], Tensor] | None = None

    def rows(self) -> Tensor:
        """``[row, in]``, in the order of the columns of ``Layer.matrix``."""
        return self.inputs.reshape(-1, self.inputs.shape[-1]) if self.made is None else self.made()

    def by_place(self, batch: Tensor) -> Tensor | None:
        """As ``[example, place, in]`` of a batch of token sequences, also where all places were laid in a row."""
        if self.made is not None or self.inputs.ndim not in (2, 3):
            return None
        if self.inputs.ndim == 3:
            return self.inputs if self.inputs.shape[:2] == batch.shape else None
        return self.inputs.view(*batch.shape, -1) if len(self.inputs) == batch.numel() else None


class WeightView(NamedTuple):
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


class Product(NamedTuple):
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
    source: ProductInput
    weight: Tensor


class Norm(NamedTuple):
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
        names, products = _FUNCTIONS.get(func, ((), None))
        called = dict(zip(names, args, strict=False)) | given | {"result": result, "args": args}
        found = [] if products is None else list(products(self._weight, called))
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
                self._made[id(result)] = held._replace(value=result)

    def _follow(
        self, func: Callable[..., Any], args: tuple[Any, ...], given: dict[str, Any], result: Any, found: list[Product]
    ) -> None:
        """Notes what reads the outputs of layers."""
        for part in tensors_in((*args, *given.values())):
            output = self._outputs.get(id(part))
            # Dropout in eval mode hands its input on.
            if output is None or output[0]() is not part or result is part:
                continue
            name = output[1]
            reader = "other"
            if func is functional.batch_norm and part is args[0]:
                called = dict(zip(NORM_ARGUMENTS, args, strict=False)) | given
                mean, variance, gain = (called.get(one) for one in ("running_mean", "running_var", "weight"))
                if not called.get("training") and mean is not None and variance is not None:
                    scale = (variance.double() + called.get("eps", _EPS)).rsqrt()
                    scale = scale if gain is None else scale * gain.detach().double()
                    bias = called.get("bias")
                    offset = torch.zeros_like(scale) if bias is None else bias.detach().double()
                    reader, self.norms[name] = "norm", Norm(scale, mean.double(), offset)
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


# ---- what a layer's weight is, under another name, and what reads a layer's output ----------------------------------

_EPS: Final = 1e-5
"""What torch's batch norm takes where it is given nothing."""


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
        yield known._replace(value=result, turned=not known.turned)
    elif isinstance(result, Tensor) and (name in _SAME or (whole and name in _RESHAPED)):
        yield known._replace(value=result)
    elif whole and value.ndim == 3 and name in ("__getitem__", "select"):
        index = args[-1]
        if isinstance(index, int) or (isinstance(index, Tensor) and index.ndim == 0 and index.dtype != torch.bool):
            yield known._replace(value=result, part=int(index) % len(value))
    elif whole and value.ndim == 3 and name == "unbind" and not any(args[1:]):
        for part, piece in enumerate(cast("Sequence[Tensor]", result)):
            yield known._replace(value=piece, part=part)


def holds_tensor(value: Any) -> bool:
    """Whether a value is a tensor, or holds one."""
    return next(tensors_in(value), None) is not None


# ---- functions of torch that multiply by a weight -------------------------------------------------------------------

Find = Callable[[Any], WeightView | None]
"""What a value is known as; ``None`` where it is no weight."""

_Called = dict[str, Any]
_STORED_TURNED: Final = ("transposed", "stacked")
"""Kinds that store ``[in, unit]``."""


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
        yield Product(layer, known.part or 0, parts, ProductInput(inputs), value)
    elif inputs.ndim == 2 or (inputs.ndim == 3 and len(inputs) == parts):
        for part in range(parts):
            yield Product(layer, part, parts, ProductInput(inputs if inputs.ndim == 2 else inputs[part]), value)


def _grouped(find: Find, called: _Called) -> Iterator[Product]:
    """Rows up to each offset go to one expert."""
    known, inputs, ends = find(called["weight"]), called["input"], called.get("offs")
    if known is None or ends is None or known.value.ndim != 3 or inputs.ndim != 2:
        return
    if known.turned == (known.layer.kind in _STORED_TURNED):
        return
    first = 0
    for part, end in enumerate(ends.tolist()):
        yield Product(known.layer, part, len(known.value), ProductInput(inputs[first:end]), known.value)
        first = end


def _embedding(find: Find, called: _Called) -> Iterator[Product]:
    known = find(called["weight"])
    if known is not None and known.layer.kind == "embedding":
        yield Product(known.layer, 0, 1, ProductInput(called["input"], ("tokens",)), known.value)


def _bilinear(find: Find, called: _Called) -> Iterator[Product]:
    """Rows are products of every two numbers of the two inputs."""
    known, inputs, other = find(called["weight"]), called["input"], called["other"]

    def made() -> Tensor:
        one, two = (value.reshape(-1, value.shape[-1]) for value in (inputs, other))
        return (one[:, :, None] * two[:, None, :]).flatten(1)

    if known is not None and known.layer.kind == "bilinear":
        yield Product(known.layer, 0, 1, ProductInput(inputs, ("outer",), made), known.value)


def _added(find: Find, called: _Called) -> Iterator[Product]:
    """A parameter that is added, place by place (position embeddings)."""
    values = called["input"], called["weight"]
    for value, beside in (values, values[::-1]):
        known = find(value)
        whole = known is not None and known.part is None and not known.turned
        if known is not None and whole and known.layer.kind == "plain" and isinstance(beside, Tensor):
            yield Product(known.layer, 0, 1, ProductInput(known.value, ("table",)), known.value)


_PACKED: Final = ("query", "key", "value")


def _attention(find: Find, called: _Called) -> Iterator[Product]:
    """Packed projections of queries, keys and values; the output's, from the same call with no output projection."""
    known = find(called.get("in_proj_weight"))
    if known is not None:
        for part, name in enumerate(_PACKED):
            yield Product(known.layer, part, len(_PACKED), ProductInput(called[name]), known.value)
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
    hidden = called["hx"] if isinstance(called["hx"], Tensor) else called["hx"][0]
    for weight, inputs in ((called["ih"], called["input"]), (called["hh"], hidden)):
        known = find(weight)
        if known is not None:
            yield Product(known.layer, 0, 1, ProductInput(inputs), known.value)


def _recurrent(function: Callable[..., Any], find: Find, called: _Called) -> Iterator[Product]:
    """Each weight of a whole recurrent net with what it is multiplied with, ``[place, example, in]``, layer by layer.

    Args:
        function: Torch's own, such as ``torch.lstm``; called with one layer and direction at a time.
        find: See ``Find``.
        called: What it was called with.
    """
    if not isinstance(called["weights"], list | tuple):
        return  # a packed sequence
    inputs, hidden, weights, biased, layers, _, _, both_ways, batch_first = called["args"]
    read = inputs.transpose(0, 1) if batch_first else inputs
    states: list[Tensor] = [hidden] if isinstance(hidden, Tensor) else list(hidden)  # h, or h and c
    ways = 2 if both_ways else 1
    each = len(weights) // (layers * ways)
    for layer in range(layers):
        outs: list[Tensor] = []
        for way in range(ways):
            at = layer * ways + way
            own, first = weights[at * each : (at + 1) * each], [state[at : at + 1] for state in states]
            given = read.flip(0) if way else read
            state: Any = tuple(first) if len(first) > 1 else first[0]
            out: Tensor = function(given, state, own, biased, 1, 0.0, False, False, False)[0]
            for weight, rows in ((own[0], given), (own[1], torch.cat([first[0], out[:-1]]))):
                known = find(weight)
                if known is not None:
                    yield Product(known.layer, 0, 1, ProductInput(rows), known.value)
            outs.append(out.flip(0) if way else out)
        read = torch.cat(outs, -1)


# ---- convolutions ---------------------------------------------------------------------------------------------------


class Window(NamedTuple):
    """How a convolution goes over its input, by axis: sizes, and zeros before and behind."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    sides: tuple[tuple[int, int], ...]

    @property
    def reach(self) -> tuple[int, ...]:
        """Places from the first to the last tap, by axis."""
        return tuple(dilation * (size - 1) for size, dilation in zip(self.kernel, self.dilation, strict=True))


def _window(called: _Called) -> Window:
    kernel, padding = tuple(called["weight"].shape[2:]), called.get("padding", 0)

    def sizes(given: int | tuple[int, ...]) -> tuple[int, ...]:
        found = (given,) if isinstance(given, int) else tuple(given)
        return found * len(kernel) if len(found) == 1 else found

    window = Window(kernel, sizes(called.get("stride", 1)), sizes(called.get("dilation", 1)), ())
    if not isinstance(padding, str):
        return window._replace(sides=tuple((size, size) for size in sizes(padding)))
    totals = window.reach if padding == "same" else (0,) * len(kernel)
    return window._replace(sides=tuple((total // 2, total - total // 2) for total in totals))


def _convolved(kind: LayerKind, find: Find, called: _Called) -> Iterator[Product]:
    """Of a convolution the patches at each place, of a transposed one those at each place of its output.

    Each product is one group of channels.
    """
    known, groups = find(called["weight"]), called.get("groups", 1)
    if known is None or known.layer.kind != kind or tuple(known.value.shape) != known.layer.shape:
        return
    inputs, window = called["input"], _window(called)
    batch = inputs if inputs.ndim == len(window.kernel) + 2 else inputs[None]
    channels = batch.split(batch.shape[1] // groups, 1)
    places = tuple(called["result"].shape[-len(window.kernel) :]) if kind == "conv_transposed" else ()
    for part in range(groups):
        made = partial(_back_patches if places else _patches, channels[part], window, *([places] if places else []))
        how = ("patches", window, part, groups, places)
        yield Product(known.layer, part, groups, ProductInput(inputs, how, made), known.value)


def _patches(inputs: Tensor, window: Window) -> Tensor:
    """What a convolution multiplies, ``[example x place, channel x tap]`` over any number of axes."""
    found = functional.pad(inputs, [side for pair in reversed(window.sides) for side in pair])
    axes = len(window.kernel)
    for axis in range(axes):
        found = found.unfold(2 + axis, window.reach[axis] + 1, window.stride[axis])[..., :: window.dilation[axis]]
    # From [example, channel, *place, *tap] to [example, *place, channel, *tap].
    return found.movedim(1, 1 + axes).flatten(0, axes).flatten(1)


def _back_patches(inputs: Tensor, window: Window, places: tuple[int, ...]) -> Tensor:
    """What a transposed convolution multiplies at each place of its output, which is of the sizes ``places``.

    It is a convolution, with its taps in reverse, over its input with zeros between the places.
    """
    spaced = [(size - 1) * step + 1 for size, step in zip(inputs.shape[2:], window.stride, strict=True)]
    spread = inputs.new_zeros(*inputs.shape[:2], *spaced)
    spread[(..., *(slice(None, None, step) for step in window.stride))] = inputs
    sides: list[tuple[int, int]] = []
    for axis, reach in enumerate(window.reach):
        before = reach - window.sides[axis][0]
        sides.append((before, places[axis] + reach - before - spaced[axis]))
    rows = _patches(spread, window._replace(stride=(1,) * len(spaced), sides=tuple(sides)))
    return rows.reshape(len(rows), inputs.shape[1], -1).flip(2).flatten(1)


_CELL: Final = ("input", "hx", "ih", "hh")
_ATTENTION: Final = (
    "query", "key", "value", "embed_dim_to_check", "num_heads", "in_proj_weight", "in_proj_bias", "bias_k", "bias_v",
    "add_zero_attn", "dropout_p", "out_proj_weight", "out_proj_bias",
)  # fmt: skip
_GROUPED: Final = [
    held for where in (torch, functional) for name, held in vars(where).items() if name in ("_grouped_mm", "grouped_mm")
]  # whichever this version of torch has

_FUNCTIONS: dict[Callable[..., Any], tuple[tuple[str, ...], Callable[[Find, _Called], Iterator[Product]]]] = {
    functional.linear: (
        WEIGHTED,
        lambda find, called: _by_rows(find(called["weight"]), called["input"], right=False),
    ),
    functional.embedding: (WEIGHTED, _embedding),
    functional.bilinear: (("input", "other", "weight"), _bilinear),
    functional.multi_head_attention_forward: (_ATTENTION, _attention),
    **dict.fromkeys((torch.addmm, torch.baddbmm), (("bias", "input", "weight"), _matmul)),
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm), (WEIGHTED, _matmul)),
    **dict.fromkeys((torch.Tensor.matmul, torch.Tensor.mm, torch.Tensor.bmm), (WEIGHTED, _matmul)),
    **dict.fromkeys(_GROUPED, (WEIGHTED, _grouped)),
    **dict.fromkeys((torch.add, torch.Tensor.add, torch.Tensor.add_), (WEIGHTED, _added)),
    **dict.fromkeys(
        (functional.conv1d, functional.conv2d, functional.conv3d), (CONVOLVED, partial(_convolved, "conv"))
    ),
    **dict.fromkeys(
        (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d),
        (TRANSPOSED, partial(_convolved, "conv_transposed")),
    ),
    **dict.fromkeys((torch.lstm_cell, torch.gru_cell, torch.rnn_tanh_cell, torch.rnn_relu_cell), (_CELL, _cell)),
    **{
        function: (("input", "hx", "weights"), partial(_recurrent, function))
        for function in (torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu)
    },
}
"""By function, the names of its arguments, and what finds its products."""
