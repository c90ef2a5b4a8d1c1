"""Examples that are nearer to each other than independent ones: jittered copies, rows of one subject, similar texts.

From an independent row, distances to the nearest others grow smoothly: ``j * log(d[j + 1] / d[j])`` times the dimension
is about exponential with mean 1, whatever the density. A row that has copies has a gap after the last of them.

Source: Levina and Bickel (2004), "Maximum likelihood estimation of intrinsic dimension".
"""

from collections.abc import Callable, Sequence
from importlib import import_module
from itertools import pairwise, product, takewhile, zip_longest
from typing import Any, Final, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.typed import connected

_NEAREST, _SAMPLE, _PAIRED = 60, 256, 16  # neighbors of a row, rows examined first, others of a usual distance
_POOL, _FEWEST = 20_000, 12  # rows among which neighbors are, at most and at least
_FRACTIONS: Final = (1, 10)  # of the rows among which neighbors are: of a tenth, groups of 600 show 60
_NOTICED, _CLEAR, _MIN_FRACTION = 5.0, 10.0, 0.25  # median log odds of a gap, or so many rows with a clear one
_MORE: Final = 4.0  # times the odds in shuffled columns, where there are gaps too
_ROW: Final = 4.0  # log odds from which a row has a gap: one independent row in 50, and a link needs those of both
_EQUAL, _TIES, _ZERO = 1e-6, 0.5, 1e-8  # of few discrete values so many distances are equal, and gaps say nothing
_TINY, _FEW_SETS = 0.01, 20  # of the median distance: so near are copies alone; fewer sets further apart are kinds
_WIDE, _MAX_COLUMNS = 16, 512  # columns from which one that hardly varies is noise, as at the border of an image
_COMMON, _MAX_WORDS = 0.95, 1024  # words of nearly all texts tell nothing
_HASHED, _DIRECTIONS = 2**13, 192  # numbers that words are hashed to, and random directions that make them continuous

Floats = NDArray[Any]
Indices = NDArray[np.intp]


class _Gaps(NamedTuple):
    """How clear the gaps are in the distances of a sample of rows.

    Attributes:
        odds: Median log odds of a gap against none.
        fraction: Share of the rows with a clear one.
        dimension: Of the rows, by their spacings without the largest.
        prior: Log share of the rows whose largest spacing is behind each neighbor.
    """

    odds: float
    fraction: float
    dimension: float
    prior: Floats

    @property
    def is_clear(self) -> bool:
        return self.odds > _NOTICED or self.fraction >= _MIN_FRACTION

    def clearer(self, others: "_Gaps") -> bool:
        return self.odds > _MORE * others.odds or self.fraction > _MORE * others.fraction


def _spacings(distances: Floats) -> Floats:
    logs: Floats = np.log(np.maximum(distances, _ZERO))
    return np.asarray(np.arange(1, distances.shape[1]) * (logs[:, 1:] - logs[:, :-1]), dtype=np.float64)


def _gaps(distances: Floats) -> _Gaps | None:
    """Return the gaps in distances ``[row, neighbor]`` in rising order; None where most of these are equal."""
    spacings = _spacings(distances)
    if (spacings < _EQUAL).mean() > _TIES:
        return None
    usual = float(np.median((spacings.sum(1) - spacings.max(1)) / (spacings.shape[1] - 1)))
    dimension = 1.0 / max(usual, _EQUAL)
    largest = np.bincount(spacings.argmax(1), minlength=spacings.shape[1]) + 1.0
    prior = np.log(largest / largest.sum())
    odds = (dimension * spacings + prior).max(1)
    return _Gaps(float(np.median(odds)), float((odds > _CLEAR).mean()), dimension, prior)


