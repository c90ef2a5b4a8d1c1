"""Progress: a bar on the terminal, a line now and then where there is none."""

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from threading import Event, Thread
from time import monotonic

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from wheeltap.core.plain import terminal
from wheeltap.runs.pace import Phase, TimeLeft, Watch, lasting, making
from wheeltap.runs.pace import Progress as State

_BAR = 12
"""Columns of the bar: what is said beside it fits 80."""

EVERY = 30.0
"""Seconds between two lines where standard error is no terminal: a log that says nothing looks stuck."""


def planning(pace: TimeLeft, label: str, part: str, done: int, total: int) -> str:
    """``planning: nets, 5 of 48, about 2 min left``."""
    left = pace.left(part, done, total, monotonic())
    return f"{label}: {part}, {done} of {total}{left and f', about {left}'}"


@contextmanager
def run_progress(label: str, *, quiet: bool = False) -> Generator[Watch]:
    """A watch that draws a bar on standard error while the block runs; in a log, a line every half minute."""
    console = terminal(errors=True)
    if quiet:
        yield lambda state: None
        return
    if not console.is_terminal:
        with _lines(label) as printing:
            yield printing
        return
    columns = (
        TextColumn("{task.description}", markup=False), BarColumn(bar_width=_BAR), MofNCompleteColumn(),
        TextColumn("{task.fields[unit]}"), TextColumn("{task.fields[passes]}"), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        phase, pace = Phase(), TimeLeft()
        task = bar.add_task(label, total=None, passes="", unit=phase.unit)

        def watch(state: State) -> None:
            if phase.begins(state) and phase.before:
                bar.reset(task)
            done, total = phase.of(state)
            passes = "" if state.making else f"{state.forwards:.0f} passes"
            said = making(pace, state.member, monotonic()) or label
            # Without a total there is no time left, and none is known while more trials may follow.
            known = None if state.growing else total
            bar.update(task, completed=done, total=known, passes=passes, unit=phase.unit, description=said)

        yield watch


@contextmanager
def _lines(label: str) -> Generator[Watch]:
    """A line every half minute on how far a run is."""
    since = monotonic()
    phase, pace, last = Phase(), TimeLeft(), list[State]()

    def watch(state: State) -> None:
        nonlocal since
        if phase.begins(state) and phase.before:
            since = monotonic()
        last[:] = [state]

    def how_far() -> str:
        if not last:
            return ", started"
        now = monotonic()
        done, total = phase.of(last[0])
        # Where all that is known has run, or more may follow from it, the time left is not known yet.
        timed = 0 < done < total and not last[0].growing
        left = f", about {lasting((now - since) * (total - done) / done)} left" if timed else ""
        net = making(pace, last[0].member, now)
        return f", {int(done):,} of {total:,} {phase.unit}{left}{net and f'; {net}'}"

    with _heartbeat(label, how_far):
        yield watch


@contextmanager
def _heartbeat(label: str, how_far: Callable[[], str]) -> Generator[None]:
    """Prints the time so far every half minute, by a thread of its own: one step may take many minutes."""
    over, began = Event(), monotonic()

    def lines() -> None:
        while not over.wait(EVERY):
            print(f"wheeltap: {label}: {lasting(monotonic() - began)}{how_far()}", file=sys.stderr, flush=True)

    thread = Thread(target=lines, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def step_progress(label: str, *, quiet: bool = False) -> Generator[Callable[[str, int, int], None]]:
    """A watch of work in named parts, each of so many steps: a line that is written over, or one every half minute."""
    console, pace = terminal(errors=True), TimeLeft()
    if quiet or console.is_terminal:
        with nullcontext() if quiet else console.status(Text(label)) as status:
            yield (
                lambda part, done, total: (
                    None if status is None else status.update(Text(planning(pace, label, part, done, total)))
                )
            )
        return
    last = monotonic()

    def watch(part: str, done: int, total: int) -> None:
        nonlocal last
        line = planning(pace, label, part, done, total)
        if monotonic() - last >= EVERY:
            last = monotonic()
            print(f"wheeltap: {line}", file=sys.stderr, flush=True)

    yield watch


@contextmanager
def spinner(label: str) -> Generator[None]:
    """A spinner on standard error while something of unknown length runs; in a log, a line every half minute."""
    console = terminal(errors=True)
    with console.status(Text(label)) if console.is_terminal else _heartbeat(label, lambda: " so far"):
        yield
