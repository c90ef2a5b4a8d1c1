"""Blocks of a report's sections, found by what they are and how their titles begin."""

from typing import TypeVar

from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Block, Table, Text

Kind = TypeVar("Kind", bound=Block)


def blocks(record: ReportRecord, kind: type[Kind], start: str = "") -> list[Kind]:
    """All blocks of a kind whose title (first head of a table without one) begins so."""
    found = [block for section in record.sections for block in section.blocks if isinstance(block, kind)]
    return [one for one in found if (_title(one)).startswith(start)]


def _title(block: Block) -> str:
    return (block.title or block.heads[0]) if isinstance(block, Table) else str(getattr(block, "title", ""))


def rows(record: ReportRecord, start: str) -> dict[str, tuple[str, ...]]:
    """The cells of a table by the names of its rows."""
    [table] = blocks(record, Table, start)
    return {str(row[0]): tuple(map(str, row[1:])) for row in table.rows}


def texts(record: ReportRecord) -> list[str]:
    """All paragraphs."""
    return [block.text for block in blocks(record, Text)]
