"""Inputs of a model: one tensor, or several by the names of the arguments that they are given as."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.typed import first_of, named_modules, to_array

Inputs = Tensor | dict[str, Tensor]
"""``[example, ...]``: a tensor that the model is called with, or tensors that it is called with by name."""

_CAST = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def as_inputs(given: Any, *, where: str) -> Inputs:
    """Inputs from a tensor, a numpy array or a (nested) list; or from a mapping of names to any of these.

    Raises:
        DataError: If they are not numbers, nothing is named, or two named ones differ in length.
    """
    parts = by_name(given)
    if parts is None:
        return as_tensor(given, what="inputs", where=where)
    named = {name: as_tensor(value, what=f"inputs {name!r}", where=where) for name, value in parts.items()}
    lengths = {name: len(tensor) if tensor.ndim else 0 for name, tensor in named.items()}
    if len(set(lengths.values())) != 1:
        raise DataError(
            "The task's named inputs differ in number.",
            where=where,
            expected="one row per example in each, and one input at least",
            got=", ".join(f"{name}: {length}" for name, length in lengths.items()) or "no inputs",
            do="Give each argument of the model one row per example, in the same order.",
        )
    return named


def by_name(given: Any) -> dict[str, Any] | None:
    """What a mapping holds; ``None`` of anything else."""
    if not isinstance(given, Mapping):
        return None
    return {str(name): value for name, value in cast("Mapping[Any, Any]", given).items()}


def as_tensor(given: Any, *, what: str, where: str) -> Tensor:
    """A tensor of what was given: memory is shared where it is one already, or a numpy array.

    Raises:
        DataError: If it is not made of numbers.
    """
    try:
        if isinstance(given, np.ndarray):  # torch knows no other order of bytes than that of this machine
            array = cast("np.ndarray[Any, Any]", given)
            return torch.as_tensor(array.astype(array.dtype.newbyteorder("="), copy=False))
        return torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        array = isinstance(given, np.ndarray)
        kind = f"an array of {cast('Any', given).dtype}" if array else type(cast("object", given)).__name__
        raise DataError(
            f"The task's {what} are not numbers.",
            where=where,
            expected="a tensor, a numpy array, or nested lists of numbers of equal length",
            got=f"{kind}: {' '.join(str(error).split())[:120]}",
            do="Convert them first, for instance with numpy.asarray(..., dtype='float32'); tokenize and pad text.",
        ) from error


def tensors(inputs: Inputs) -> dict[str, Tensor]:
    """Each tensor by its name; the one that has none by an empty one."""
    return {"": inputs} if isinstance(inputs, Tensor) else inputs


def shapes(inputs: Inputs) -> str:
    """The shape of a row of each tensor, in words."""
    rows = {name: ", ".join(["row", *map(str, tensor.shape[1:])]) for name, tensor in tensors(inputs).items()}
    return ", ".join(f"{name} [{row}]".strip() for name, row in sorted(rows.items()))


def count(inputs: Inputs) -> int:
    """How many examples there are."""
    first = next(iter(tensors(inputs).values()))
    return len(first) if first.ndim else 0


def chosen(inputs: Inputs, rows: Tensor | slice) -> Inputs:
    """Those of some examples."""
    if isinstance(inputs, Tensor):
        return inputs[rows.to(inputs.device) if isinstance(rows, Tensor) else rows]
    return {name: cast("Tensor", chosen(tensor, rows)) for name, tensor in inputs.items()}


def split(inputs: Inputs, size: int) -> Iterator[Inputs]:
    """Batches of at most ``size`` examples."""
    return (chosen(inputs, slice(start, start + size)) for start in range(0, count(inputs), size))


def flat(inputs: Inputs) -> np.ndarray[Any, Any]:
    """One row per example, ``[example, number]``, in single precision."""
    return np.concatenate([to_array(part.reshape(len(part), -1)) for part in tensors(inputs).values()], axis=1)


def answered(model: nn.Module, inputs: Any) -> Any:
    """What a model gives for inputs, whatever it is: called with the tensor, or with each named one as that argument.

    They are copied to where the model is, for it may write into them. Floating-point ones become of the dtype of the
    model's first floating-point parameter, unless a parameter of theirs is there too: a model in 16 bits takes inputs
    in 32. Whole numbers stay as they are. Anything but tensors (a batch of another kind, from a task of its own) is
    moved and handed over as it is.
    """
    device = first_of(model).device
    if isinstance(inputs, Tensor):
        return model(_suited(inputs, model, device))
    named = by_name(inputs)
    if named is None:
        return model(inputs.to(device))
    return model(**{name: _suited(tensor, model, device) for name, tensor in named.items()})


def _suited(tensor: Tensor, model: nn.Module, device: torch.device) -> Tensor:
    dtype = tensor.dtype
    if dtype in _CAST:
        first = next((p.dtype for p in model.parameters() if p.dtype in _CAST), dtype)
        if first is not dtype and not any(parameter.dtype is dtype for parameter in model.parameters()):
            dtype = first
    return tensor.to(device, dtype, copy=True)


@dataclass(frozen=True)
class Moments:
    """One batch of inputs for estimating layer moments.

    Attributes:
        inputs: What the model is called with: see ``answered``.
        sinks: Leading positions of the second axis that serve as attention sinks: kept in the input moments
            (dropped, their whitened norm explodes), left out of the output moments (their massive activations
            would set the scale).
    """

    inputs: Any
    sinks: int = 0

    @property
    def examples(self) -> int:
        """How many there are."""
        held: object = self.inputs
        return count(cast("Inputs", held)) if isinstance(held, Tensor | dict) else len(self.inputs)

    def one(self, at: int) -> "Moments":
        """One example alone."""
        some = slice(at, at + 1)
        whole = isinstance(self.inputs, Tensor | dict)
        return Moments(chosen(cast("Inputs", self.inputs), some) if whole else self.inputs[some], sinks=self.sinks)

    def run(self, model: nn.Module) -> Any:
        """One call of the model."""
        return answered(model, self.inputs)


SCORES = ("logits", "scores", "output", "out", "prediction", "sample")
"""What scores are called in an output of several parts; the first that is there is taken."""


def parts_of(output: Any) -> dict[str, Any]:
    """The parts of what a model returned, by name or number: of a mapping, a tuple, a list or an object."""
    if (named := by_name(output)) is not None:
        return named
    fields = getattr(output, "_fields", None)  # of a named tuple
    if isinstance(output, tuple | list):
        several = cast("Sequence[Any]", output)
        return dict(zip(fields or map(str, range(len(several))), several, strict=True))
    properties = {name: getattr(output, name, None) for name in SCORES}
    return {name: one for name, one in properties.items() if one is not None} | dict(getattr(output, "__dict__", {}))


def as_scores(output: Any, *, examples: int | None = None) -> Tensor:
    """The tensor of scores in whatever a model returned.

    A tensor by itself; of several parts the first of ``SCORES`` that is there, else the only tensor of floating-point
    numbers that has a row for each example.

    Args:
        output: A tensor, a mapping, a tuple, a list, or an object with attributes.
        examples: How many there are, where that is known.

    Raises:
        ModelError: If there is none, or which one is meant is not clear.
    """
    if isinstance(output, Tensor):
        return output
    parts = {name: one for name, one in parts_of(output).items() if isinstance(one, Tensor)}
    named = [parts[name] for name in SCORES if name in parts]
    rows = [
        one for one in parts.values()
        if one.is_floating_point() and one.ndim and (examples is None or len(one) == examples)
    ]  # fmt: skip
    if named or len(rows) == 1:
        return [*named, *rows][0]
    raise ModelError(
        "The model's output holds no scores." if not rows else "Which part of the model's output are the scores?",
        expected=f"a tensor; or several parts with one of {', '.join(SCORES)}, or with one tensor of a row per example",
        got=shown_parts(output),
        do="Name it: wt.Subject(model, output='NAME'), or --output NAME; of a tuple its number, from 0 on.",
    )


def shown_parts(output: Any) -> str:
    """The parts of what a model returned, in a line: names and shapes."""
    each = [
        f"{name} {list(one.shape) if isinstance(one, Tensor) else type(one).__name__}"
        for name, one in parts_of(output).items()
    ]
    return f"{type(output).__name__} of {', '.join(each[:12])}" if each else type(output).__name__


_SETTINGS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
_TABLE = re.compile(
    r"wpe|(.*_)?(pos_?emb(ed(ding)?s?)?|position(s|al)?(_emb(ed(ding)?s?)?)?|embed_pos(itions?)?)(_table)?"
)
_RELATIVE = re.compile(r"rel(ative)?_|_rel|bias|bucket")


def longest(model: nn.Module) -> tuple[int, str] | None:
    """The longest sequence a model can read, in tokens, and what says so; ``None`` where it is not known.

    That is the least of what its config allows and its tables of positions hold.
    """
    config: Any = getattr(model, "config", None)
    config = getattr(config, "text_config", None) or config
    found: list[tuple[int, str]] = []
    for name in _SETTINGS:
        limit = getattr(config, name, None)
        if not isinstance(limit, int) or isinstance(limit, bool) or limit <= 0:
            continue
        scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
        known: dict[str, Any] = dict(scaling) if isinstance(scaling, dict) else {}  # pyright: ignore[reportUnknownArgumentType]
        factor, first = known.get("factor"), known.get("original_max_position_embeddings") or limit
        scaled = int(first * factor) if isinstance(factor, int | float) and isinstance(first, int) else limit
        found.append((max(limit, scaled), f"config.{name}"))
    for path, module in named_modules(model):
        name = path.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and _TABLE.fullmatch(name) and not _RELATIVE.search(name):
            # Where there is a row for padding, positions are counted from behind it (RoBERTa).
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            count = module.num_embeddings
            found.append((count - unused, f"{path}, an embedding of {count} positions"))
    return min(found, default=None)


def lengths_of(inputs: Inputs) -> list[int]:
    """Tokens of each example, with what it is filled up with at the end left out; none where inputs are no tokens.

    Tokens are whole numbers ``[example, position]``: the inputs, or those called ``input_ids``.
    """
    ids = inputs if isinstance(inputs, Tensor) else inputs.get("input_ids")
    if ids is None or ids.is_floating_point() or ids.ndim != 2:
        return []
    mask = None if isinstance(inputs, Tensor) else inputs.get("attention_mask")
    if mask is None or mask.shape != ids.shape:
        return [ids.shape[1]] * len(ids)
    ends = (mask.bool() * torch.arange(1, ids.shape[1] + 1, device=mask.device)).amax(1)
    # A model reads what all of them are filled up with too.
    return [ids.shape[1]] * len(ids) if int(ends.max()) < ids.shape[1] else [int(end) for end in ends]


def require_short(model: nn.Module, lengths: Iterable[int], *, where: str, what: str = "example") -> None:
    """Checks that the model can read every example.

    Args:
        model: Which.
        lengths: Tokens of each example.
        where: Name of the task.
        what: What an example is called.

    Raises:
        DataError: If one is longer; it is named by its number.
    """
    several = list(lengths)
    limit = longest(model) if several else None
    if limit is None or max(several) <= limit[0]:
        return
    too_long = [at for at, length in enumerate(several) if length > limit[0]]
    raise DataError(
        "An example is longer than the model can read.",
        where=f"{where}: {what} {too_long[0]}",
        expected=f"at most {limit[0]} tokens ({limit[1]})",
        got=f"{several[too_long[0]]} tokens; {len(too_long)} of {len(several)} are too long",
        do="Shorten these examples or leave them out, or audit a model with a longer context.",
    )
