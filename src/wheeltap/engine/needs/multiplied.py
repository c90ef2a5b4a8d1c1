"""Functions of torch that multiply by a weight, each with the rows that it multiplies."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, final

import torch
from torch import Tensor
from torch.nn import functional

from wheeltap.core.layer import Layer
from wheeltap.engine.needs import sources
from wheeltap.engine.needs.sources import Source


@final
@dataclass(frozen=True)
class HeldWeight:
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


Find = Callable[[Any], HeldWeight | None]
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


def _by_rows(known: HeldWeight | None, inputs: Any, *, right: bool) -> Iterator[Product]:
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
        yield Product(layer, known.part or 0, parts, sources.Rows(inputs), value)
    elif inputs.ndim == 3 and len(inputs) == parts:
        for part in range(parts):
            yield Product(layer, part, parts, sources.Rows(inputs[part]), value)
    elif inputs.ndim == 2:
        for part in range(parts):
            yield Product(layer, part, parts, sources.Rows(inputs), value)


def _grouped(find: Find, called: _Called) -> Iterator[Product]:
    """Rows up to each offset go to one expert."""
    known, inputs, ends = find(called["weight"]), called["input"], called.get("offs")
    if known is None or ends is None or known.value.ndim != 3 or inputs.ndim != 2:
        return
    if known.turned == (known.layer.kind in _STORED_TURNED):
        return
    first = 0
    for part, end in enumerate(ends.tolist()):
        yield Product(known.layer, part, len(known.value), sources.Rows(inputs[first:end]), known.value)
        first = end


def _embedding(find: Find, called: _Called) -> Iterator[Product]:
    known = find(called["weight"])
    if known is not None and known.layer.kind == "embedding":
        yield Product(known.layer, 0, 1, sources.Tokens(called["input"]), known.value)


def _convolved(find: Find, called: _Called) -> Iterator[Product]:
    known, groups = find(called["weight"]), called.get("groups", 1)
    if known is not None and known.layer.kind == "conv" and tuple(known.value.shape) == known.layer.shape:
        window = _window(called)
        for part in range(groups):
            yield Product(
                known.layer, part, groups, sources.Patches(called["input"], window, part, groups), known.value
            )


def _back_convolved(find: Find, called: _Called) -> Iterator[Product]:
    known, groups = find(called["weight"]), called.get("groups", 1)
    if known is not None and known.layer.kind == "conv_transposed" and tuple(known.value.shape) == known.layer.shape:
        window, places = _window(called), tuple(called["result"].shape[-len(called["weight"].shape[2:]) :])
        for part in range(groups):
            source = sources.Stuffed(called["input"], window, part, groups, places)
            yield Product(known.layer, part, groups, source, known.value)


def _window(called: _Called) -> sources.Window:
    kernel = called["weight"].shape[2:]
    return sources.Window.of(
        kernel, called.get("stride", 1), called.get("padding", 0), dilation=called.get("dilation", 1)
    )


def _bilinear(find: Find, called: _Called) -> Iterator[Product]:
    known = find(called["weight"])
    if known is not None and known.layer.kind == "bilinear":
        yield Product(known.layer, 0, 1, sources.Outer(called["input"], called["other"]), known.value)


def _added(find: Find, called: _Called) -> Iterator[Product]:
    """A parameter that is added, place by place (position embeddings)."""
    values = called["input"], called["weight"]
    for value, beside in (values, values[::-1]):
        known = find(value)
        whole = known is not None and known.part is None and not known.turned
        if known is not None and whole and known.layer.kind == "plain" and isinstance(beside, Tensor):
            yield Product(known.layer, 0, 1, sources.Places(known.value), known.value)


_PACKED: Final = ("query", "key", "value")


def _attention(find: Find, called: _Called) -> Iterator[Product]:
    """Packed projections of queries, keys and values; the output's, from the same call with no output projection."""
    known = find(called.get("in_proj_weight"))
    if known is not None:
        for part, name in enumerate(_PACKED):
            yield Product(known.layer, part, len(_PACKED), sources.Rows(called[name]), known.value)
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
    hidden = sources.states_of(called["hx"])[0]
    for weight, inputs in ((called["ih"], called["input"]), (called["hh"], hidden)):
        known = find(weight)
        if known is not None:
            yield Product(known.layer, 0, 1, sources.Rows(inputs), known.value)


def _recurrent(function: Callable[..., Any]) -> Callable[[Find, _Called], Iterator[Product]]:
    def products(find: Find, called: _Called) -> Iterator[Product]:
        if not isinstance(called["weights"], list | tuple):
            return  # a packed sequence
        for weight, inputs in sources.unrolled(function, sources.Recurrence(*called["args"])):
            known = find(weight)
            if known is not None:
                yield Product(known.layer, 0, 1, sources.Rows(inputs), known.value)

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
