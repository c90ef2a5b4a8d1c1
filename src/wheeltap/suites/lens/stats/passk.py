"""How often k tries are enough, from n recorded tries at each item (pass@k, pass^k without bias); who solves what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from wheeltap.stats._scipy import fisher, sign_test
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.family import holm

Counts = NDArray[np.integer]
Runs = tuple[tuple[int, int], ...]
"""Numbers of tries as runs, first and last of each."""


def pass_at(right: Counts, samples: Counts, *, most: int) -> FloatArray:
    """Probability that at least one of k tries is right, ``[item, k]`` for k from 1 to ``most``.

    1 - C(n - c, k) / C(n, k), as a product of k factors: exact to rounding, and without overflow.

    Args:
        right: ``[item]``, right answers c.
        samples: ``[item]``, answers n of that item: never the number of items.
        most: Largest k; no item may have fewer samples.

    Source: Chen et al. (2021), arXiv:2107.03374, eq. 1.
    """
    return 1.0 - _all_among(samples - right, samples, most=most)


def pass_all(right: Counts, samples: Counts, *, most: int) -> FloatArray:
    """Probability that all of k tries are right, ``[item, k]``: C(c, k) / C(n, k).

    Args:
        right: ``[item]``.
        samples: ``[item]``.
        most: Largest k; no item may have fewer samples.

    Source: Yao et al. (2024), arXiv:2406.12045, sec. 3.
    """
    return _all_among(right, samples, most=most)


def _all_among(chosen: Counts, total: Counts, *, most: int) -> FloatArray:
    """Probability that k draws without replacement are all among ``chosen`` of the ``total``, ``[item, k]``."""
    drawn = np.arange(most, dtype=np.float64)
    ratios = np.clip(chosen[:, None] - drawn, 0.0, None) / (total[:, None] - drawn)
    return np.asarray(np.cumprod(ratios, axis=1), dtype=np.float64)


def runs_of(ks: Sequence[int], chosen: NDArray[np.bool_]) -> Runs:
    """The chosen ks as runs, first and last of each."""
    found: list[tuple[int, int]] = []
    before = False
    for k, now in zip(ks, chosen, strict=True):
        if now and before:
            found[-1] = (found[-1][0], k)
        elif now:
            found.append((k, k))
        before = bool(now)
    return tuple(found)


@final
@dataclass(frozen=True, eq=False)
class SolvedItems:
    """Items by who solves them at least once.

    Attributes:
        both: How many both solve.
        first: Items that the first alone solves.
        second: Items that the second alone solves.
        neither: How many nobody solves.
        p: Exact two-sided p-value that such an item is as likely the first's as the second's.
        each: For the items in ``first`` and ``second``, in this order: Fisher's p-value of its counts, by itself.
        sure: Which of those are at most alpha after Holm's correction over all of them.
    """

    both: int
    first: tuple[int, ...]
    second: tuple[int, ...]
    neither: int
    p: float
    each: tuple[float, ...]
    sure: tuple[bool, ...]


def solved(one: tuple[Counts, Counts], two: tuple[Counts, Counts], *, alpha: float = 0.05) -> SolvedItems:
    """Items that are solved at least once, with what is censored made visible.

    An item that was solved in one of 128 tries and then in none of 128 may well be solved as often as before: so every
    single item is tested by its counts. In total the balance of items lost and gained can be sure where no item is.

    Args:
        one: Right answers and samples of each item, ``[item]`` each.
        two: Of the other, with as many samples of each item.
        alpha: For single items.

    Source: McNemar (1947), exact; Fisher (1922); Holm (1979).
    """
    (c, n), (d, m) = one, two
    ours, theirs = c > 0, d > 0
    first, second = (tuple(int(at) for at in np.flatnonzero(some)) for some in (ours & ~theirs, theirs & ~ours))
    each = [fisher((int(c[at]), int(n[at] - c[at])), (int(d[at]), int(m[at] - d[at]))) for at in (*first, *second)]
    return SolvedItems(
        both=int((ours & theirs).sum()), first=first, second=second, neither=int((~ours & ~theirs).sum()),
        p=sign_test(len(first), len(first) + len(second)), each=tuple(each), 
        sure=tuple(p is not None and p <= alpha for p in holm(each)),
    )  # fmt: skip


def entropy(answers: Counts) -> NDArray[np.float64]:
    """Entropy of each item's distinct answers in nats, ``[item]``; missing answers (-1) do not count.

    With n answers it is at most log n, and too small by about (distinct - 1) / 2n: items are comparable where they
    have as many answers.

    Args:
        answers: ``[item, draw]``, which distinct answer, from 0.
    """
    found = np.zeros(len(answers))
    for at, row in enumerate(answers):
        _, counts = np.unique(row[row >= 0], return_counts=True)
        share = counts / counts.sum() if len(counts) else np.ones(1)
        found[at] = -(share * np.log(share)).sum()
    return found
