"""The table of all simulations: designs that differ in numbers alone are one row, with the worst rate of each side."""

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
            merged.setdefault((row.claim, _NUMBER.sub("#", _design(row))), []).append(row)
    lines = [HEAD, ("---", "---", *["---:"] * (len(HEAD) - 2))]
    lines += [_line(claim, same) for (claim, _), same in merged.items()]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _side(row: Row) -> str:
    """Its column; empty where it has none."""
    figure = row.figure.partition(",")[0]
    return next((side for side, figures in SIDES.items() if figure in figures), "")


def _design(row: Row) -> str:
    return row.design + row.figure.removeprefix(row.figure.partition(",")[0])


def _line(claim: str, rows: Sequence[Row]) -> tuple[str, ...]:
    numbers = [_NUMBER.findall(_design(row)) for row in rows]
    ranges = iter([_range(each) for each in zip(*numbers, strict=True)])
    design = _NUMBER.sub(lambda _: next(ranges), _design(rows[0]))
    return (
        design,
        claim,
        *(_worst([row for row in rows if _side(row) == side]) for side in SIDES),
        _range([f"{row.families:,}" for row in rows]),
    )


def _range(texts: Sequence[str]) -> str:
    """The smallest and the largest of several numbers, as they were written."""
    ends = sorted(set(texts), key=lambda text: float(text.replace(",", "")))
    return ends[0] if len(ends) == 1 else f"{ends[0]} to {ends[-1]}"


def _worst(rows: Sequence[Row]) -> str:
    """The rate that is nearest to its bar, or furthest beyond it."""
    if not rows:
        return ""
    worst = max(rows, key=lambda row: row.low - row.rate if row.low else row.rate - row.high)
    text = f"{worst.rate:.3f}".removeprefix("0") if worst.rate < 1.0 else f"{worst.rate:.3f}"
    return text if worst.passed else f"**{text}**"
