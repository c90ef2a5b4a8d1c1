"""The page of validity: what was claimed and what was measured first; pictures; long tables folded away."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

HEAD = """# Validity: does the instrument read what it says?

"""
START, END = "<!-- measured -->\n", "<!-- end -->\n"
"""What is measured stands between these two; what is written by hand around them is kept."""


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


def written(page: str, sections: list[Section], *, warning: str, cost: str) -> str:
    """The page as Markdown, what was measured put into it; pictures lie beside it as ``validity-NAME.png``."""
    lines = ["| claim | measured | holds |", "|---|---|---|"]
    lines += [f"| {row.claim} | {row.measured} | {row.holds} |" for section in sections for row in section.rows]
    parts = [*([warning] if warning else []), "\n".join(lines) + "\n", *map(_section, sections), cost + "\n"]
    before, _, rest = (page or HEAD).partition(START)
    return "\n".join([before + START, *parts, END + rest.partition(END)[2]])


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
