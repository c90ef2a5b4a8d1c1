"""Examples that repeat others: the same inputs and target once more, or inputs that differ by next to nothing."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Any, Final, cast
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import canon
from wheeltap.core.annotations import Annotations
from wheeltap.core.inputs import Inputs, count, shapes, tensors
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

_PLACES, _VALUES, _OFTEN = 256, 12, 10.0
"""Numbers of an example that are looked at, values of one that repeats by chance, and how many times as often as
independent numbers equal inputs may repeat."""

_FEWEST = 4
"""Examples of which some can be near copies."""

_WIDTH = 16
"""Numbers of an example that are compared: of more, as many random sums, which keep distances."""

_FLAT = 0.01
"""Spread, as a share of the median one, below which a number of many is taken for constant."""

_MOST = 10_000
"""Examples that are read at once."""

_AMONG = 100_000
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


def same(keys: Sequence[str]) -> NDArray[np.int64] | None:
    """The number of each one's key, ``[example]``; ``None`` where these are as good as all different, or not known."""
    return None if not keys or firsts(keys) is None else np.unique(keys, return_inverse=True)[1].astype(np.int64)


def by_chance(inputs: Inputs, keys: Sequence[str]) -> bool:
    """Whether equal inputs are no copies: so few inputs are possible that examples drawn one by one repeat as often.

    That goes by how often two examples have the same number in each place, as if places were independent. A number that
    has many values, as a name or a measured one has, repeats in copies alone.
    """
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


def _narrowed(inputs: Inputs) -> Callable[[Inputs, Tensor], Tensor]:
    """Makes few numbers of each example, in units of their spread: of many, random sums, which keep distances.

    Args:
        inputs: Of the examples that say what varies, and how far.

    Returns:
        Of inputs, and which of their examples: ``[example, sum]``.
    """
    generator = torch.Generator().manual_seed(0)
    spread = _numbers(inputs, torch.randperm(count(inputs), generator=generator)[:_MOST]).std(0)
    some = spread[spread > 0.0]
    wide = len(some) > _WIDTH
    # Of an image the border is constant, but for the noise that makes a copy.
    varying = (spread > (_FLAT * float(some.median()) if wide else 0.0)).nonzero()[:, 0]
    width = len(varying)
    drawn = torch.randn(width, _WIDTH if wide else 0, generator=generator, dtype=torch.float32)
    sums = (drawn if wide else torch.eye(width, dtype=torch.float32)) / spread[varying, None]

    def narrow(of: Inputs, at: Tensor) -> Tensor:
        pieces = (at[start : start + _MOST] for start in range(0, len(at), _MOST))
        return torch.cat([_numbers(of, piece)[:, varying] @ sums for piece in pieces])

    return narrow


def _numbers(inputs: Inputs, at: Tensor) -> Tensor:
    """The floating-point inputs of some examples, ``[example, number]``."""
    parts = [part.detach() for part in tensors(inputs).values() if part.is_floating_point()]
    return torch.cat([part[at.to(part.device)].cpu().float().reshape(len(at), -1) for part in parts], 1)


def _are_numbers(inputs: Inputs) -> bool:
    return count(inputs) >= _FEWEST and any(part.is_floating_point() for part in tensors(inputs).values())


def _near(x: Tensor, others: Tensor) -> Tensor:
    """How far the copies of each example lie, ``[example]``, zero where it has none; itself at a distance of zero."""
    apart = torch.cdist(x, others, compute_mode="donot_use_mm_for_euclid_dist").sort(1)[0]
    near, after = apart[:, :-1], apart[:, 1:]
    alone = (near > 0.0) & (near <= _NEAR * float(apart.median())) & (after >= _GAP * near)
    return torch.where(alone, near, 0.0).amax(1)


