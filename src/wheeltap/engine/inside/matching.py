"""How large a disturbance must be to have a given effect: many roots at once.

Raw sizes say little: a step of 1 is six times larger for a weight of .15 than for one of 1. What disturbances do can be
compared where they do equally much.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

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


@final
@dataclass(frozen=True, kw_only=True)
class Search:
    """How sizes are searched for.

    Attributes:
        target: Effect wanted, in the effect's unit.
        bound: Largest size allowed.
        tolerance: Relative error of the effect that is close enough.
        mean: Bound on their mean over all disturbances: the search ends where it would be passed.
    """

    target: float
    bound: float
    tolerance: float = 0.01
    mean: float | None = None

    def __post_init__(self) -> None:
        if not (self.target > 0.0 and self.bound > 0.0 and self.tolerance > 0.0):
            raise UsageError(
                "Sizes cannot be searched for so.",
                expected="a target, a bound and a tolerance above 0",
                got=f"target {self.target}, bound {self.bound}, tolerance {self.tolerance}",
            )


@final
@dataclass(frozen=True, eq=False)
class Matches:
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


def match(effects: Effects, guesses: FloatArray, search: Search) -> Matches:
    """Sizes at which each disturbance has the effect wanted, by bracketing and regula falsi.

    Sizes grow from the guess until the effect is passed. Effects grow about linearly with small sizes, so the root is
    then sought along the straight line between logarithms, and every third time by halving.

    Args:
        effects: Gives the effects of some disturbances; must be 0 at size 0 and continuous in size.
        guesses: First size tried of each, ``[disturbance]``; positive.
        search: What is wanted.

    Raises:
        UsageError: If an effect is not finite or negative.

    Source: Dowell & Jarratt (1971), regula falsi; the halving makes it safe.
    """
    size, count = np.minimum(guesses, search.bound), len(guesses)
    effect = np.zeros(count)
    low, high = (_Ends(np.full(count, size), np.full(count, size)) for size in (0.0, np.inf))
    times, open_ = np.zeros(count, dtype=np.int64), np.arange(count)
    for step in range(_STEPS):
        effect[open_] = _checked(effects(open_, size[open_]))
        times[open_] += 1
        below = open_[effect[open_] < search.target]
        above = open_[effect[open_] >= search.target]
        low.put(below, size, effect)
        high.put(above, size, effect)
        met = np.abs(effect / search.target - 1.0) <= search.tolerance
        spent = (low.size >= search.bound) | (low.size >= high.size * (1.0 - 1e-9))
        open_ = np.flatnonzero(~met & ~spent)
        if not len(open_) or (search.mean is not None and times.sum() + len(open_) > search.mean * count):
            break
        size[open_] = _next(low.part(open_), high.part(open_), search, halve=step % 3 == 2, far=step >= _FAR)
    return Matches(size, effect, np.abs(effect / search.target - 1.0) <= search.tolerance, times)


@dataclass(frozen=True, eq=False)
class _Ends:
    """One end of the bracket of each disturbance: the size, and the effect there."""

    size: FloatArray
    effect: FloatArray

    def put(self, index: NDArray[np.int64], size: FloatArray, effect: FloatArray) -> None:
        self.size[index], self.effect[index] = size[index], effect[index]

    def part(self, index: NDArray[np.int64]) -> "_Ends":
        return _Ends(self.size[index], self.effect[index])


_FAR = 12
"""Evaluations after which a size that is still too large is far too large: the effect has long stopped growing."""


def _next(low: _Ends, high: _Ends, search: Search, *, halve: bool, far: bool) -> FloatArray:
    """The next sizes to try."""
    tiny = np.finfo(np.float64).tiny
    unbounded, first = ~np.isfinite(high.size), low.size == 0.0
    upper, top = np.where(unbounded, 1.0, high.size), np.where(unbounded, 1.0, high.effect)
    grown = low.size * np.clip(1.02 * search.target / np.maximum(low.effect, tiny), _GROW**0.25, _GROW)
    shrunk = upper * (1 / _GROW**2 if far else np.clip(0.98 * search.target / top, 1 / _GROW**2, 0.9))
    between = np.sqrt(np.maximum(low.size, tiny)) * np.sqrt(upper)
    if not halve:
        a, b = np.log(np.maximum(low.size, tiny)), np.log(upper)
        f, g = np.log(np.maximum(low.effect, tiny) / search.target), np.log(top / search.target)
        part = np.clip(-f / np.maximum(g - f, tiny), 0.01, 0.99)
        between = np.exp(a + part * (b - a))
    return np.where(unbounded, np.minimum(grown, search.bound), np.where(first, shrunk, between))


def _checked(effects: NDArray[np.floating[Any]]) -> FloatArray:
    x = np.asarray(effects, dtype=np.float64)
    if not (np.isfinite(x) & (x >= 0.0)).all():
        raise UsageError("An effect cannot be matched.", expected="finite numbers, 0 or more", got="another number")
    return x
