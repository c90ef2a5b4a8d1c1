"""Progress on the terminal: trials, passes over the task, time left. Silent when nobody watches."""

from collections.abc import Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wheeltap.runs.loop import Progress as State
from wheeltap.runs.loop import Watch


@contextmanager
def shown(label: str) -> Generator[Watch]:
    """A watch that draws a bar on standard error while the block runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda state: None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("trials"),
        TextColumn("{task.fields[forwards]:.0f} forwards"), TimeElapsedColumn(), TextColumn("left"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=None, forwards=0.0)

        def watch(state: State) -> None:
            bar.update(task, completed=state.done, total=state.total, forwards=state.forwards)

        yield watch


@contextmanager
def said(label: str) -> Generator[None]:
    """A spinner on standard error while something of unknown length runs."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with console.status(label):
        yield
