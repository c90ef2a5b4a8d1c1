"""Doses of noise: a ladder of half octaves, walked until half of the score is lost."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from wheeltap.audits.base import AuditSettings

_STEP = 2**0.5


class LadderSettings(AuditSettings, frozen=True, kw_only=True):
    """Which doses are tried.

    Attributes:
        start: First dose tried; from here the walk goes to where half of the score is lost.
        rungs: Doses of the curve, in half octaves from the last dose that kept half of the score.
        control_rungs: The doses, among ``rungs``, at which controls are measured.
        bracket_draws: Draws per dose while walking.
        walk: Most octaves walked either way.
    """

    start: float
    rungs: tuple[int, ...] = (-4, -2, 0, 1, 2, 4)
    control_rungs: tuple[int, ...] = (-2, 0)
    bracket_draws: int = 2
    walk: int = 12


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


def rungs_of(settings: LadderSettings, *, control: bool) -> Iterator[int]:
    """The rungs at which a subject is measured: a control only where it tells most."""
    yield from (settings.control_rungs if control else settings.rungs)
