"""Examples that nearly repeat others: arrays with jittered copies, and texts of one template or passage."""

from collections.abc import Sequence
from importlib import import_module
from itertools import pairwise, takewhile
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.typed import connected

_WIDE: Final = 16  # numbers of a row from which one that hardly varies is noise, as at the border of an image
_SAMPLE, _POOL = 128, 100_000  # rows whose neighbors are looked up first, and rows among which
_NEAR, _GAP, _MIN_FRACTION = 0.01, 10.0, 0.25  # of the median distance; times the last copy's; of the sample
_SIMILAR, _COHERENT, _APART = 0.57, 0.4, 0.33  # cosine: two texts; a group's mean at least; the mean across at most
_ROUNDING: Final = 1e-6  # distance below which rows are equal
_COMMON, _MIN_OWN, _MIN_PARTS = 0.95, 2 / 3, 6  # words of nearly all texts tell nothing; a text needs others
_MAX_TEXTS, _MAX_WORDS = 20_000, 1024  # all pairs are compared


def _neighbors(**settings: Any) -> Any:
    return cast("Any", import_module("sklearn.neighbors")).NearestNeighbors(**settings)


def _scaled(rows: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Return rows in units of the spread of ``like``, without columns that are constant but for noise."""
    spread = like.std(0)
    varies = spread > (_NEAR * np.median(spread[spread > 0.0]) if (spread > 0.0).sum() > _WIDE else 0.0)
    return np.asarray(rows[:, varies] / spread[varies], dtype=np.float64)


def _copy_distances(points: NDArray[Any], others: NDArray[Any]) -> NDArray[Any]:
    """Return how far the copies of some ``points`` lie among ``others``, zero for none: a gap follows the last copy."""
    rng = np.random.default_rng(0)
    points, pool = rng.permutation(points)[:_SAMPLE], rng.permutation(others)[:_POOL]
    if len(pool) < 4 or pool.shape[1] == 0:
        return np.zeros(len(points))
    distances = _neighbors(n_neighbors=len(pool)).fit(pool).kneighbors(points)[0]
    near, after = distances[:, :-1], distances[:, 1:]
    is_copy = (near > _ROUNDING) & (near <= _NEAR * np.median(distances)) & (after >= _GAP * near)
    return np.where(is_copy, near, 0.0).max(1)


def near_copy_sets(rows: NDArray[Any], classes: Sequence[object]) -> NDArray[np.int64] | None:
    """Return the set of each row ``[example]``, joined by tiny differences within a class; None without such copies."""
    points = _scaled(rows, rows)
    distances = _copy_distances(points, points)
    if (distances > 0.0).mean() < _MIN_FRACTION:
        return None
    search = _neighbors(radius=3.0 * float(np.median(distances[distances > 0.0]))).fit(points)
    links, own = search.radius_neighbors_graph().tocoo(), np.unique(np.asarray(classes), return_inverse=True)[1]
    same = own[links.row] == own[links.col]
    return connected(links.row[same], links.col[same], len(rows))


def count_near_copies(rows: NDArray[Any], others: NDArray[Any]) -> int:
    """Return about how many rows differ by a tiny amount from one of ``others``; 0 where it may be by chance."""
    fraction = float((_copy_distances(_scaled(rows, others), _scaled(others, others)) > 0.0).mean())
    return round(fraction * len(rows)) if fraction >= _MIN_FRACTION else 0


def similar_text_groups(texts: Sequence[Sequence[str]]) -> NDArray[np.int64] | None:
    """Return the group of each text ``[text]``, given its words; None where the texts form no clear groups."""
    if not 2 < len(texts) <= _MAX_TEXTS:
        return None
    shared = takewhile(lambda words: len(set(words)) == 1, zip(*texts, strict=False))
    start = sum(1 for _ in shared)  # an instruction or few-shot examples may start all of them
    words = [text[start:][:_MAX_WORDS] for text in texts]
    parts = [[*each, *map(" ".join, pairwise(each))] for each in words]
    make = cast("Any", import_module("sklearn.feature_extraction.text")).HashingVectorizer
    counts = make(analyzer=list, binary=True, norm=None, alternate_sign=False).transform(parts).tocsc()
    own = counts[:, counts.getnnz(0) < _COMMON * len(texts)].tocsr()
    sizes = own.getnnz(1)
    if sizes[sizes >= _MIN_PARTS].sum() < _MIN_OWN * counts.nnz:
        return None
    units = own.multiply(((sizes >= _MIN_PARTS) / np.sqrt(np.maximum(sizes, 1)))[:, None]).tocsr()

    def cosine_sums(group: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the size of each group, and the sum of the cosines of all of its pairs, self-pairs included."""
        sparse = cast("Any", import_module("scipy.sparse"))
        sums = sparse.csr_matrix((np.ones(len(group)), (group, np.arange(len(group))))) @ units
        return np.bincount(group), np.asarray(sums.multiply(sums).sum(1)).ravel()

    search = _neighbors(radius=1.0 - _SIMILAR, metric="cosine").fit(units)
    links = search.radius_neighbors_graph().tocoo()
    group = connected(links.row, links.col, len(texts))
    n, within = cosine_sums(group)
    loose = (n > 2) & (within - n < _COHERENT * n * (n - 1))  # a chain: each like the next, and all others unlike
    group = np.unique(np.where(loose[group], len(n) + np.arange(len(texts)), group), return_inverse=True)[1]
    n, within = cosine_sums(group)
    pairs, total = len(texts) ** 2 - int((n**2).sum()), cosine_sums(np.zeros_like(group))[1].sum()
    return None if pairs == 0 or total - within.sum() > _APART * pairs else group.astype(np.int64)
