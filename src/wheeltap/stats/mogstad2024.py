"""Where a subject ranks among others, with intervals that hold for all of them together."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from msgspec.structs import replace

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats.crossed import FloatArray, Values, checked
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.family import holm
from wheeltap.stats.rare import Ends, rare_effect

_LEVEL = 0.95
_UNSEEN = ", allowing for draws that were not made"


def rank_intervals(values: Values, *, rare: Sequence[Ends] | None = None) -> list[Estimate]:
    """Rank of each subject by its mean, 1 the best, with the best and worst rank that the data allow.

    A subject's best rank is one more than the number of subjects surely better than it, its worst rank the number
    of subjects less those surely worse. "Surely" is for all pairs at once: every ordered pair is a one-sided
    hypothesis ("the first is no better") and one Holm correction goes over them all, so with probability at least
    .95 every interval contains the true rank, or all of those that subjects of equal mean share.

    Args:
        values: [subject, example], or [subject, draw, example]: the same for every subject; larger is better. One draw
            is taken as no sampling of draws.
        rare: Where few draws hit hard: of each subject the least and the most that a draw's mean can be. Then no pair
            is distinguished that harder draws than were made could turn round.

    Returns:
        One per subject: ``value`` is the rank of the observed mean (the best of those that tie), ``low`` and ``high``
        are the best and the worst rank.

    Raises:
        DataError: If there are fewer than two subjects, or values that cannot be used.

    Source: Mogstad, Romano, Shaikh & Wilhelm (2024), "Inference for ranks with applications to mobility across
    neighbourhoods and academic achievement across countries", Rev. Econ. Stud. 91(1), sec. 3 (ranks from the
    differences distinguished, stepwise); Holm (1979) in place of their bootstrap, which would not know that few draws
    are few. Each pair's test is ``mean_effect``'s, or ``rare_effect``'s.
    """
    x = _checked(values)
    subjects, draws, examples = x.shape
    beats, means = _distinguished(x, rare), x.mean(axis=(1, 2))
    method = f"all pairs, one-sided, Holm; crossed t, {draws} draws x {examples} examples{_UNSEEN if rare else ''}"
    blank = Estimate(name="rank", value=None, low=None, high=None, level=_LEVEL, n=examples, unit="rank", method=method)
    return [
        replace(
            blank,
            value=1.0 + float((means > means[one]).sum()),
            low=1.0 + float(beats[:, one].sum()),
            high=subjects - float(beats[one].sum()),
        )
        for one in range(subjects)
    ]


def _less(one: Ends, other: Ends) -> Ends:
    """The ends of a difference."""
    (low, high), (least, most) = one, other
    return (
        None if low is None or most is None else low - most,
        None if high is None or least is None else high - least,
    )


def _distinguished(x: FloatArray, rare: Sequence[Ends] | None) -> FloatArray:
    """``[winner, loser]``: 1 where the first is surely the better of the two, for all pairs at once."""
    pairs = list(combinations(range(len(x)), 2))
    raw: list[float | None] = []
    for one, other in pairs:
        gaps = x[one] - x[other]
        if rare is None:
            found = mean_effect(gaps, unit="score")
        else:
            found = rare_effect(gaps, _less(rare[one], rare[other]), unit="score")
        half = (1.0 if found.p is None else found.p) / 2
        raw += [half, 1.0 - half] if (found.value or 0.0) > 0.0 else [1.0 - half, half]
    beats = np.zeros((len(x), len(x)))
    adjusted = holm(raw)
    for index, (one, other) in enumerate(pairs):
        for winner, loser, p in ((one, other, adjusted[2 * index]), (other, one, adjusted[2 * index + 1])):
            beats[winner, loser] = float(p is not None and p <= 1.0 - _LEVEL)
    return beats


def _checked(values: Values) -> FloatArray:
    """``[subject, draw, example]``, at least two subjects."""
    x = np.asarray(values, dtype=np.float64)
    x = checked(x[:, None, :] if x.ndim == 2 else x, ("subject", "draw", "example"), what="values")
    if len(x) < 2:
        raise DataError("One subject has no rank.", expected="two subjects or more", got=str(len(x)))
    return x
