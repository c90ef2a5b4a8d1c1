"""How far a run is, and how long it still takes; in a cell of a notebook, a line that is written over."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final, TextIO, final

AFTER: Final = 2.0
"""Seconds that a cell runs before it has a line."""

EVERY: Final = 0.5
"""Seconds between two texts of that line."""


@dataclass(frozen=True)
class MakingProgress:
    """How far the making of one member is.

    Attributes:
        name: Of the member.
        step: Steps taken, those of earlier runs included.
        steps: At most, in all.
    """

    name: str
    step: int
    steps: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.step / self.steps if self.steps else 1.0


@dataclass(frozen=True)
class Progress:
    """How far a run is: trials done of those known to be wanted, and passes over the task made so far.

    Attributes:
        making: Whether members are being made, and nothing else is done; at first they all are.
        growing: Whether more trials may follow those that are known: then the time left is not known.
        member: The one that is in the making; empty where a trial was just done.
    """

    done: int
    total: int
    forwards: float
    label: str
    making: bool = False
    growing: bool = False
    member: MakingProgress | None = None


Watch = Callable[[Progress], None]


@final
class Phase:
    """Making members, or measuring: each has its own pace, so its time left is estimated from it alone."""

    def __init__(self) -> None:
        self.making: bool | None = None
        self.before = 0

    def begins(self, state: Progress) -> bool:
        """Whether another phase has begun; what was done before counts no more."""
        if state.making is self.making:
            return False
        self.making, self.before = state.making, state.done - (state.member is None)
        return True

    def of(self, state: Progress) -> tuple[float, int]:
        """What is done of this phase, the part of a net that is made so far included, and what there is to do in it."""
        begun = 0.0 if state.member is None else state.member.share
        return state.done - self.before + begun, state.total - self.before

    @property
    def unit(self) -> str:
        """What is counted."""
        return "nets made" if self.making else "trials"


@final
class TimeLeft:
    """The time that is left of the part of some work that is under way, at its own pace so far."""

    def __init__(self) -> None:
        self._part, self._first, self._since = "", 0, 0.0

    def left(self, part: str, done: int, total: int, now: float) -> str:
        """``20 s left``; empty where nothing of this part was done while it was watched."""
        if part != self._part:
            self._part, self._first, self._since = part, done, now
        taken = done - self._first
        return f"{lasting((now - self._since) * (total - done) / taken)} left" if taken else ""


def making(pace: TimeLeft, net: MakingProgress | None, now: float) -> str:
    """``making modules 3: 41 %, 20 s left``; empty where no net is being made."""
    if net is None:
        pace.left("", 0, 0, now)
        return ""
    left = pace.left(net.name, net.step, net.steps, now)
    return f"making {net.name}: {share(net)}{left and f', {left}'}"


def share(member: MakingProgress) -> str:
    """How much of a net is made."""
    return f"{member.share:.0%}".replace("%", " %")


def lasting(seconds: float) -> str:
    """A time in words."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def in_cell(out: TextIO | None = None, *, after: float = AFTER, every: float = EVERY) -> Generator[Watch | None]:
    """A watch that shows one line in a cell of a notebook and removes it in the end; ``None`` anywhere else.

    Args:
        out: Where to, whatever it is; by default standard output, where that is a cell's.
        after: Seconds before there is a line.
        every: Seconds between two texts of it.
    """
    if out is None and not type(sys.stdout).__module__.startswith("ipykernel"):
        yield None
        return
    stream, phase, pace, nets = out or sys.stdout, Phase(), TimeLeft(), TimeLeft()
    last, width = monotonic() - every + after, 0

    def watch(state: Progress) -> None:
        nonlocal last, width
        phase.begins(state)
        done, total = phase.of(state)
        now = monotonic()
        left, net = pace.left(phase.unit, int(done), total, now), making(nets, state.member, now)
        left = "" if state.growing else left
        if now - last < every:
            return
        said = f"wheeltap: {int(done):,} of {total:,} {phase.unit}{left and f', about {left}'}{net and f'; {net}'}"
        print("\r" + said.ljust(width), end="", file=stream, flush=True)
        last, width = now, max(width, len(said))

    try:
        yield watch
    finally:
        if width:
            print("\r" + " " * width + "\r", end="", file=stream, flush=True)
