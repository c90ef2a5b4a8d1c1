"""The page of validity: what was claimed and what was measured first; pictures; long tables folded away."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

HEAD = """# Validity: does the instrument read what it says?

Written by `python -m benchmarks.validity`, which measures every number below, or reads it from the stores of an earlier run.
A disturbance of weights is evidence only if it is silent on copies that compute the same function and loud on planted damage.
This page says how far that holds.
"""


@final
@dataclass(frozen=True)
class Row:
    """One claim, what was measured of it, and whether it holds."""

    claim: str
    measured: str
    holds: str


@final
@dataclass(frozen=True, kw_only=True)
class Section:
    """What one part says.

    Attributes:
        title: Heading.
        rows: Of the summary.
        text: How it was measured, in a few lines.
        tables: Long tables by their names; folded.
        pictures: Charts by their names in files.
    """

    title: str
    rows: tuple[Row, ...]
    text: str
    tables: Mapping[str, str] = field(default_factory=dict[str, str])
    pictures: Mapping[str, Any] = field(default_factory=dict[str, Any])


def written(sections: list[Section], *, warning: str, cost: str) -> str:
    """The page as Markdown; pictures lie beside it as ``validity-NAME.png``."""
    lines = ["| claim | measured | holds |", "|---|---|---|"]
    lines += [f"| {row.claim} | {row.measured} | {row.holds} |" for section in sections for row in section.rows]
    parts = [HEAD, *([warning] if warning else []), "\n".join(lines) + "\n", *map(_section, sections), cost + "\n"]
    return "\n".join(parts)


def _section(section: Section) -> str:
    pictures = [f"![{name.replace('-', ' ')}](validity-{name}.png)\n" for name in section.pictures]
    folded = [
        f"<details><summary>{name}</summary>\n\n{table.strip()}\n\n</details>\n"
        for name, table in section.tables.items()
    ]
    return "\n".join([f"## {section.title}\n", section.text.strip() + "\n", *pictures, *folded])


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table as Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"
