"""The table of every verdict for a page: a row for each claim, a column for each model or pair, in parts that fit."""

from collections.abc import Iterator
from dataclasses import dataclass

from wheeltap.report.view import Cell, ScoreTable, Section

MOST_COLUMNS = 5
"""Models or pairs side by side: more do not fit a page."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One instrument or claim on every model or pair of a part; ``caption`` says what its numbers are."""

    name: str
    code: str
    caption: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the models or pairs, with everything that was claimed of them; ``label`` says what a row is."""

    title: str
    heads: tuple[tuple[str, str], ...]
    claims: tuple[Claim, ...]
    label: str = "Claim"


def parts(table: ScoreTable) -> tuple[Part, ...]:
    """The table in parts, models before pairs."""
    return tuple(part for section in table.sections for part in _parts(table, section))


def _parts(table: ScoreTable, section: Section) -> Iterator[Part]:
    for start in range(0, len(section.rows), MOST_COLUMNS):
        rows = section.rows[start : start + MOST_COLUMNS]
        claims = [
            Claim(name=column.name, code=column.code, caption=caption, cells=tuple(row.cells[i] for row in rows))
            for i, (column, caption) in enumerate(zip(table.columns, section.captions, strict=True))
        ]
        yield Part(
            title=section.title if not start else f"{section.title}, continued",
            heads=tuple((row.label, row.note) for row in rows), claims=tuple(claims),
        )  # fmt: skip