def copies(inputs: Inputs, targets: Tensor) -> NDArray[np.int64] | None:
    """Which examples differ by a tiny change of floating-point numbers alone: the number of their set, ``[example]``.

    An example has near copies where some others lie within ``_NEAR`` of the typical distance of two examples, and the
    next one at least ``_GAP`` times as far as they do: examples that merely lie close have others at every distance.
    Sets are what steps of a few times the distance of such copies join, and whole numbers and labels do not divide.

    Returns:
        ``None`` where the examples are as good as all different (see ``firsts``), and where their inputs are whole
        numbers.
    """
    if not _are_numbers(inputs):
        return None
    held = {str(at): part for at, part in enumerate((*tensors(inputs).values(), targets))}
    x = _narrowed(held)(held, torch.arange(len(targets)))
    some = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:_AMONG]
    far = _near(x[some[:_SAMPLE]], x[some])
    near = far[far > 0.0]
    if len(near) < _LEAST * len(far):
        return None
    whole = [part for part in held.values() if not (part.is_floating_point() or part.is_complex())]
    spatial: Any = import_module("scipy.spatial")
    links: NDArray[Any] = spatial.KDTree(to_array(x)).query_pairs(_REACH * float(near.median()), output_type="ndarray")
    if whole:
        own = np.unique(keys_of(*whole), return_inverse=True)[1]
        links = links[own[links[:, 0]] == own[links[:, 1]]]
    sets = _components(links, len(x))
    return None if firsts([*map(int, sets)]) is None else sets


def near_copies(inputs: Inputs, others: Inputs) -> int:
    """About how many examples differ by a tiny change of floating-point inputs alone from one of the others.

    None, where it may be by chance that some lie close; and where the inputs are of another shape, or whole numbers.
    """
    if not (_are_numbers(inputs) and _are_numbers(others)) or shapes(inputs) != shapes(others):
        return 0
    narrow = _narrowed(others)
    at = torch.randperm(count(inputs), generator=torch.Generator().manual_seed(0))[:_SAMPLE]
    share = float((_near(narrow(inputs, at), narrow(others, torch.arange(count(others)))) > 0.0).float().mean())
    return round(share * count(inputs)) if share >= _LEAST else 0


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


_ALIKE: Final = 0.4
"""Share of the words and pairs of words of two texts together that both have, from which they are alike."""

_ALL: Final = 0.95
"""What so large a share of the texts has, an instruction or few-shot examples, makes no two of them alike."""

_LEAST_WORDS, _OWN = 6, 2 / 3
"""Words and pairs of words beside those of all texts, of a text and as a share of all; of fewer nothing is said."""

_FEWER_GROUPS, _COPIED = 0.6, 0.9
"""Share of the texts that their effective number must be below; where groups are of the same text alone."""

_SKETCH: Final = 16
"""Words and pairs of words of each text by which others like it are looked up."""

_CANDIDATES, _SHARED = 3, 3
"""Texts with most of a sketch in common, to which a text is compared, and how much that is at least."""

_WITHIN, _APART = 0.3, 0.2
"""Mean likeness of two texts of a group, below which it is none; of different groups, above which all are of one."""

_TRIED: Final = 200
"""Pairs of texts whose likeness is looked at."""

_LONGEST: Final = 1024
"""Words of a text that are looked at."""

Words = NDArray[np.integer[Any]]
_Parts = NDArray[np.uint64]


def lookalikes(texts: Sequence[Words], *, placed: bool = False) -> NDArray[np.intp] | None:
    """Which group each text is in, ``[text]``, from 0; a text like no other is one of its own.

    Args:
        texts: Numbers of the words or tokens of each.
        placed: Whether a word elsewhere in a text is another one: of numbers that may be no words.

    Returns:
        ``None`` where all are in one group, or most are like no other.

    Source: Broder (1997), "On the resemblance and containment of documents": resemblance, and sketches of smallest
    hashes to find those alike without comparing all.
    """
    start = _same_start(texts)
    end = _same_start([text[:start:-1] for text in texts])
    several = [_parts(text[start : len(text) - end][:_LONGEST], placed) for text in texts]
    # Beside those that all texts have; none of a text with few.
    rest = [each[held < _ALL * len(several)] for each, held in zip(several, _counts(several), strict=True)]
    parts = [each if len(each) >= _LEAST_WORDS else each[:0] for each in rest]
    if sum(map(len, parts)) < _OWN * sum(map(len, several)):
        return None
    group = _linked(parts)
    for one in np.flatnonzero(np.bincount(group) > 2):
        members = np.flatnonzero(group == one)
        # Each may be like the next one and all others be unlike.
        if _typical([parts[at] for at in members], np.zeros(len(members), dtype=np.intp), same=True) < _WITHIN:
            group[members] = len(texts) + members
    if _typical(parts, group, same=False) > _APART:
        return None
    return _clearly(group, _FEWER_GROUPS)


