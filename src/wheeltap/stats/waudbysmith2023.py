"""Confidence sequences and p-values for the mean of bounded observations that hold at every stopping time, by betting.

A gambler stakes part of a capital of 1 on each observation lying above ``m``, before seeing it. If the mean is at most
``m`` the game is unfair to the gambler, so capital that ever reaches 20 is evidence at level .05, whenever one looks
(Ville's inequality), however long one goes on and whatever decided to stop.
"""

from dataclasses import dataclass
from typing import final

import numpy as np

from wheeltap.core.errors import DataError, UsageError
from wheeltap.stats.crossed import FloatArray, Values, checked_alpha

_ROUNDING = 1e-9  # an observation this share of the range beyond a bound is one on it


@final
@dataclass(frozen=True, kw_only=True)
class Bets:
    """What is staked: a mixture of gamblers, each ready for one distance of the mean from ``m``.

    A gambler ready for the distance d stakes d / (variance + d^2), the stake of fastest growth where d is right, with
    the variance learnt from the observations before. The mixture loses little to the best of them, needs no distance
    known beforehand and, unlike a stake learnt from the mean, keeps the set of means not rejected an interval.

    Attributes:
        effects: Distances, in the observations' unit.
        weights: Share of the capital that each gambler starts with; sums to 1.
        most: Largest part of its capital that a gambler can lose at once.
    """

    effects: tuple[float, ...] = (0.025, 0.05, 0.1, 0.2, 0.4)
    weights: tuple[float, ...] = (0.05, 0.15, 0.6, 0.15, 0.05)
    most: float = 0.95

    def scaled(self, factor: float) -> "Bets":
        """The same for distances ``factor`` times as large."""
        return Bets(effects=tuple(factor * d for d in self.effects), weights=self.weights, most=self.most)


@final
class Capital:
    """Capital won against "the mean is at most m" and "the mean is at least m", for several m and many replicates.

    Both are non-negative supermartingales of initial value 1 under their hypothesis as long as each observation has,
    given those before it, a mean that satisfies it: independence is not needed.

    Args:
        means: ``[mean]``: every m, in the observations' unit.
        bounds: Range that the observations cannot leave.
        bets: The gamblers.
        shape: Of one feed: ``()`` for a single sequence, ``(replicate,)`` for many at once.

    Raises:
        UsageError: If the bounds are not ascending, an m lies outside them, or the bets do not fit each other.

    Source: Waudby-Smith & Ramdas (2023), "Estimating means of bounded random variables by betting", sec. 4.1 and
    theorem 3 (capital processes for hypotheses of a mean), eq. 15 (the variance learnt, here about a mean learnt).
    """

    def __init__(
        self,
        means: Values,
        *,
        bounds: tuple[float, float] = (-1.0, 1.0),
        bets: Bets | None = None,
        shape: tuple[int, ...] = (),
    ) -> None:
        self.means, self.bounds = np.asarray(means, dtype=np.float64), bounds
        bets = bets or Bets()
        _require(self.means, bounds, bets)
        low, high = bounds
        self.count = 0
        self._prior = ((low + high) / 2, ((high - low) / 4) ** 2)
        self.total: FloatArray = np.zeros(shape)
        self._squares: FloatArray = np.full(shape, self._prior[1])
        lead = (len(bets.effects), *(1,) * len(shape))
        self._effects = np.asarray(bets.effects).reshape(lead)
        self._weights = np.asarray(bets.weights).reshape((*lead, 1))
        with np.errstate(divide="ignore"):  # an m on the bound can be staked against without limit
            self._caps = bets.most / (self.means - low), bets.most / (high - self.means)
        won = (len(bets.effects), *shape, len(self.means))
        self._won = np.zeros(won), np.zeros(won)
        self.above: FloatArray = np.zeros((*shape, len(self.means)))
        """Largest log capital so far against "the mean is at most m": ``[*shape, mean]``, falling in m."""
        self.below: FloatArray = self.above.copy()
        """Largest log capital so far against "the mean is at least m": ``[*shape, mean]``, rising in m."""

    @property
    def mean(self) -> FloatArray:
        """Mean of the observations so far; the middle of the range before the first."""
        return self.total / self.count if self.count else np.full(self.total.shape, self._prior[0])

    def feed(self, x: Values) -> None:
        """One observation per replicate.

        Args:
            x: Of the shape given, or a single number.

        Raises:
            DataError: If it has another shape, is not finite, or lies outside the bounds.
        """
        seen = self._checked(x)
        stake = (self._effects / (self._squares / (self.count + 1) + self._effects**2))[..., None]
        gap = seen[..., None] - self.means
        for won, peak, cap, move in zip(self._won, (self.above, self.below), self._caps, (gap, -gap), strict=True):
            np.add(won, np.log1p(np.minimum(stake, cap) * move), out=won)
            top = won.max(axis=0)
            np.maximum(peak, top + np.log((self._weights * np.exp(won - top)).sum(axis=0)), out=peak)
        self.count += 1
        self.total = self.total + seen
        learnt = (self.total + self._prior[0]) / (self.count + 1)
        self._squares = self._squares + np.square(seen - learnt)

    def interval(self, level: float) -> tuple[FloatArray, FloatArray]:
        """Ends of the confidence sequence, each of the replicates' shape: the largest and smallest m rejected.

        Each end has half of 1 - ``level``; where nothing is rejected it is the bound. Rounded outwards to the m's.

        Raises:
            UsageError: If ``level`` is not strictly between 0 and 1.
        """
        bar = np.log(2.0 / checked_alpha(level))
        low = np.where(self.above >= bar, self.means, self.bounds[0]).max(axis=-1)
        high = np.where(self.below >= bar, self.means, self.bounds[1]).min(axis=-1)
        return low, high

    def _checked(self, x: Values) -> FloatArray:
        seen, (low, high) = np.asarray(x, dtype=np.float64), self.bounds
        slack = _ROUNDING * (high - low)
        if seen.shape != self.total.shape or not bool(np.all((seen >= low - slack) & (seen <= high + slack))):
            raise DataError(
                "An observation cannot be fed.",
                expected=f"numbers of shape {list(self.total.shape)} within [{low:g}, {high:g}]",
                got=f"shape {list(seen.shape)}, from {seen.min():g} to {seen.max():g}",
                do="Give the range that the observations cannot leave; count a run that diverged as chance.",
            )
        return np.clip(seen, low, high)


def p_value(log_capital: Values) -> FloatArray:
    """P-value at every stopping time, from the largest log capital so far; 1 at most."""
    return np.minimum(1.0, np.exp(-np.asarray(log_capital, dtype=np.float64)))


def _require(means: FloatArray, bounds: tuple[float, float], bets: Bets) -> None:
    low, high = bounds
    if means.ndim != 1 or not (low < high and bool(((means >= low) & (means <= high)).all()) and means.size):
        raise UsageError(
            "These means cannot be bet against.",
            expected="a list of numbers within ascending bounds",
            got=f"{list(means.ravel()[:4])} within [{low:g}, {high:g}]",
        )
    fit = len(bets.effects) == len(bets.weights) and abs(sum(bets.weights) - 1.0) < 1e-9 and 0.0 < bets.most < 1.0
    if not fit or min(bets.effects) <= 0.0 or min(bets.weights) < 0.0:
        raise UsageError(
            "The bets cannot be used.",
            expected="positive effects, as many weights that sum to 1, and most between 0 and 1",
            got=str(bets),
        )
