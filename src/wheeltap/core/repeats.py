"""Examples that repeat others: the same inputs and target once more, or inputs that differ by next to nothing."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import canon
from wheeltap.core.annotations import Annotations
from wheeltap.core.inputs import Inputs, tensors
from wheeltap.core.typed import to_array

_FEWER = 0.9
"""Share of the examples that their effective number must reach, or each counts once."""

_SAMPLE = 128
"""Examples whose neighbors are looked at."""

_NEAR, _GAP, _LEAST = 0.01, 10.0, 0.5
"""Near copies lie within this share of the distance of two examples at random, with none up to so many times as far
around them; this share of the examples must have one."""

_WIDTH = 16
"""Numbers of an example that are compared: of more, as many random sums, which keep distances."""

_MOST = 10_000
"""Examples among which neighbors are looked for."""


def keys_of(inputs: Inputs, *others: Tensor) -> tuple[str, ...]:
    """A digest of each example's inputs and of its row in ``others``: equal where these are.

    Numbers are compared in single precision, whole ones in double (ids of tokens may be large). Of named token ids
    what an ``attention_mask`` leaves out, and so how a prompt is filled up, is not part of the example.
    """
    parts = tensors(inputs)
    mask = parts.get("attention_mask")
    rows = [_rows(parts[name], mask) for name in sorted(parts)] + [_rows(other, None) for other in others]
    return tuple(
        canon.digest("example", *(np.add(row, 0.0, dtype=np.float64).tobytes() for row in example))  # -0 is 0
        for example in zip(*rows, strict=True)
    )


def _rows(part: Tensor, mask: Tensor | None) -> Iterable[NDArray[Any]]:
    """The numbers of each example; of whole ones those that a mask ``[example, place]`` of their shape leaves."""
    if part.is_floating_point() or part.is_complex():
        return to_array(part)
    given: NDArray[Any] = part.detach().cpu().long().numpy()  # pyright: ignore[reportUnknownMemberType]
    if mask is None or mask.ndim != 2 or mask.shape != part.shape:
        return given
    return [row[seen] for row, seen in zip(given, to_array(mask) != 0, strict=True)]


def rows_of(annotations: Annotations) -> list[Tensor]:
    """What else is known of each example, by which two of the same inputs and target may differ."""
    held = [annotations.groups, *annotations.factors.values(), annotations.votes]
    return [one.cpu() for one in held if one is not None]


def firsts(keys: Sequence[object]) -> list[int] | None:
    """The first example of each key, in order; ``None`` where the examples are as good as all different.

    That goes by their effective number: n examples of which some are copies say of a mean what (sum of w)^2 / (sum of
    w^2) do that are none, with w copies of each.

    Source: Kish (1965), "Survey sampling", sec. 11.7.
    """
    effective = len(keys) ** 2 / sum(count**2 for count in Counter(keys).values())
    if effective >= _FEWER * len(keys):
        return None
    return sorted({key: at for at, key in reversed([*enumerate(keys)])}.values())


def few_different(keys: Sequence[object]) -> int | None:
    """How many keys differ, where these are clearly fewer than the examples."""
    different = len(set(keys))
    return different if different < _FEWER * len(keys) else None


def but_for_little(inputs: Inputs) -> int | None:
    """About how many examples differ by more than a tiny change of their floating-point inputs; ``None``: nearly all.

    An example has near copies where some others lie within ``_NEAR`` of the typical distance of two examples, and the
    next one at least ``_GAP`` times as far as they do: examples that merely lie close have others at every distance.
    """
    parts = [part.detach().reshape(len(part), -1) for part in tensors(inputs).values() if part.is_floating_point()]
    if not parts or len(parts[0]) < 4:
        return None
    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(len(parts[0]), generator=generator)[:_MOST]
    x = torch.cat([part[some.to(part.device)].cpu().float() for part in parts], 1)
    spread = x.std(0)
    x = x[:, spread > 0.0] / spread[spread > 0.0]
    if not x.shape[1]:
        return None
    if x.shape[1] > _WIDTH:
        x = x @ torch.randn(x.shape[1], _WIDTH, generator=generator)
    at = torch.randperm(len(x), generator=generator)[:_SAMPLE]
    apart = torch.cdist(x[at], x, compute_mode="donot_use_mm_for_euclid_dist").sort(1)[0][:, 1:]
    typical = float(apart.median())
    near, after = apart[:, :-1], apart[:, 1:]
    alone = (near > 0.0) & (near <= _NEAR * typical) & (after >= _GAP * near)
    if float(alone.any(1).float().mean()) < _LEAST:
        return None
    # An example with c near copies is one of c + 1: it counts for its part.
    copies = torch.where(alone, torch.arange(1, alone.shape[1] + 1), 0).amax(1)
    return max(round(float((1.0 / (1.0 + copies)).mean()) * len(x)), 1)
