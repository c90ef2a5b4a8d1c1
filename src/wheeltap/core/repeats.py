"""Examples that repeat others: the same inputs and target once more, or inputs that differ by next to nothing."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, cast

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

_NEAR, _GAP, _LEAST = 0.01, 10.0, 0.25
"""Near copies lie within this share of the distance of two examples at random, with none up to so many times as far
around them; this share of the examples must have one."""

_REACH = 3.0
"""Distance that joins copies, in units of that within which most such examples have all of theirs."""

_FEWEST = 4
"""Examples of which some can be near copies."""

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


def copies(inputs: Inputs) -> NDArray[np.int64] | None:
    """Which examples differ by a tiny change of floating-point inputs alone: the number of their set, ``[example]``.

    An example has near copies where some others lie within ``_NEAR`` of the typical distance of two examples, and the
    next one at least ``_GAP`` times as far as they do: examples that merely lie close have others at every distance.
    Sets are what steps of a few times the distance of such copies join.

    Returns:
        ``None`` where the examples are as good as all different (see ``firsts``), and where their inputs are whole
        numbers.
    """
    parts = [part.detach().reshape(len(part), -1) for part in tensors(inputs).values() if part.is_floating_point()]
    if not parts or len(parts[0]) < _FEWEST:
        return None

    def rows(at: Tensor) -> Tensor:
        return torch.cat([part[at.to(part.device)].cpu().float() for part in parts], 1)

    generator = torch.Generator().manual_seed(0)
    some = torch.randperm(len(parts[0]), generator=generator)[:_MOST]
    x = rows(some)
    spread = x.std(0)
    varying = (spread > 0.0).nonzero()[:, 0]
    if not len(varying):
        return None
    wide = len(varying) > _WIDTH
    sums = torch.randn(len(varying), _WIDTH, generator=generator) if wide else torch.eye(len(varying))
    sums /= spread[varying, None]
    x = x[:, varying] @ sums
    apart = torch.cdist(x[:_SAMPLE], x, compute_mode="donot_use_mm_for_euclid_dist").sort(1)[0][:, 1:]
    near, after = apart[:, :-1], apart[:, 1:]
    alone = (near > 0.0) & (near <= _NEAR * float(apart.median())) & (after >= _GAP * near)
    if float(alone.any(1).float().mean()) < _LEAST:
        return None
    reach = _REACH * float(torch.where(alone, near, 0.0).amax(1)[alone.any(1)].median())
    every = [rows(at)[:, varying] @ sums for at in _split(len(parts[0]))]
    return _joined(to_array(torch.cat(every)), reach)


def _split(count: int) -> Iterator[Tensor]:
    return (torch.arange(start, min(start + _MOST, count)) for start in range(0, count, _MOST))


def _joined(x: NDArray[Any], reach: float) -> NDArray[np.int64] | None:
    """Sets of rows that steps of at most ``reach`` join; ``None`` where nearly every row is one of its own."""
    spatial: Any = import_module("scipy.spatial")
    sets = _components(spatial.KDTree(x).query_pairs(reach, output_type="ndarray"), len(x))
    return None if firsts([*map(int, sets)]) is None else sets


def merged(sets: NDArray[np.int64], groups: Tensor | None) -> NDArray[np.int64]:
    """Sets of examples, joined where two share a group ``[example]``."""
    if groups is None:
        return sets
    own = np.unique(groups.cpu().numpy(), return_inverse=True)[1]
    behind = int(sets.max()) + 1
    return _components(np.stack([sets, behind + own], 1), behind + int(own.max()) + 1)[sets]


def _components(links: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """The component of each of ``count`` nodes, given links ``[link, 2]``; in order of their first nodes."""
    sparse, graphs = (cast("Any", import_module(f"scipy.sparse{part}")) for part in ("", ".csgraph"))
    near = sparse.coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(count, count))
    return graphs.connected_components(near, directed=False)[1].astype(np.int64)
