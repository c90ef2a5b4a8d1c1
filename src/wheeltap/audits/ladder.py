"""Doses of noise: a ladder of half octaves, walked until half of the score is lost."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated

import msgspec

from wheeltap.audits.limits import Count, Dose
from wheeltap.core.settings import Settings

_STEP = 2**0.5

Rung = Annotated[int, msgspec.Meta(ge=-64, le=64)]
"""Of half octaves: farther from the first dose there are no numbers, or none that do anything."""


class LadderSettings(Settings, frozen=True, kw_only=True):
    """Which doses are tried.

    Attributes:
        start: First dose tried; from here the walk goes to where half of the score is lost.
        rungs: Doses of the curve, in half octaves from the last dose that kept half of the score; ascending.
        control_rungs: The doses, among ``rungs``, at which controls are measured; ascending.
        bracket_draws: Draws per dose while walking.
        walk: Most octaves walked either way.
    """

    start: Dose
    rungs: Annotated[tuple[Rung, ...], msgspec.Meta(min_length=1)] = (-4, -2, 0, 1, 2, 4)
    control_rungs: Annotated[tuple[Rung, ...], msgspec.Meta(min_length=1)] = (-2, 0)
    bracket_draws: Count = 2
    walk: Annotated[int, msgspec.Meta(ge=1, le=32)] = 12

    def __post_init__(self) -> None:
        for name, rungs in (("rungs", self.rungs), ("control_rungs", self.control_rungs)):
            if list(rungs) != sorted(set(rungs)):
                raise ValueError(f"`{name}` must ascend, each once; they are {list(rungs)}")
        apart = [rung for rung in self.control_rungs if rung not in self.rungs]
        if apart:
            raise ValueError(f"`control_rungs` must be among `rungs`; {apart} are not in {list(self.rungs)}")


@dataclass(frozen=True)
class Ladder:
    """The doses of one noise audit.

    Attributes:
        start: Dose of rung 0.
        walk: Most octaves walked either way.
    """

    start: float
    walk: int

    def dose(self, rung: int) -> float:
        """The dose of a rung."""
        return self.start * _STEP**rung

    def doses(self, centre: int, rungs: Iterable[int]) -> list[float]:
        """Doses of rungs counted from ``centre``."""
        return [self.dose(centre + rung) for rung in rungs]

    def bracket(self, kept_half: Callable[[int], bool | None]) -> tuple[int | None, list[int]]:
        """Walks by octaves from rung 0 to the first rung on the other side of half.

        Args:
            kept_half: Whether the score at a rung is still more than half; ``None`` where it is not known yet.

        Returns:
            The last rung that kept half (``None`` if the walk is not over), and the rungs it went through. Where
            half is never crossed, the last rung but one in that direction: the curve around it shows it.
        """
        rung, direction, walked = 0, 0, list[int]()
        for _ in range(self.walk + 1):
            walked.append(rung)
            kept = kept_half(rung)
            if kept is None:
                return None, walked
            if direction and kept != (direction > 0):
                return (rung - 2 if direction > 0 else rung), walked
            direction = 1 if kept else -1
            rung += 2 * direction
        return rung - 2 * direction, walked