def _scaled(rows: Floats, like: Floats) -> tuple[Floats, Floats]:
    """Return rows in one unit, and in each column's spread among ``like``, without columns constant but for noise."""
    step = -(-rows.shape[1] // _MAX_COLUMNS)
    rows, like = rows[:, ::step], like[:, ::step]
    spread = like.std(0, dtype=np.float64)
    varies = spread > (_TINY * np.median(spread[spread > 0.0]) if (spread > 0.0).sum() > _WIDE else 0.0)
    centered, spread = rows[:, varies] - like[:, varies].mean(0, dtype=np.float64), spread[varies]
    whole = spread.mean() if len(spread) else 1.0
    return (centered / whole).astype(np.float32), (centered / spread).astype(np.float32)


def _nearest(rows: Floats, others: Floats, own: Indices, count: int = _NEAREST) -> tuple[Floats, Indices]:
    """Return distances to the nearest ``others`` and their indices, ``[row, neighbor]``, in blocks of rows.

    Args:
        rows: ``[row, column]``.
        others: ``[other, column]``.
        own: Index of each row itself among the others; -1 where it is none of them.
        count: How many neighbors at most; a third of the others, else.
    """
    squares, count = np.square(others).sum(1), min(count, len(others) // 3)
    distances, indices = list[Floats](), list[Indices]()
    for block in np.array_split(np.arange(len(rows)), -(-len(rows) // 128)):
        rough = squares - 2.0 * (rows[block] @ others.T)
        inside = np.flatnonzero(own[block] >= 0)
        rough[inside, own[block][inside]] = np.inf
        near = np.argpartition(rough, count, axis=1)[:, : count + 1]
        # Of rows that nearly agree, the difference of squares is all rounding.
        exact = np.sqrt(np.square(rows[block][:, None] - others[near]).sum(-1, dtype=np.float64))
        order = exact.argsort(1)
        distances.append(np.take_along_axis(exact, order, 1))
        indices.append(np.take_along_axis(near, order, 1))
    return np.concatenate(distances), np.concatenate(indices)


def _own(count: int, pool: Indices) -> Indices:
    own = np.full(count, -1)
    own[pool] = np.arange(len(pool))
    return own


def _clearest(views: Sequence[Floats], rng: np.random.Generator) -> tuple[_Gaps, Floats, Indices] | None:
    """Return the clearest gaps in any of several units, the rows in these, and the pool; None if few or equal."""
    order, found = rng.permutation(len(views[0])), list[tuple[_Gaps, Floats, Indices]]()
    for points, fraction in product(views, _FRACTIONS):
        pool = order[: min(len(order), _POOL) // fraction]
        if len(pool) < _FEWEST or not points.shape[1]:
            continue
        sample = order[:_SAMPLE]
        gaps = _gaps(_nearest(points[sample], points[pool], _own(len(points), pool)[sample])[0])
        if gaps is None:
            return None
        found.append((gaps, points, pool))
    return max(found, key=lambda one: (one[0].is_clear, one[0].odds), default=None)


def near_sets(
    rows: Floats,
    keys: Sequence[object],
    kinds: NDArray[Any] | None = None,
    *,
    fewest: int = _FEW_SETS,
    shuffled: Callable[[np.random.Generator], Floats] | None = None,
) -> NDArray[np.int64] | None:
    """Return the set of each row ``[example]``, joined by distances before a gap; None where there are no such gaps.

    Equal rows count as one, and at most 20,000 of them, drawn at random, are compared with all.

    Args:
        rows: ``[example, column]``.
        keys: ``[example]``; sets do not join different ones.
        kinds: ``[example]``, the classes, where there are any: sets that are classes are none.
        fewest: Effective number of sets below which they are kinds of examples, unless all of their rows nearly agree.
        shuffled: Gives rows as independent columns would make them; by default each column is shuffled.
    """
    first, different = _different(rows, keys)
    rng, points = np.random.default_rng(0), rows[first]
    clearest = _clearest(_scaled(points, points), rng)
    if clearest is None or not clearest[0].is_clear:
        return None
    gaps, points, pool = clearest
    linked, is_tiny = _linked(gaps, points, pool, np.unique([str(keys[at]) for at in first], return_inverse=True)[1])
    sets = linked[different]
    if is_tiny:
        return sets
    if points.shape[1] > 1:  # columns of few values make gaps in whatever order
        mixed = rng.permuted(points, axis=0) if shuffled is None else shuffled(rng)
        by_columns = _clearest([mixed[_different(mixed, [""] * len(mixed))[0]]], rng)
        if by_columns is None or not gaps.clearer(by_columns[0]):
            return None
    return None if _are_kinds(sets, kinds, fewest) else sets


def _different(rows: Floats, keys: Sequence[object]) -> tuple[Indices, list[int]]:
    """Return the index of the first of each different row, and the number of each row's."""
    numbers: dict[object, int] = {}
    different = [numbers.setdefault((row.tobytes(), key), len(numbers)) for row, key in zip(rows, keys, strict=True)]
    return np.unique(different, return_index=True)[1], different


def _linked(gaps: _Gaps, points: Floats, pool: Indices, keys: Indices) -> tuple[NDArray[np.int64], bool]:
    """Return the set of each row, and whether its rows nearly agree: links lie before the gaps of both rows."""
    distances, near = _nearest(points, points[pool], _own(len(points), pool))
    odds = gaps.dimension * _spacings(distances) + gaps.prior
    each, last = np.arange(len(points)), odds.argmax(1)
    inner, has_gap = distances[each, last], odds.max(1) > _ROW
    radius = np.where(has_gap, np.sqrt(np.maximum(inner, _ZERO) * distances[each, last + 1]), 0.0)
    first, neighbor = np.nonzero(distances <= np.minimum(radius[:, None], radius[pool[near]]))
    second = pool[near[first, neighbor]]
    same = keys[first] == keys[second]
    is_tiny = has_gap.any() and np.median(inner[has_gap]) <= _TINY * _usual(points, points[pool])
    return connected(first[same], second[same], len(points)), bool(is_tiny)


def _usual(rows: Floats, others: Floats) -> float:
    """Return the median distance of some rows from some others."""
    return float(np.median(np.linalg.norm(rows[:_SAMPLE, None] - others[None, :_PAIRED], axis=-1)))


def _are_kinds(sets: NDArray[np.int64], kinds: NDArray[Any] | None, fewest: int) -> bool:
    """Whether sets are kinds of examples, of which independent ones are near each other: few, or the classes."""
    sizes = np.unique(sets, return_counts=True)[1]
    if len(sets) ** 2 / np.square(sizes).sum() < fewest:
        return True
    if kinds is None:
        return False
    same = np.square(np.unique(np.asarray(kinds), return_counts=True)[1]).sum() - len(sets)
    return bool(2 * (np.square(sizes).sum() - len(sets)) >= same)


def count_near_copies(rows: Floats, others: Floats) -> int:
    """Return about how many rows differ by a tiny amount from one of ``others``; 0 where it may be by chance."""
    rng = np.random.default_rng(0)
    points, pool = (
        rng.permutation(_scaled(rows, others)[1])[:_SAMPLE],
        rng.permutation(_scaled(others, others)[1])[:_POOL],
    )
    if len(pool) < _FEWEST or not pool.shape[1]:
        return 0
    distances = _nearest(points, pool, np.full(len(points), -1))[0]
    gaps = _gaps(distances)
    if gaps is None:
        return 0
    odds = gaps.dimension * _spacings(distances) + gaps.prior
    inner = distances[np.arange(len(points)), odds.argmax(1)]
    fraction = float(((odds.max(1) > _ROW) & (inner <= _TINY * _usual(points, pool))).mean())
    return round(fraction * len(rows)) if fraction >= _MIN_FRACTION else 0


def similar_text_sets(texts: Sequence[Sequence[str]]) -> NDArray[np.int64] | None:
    """Return the set of each text ``[text]``, given its words; None where the texts form no clear sets.

    Texts are compared by which words and pairs of words they have. Random directions make that continuous: of short
    texts many have equally many words in common.

    Source: Weinberger et al. (2009), "Feature hashing for large scale multitask learning"; Johnson and Lindenstrauss
    (1984), "Extensions of Lipschitz mappings into a Hilbert space".
    """
    if len(texts) < _FEWEST:
        return None
    shared = takewhile(lambda words: len(set(words)) == 1, zip(*texts, strict=False))
    start = sum(1 for _ in shared)  # an instruction or few-shot examples may start all of them
    words = [tuple(text[start:][:_MAX_WORDS]) for text in texts]

    def shuffled(rng: np.random.Generator) -> Floats:
        columns = zip_longest(*words)
        mixed = zip(*([column[at] for at in rng.permutation(len(column))] for column in columns), strict=True)
        return _projected([[word for word in text if word is not None] for text in mixed])

    return near_sets(_projected(words), [""] * len(texts), fewest=1, shuffled=shuffled)  # kinds of texts have no gaps


def _projected(texts: Sequence[Sequence[str]]) -> Floats:
    """Return random directions ``[text, number]`` of which words and pairs of words each text has."""
    parts = [[*text, *map(" ".join, pairwise(text))] for text in texts]
    make = cast("Any", import_module("sklearn.feature_extraction.text")).HashingVectorizer
    settings = {"n_features": _HASHED, "analyzer": list, "binary": True, "norm": None, "alternate_sign": False}
    counts = make(**settings).transform(parts).tocsc()
    own = np.flatnonzero(counts.getnnz(0) < _COMMON * len(texts))
    counts = counts[:, own].tocsr()
    directions = np.random.default_rng(0).normal(size=(_HASHED, _DIRECTIONS))[own]
    return counts @ directions / np.sqrt(np.maximum(counts.getnnz(1), 1))[:, None]
