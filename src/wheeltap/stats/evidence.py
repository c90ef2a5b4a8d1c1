"""What was measured of an effect, and what it shows on either side of a margin; also of the extreme of several."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np

from wheeltap.core.records import Power
from wheeltap.core.study import Direction
from wheeltap.stats.clusters import Groups
from wheeltap.stats.members.base import MemberTest


class Evidence(ABC):
    """What a claim about one effect rests on. All p-values are two-sided, like ``Estimate.p``.

    Attributes:
        groups: ``[example]``, which group each example is in; ``None`` where they are independent, or it knows of none.
    """

    groups: Groups | None = None

    @abstractmethod
    def below(self, margin: float, *, one_sided: bool) -> float | None:
        """P-value of "the effect is at least the margin"; ``None`` where that cannot be rejected at all.

        Args:
            margin: In the unit of the effect; where it is not above 0, a mean can never be excluded.
            one_sided: Whether only a positive effect counts; else it is to be smaller than the margin both ways.
        """

    def power(self, margin: float, *, one_sided: bool, alpha: float) -> Power | None:
        """What a repetition can decide at ``alpha``, and how many draws or examples would; ``None`` where unknown."""
        del margin, one_sided, alpha
        return None

    def required(self, margin: float) -> int:
        """Fewest examples for a verdict on values this skewed; 0 where any number will do."""
        del margin
        return 0

    def leans(self, level: float) -> bool | None:
        """Whether there is an effect at all at this level; ``None`` where the interval of the effect says so."""
        del level
        return None

    def further(self, alpha: float) -> float:
        """How much larger than by its interval an effect has to be to be found at ``alpha``, in its unit."""
        del alpha
        return 0.0

    @property
    def df(self) -> int | None:
        """Degrees of freedom of the interval of its effect; ``None`` where many, or unknown."""
        return None

    @property
    def over_groups(self) -> bool:
        """Whether it allows for the groups that examples come in: a claim on examples without that proves nothing."""
        return self.groups is not None

    def __eq__(self, other: object) -> bool:
        """Whether the numbers, and what is known of them, are the same."""
        names = getattr(self, "__dataclass_fields__", ())
        same = type(other) is type(self)
        return same and all(np.array_equal(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # pyright: ignore[reportAssignmentType] - of arrays


@final
class NoEvidence(Evidence):
    """Of an effect whose interval or p-value alone is known: it can be found, and never excluded."""

    def below(self, margin: float, *, one_sided: bool) -> None:
        """Nothing is excluded."""
        del margin, one_sided


@final
@dataclass(frozen=True)
class OwnTest(Evidence):
    """Of a claim that a test of its own excludes, whatever the margin: a permutation test, or one that stops by itself.

    Attributes:
        p: Its p-value.
    """

    p: float

    def below(self, margin: float, *, one_sided: bool) -> float:
        """That p-value."""
        del margin, one_sided
        return self.p


@final
@dataclass(frozen=True)
class Candidate(Evidence):
    """Of one difference, positive only, among several of which it was chosen from the same data: each has its part.

    Attributes:
        part: Of that one.
        among: How many there are.
    """

    part: Evidence
    among: int

    def below(self, margin: float, *, one_sided: bool) -> float | None:
        """Its p-value times their number."""
        del one_sided
        p = self.part.below(margin, one_sided=True)
        return None if p is None else min(1.0, self.among * p)

    def power(self, margin: float, *, one_sided: bool, alpha: float) -> Power | None:
        """At its part of alpha."""
        del one_sided
        return self.part.power(margin, one_sided=True, alpha=alpha / self.among)

    def required(self, margin: float) -> int:
        """Of that one."""
        return self.part.required(margin)

    @property
    def over_groups(self) -> bool:
        """Whether that one is."""
        return self.part.over_groups


@final
@dataclass(frozen=True)
class Largest(Evidence):
    """Of the largest of several effects: it is excluded only where every one of them is.

    Source: Berger (1982), "Multiparameter hypothesis testing and acceptance sampling" (intersection-union test).
    """

    parts: Sequence[Evidence]

    def below(self, margin: float, *, one_sided: bool) -> float | None:
        """The largest p-value of all."""
        each = [part.below(margin, one_sided=one_sided) for part in self.parts]
        known = [p for p in each if p is not None]
        return max(known) if known and len(known) == len(each) else None

    def power(self, margin: float, *, one_sided: bool, alpha: float) -> Power | None:
        """Of the one that is hardest to exclude here: what decides that one decides them all."""

        def hardest(part: Evidence) -> float:
            p = part.below(margin, one_sided=one_sided)
            return 2.0 if p is None else p

        return max(self.parts, key=hardest).power(margin, one_sided=one_sided, alpha=alpha) if self.parts else None

    def required(self, margin: float) -> int:
        """Of all of them."""
        return max((part.required(margin) for part in self.parts), default=0)

    @property
    def over_groups(self) -> bool:
        """Whether all of them are."""
        return all(part.over_groups for part in self.parts)


@final
@dataclass(frozen=True)
class Smallest(Evidence):
    """Of the smallest of several effects, each with a margin of its own: it is excluded where any of them is.

    Each is tested at its part of alpha, so that the choice of the smallest is paid for.

    Attributes:
        parts: Each effect's evidence and margin.
    """

    parts: Sequence[tuple[Evidence, float]]

    def below(self, margin: float, *, one_sided: bool) -> float | None:
        """The smallest p-value times their number; ``margin`` is that of the smallest, and each has its own."""
        known = [p for part, own in self.parts if (p := part.below(own, one_sided=one_sided)) is not None]
        return min(1.0, len(self.parts) * min(known)) if known else None

    @property
    def over_groups(self) -> bool:
        """Whether all of them are."""
        return all(part.over_groups for part, _ in self.parts)


@final
@dataclass(frozen=True)
class Members(Evidence):
    """Of a statistic over the members of a study: its test says everything itself.

    Attributes:
        test: Over members.
        direction: Which effects the claim is about.
    """

    test: MemberTest
    direction: Direction

    def below(self, margin: float, *, one_sided: bool) -> float | None:
        """In the rule's own direction."""
        del one_sided
        return self.test.below(margin, self.direction) if margin > 0.0 else None

    def power(self, margin: float, *, one_sided: bool, alpha: float) -> Power | None:
        """In the rule's own direction."""
        del one_sided
        return self.test.power(margin, self.direction, alpha=alpha) if margin > 0.0 else None

    def leans(self, level: float) -> bool:
        """In the rule's own direction."""
        shown = self.test.above(0.0, self.direction)
        return shown is not None and shown <= 1.0 - level
