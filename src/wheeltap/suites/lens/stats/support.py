"""Which items are solved at least once by one of two, and how much of that could be chance."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.stats._scipy import fisher, sign_test
from wheeltap.stats.family import holm

Counts = NDArray[np.integer[Any]]


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
