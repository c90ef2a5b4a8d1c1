"""Verdicts that stop: is one subject more fragile than another, told as soon as the observations say so.

A *round* is a fresh draw of noise on a few fresh random examples, the same for both subjects; its observation is the
mean difference of what the two keep (at a dose drawn anew, or over the whole curve). Rounds are independent given the
two subjects and the task, and their mean is the difference of areas on this task. For a single subject the same
race runs between its clean and its disturbed score at one dose: ``first`` then says that score is lost.

Each round's examples are to be chosen without regard to the rounds before; then every guarantee is exact. A task
gone through in a random order, then in another, made false alarms rarer (benchmarks/verdict), but that is measured and
not proved. Either way the verdict is on this task: only a single pass without repeats tells of what lies behind it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, final

import numpy as np

from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.records import Estimate
from wheeltap.stats.crossed import FloatArray, Values, checked, checked_alpha
from wheeltap.stats.waudbysmith2023 import Bets, Capital, p_value

Decision = Literal["first", "second", "even"]
"""The first is sounder (or loses less), the second is, or neither by as much as is worth telling."""

_STEPS = 400  # the interval's ends are rounded outwards to this part of the range
_SQUARE = 0.25  # mean square difference expected of a dose before it is met, counted as one round


@final
@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a race decides, in the observations' unit.

    Attributes:
        margin: Differences up to this are not worth telling; the test is of a larger one.
        min_effect: A race is called even once |difference| < ``min_effect`` is shown.
        alpha: Probability of a false "first" or "second", and of a false "even", whenever the race stops.
        bounds: Range that an observation cannot leave.
    """

    margin: float = 0.02
    min_effect: float = 0.10
    alpha: float = 0.05
    bounds: tuple[float, float] = (-1.0, 1.0)

    @property
    def bets(self) -> Bets:
        """Gamblers ready for differences around the one worth telling."""
        return Bets().scaled(self.min_effect / 0.1)

    @property
    def nulls(self) -> FloatArray:
        """``[-worth, -margin, margin, min_effect]``: the differences that are bet against."""
        return np.array([-self.min_effect, -self.margin, self.margin, self.min_effect])

    def require(self) -> None:
        """Refuses rules by which nothing can be decided.

        Raises:
            UsageError: If margin and min_effect are not ordered within the bounds, or alpha is no probability.
        """
        checked_alpha(self.alpha)
        low, high = self.bounds
        if not (0.0 <= self.margin <= self.min_effect < min(-low, high) and self.min_effect > 0.0):
            raise UsageError(
                "The rules of a race cannot be used.",
                expected="0 <= margin <= min_effect, and both inside the bounds on either side of 0",
                got=f"margin {self.margin:g}, min_effect {self.min_effect:g}, bounds [{low:g}, {high:g}]",
            )


class Tests(NamedTuple):
    """P-values that hold whenever one looks; each only ever falls.

    Attributes:
        first: Of "the mean is at most ``margin``", doubled for the two directions.
        second: Of "the mean is at least -``margin``", doubled.
        even: Of "|mean| is at least ``min_effect``".
    """

    first: FloatArray
    second: FloatArray
    even: FloatArray


def tests_at(capital: Capital, at: Sequence[int]) -> Tests:
    """The tests at the indices of the four nulls."""
    low, near_low, near_high, high = at
    return Tests(
        first=np.minimum(1.0, 2.0 * p_value(capital.above[..., near_high])),
        second=np.minimum(1.0, 2.0 * p_value(capital.below[..., near_low])),
        even=np.maximum(p_value(capital.above[..., low]), p_value(capital.below[..., high])),
    )


@final
class Race:
    """Two subjects, fed round by round until it is decided which is the sounder, or that neither is.

    Args:
        rules: What is decided.

    Raises:
        UsageError: If the rules cannot be used.

    Source: Waudby-Smith & Ramdas (2023) for the tests; Schuirmann (1987) for "even" (both ends, each at alpha).
    """

    def __init__(self, rules: Rules | None = None) -> None:
        self.rules = rules or Rules()
        self.rules.require()
        grid = np.unique(np.concatenate([np.linspace(*self.rules.bounds, _STEPS + 1), self.rules.nulls, [0.0]]))
        self._capital = Capital(grid, bounds=self.rules.bounds, bets=self.rules.bets)
        self._at: list[int] = np.searchsorted(grid, self.rules.nulls).tolist()
        self.decided: Decision | None = None
        """The verdict at ``rules.alpha``; the first reached stands, whatever is fed later."""

    @property
    def n(self) -> int:
        """Rounds fed."""
        return self._capital.count

    @property
    def tests(self) -> Tests:
        """The three p-values now."""
        return tests_at(self._capital, self._at)

    @property
    def p(self) -> float:
        """P-value of |mean| <= ``margin``, valid whenever one looks."""
        return float(min(self.tests.first, self.tests.second))

    def feed(self, x: float) -> Decision | None:
        """One round's observation; returns the verdict if there is one by now.

        Raises:
            DataError: If it is not finite or outside the bounds.
        """
        self._capital.feed(np.asarray(x, dtype=np.float64))
        if self.decided is None:
            self.decided = _decision(self.tests, self.rules.alpha)
        return self.decided

    def estimate(self, *, level: float = 0.95, name: str = "difference", unit: str) -> Estimate:
        """The mean difference so far, with an interval that holds whenever one looks, and ``p``.

        The interval never says more than the test: ``p`` <= 1 - ``level`` exactly where it lies beyond the margin.
        The value is the mean of the rounds, or the nearest point of the interval (which remembers earlier rounds).

        Raises:
            UsageError: If ``level`` is not strictly between 0 and 1.
        """
        ends = [float(end) for end in self._capital.interval(level)]
        low, high = min(ends), max(ends)  # once in a wrong set both ends may have crossed
        mean = float(np.clip(self._capital.mean, low, high))
        method = f"betting confidence sequence over {self.n} rounds, valid at every stopping time"
        return Estimate(name=name, value=mean, low=low, high=high, level=level, n=self.n, unit=unit, method=method,
                        p=self.p)  # fmt: skip


