"""Where a subject ranks among others, with intervals that hold for all of them together."""

from itertools import combinations

import numpy as np

from wheeltap.errors import DataError
from wheeltap.records import Estimate
from wheeltap.stats.crossed import FloatArray, Values, checked, checked_alpha
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.family import holm


def rank_intervals(
    values: Values, *, level: float = 0.95, bounded: bool = False, higher_is_better: bool = True
) -> list[Estimate]:
    """Rank of each subject by its mean, 1 the best, with the best and worst rank that the data allow.

    A subject's best rank is one more than the number of subjects surely better than it, its worst rank the number
    of subjects less those surely worse. "Surely" is for all pairs at once: every ordered pair is a one-sided
    hypothesis ("the first is no better") and one Holm correction goes over them all, so with probability at least
    ``level`` every interval contains the true rank. Subjects of equal mean share a set of ranks; whichever of them one
    of them is given, it lies in the interval.

    Args:
        values: [subject, example], or [subject, draw, example]: the same examples (and draws) for every subject.
            One draw is taken as no sampling of draws.
        level: Probability with which all the intervals hold together.
        bounded: Whether each value is a score in [0, 1].
        higher_is_better: Whether rank 1 has the largest mean.

    Returns:
        One estimate per subject, in their order: ``value`` is the rank of the observed mean (the best of those that
        tie), ``low`` and ``high`` are the best and the worst rank.

    Raises:
        DataError: If the values are not finite, of another shape, outside [0, 1] though ``bounded``, or of fewer than
            two subjects.

    Source: Mogstad, Romano, Shaikh & Wilhelm (2024), "Inference for ranks with applications to mobility across
    neighbourhoods and academic achievement across countries", Rev. Econ. Stud. 91(1), sec. 3 (ranks from the
    differences told apart, stepwise); Holm (1979) in place of their bootstrap, which would not know that few draws
    are few. Each pair's test is ``mean_effect``'s.
    """
    x = _checked(values)
    alpha = checked_alpha(level)
    subjects, draws, examples = x.shape
    beats = _told_apart(x if higher_is_better else -x, alpha, bounded=bounded)
    means = x.mean(axis=(1, 2)) * (1.0 if higher_is_better else -1.0)
    method = f"all pairs, one-sided, Holm; crossed t, {draws} draws x {examples} examples"
    return [
        Estimate(
            name="rank",
            value=float(1 + (means > means[one]).sum()),
            low=float(1 + beats[:, one].sum()),
            high=float(subjects - beats[one].sum()),
            level=level,
            n=examples,
            unit="rank",
            method=method,
        )
        for one in range(subjects)
    ]


def _told_apart(x: FloatArray, alpha: float, *, bounded: bool) -> FloatArray:
    """``[winner, loser]``: 1 where the first is surely the better of the two, for all pairs at once."""
    pairs = list(combinations(range(len(x)), 2))
    raw: list[float | None] = []
    for one, other in pairs:
        found = mean_effect(x[one] - x[other], bounded=bounded, unit="score")
        half = (1.0 if found.p is None else found.p) / 2
        raw += [half, 1.0 - half] if (found.value or 0.0) > 0.0 else [1.0 - half, half]
    beats = np.zeros((len(x), len(x)))
    adjusted = holm(raw)
    for index, (one, other) in enumerate(pairs):
        for winner, loser, p in ((one, other, adjusted[2 * index]), (other, one, adjusted[2 * index + 1])):
            beats[winner, loser] = float(p is not None and p <= alpha)
    return beats


def _checked(values: Values) -> FloatArray:
    """``[subject, draw, example]``, at least two subjects."""
    x = np.asarray(values, dtype=np.float64)
    x = checked(x[:, None, :] if x.ndim == 2 else x, ("subject", "draw", "example"), what="values")
    if len(x) < 2:
        raise DataError("One subject has no rank.", expected="two subjects or more", got=str(len(x)))
    return x
