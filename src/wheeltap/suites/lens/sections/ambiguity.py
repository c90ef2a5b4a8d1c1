"""Tests of ambiguity, in the terminal and on the page: shares of right answers with their intervals and counts."""

from typing import TYPE_CHECKING, Any, Final

from wheeltap.report import words
from wheeltap.suites.lens.record import LensRecord, Recognized

if TYPE_CHECKING:
    from rich.console import Console

MOST: Final = 3
"""Systems that have a column."""

HEAD: Final = "right, % (95 % Wilson; n)"

Rows = list[tuple[str, list[str]]]


def table(lens: LensRecord, console: "Console") -> None:
    """Print one row for each test, one column for each system."""
    from rich.table import Table

    names, rows = columns(lens)
    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column(HEAD, overflow="fold")
    for name in names:
        grid.add_column(name, justify="right", overflow="fold")
    for what, cells in rows:
        grid.add_row(what, *cells)
    console.print(grid, highlight=False)


def columns(lens: LensRecord) -> tuple[list[str], Rows]:
    """Names of systems, and for each test what they scored."""
    subjects = list(dict.fromkeys(one.subject for one in lens.recognized))[:MOST]
    known = {(one.subject, one.what): one for one in lens.recognized}
    tests = list(dict.fromkeys(one.what for one in lens.recognized))
    return [words.plain(name) for name in subjects], [
        (words.plain(what), [_cell(known.get((name, what)), short=len(subjects) > 1) for name in subjects])
        for what in tests
    ]


def _cell(one: Recognized | None, *, short: bool) -> str:
    if one is None:
        return ""
    low, high = one.score.low, one.score.high
    ends = "no interval" if low is None or high is None else f"{100 * low:.1f}, {100 * high:.1f}"
    of = (
        f"{one.answers:,}"
        if one.answers == one.items or short
        else f"{one.answers:,} of {one.items:,} item{'' if one.items == 1 else 's'}"
    )
    return f"{100 * one.score.value:.1f} [{ends}]; {of}"


def context(lens: LensRecord | None) -> dict[str, Any]:
    """What the template of the page needs of it; empty where nothing was tested."""
    if lens is None or not lens.recognized:
        return {"recognized": None}
    names, rows = columns(lens)
    return {"recognized": {"head": HEAD, "names": names, "rows": [(what, *cells) for what, cells in rows]}}
