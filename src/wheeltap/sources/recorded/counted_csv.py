"""Votes as a table: a column of identifiers and a column ``c_LABEL`` for each label, as counted from ConvAbuse."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from wheeltap.core.errors import FileFormatError
from wheeltap.sources.recorded.ballots import plain
from wheeltap.sources.recorded.base import Recording
from wheeltap.sources.recorded.gathered import Gathered, in_order
from wheeltap.sources.recorded.lines import misfit, require_file

SHAPE = "a table of votes"

_PREFIX: Final = "c_"
_NAMES: Final = ("id", "example_id", "uid", "item", "item_id")
_SUM: Final = "n"


def read(path: Path) -> Recording:
    """The votes in a table.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If there are no such columns, or a line has other ones.
        DataError: If an item is there twice, or nobody voted on it.
    """
    require_file(path)
    gathered = Gathered(SHAPE, str(path))
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.reader(file)
            head = next(table, list[str]())
            name, labels = _columns(head, str(path))
            for row in table:
                if row:
                    votes = _counts(path, table.line_num, head, row, list(labels.values()))
                    gathered.vote(plain(row[name]), table.line_num, dict(zip(labels, votes, strict=True)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileFormatError("A table cannot be read.", where=str(path), expected="UTF-8 with commas",
                              got=str(error)) from error  # fmt: skip
    order, ordinal = in_order(list(labels))
    return gathered.recording(labels=order, ordinal=ordinal)


def _columns(head: Sequence[str], where: str) -> tuple[int, dict[str, int]]:
    """Where identifiers are, and where the votes for each label."""
    name = next((head.index(one) for one in _NAMES if one in head), None)
    labels = {plain(one.removeprefix(_PREFIX)): at for at, one in enumerate(head) if one.startswith(_PREFIX)}
    if name is None or len(labels) < 2:
        raise FileFormatError(
            "A table has no columns of votes.",
            where=where,
            expected=f"a column {' or '.join(_NAMES[:2])}, and one {_PREFIX}LABEL for each label",
            got=", ".join(head)[:200] or "an empty file",
            do="See docs/lens.md for what a file of votes may look like.",
        )
    return name, labels


def _counts(path: Path, line: int, head: Sequence[str], row: Sequence[str], places: Sequence[int]) -> list[int]:
    if len(row) != len(head):
        raise misfit(path, line, expected=f"{len(head)} columns", got=f"{len(row)} columns")
    try:
        votes = [_whole(row[place] or "0") for place in places]
        total = _whole(row[head.index(_SUM)]) if _SUM in head else sum(votes)
    except (ValueError, OverflowError) as error:
        raise misfit(path, line, expected="whole numbers of votes", got=str(error)) from error
    if total != sum(votes):
        raise misfit(path, line, expected=f"{total} votes, as {_SUM} says", got=f"{sum(votes)} votes")
    return votes


def _whole(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text} votes")
    return int(number)
