"""The table of all simulations: designs that differ in numbers alone are one row, with the worst rate of each side.

So are all numbers on people of one design, of which there are many.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.levels import Row

SIDES: Final = {
    "false found": (
        "false costs", "false differ", "false found", "false difference", "false", "some k sure", "better or may differ",
    ),
    "false safe": ("false safe", "false excluded", "false exclusion"),
    "false equivalent": ("false equivalent",),
    "interval holds": ("whole curve held", "covered", "interval holds .8"),
}  # fmt: skip
"""Columns, and the figures in each; power and price have none."""

HEAD: Final = ("design", "statistic", *SIDES, "families")

_NUMBER: Final = re.compile(r"(?<![\w.])(?:\d[\d,]*(?:\.\d+)?|\.\d+)")


def table(rows: Iterable[Row]) -> list[str]:
    """GitHub-flavored Markdown, one line a row; a rate beyond its bar is bold."""
    merged: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if _side(row):
            claim = "" if row.figure == "covered" else row.claim
            merged.setdefault((claim, _NUMBER.sub("#", _design(row))), []).append(row)
    lines = [HEAD, ("---", "---", *["---:"] * (len(HEAD) - 2))]
    for same in merged.values():
        claims = list(dict.fromkeys(row.claim for row in same))
        lines.append(
            (_said(same), claims[0] if len(claims) == 1 else f"{len(claims)} numbers on people", *_rates(same))
        )
    return [f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |" for cells in lines]


def _side(row: Row) -> str:
    """Its column; empty where it has none."""
    figure = row.figure.partition(",")[0]
    return next((side for side, figures in SIDES.items() if figure in figures), "")


def _design(row: Row) -> str:
    return row.design + row.figure.removeprefix(row.figure.partition(",")[0])


def _said(rows: Sequence[Row]) -> str:
    """Designs that differ in numbers, with the range of each."""
    ranges = iter([_range(each) for each in zip(*(_NUMBER.findall(_design(row)) for row in rows), strict=True)])
    return _NUMBER.sub(lambda _: next(ranges), _design(rows[0]))


def _rates(rows: Sequence[Row]) -> tuple[str, ...]:
    each = (_worst([row for row in rows if _side(row) == side]) for side in SIDES)
    return (*each, _range([f"{row.families:,}" for row in rows]))


def _range(texts: Sequence[str]) -> str:
    """The smallest and the largest of several numbers, as they were written."""
    ends = sorted(set(texts), key=lambda text: float(text.replace(",", "")))
    return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"


def _worst(rows: Sequence[Row]) -> str:
    """The rate that is nearest to its bar, or furthest beyond it."""
    if not rows:
        return ""
    worst = max(rows, key=_beyond)
    text = f"{worst.rate:.3f}".removeprefix("0") if worst.rate < 1.0 else f"{worst.rate:.3f}"
    return text if worst.passed else f"**{text}**"


def _beyond(row: Row) -> float:
    """How far beyond its bar, on the sides that have one."""
    under = row.low - row.rate if row.low > 0.0 else -1.0
    return max(under, row.rate - row.high if row.high < 1.0 else -1.0)
