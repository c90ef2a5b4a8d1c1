"""Statistics of features: edits of a few of them, F1 for sets of values, one-to-one matching."""

from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from scipy import optimize

Floats = NDArray[np.floating[Any]]
Flags = NDArray[np.bool_]
Index = NDArray[np.int64]

PAIRED: Final = 1024  # changes among which the best pair is searched exhaustively: those that are best alone
_TINY: Final = float(np.finfo(np.float64).tiny)


def edit(changes: Floats, wanted: Floats, budget: int) -> Index:
    """The changes, at most so many, whose sum is nearest to what is wanted.

    Of two it is the best set of all (among the ``PAIRED`` best alone); a larger one grows from that pair by the change
    that helps most, and ends where none does. None is worse than that of a smaller budget.

    Args:
        changes: ``[change, width]``: what removing or adding one feature adds to a vector.
        wanted: ``[width]``: the target less the source.
        budget: Largest number of changes.

    Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4 (the problem, and a greedy solution).
    """
    rows, aim = changes.astype(np.float64), wanted.astype(np.float64)
    gain = 2.0 * rows @ aim - np.square(rows).sum(1)  # by how much each alone shortens the squared distance
    if budget < 1 or not len(rows):
        return np.zeros(0, dtype=np.int64)
    if budget == 1:
        return np.flatnonzero((gain > 0.0) & (np.arange(len(gain)) == gain.argmax()))
    some = np.argsort(-gain, kind="stable")[:PAIRED]
    pairs = gain[some, None] + gain[some] - 2.0 * rows[some] @ rows[some].T
    np.fill_diagonal(pairs, gain[some])
    at = divmod(int(pairs.argmax()), len(some))
    chosen = np.unique(some[list(at)]) if pairs[at] > 0.0 else some[:0]
    left = gain - 2.0 * rows @ rows[chosen].sum(0)
    left[chosen] = -np.inf
    while len(chosen) < budget and left.max() > 0.0:
        new = int(left.argmax())
        chosen = np.append(chosen, new)
        left = left - 2.0 * rows @ rows[new]
        left[new] = -np.inf
    return chosen


def weights(contributions: Floats) -> NDArray[np.float64]:
    """Share of each feature in what a dictionary makes of a vector, without its bias, ``[feature]``; their sum is 1.

    A feature's contribution is its code times its decoder row.

    Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4 (edit magnitude).
    """
    rows = contributions.astype(np.float64)
    whole = rows.sum(0)
    return rows @ whole / max(float(whole @ whole), _TINY)


def f1(active: Flags, holds: Flags) -> NDArray[np.float64]:
    """F1 of being active ``[..., example]`` for what holds ``[..., example]``; 0 where a feature is never active."""
    both = 2.0 * (active & holds).sum(-1)
    return both / np.maximum(active.sum(-1) + holds.sum(-1), 1)


def best_values(active: Flags, labels: Index, *, values: int, most: int) -> Flags:
    """For each feature the set of values, at most so many, for which its F1 is largest, ``[feature, value]``.

    Exact: F1 of a set is a ratio of two sums over its values, which Dinkelbach's iteration maximizes. A value that no
    example has is in no set; a feature that is never active has an empty one.

    Args:
        active: ``[example, feature]``.
        labels: Number of each example's value, ``[example]``.
        values: How many there are.
        most: Largest set.

    Source: Dinkelbach 1967, "On nonlinear fractional programming".
    """
    one_hot = np.eye(values)[labels]
    hits, counts, sizes = active.T.astype(np.float64) @ one_hot, one_hot.sum(0), active.sum(0)
    chosen, ratio = np.zeros(hits.shape, dtype=np.bool_), np.zeros(len(hits))
    for _ in range(values + 64):  # it ends far sooner: each ratio is that of another set, and larger
        worth = np.where(counts > 0, 2.0 * hits - ratio[:, None] * counts, -np.inf)
        rank = np.argsort(np.argsort(-worth, axis=1, kind="stable"), axis=1, kind="stable")
        new = (rank < most) & (worth > 0.0)
        score = 2.0 * (hits * new).sum(1) / np.maximum(sizes + (counts * new).sum(1), 1.0)
        better = score > ratio * (1.0 + 1e-12)
        if not better.any():
            break
        chosen[better], ratio[better] = new[better], score[better]
    return chosen


def fit(active: Flags, labels: Index, sets: Flags) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """F1, precision and recall of features for ``sets [feature, value]``, ``[3, feature]``; see ``best_values``.

    They are 0 where a feature is never active. Also the F1 of a feature that is always active, ``[feature]``.
    """
    one_hot = np.eye(sets.shape[1])[labels]
    hits = ((active.T.astype(np.float64) @ one_hot) * sets).sum(1)
    fires, holds = active.sum(0), sets @ one_hot.sum(0)
    parts = [hits / np.maximum(whole, 0.5) for whole in ((fires + holds) / 2.0, fires, holds)]
    return np.stack(parts), 2.0 * holds / np.maximum(len(labels) + holds, 1.0)


def cover(active: Flags, *, share: float) -> int:
    """How many features, the most covering first, are active on a share of examples; 0 where all together are not.

    ``active`` is ``[example, feature]``.
    """
    if not active.size or float(active.any(1).mean()) < share:
        return 0
    left, count = active.copy(), 0
    while len(active) - len(left) < share * len(active) - 1e-9:
        left = left[~left[:, left.sum(0).argmax()]]
        count += 1
    return count


def matching(likeness: Floats) -> tuple[Index, Index]:
    """One-to-one pairs of rows and columns whose summed likeness is largest; as many as the shorter side has."""
    found = cast("Any", optimize).linear_sum_assignment(likeness, maximize=True)
    return cast("tuple[Index, Index]", found)


def correlations(one: Floats, other: Floats) -> NDArray[np.float64]:
    """Correlation over examples of two codes ``[example, feature]`` each, ``[feature]``; 0 where one does not vary."""
    first, second = (codes - codes.mean(0) for codes in (one.astype(np.float64), other.astype(np.float64)))
    size = np.sqrt(np.square(first).sum(0) * np.square(second).sum(0))
    floor = 1e-12 * np.sqrt(np.square(one).sum(0) * np.square(other).sum(0))
    varies = size > np.maximum(floor, _TINY)
    return np.where(varies, (first * second).sum(0) / np.where(varies, size, 1.0), 0.0)
