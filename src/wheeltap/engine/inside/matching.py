"""How large a disturbance must be to have a given effect: many roots at once.

Raw sizes say little: a step of 1 is six times larger for a weight of .15 than for one of 1. What disturbances do can be
compared where they do equally much.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import UsageError

FloatArray = NDArray[np.float64]

_GROW = 4.0
"""A size that does too little grows by this factor at most: larger steps may pass over a crossing."""

_STEPS = 40
"""Bound on the evaluations of one disturbance."""

Effects = Callable[[NDArray[np.int64], FloatArray], NDArray[np.floating[Any]]]
"""Effect of each of some disturbances (their numbers) at a size of its own; both ``[disturbance]``."""


class Matches(NamedTuple):
    """What was found; all ``[disturbance]``.

    Attributes:
        size: The size, where ``reached``; the last one tried elsewhere.
        effect: The effect there.
        reached: Whether the effect is the target, within tolerance. A disturbance that has too little effect at the
            bound (or jumps over the target) does not reach it.
        evaluations: Evaluations of each.
    """

    size: FloatArray
    effect: FloatArray
    reached: NDArray[np.bool_]
    evaluations: NDArray[np.int64]


def match(
    effects: Effects,
    guesses: FloatArray,
    *,
    target: float,
    bound: float,
    tolerance: float = 0.01,
    mean: float | None = None,
) -> Matches:
    """Sizes at which each disturbance has the effect wanted, by bracketing and regula falsi.

    Sizes grow from the guess until the effect is passed. Effects grow about linearly with small sizes, so the root is
    then sought along the straight line between logarithms, and every third time by halving.

    Args:
        effects: Gives the effects of some disturbances; must be 0 at size 0 and continuous in size.
        guesses: First size tried of each, ``[disturbance]``; positive.
        target: Effect wanted, in the effect's unit.
        bound: Largest size allowed.
        tolerance: Relative error of the effect that is close enough.
        mean: Bound on their mean evaluations over all disturbances: the search ends where it would be passed.

    Raises:
        UsageError: If an effect is not finite or negative, or target, bound or tolerance are not above 0.

    Source: Dowell & Jarratt (1971), regula falsi; the halving makes it safe.
    """
    if not (target > 0.0 and bound > 0.0 and tolerance > 0.0):
        raise UsageError(
            "Sizes cannot be searched for so.",
            expected="a target, a bound and a tolerance above 0",
            got=f"target {target}, bound {bound}, tolerance {tolerance}",
        )
    size, count = np.minimum(guesses, bound), len(guesses)
    effect = np.zeros(count)
    # One end of the bracket of each disturbance: the size, and the effect there.
    low, high = (np.full((2, count), size) for size in (0.0, np.inf))
    times, open_ = np.zeros(count, dtype=np.int64), np.arange(count)
    for step in range(_STEPS):
        found = np.asarray(effects(open_, size[open_]), dtype=np.float64)
        if not (np.isfinite(found) & (found >= 0.0)).all():
            raise UsageError("An effect cannot be matched.", expected="finite numbers, 0 or more", got="another number")
        effect[open_] = found
        times[open_] += 1
        for end, index in ((low, open_[found < target]), (high, open_[found >= target])):
            end[:, index] = size[index], effect[index]
        met = np.abs(effect / target - 1.0) <= tolerance
        spent = (low[0] >= bound) | (low[0] >= high[0] * (1.0 - 1e-9))
        open_ = np.flatnonzero(~met & ~spent)
        if not len(open_) or (mean is not None and times.sum() + len(open_) > mean * count):
            break
        following = _next(low[:, open_], high[:, open_], target, halve=step % 3 == 2, far=step >= _FAR)
        size[open_] = np.minimum(following, bound)
    return Matches(size, effect, np.abs(effect / target - 1.0) <= tolerance, times)


_FAR = 12
"""Evaluations after which a size that is still too large is far too large: the effect has long stopped growing."""


def _next(low: FloatArray, high: FloatArray, target: float, *, halve: bool, far: bool) -> FloatArray:
    """The next sizes to try, from both ends of the brackets ``[size or effect, disturbance]``."""
    tiny = np.finfo(np.float64).tiny
    unbounded, first = ~np.isfinite(high[0]), low[0] == 0.0
    upper, top = np.where(unbounded, 1.0, high[0]), np.where(unbounded, 1.0, high[1])
    grown = low[0] * np.clip(1.02 * target / np.maximum(low[1], tiny), _GROW**0.25, _GROW)
    shrunk = upper * (1 / _GROW**2 if far else np.clip(0.98 * target / top, 1 / _GROW**2, 0.9))
    between = np.sqrt(np.maximum(low[0], tiny)) * np.sqrt(upper)
    if not halve:
        a, b = np.log(np.maximum(low[0], tiny)), np.log(upper)
        f, g = np.log(np.maximum(low[1], tiny) / target), np.log(top / target)
        part = np.clip(-f / np.maximum(g - f, tiny), 0.01, 0.99)
        between = np.exp(a + part * (b - a))
    return np.where(unbounded, grown, np.where(first, shrunk, between))