def _decision(tests: Tests, alpha: float) -> Decision | None:
    named: tuple[tuple[Decision, FloatArray], ...] = (
        ("first", tests.first), ("second", tests.second), ("even", tests.even),
    )  # fmt: skip
    return next((name for name, p in named if p <= alpha), None)


@final
class Doses:
    """Which dose the next round has, and what its difference says of the area: learnt as the rounds come in.

    A whole ladder for every example tells little more than one dose of it, at several times the cost. Everything
    here is a function of the rounds before, so that the observations keep their mean, and a replay takes the same way.

    Args:
        weights: [dose], positive, summing to 1 (``area_weights``).
        most: The observations lie in [-``most``, ``most``].

    Raises:
        DataError: If the weights or ``most`` cannot be used.
    """

    def __init__(self, weights: Values, *, most: float = 1.5) -> None:
        self._weights, self._most = checked(weights, ("dose",), what="dose weights"), most
        self._count = np.ones(len(self._weights))
        self._squares = np.full(len(self._weights), _SQUARE)
        self.shares: FloatArray = dose_shares(self._weights, self._squares, most=most)
        """``[dose]``: how likely each is to be the next one."""

    def pick(self, uniform: float) -> int:
        """Index of the next round's dose, from a number drawn evenly from [0, 1)."""
        return min(int(np.searchsorted(np.cumsum(self.shares), uniform, side="right")), len(self.shares) - 1)

    def observe(self, dose: int, difference: float, *, share: float | None = None) -> float:
        """The observation to feed a race with: ``difference``, in [-1, 1], was met at ``dose``.

        Args:
            dose: Index of the dose.
            difference: What one subject keeps more than the other.
            share: How likely the dose was when it was picked, where several rounds are picked before any is observed;
                by default what it is now.
        """
        observation = difference * float(self._weights[dose] / (self.shares[dose] if share is None else share))
        self._count[dose] += 1.0
        self._squares[dose] += difference**2
        self.shares = dose_shares(self._weights, self._squares / self._count, most=self._most)
        return observation


def dose_shares(weights: Values, squares: Values, *, most: float = 1.5) -> FloatArray:
    """How often to draw each dose, where a round has one: the observation is then difference x weight / share.

    Its mean is the difference of areas whatever the shares are. They go by weight x root mean square difference,
    which makes the variance least, but none below weight / ``most``: so ``most`` bounds the observations (rules with
    ``bounds=(-most, most)``). The squares may be learnt from the rounds before.

    Args:
        weights: [dose], positive, summing to 1 (``area_weights``).
        squares: [dose], mean square difference at each dose; known or guessed, up to a factor.
        most: 1 draws by weight alone.

    Raises:
        DataError: If there is not one square per weight, or a number cannot be used.

    Source: Owen (2013), "Monte Carlo theory, methods and examples", sec. 9.1 (optimal importance sampling).
    """
    w, s = checked(weights, ("dose",), what="dose weights"), checked(squares, ("dose",), what="mean squares")
    if w.shape != s.shape or float(w.min()) <= 0.0 or float(s.min()) < 0.0 or most < 1.0:
        raise DataError(
            "Doses cannot be shared out.",
            expected="one positive weight and one mean square per dose, and most at least 1",
            got=f"{len(w)} weights, {len(s)} squares, most {most:g}",
        )
    least: FloatArray = w / (float(w.sum()) * most)
    wanted: FloatArray = w * np.sqrt(s) if float(s.max()) > 0.0 else w
    held = np.zeros(len(w), dtype=bool)
    shares: FloatArray = wanted / float(wanted.sum())
    while bool(np.any(shares < least * (1.0 - 1e-9))):
        held |= shares < least
        rest: FloatArray = np.where(held, 0.0, wanted)
        free = 1.0 - float(least[held].sum())
        shares = np.asarray(np.where(held, least, free * rest / (float(rest.sum()) or 1.0)), dtype=np.float64)
    return shares / float(shares.sum())
