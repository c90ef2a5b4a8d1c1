"""Progress: a bar on the terminal, a line now and then where there is none."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from time import monotonic

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wheeltap.runs.loop import Progress as State
from wheeltap.runs.loop import Watch

EVERY = 30.0
"""Seconds between two lines where standard error is no terminal: a log that says nothing looks stuck."""


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
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("trials"),
        TextColumn("{task.fields[forwards]:.0f} passes"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None, forwards=0.0)

        def watch(state: State) -> None:
            bar.update(task, completed=state.done, total=state.total, forwards=state.forwards)

        yield watch


def _lines(label: str) -> Watch:
    began = last = monotonic()

    def watch(state: State) -> None:
        nonlocal last
        now = monotonic()
        if now - last < EVERY:
            return
        last, gone = now, now - began
        left = gone * (state.total - state.done) / state.done if state.done else 0.0
        print(
            f"wheeltap: {label}: {state.done:,} of {state.total:,} trials, {gone:.0f} s, about {left:.0f} s left",
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
