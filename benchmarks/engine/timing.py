"""Ratios of CPU seconds (on an accelerator, of seconds of the clock), from runs that take turns: machines are shared."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: For the file.
        what: What was run.
        path: Numerical path.
        distribution: Of the noise; "-" where nothing is drawn.
        ratio: CPU seconds over those of a clean forward, median of the repeats; ``None`` where it did not run.
        low: Smallest of the repeats.
        high: Largest.
        repeats: How many.
        clean: CPU seconds of a clean forward, median.
        bar: The largest ratio that passes, if there is one.
        note: Checks made, or why it did not run.
    """

    name: str
    what: str
    path: str = "-"
    distribution: str = "-"
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    repeats: int = 0
    clean: float | None = None
    bar: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Ratio:
    """A trial's cost in clean forwards: median, smallest and largest of the repeats; the forward's own seconds."""

    value: float
    low: float
    high: float
    repeats: int
    clean: float


DEVICE = torch.device("cpu")
"""Where the nets are; ``--device`` sets it."""


def now() -> float:
    """CPU seconds of this process; with an accelerator, those of the clock, once it has done what it was given."""
    if DEVICE.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize()
    return time.perf_counter()


def seconds(run: Callable[[], object], *, times: int = 1) -> float:
    """Seconds (see ``now``) for one run, as a mean over some in a row."""
    began = now()
    for _ in range(times):
        run()
    return (now() - began) / times


def ratio(
    clean: Callable[[], object], trial: Callable[[], object], *, repeats: int = 5, per: float = 1.0, times: int = 1
) -> Ratio:
    """What ``trial`` costs per unit of which it holds ``per``; each repeat between two clean runs of its own.

    Args:
        clean: One clean forward.
        trial: What is measured.
        repeats: How often.
        per: Trials (copies, points, weights) in one run.
        times: Runs in a row that one repeat averages, for what takes less than a millisecond.
    """
    with torch.no_grad():
        clean()
        trial()
        found: list[float] = []
        cleans = [seconds(clean, times=times)]
        for _ in range(repeats):
            spent = seconds(trial, times=times) / per
            cleans.append(seconds(clean, times=times))
            found.append(spent / ((cleans[-2] + cleans[-1]) / 2))
    return Ratio(median(found), min(found), max(found), repeats, median(cleans))
