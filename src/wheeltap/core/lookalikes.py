"""Examples in groups nobody declared: of one template, with one passage or prefix, or near copies of a text."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_ALIKE: Final = 0.4
"""Share of the words and pairs of words of two texts together that both have, from which they are alike."""

_ALL: Final = 0.95
"""What so large a share of the texts has, an instruction or few-shot examples, makes no two of them alike."""

_LEAST, _OWN = 6, 2 / 3
"""Words and pairs of words beside those of all texts, of a text and as a share of all; of fewer nothing is said."""

_FEWER, _COPIED = 0.6, 0.9
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
    parts = _own(several)
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
    return _clearly(group, _FEWER)


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


def _own(several: list[_Parts]) -> list[_Parts]:
    """The parts of each text beside those that all texts have; none of a text with few."""
    rest = [each[held < _ALL * len(several)] for each, held in zip(several, _counts(several), strict=True)]
    return [each if len(each) >= _LEAST else each[:0] for each in rest]


def _linked(parts: list[_Parts]) -> NDArray[np.intp]:
    """The first text of each one's group: texts are joined where they are alike, also by way of others."""
    root = np.arange(len(parts))

    def top(at: int) -> int:
        while root[at] != at:
            root[at] = root[root[at]]
            at = int(root[at])
        return at

    last = dict[int, int]()
    for at, (each, held) in enumerate(zip(parts, _counts(parts), strict=True)):
        sketch: list[int] = each[held > 1][:_SKETCH].tolist()
        for other, common in Counter(last[part] for part in sketch if part in last).most_common(_CANDIDATES):
            one, two = top(at), top(other)
            if common >= _SHARED and one != two and _likeness(each, parts[other]) >= _ALIKE:
                root[max(one, two)] = min(one, two)
        last |= dict.fromkeys(sketch, at)
    return np.array([top(at) for at in range(len(parts))])


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
