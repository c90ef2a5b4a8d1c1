"""Examples that repeat others: the same inputs and target once more, or inputs much nearer than others are."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import canon
from wheeltap.core.annotations import Annotations
from wheeltap.core.inputs import Inputs, shapes, tensors
from wheeltap.core.near_duplicates import count_near_copies, near_sets, similar_text_sets
from wheeltap.core.typed import connected, to_array

_FEWER = 0.9
"""Share of the examples that their effective number must reach, or each counts once."""

_PLACES, _VALUES, _OFTEN = 256, 12, 10.0
"""Numbers of an example that are looked at, values of one that repeats by chance, and how many times as often as
independent numbers equal inputs may repeat."""


_CHUNK = 1_000_000
"""How many numbers are converted at once."""


def keys_of(inputs: Inputs, *others: Tensor) -> tuple[str, ...]:
    """A digest of each example's inputs and of its row in ``others``: equal where these are.

    Numbers are compared in single precision, whole ones in double (ids of tokens may be large). Of named token ids
    what an ``attention_mask`` leaves out, and so how a prompt is filled up, is not part of the example.
    """
    parts = tensors(inputs)
    mask = parts.get("attention_mask")
    rows = [_bytes_of(parts[name], mask) for name in sorted(parts)] + [_bytes_of(other, None) for other in others]
    return tuple(canon.digest("example", *example) for example in zip(*rows, strict=True))


def _bytes_of(part: Tensor, mask: Tensor | None) -> Iterator[bytes]:
    """Yield the numbers of each example as bytes that are equal where the numbers are."""
    rows = _rows(part, mask)
    if isinstance(rows, list):
        yield from (np.add(row, 0.0, dtype=np.float64).tobytes() for row in rows)  # -0 becomes 0
    else:
        step = max(_CHUNK // max(rows[:1].size, 1), 1)
        for start in range(0, len(rows), step):
            yield from (row.tobytes() for row in np.add(rows[start : start + step], 0.0, dtype=np.float64))


def _rows(part: Tensor, mask: Tensor | None) -> NDArray[Any] | list[NDArray[Any]]:
    """The numbers of each example; of whole ones those that a mask ``[example, place]`` of their shape leaves."""
    if part.is_floating_point() or part.is_complex():
        return to_array(part)
    given: NDArray[Any] = part.detach().cpu().long().numpy()  # pyright: ignore[reportUnknownMemberType]
    if mask is None or mask.ndim != 2 or mask.shape != part.shape:
        return given
    return [row[seen] for row, seen in zip(given, to_array(mask) != 0, strict=True)]


def tokens_of(inputs: Inputs) -> list[NDArray[Any]] | None:
    """The whole numbers ``[place]`` of each example that a mask leaves; ``None`` where they are no such rows."""
    parts = tensors(inputs)
    ids = parts.get("input_ids", next(iter(parts.values())) if len(parts) == 1 else None)
    if ids is None or ids.ndim != 2 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        return None
    return list(_rows(ids, parts.get("attention_mask")))


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


_ID: Final = re.compile(
    r"(^|_)(id|uid|uuid|patient|subject|person|user|author|speaker|document|doc|source|session|original|case|study)s?"
    r"(_?(id|ids|no|number|name))?$",
    re.IGNORECASE,
)
_FEW_IDS: Final = 10
"""Names of what examples share; so few values or less are kinds."""


def is_id(name: str) -> bool:
    """Whether values of this name are, by that, ids of what examples share."""
    return _ID.search(name) is not None


def shared_ids(values: Mapping[str, Sequence[object]]) -> tuple[str, NDArray[np.intp]] | None:
    """Return the name of the ids ``[example]`` that examples share, and these numbered: of several, the fewest.

    None of those whose values hardly repeat, or are as few as kinds are.
    """
    numbered = {name: np.unique([*map(str, ids)], return_inverse=True)[1] for name, ids in values.items()}
    shared = {name: ids for name, ids in numbered.items() if ids.max() >= _FEW_IDS and firsts(ids.tolist()) is not None}
    return min(shared.items(), key=lambda item: int(item[1].max()), default=None)


def same(keys: Sequence[str]) -> NDArray[np.int64] | None:
    """The number of each one's key, ``[example]``; ``None`` where these are as good as all different, or not known."""
    return None if not keys or firsts(keys) is None else np.unique(keys, return_inverse=True)[1].astype(np.int64)


