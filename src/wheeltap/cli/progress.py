"""Progress: a bar on the terminal, a line now and then where there is none."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic
from typing import final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wheeltap.runs.loop import Progress as State
from wheeltap.runs.loop import Watch

EVERY = 30.0
"""Seconds between two lines where standard error is no terminal: a log that says nothing looks stuck."""


@final
class Phase:
    """Making members, or measuring: each has its own pace, so its time left is estimated from it alone."""

    def __init__(self) -> None:
        self.making: bool | None = None
        self.before = 0

    def begins(self, state: State) -> bool:
        """Whether another phase has begun; what was done before counts no more."""
        if state.making is self.making:
            return False
        self.making, self.before = state.making, state.done - 1
        return True

    def of(self, state: State) -> tuple[int, int]:
        """What is done of this phase, and what there is to do in it."""
        return state.done - self.before, state.total - self.before

    @property
    def unit(self) -> str:
        """What is counted."""
        return "nets made" if self.making else "trials"


@contextmanager
def shown(label: str, *, quiet: bool = False) -> Generator[Watch]:
    """A watch that draws a bar on standard error while the block runs; in a log, a line every half minute."""
    console = Console(stderr=True)
    if quiet:
        yield lambda state: None
        return
    if not console.is_terminal:
        yield _lines(label)
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"), TextColumn("{task.fields[forwards]:.0f} passes"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        phase = Phase()
        task = bar.add_task(label, total=None, forwards=0.0, unit=phase.unit)

        def watch(state: State) -> None:
            if phase.begins(state) and phase.before:
                bar.reset(task)
            done, total = phase.of(state)
            bar.update(task, completed=done, total=total, forwards=state.forwards, unit=phase.unit)

        yield watch


def _lines(label: str) -> Watch:
    began = since = last = monotonic()
    phase = Phase()

    def watch(state: State) -> None:
        nonlocal last, since
        now = monotonic()
        if phase.begins(state) and phase.before:
            since = now
        if now - last < EVERY:
            return
        last = now
        done, total = phase.of(state)
        left = (now - since) * (total - done) / done
        print(
            f"wheeltap: {label}: {done:,} of {total:,} {phase.unit}, {now - began:.0f} s, about {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    return watch


@contextmanager
def said(label: str) -> Generator[None]:
    """A spinner on standard error while something of unknown length runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(label):
        yield
