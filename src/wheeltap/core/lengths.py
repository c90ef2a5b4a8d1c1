"""How long a token sequence a model can read, and whether the examples stay within that."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from wheeltap.core.errors import DataError
from wheeltap.core.inputs import Inputs
from wheeltap.core.typed import named_modules

_SETTINGS = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length")
_TABLE = re.compile(
    r"wpe|(.*_)?(pos_?emb(ed(ding)?s?)?|position(s|al)?(_emb(ed(ding)?s?)?)?|embed_pos(itions?)?)(_table)?"
)
_RELATIVE = re.compile(r"rel(ative)?_|_rel|bias|bucket")


class Longest(NamedTuple):
    """The longest sequence a model can read, in tokens, and what says so."""

    tokens: int
    told_by: str


def longest(model: nn.Module) -> Longest | None:
    """The least of what a model's config allows and its tables of positions hold; ``None`` where neither is known."""
    found = [*_configured(getattr(model, "config", None)), *_tables(model)]
    return min(found, default=None)


def _configured(config: Any) -> Iterator[Longest]:
    config = getattr(config, "text_config", None) or config
    for name in _SETTINGS:
        limit = getattr(config, name, None)
        if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0:
            yield Longest(max(limit, _stretched(config, limit)), f"config.{name}")


def _stretched(config: Any, limit: int) -> int:
    """The limit after a scaling of rotary positions, where there is one."""
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None)
    if not isinstance(scaling, dict):
        return limit
    known: dict[str, Any] = dict(scaling)  # pyright: ignore[reportUnknownArgumentType]
    factor, first = known.get("factor"), known.get("original_max_position_embeddings") or limit
    return int(first * factor) if isinstance(factor, int | float) and isinstance(first, int) else limit


def _tables(model: nn.Module) -> Iterator[Longest]:
    for path, module in named_modules(model):
        name = path.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and _TABLE.fullmatch(name) and not _RELATIVE.search(name):
            # Where there is a row for padding, positions are counted from behind it (RoBERTa).
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            yield Longest(module.num_embeddings - unused, f"{path}, an embedding of {module.num_embeddings} positions")


def of_inputs(inputs: Inputs) -> list[int]:
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
    if limit is None or max(several) <= limit.tokens:
        return
    first = next(at for at, length in enumerate(several) if length > limit.tokens)
    too_long = sum(length > limit.tokens for length in several)
    raise DataError(
        "An example is longer than the model can read.",
        where=f"{where}: {what} {first}",
        expected=f"at most {limit.tokens} tokens ({limit.told_by})",
        got=f"{several[first]} tokens; {too_long} of {len(several)} are too long",
        do="Shorten these examples or leave them out, or audit a model with a longer context.",
    )