def by_chance(inputs: Inputs, targets: Tensor) -> bool:
    """Whether equal inputs with several targets are no copies: so few are possible that independent examples repeat.

    That goes by how often two examples have the same number in each place, as if places were independent. A number that
    has many values, as a name or a measured one has, repeats in copies alone.
    """
    keys = keys_of(inputs)
    distinct = len(set(keys))
    if distinct == len(keys) or len(set(keys_of(inputs, targets))) == distinct:
        return False
    log = 0.0
    for part in tensors(inputs).values():
        for column in to_array(part.detach().cpu().reshape(len(keys), -1)[:, :_PLACES]).T:
            counts = np.unique(column, return_counts=True)[1]
            log += np.log(np.square(counts / len(keys)).sum() if len(counts) <= _VALUES else 1.0 / len(keys))
    equal = sum(count**2 for count in Counter(keys).values()) / len(keys) ** 2
    return bool(np.log(equal) <= log + np.log(_OFTEN))


def alike(one: NDArray[Any], two: NDArray[Any]) -> bool:
    """Whether two numberings ``[example]`` put the same examples together."""
    return len(np.unique(np.stack([one, two]), axis=1).T) == len(np.unique(one)) == len(np.unique(two))


def few_different(keys: Sequence[object]) -> int | None:
    """How many keys differ, where these are clearly fewer than the examples."""
    different = len(set(keys))
    return different if different < _FEWER * len(keys) else None


def numbers_of(inputs: Inputs) -> NDArray[np.float32] | None:
    """Return the floating-point inputs ``[example, number]``; None where there are none."""
    parts = [part.detach().cpu().float() for part in tensors(inputs).values() if part.is_floating_point()]
    return to_array(torch.cat([part.reshape(len(part), -1) for part in parts], 1)) if parts else None


def copies(inputs: Inputs, targets: Tensor) -> NDArray[np.int64] | None:
    """Return which examples are copies by their floating-point numbers: their set, ``[example]``.

    Whole-number inputs divide sets, and sets that are the right options are none.

    Returns:
        ``None`` where the examples are as good as all different (see ``firsts``), and where their inputs are whole
        numbers.
    """
    rows, kinds = numbers_of(inputs), None
    if rows is None:
        return None
    if targets.is_floating_point() or targets.is_complex():  # numbers of the example like its inputs
        rows = np.concatenate([rows, to_array(targets.detach().cpu().float().reshape(len(rows), -1))], 1)
    elif targets.ndim == 1:
        kinds = targets.cpu().numpy()
    fixed = {name: part for name, part in tensors(inputs).items() if not part.is_floating_point()}
    sets = near_sets(rows, keys_of(fixed) if fixed else [""] * len(rows), kinds)
    return None if sets is None or firsts([*map(int, sets)]) is None else sets


def near_copies(inputs: Inputs, others: Inputs) -> int:
    """Return about how many examples differ by a tiny change of floating-point inputs alone from one of the others.

    0 where the inputs are of another shape, or whole numbers.
    """
    rows, others_rows = numbers_of(inputs), numbers_of(others)
    if rows is None or others_rows is None or shapes(inputs) != shapes(others):
        return 0
    return count_near_copies(rows, others_rows)


def merged(sets: NDArray[np.int64], groups: Tensor | None) -> NDArray[np.int64]:
    """Sets of examples, joined where two share a group ``[example]``."""
    if groups is None:
        return sets
    own = np.unique(groups.cpu().numpy(), return_inverse=True)[1]
    behind = int(sets.max()) + 1
    return connected(sets, behind + own, behind + int(own.max()) + 1)[sets]


Words = Sequence[str]


def lookalikes(texts: Sequence[Words]) -> NDArray[np.int64] | None:
    """Return the group of each text ``[text]``, from 0; None where all are in one, or nearly all like no other."""
    groups = similar_text_sets(texts)
    return None if groups is None else _clearly(groups)


def copied(texts: Sequence[Words]) -> NDArray[np.int64] | None:
    """Return which text each is, ``[text]``; None where nearly all differ."""
    numbers: dict[tuple[str, ...], int] = {}
    return _clearly(np.array([numbers.setdefault(tuple(words), len(numbers)) for words in texts]))


def _clearly(groups: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Groups, where there are several, and the examples are not as good as all different."""
    return None if len(np.unique(groups)) == 1 or firsts(groups.tolist()) is None else groups


def words_of(text: str) -> Words:
    """Return the words of a text, whatever their case."""
    return text.casefold().split()


def sizes_of(groups: NDArray[np.integer[Any]]) -> str:
    """How many groups there are, and how large, in words."""
    sizes = np.unique(groups, return_counts=True)[1]
    most = int(sizes.max())
    return f"{len(sizes):,} groups of {'' if most == int(sizes.min()) else 'up to '}{most:,}"
