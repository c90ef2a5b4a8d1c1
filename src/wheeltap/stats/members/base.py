"""A statistic over members and its test: what it says at any margin and any alpha, and what it could have said."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import final

from wheeltap.core.records import Estimate, Power
from wheeltap.core.settings import checked
from wheeltap.core.study import Direction
from wheeltap.stats._scipy import root
from wheeltap.stats.crossed import checked_alpha, checked_margin, positive_margin

_SIGNS: Mapping[Direction, tuple[float, ...]] = {"more": (1.0,), "less": (-1.0,), "either": (1.0, -1.0)}

POWER = 0.8
"""Probability at which an effect counts as detectable."""

MOST = 10_000
"""Members beyond which no study is planned."""

_EXACT = 200  # numbers of members up to which every one is tried; then in steps of 1 %
_FAR = 60  # doublings until a detectable effect is given up


class Law(ABC):
    """What the members say of one true number: how compatible each value of it is with what was seen.

    Attributes:
        members: True number of resampling units.
        span: Least and largest value that the true number can have.
    """

    members: int
    span: tuple[float, float]

    @abstractmethod
    def at_most(self, x: float) -> float:
        """One-sided p-value of "the true number is at most ``x``"; rises with ``x``."""

    @abstractmethod
    def at_least(self, x: float) -> float:
        """One-sided p-value of "the true number is at least ``x``"; falls with ``x``."""

    @abstractmethod
    def interval(self, alpha: float) -> tuple[float, float]:
        """The values whose one-sided p-values are both above ``alpha / 2``."""

    @abstractmethod
    def rejects(self, x: float, *, truth: float, alpha: float) -> float:
        """Probability that a repetition rejects ``x`` in the direction of ``truth``, at a two-sided ``alpha``."""

    @abstractmethod
    def among(self, members: int) -> "Law":
        """The same with another number of members, spread out over the cohorts as they are now."""


@final
@dataclass(frozen=True, kw_only=True)
class MemberTest:
    """A statistic over members: its value, and the test of it against any margin, on either side.

    An effect is the distance of the true number from ``null``; a margin is such a distance too, in the same unit: of a
    ratio a margin of .2 is a ratio of 1.2, or of .8. All p-values are those of two-sided intervals, like
    ``Estimate.p``: an effect beyond the margin is found at ``alpha`` only where the interval of level ``1 - alpha``
    lies beyond the margin, and no unseen kind of member could undo it.

    Attributes:
        name: Of the estimate.
        unit: Of the statistic.
        value: Of the statistic; ``None`` where it is not defined.
        null: The true number that is no effect.
        count: True number of members, as the method counts them.
        method: How the interval was made, or why there is none.
        level: Of the interval.
        law: What is known of the true number; ``None`` where nothing can be tested, and ``method`` says why.
    """

    name: str
    unit: str
    value: float | None
    null: float = 0.0
    count: int
    method: str
    level: float = 0.95
    law: Law | None = None

    @cached_property
    def estimate(self) -> Estimate:
        """The statistic with its interval, and the p-value of "no effect"."""
        low, high = (None, None) if self.law is None else self.law.interval(checked_alpha(self.level))
        return Estimate(
            name=self.name, value=self.value, low=low, high=high, level=self.level, n=self.count, unit=self.unit,
            method=self.method, p=self.above(0.0),
        )  # fmt: skip

    @checked
    def toward(self, direction: Direction, *, margin: float = 0.0) -> Estimate:
        """The effect, positive where it is what the rule is about, with the p-value of "it is within the margin"."""
        made, sign = self.estimate, -1.0 if direction == "less" else 1.0
        ends = [None if end is None else sign * (end - self.null) for end in (made.low, made.high)]
        low, high = ends[::-1] if direction == "less" else ends
        value = None if made.value is None else sign * (made.value - self.null)
        return Estimate(
            name=made.name, value=value, low=low, high=high, level=made.level, n=made.n, unit=made.unit,
            method=made.method, p=self.above(margin, direction),
        )  # fmt: skip

    @checked
    def above(self, margin: float, direction: Direction = "either") -> float | None:
        """P-value of "the effect is within the margin": the smallest alpha at which it is found to be beyond.

        Returns:
            ``None`` where nothing can be tested.

        Raises:
            UsageError: If the margin is negative.
        """
        checked_margin(margin)
        if self.law is None:
            return None
        more, less = self.law.at_most(self.null + margin), self.law.at_least(self.null - margin)
        return min(1.0, 2.0 * {"more": more, "less": less, "either": min(more, less)}[direction])

    @checked
    def below(self, margin: float, direction: Direction = "either") -> float | None:
        """P-value of "the effect is beyond the margin": the smallest alpha at which that is excluded.

        Of "either" it is equivalence within the margin, the larger p-value of both sides.

        Returns:
            ``None`` where nothing can be tested.

        Raises:
            UsageError: If the margin is not positive: an effect of 0 or more can never be excluded.

        Source: Schuirmann (1987), two one-sided tests.
        """
        positive_margin(margin)
        if self.law is None:
            return None
        more, less = self.law.at_least(self.null + margin), self.law.at_most(self.null - margin)
        return min(1.0, 2.0 * {"more": more, "less": less, "either": max(more, less)}[direction])

    @checked
    def power(self, margin: float, direction: Direction = "either", *, alpha: float = 0.05) -> Power | None:
        """What a repetition with as many members can decide: find an effect of twice the margin, and exclude none.

        An effect of twice the margin that no number can have is replaced by one halfway from the margin to the end. Of
        "either", ``found`` is of the direction that is harder to find.

        Returns:
            Its ``examples`` and ``draws`` are not set: see ``needed``. ``None`` where nothing can be tested, or the
            margin is 0 or beyond every possible effect.

        Raises:
            UsageError: If ``margin`` or ``alpha`` cannot be used.
        """
        checked_margin(margin)
        checked_alpha(alpha)
        chances = None if self.law is None else self._chances(self.law, margin, direction, alpha=alpha)
        return None if chances is None else Power(found=chances[0], excluded=chances[1])

    @checked
    def needed(self, margin: float, direction: Direction = "either", *, alpha: float = 0.05) -> int | None:
        """How many members (as ``count`` counts them) would give both sides of ``power`` a probability of .8.

        With the spread that the members have, in the proportion of cohorts that there is; to 1 % above 200. Where the
        spread is only guessed from few members, so is this.

        Returns:
            ``None`` where at most ``MOST`` are not enough, or ``power`` is ``None``.

        Raises:
            UsageError: If ``margin`` or ``alpha`` cannot be used.
        """
        if self.law is None or self.power(margin, direction, alpha=alpha) is None:
            return None
        for members in _sizes():
            larger = self.law.among(members)
            chances = self._chances(larger, margin, direction, alpha=alpha)
            if chances is not None and min(chances) >= POWER:
                return larger.members
        return None

    @checked
    def smallest_detectable(
        self, margin: float = 0.0, direction: Direction = "either", *, alpha: float = 0.05
    ) -> float | None:
        """Smallest true effect that is found to be beyond the margin with probability .8, with as many members.

        Of "either", in the direction that is harder to find.

        Returns:
            A distance from ``null``; ``None`` where no effect is found as often as that.

        Raises:
            UsageError: If ``margin`` or ``alpha`` cannot be used.
        """
        checked_margin(margin)
        checked_alpha(alpha)
        if (law := self.law) is None:
            return None
        signs = [sign for sign in _SIGNS[direction] if self._room(law, sign, margin=margin)[1] > 0.0]
        found = [self._detectable(law, sign, margin=margin, alpha=alpha) for sign in signs]
        sizes = [size for size in found if size is not None]
        return max(sizes) if sizes and len(sizes) == len(found) else None

    def _chances(self, law: Law, margin: float, direction: Direction, *, alpha: float) -> tuple[float, float] | None:
        """Probabilities that twice the margin is found, and that no effect is excluded."""
        sides: list[tuple[float, float]] = []
        for sign in _SIGNS[direction]:
            edge, room = self._room(law, sign, margin=margin)
            if margin > 0.0 and room > 0.0:
                truth = edge + sign * min(margin, room / 2.0)
                sides.append(
                    (law.rejects(edge, truth=truth, alpha=alpha), law.rejects(edge, truth=self.null, alpha=alpha))
                )
        if not sides:
            return None
        found, excluded = [side[0] for side in sides], [side[1] for side in sides]
        # Both sides have to be excluded at once: at least as often as if each missed where the other did not.
        return min(found), max(sum(excluded) - (len(excluded) - 1.0), 0.0)

    def _room(self, law: Law, sign: float, *, margin: float) -> tuple[float, float]:
        """The true number at the margin, and how far from there the last possible one lies."""
        edge, end = self.null + sign * margin, law.span[1 if sign > 0.0 else 0]
        return edge, (end - edge) * sign

    def _detectable(self, law: Law, sign: float, *, margin: float, alpha: float) -> float | None:
        edge, room = self._room(law, sign, margin=margin)

        def misses(distance: float) -> float:
            return POWER - law.rejects(edge, truth=edge + sign * distance, alpha=alpha)

        far = 1e-6
        for _ in range(_FAR):
            far = min(far, room * (1.0 - 1e-9))
            if misses(far) <= 0.0:
                return margin + root(misses, 0.0, far)
            far *= 2.0
        return None


def _sizes() -> Iterator[int]:
    """Numbers of members that are tried, in rising order."""
    yield from range(1, _EXACT)
    size = _EXACT
    while size <= MOST:
        yield size
        size += max(1, size // 100)