def copied(texts: Sequence[Words]) -> NDArray[np.intp] | None:
    """Which text each is, ``[text]``; ``None`` where nearly all differ."""
    numbers: dict[bytes, int] = {}
    return _clearly(np.array([numbers.setdefault(text.tobytes(), len(numbers)) for text in texts]), _COPIED)


def _clearly(group: NDArray[np.intp], fewer: float) -> NDArray[np.intp] | None:
    """Groups from 0, where there are several, and the effective number is below that share of the texts."""
    _, group, sizes = np.unique(group, return_inverse=True, return_counts=True)
    effective = len(group) ** 2 / float(np.square(sizes).sum())
    return None if len(sizes) == 1 or effective >= fewer * len(group) else group


def words_of(text: str) -> Words:
    """Numbers of the words of a text, whatever their case."""
    return np.array([crc32(word.encode()) for word in text.casefold().split()[:_LONGEST]], dtype=np.int64)


def sizes_of(groups: NDArray[np.integer[Any]]) -> str:
    """How many groups there are, and how large, in words."""
    sizes = np.unique(groups, return_counts=True)[1]
    most = int(sizes.max())
    return f"{len(sizes):,} groups of {'' if most == int(sizes.min()) else 'up to '}{most:,}"


def _same_start(texts: Sequence[Words]) -> int:
    """How many words all texts begin with alike: an instruction, or examples of how to answer."""
    least = min(map(len, texts))
    first = texts[0][:least]
    return min((int(np.argmin([*(first == text[:least]), False])) for text in texts), default=0)


def _parts(text: Words, placed: bool) -> _Parts:
    """Distinct words and pairs of words, as hashes."""
    words = _mixed(text.astype(np.uint64))
    words = _mixed(words + np.arange(len(words), dtype=np.uint64)) if placed else words
    return np.unique(np.concatenate([words, _mixed(words[:-1] * np.uint64(3) + words[1:])]))


def _mixed(numbers: _Parts) -> _Parts:
    """Numbers spread over all 64 bits.

    Source: Steele, Lea & Flood (2014), SplitMix64, the finalizer.
    """
    x = numbers + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
    return x ^ (x >> np.uint64(31))


def _counts(several: list[_Parts]) -> list[NDArray[np.intp]]:
    """How many texts have each part, part by part."""
    _, place, counts = np.unique(np.concatenate(several), return_inverse=True, return_counts=True)
    return np.split(counts[place], np.cumsum([len(each) for each in several])[:-1])


def _linked(parts: list[_Parts]) -> NDArray[np.int64]:
    """The number of each text's group: texts are joined where they are alike, also by way of others."""
    links, last = list[tuple[int, int]](), dict[int, int]()
    for at, (each, held) in enumerate(zip(parts, _counts(parts), strict=True)):
        sketch: list[int] = each[held > 1][:_SKETCH].tolist()
        near = Counter(last[part] for part in sketch if part in last).most_common(_CANDIDATES)
        links += [(at, two) for two, both in near if both >= _SHARED and _likeness(each, parts[two]) >= _ALIKE]
        last |= dict.fromkeys(sketch, at)
    return _components(np.array(links, dtype=np.int64).reshape(-1, 2), len(parts))


def _likeness(one: _Parts, two: _Parts) -> float:
    """Parts that both have, as a share of those of either."""
    mine: list[int] = one.tolist()
    theirs: list[int] = two.tolist()
    both = len(set(mine).intersection(theirs))
    return both / max(len(one) + len(two) - both, 1)


def _typical(parts: list[_Parts], group: NDArray[np.intp], *, same: bool) -> float:
    """Mean likeness of two texts of the same group, or of different ones; 0 where there is no such pair."""
    tried: list[tuple[int, int]] = np.random.default_rng(0).integers(len(parts), size=(_TRIED, 2)).tolist()
    pairs = [(a, b) for a, b in tried if a != b and (group[a] == group[b]) == same]
    return float(np.mean([_likeness(parts[a], parts[b]) for a, b in pairs])) if pairs else 0.0
