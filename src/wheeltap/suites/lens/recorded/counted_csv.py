"""Votes as a table: a column of identifiers and a column ``c_LABEL`` for each label, as counted from ConvAbuse.

Columns ``a1``, ``a2`` ... hold the label that each person chose, where that is known.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from wheeltap.core.errors import FileFormatError
from wheeltap.suites.lens.recorded.ballots import plain
from wheeltap.suites.lens.recorded.base import Recording
from wheeltap.suites.lens.recorded.gathered import AnswerTable, in_order
from wheeltap.suites.lens.recorded.lines import head_of, misfit, table

SHAPE = "a table of votes"

_PREFIX: Final = "c_"
_NAMES: Final = ("id", "example_id", "uid", "item", "item_id")
_SUM: Final = "n"
_PERSON: Final = re.compile("a[0-9]+")


def read(path: Path) -> Recording:
    """The votes in a table.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If there are no such columns, or a line has other ones.
        DataError: If an item is there twice, or nobody voted on it.
    """
    gathered = AnswerTable(SHAPE, str(path))
    head = head_of(path)
    name, labels = _columns(head, str(path))
    people = [one for one in head if _PERSON.fullmatch(one)]
    for number, row in table(path):
        votes = dict(zip(labels, _counts(path, number, row, list(labels.values())), strict=True))
        raters = {who: plain(row[who]) for who in people if row[who]}
        _require_same(path, number, raters, votes)
        gathered.vote(plain(row[name]), number, votes, raters=raters)
    order, ordinal = in_order(list(labels))
    return gathered.recording(labels=order, ordinal=ordinal)


def _columns(head: Sequence[str], where: str) -> tuple[str, dict[str, str]]:
    """Columns of identifiers, and of the votes for each label."""
    name = next((one for one in _NAMES if one in head), None)
    labels = {plain(one.removeprefix(_PREFIX)): one for one in head if one.startswith(_PREFIX)}
    if name is None or len(labels) < 2:
        raise FileFormatError(
            "A table has no columns of votes.",
            where=where,
            expected=f"a column {' or '.join(_NAMES[:2])}, and one {_PREFIX}LABEL for each label; of answers, id and "
            "correct",
            got=", ".join(head)[:200] or "an empty file",
            do="See docs/lens.md for what a table may look like.",
        )
    return name, labels


def _counts(path: Path, line: int, row: Mapping[str, str], columns: Sequence[str]) -> list[int]:
    try:
        votes = [_whole(row[column] or "0") for column in columns]
        total = _whole(row[_SUM]) if _SUM in row else sum(votes)
    except (ValueError, OverflowError) as error:
        raise misfit(path, line, expected="whole numbers of votes", got=str(error)) from error
    if total != sum(votes):
        raise misfit(path, line, expected=f"{total} votes, as {_SUM} says", got=f"{sum(votes)} votes")
    return votes


def _require_same(path: Path, line: int, raters: Mapping[str, str], votes: Mapping[str, int]) -> None:
    """Raises ``FileFormatError`` if people chose what is not counted."""
    chosen = Counter(raters.values())
    if raters and chosen != Counter({label: count for label, count in votes.items() if count}):
        got = ", ".join(f"{who} {label}" for who, label in raters.items())
        raise misfit(path, line, expected="people (a1, a2 ...) who chose what the columns c_LABEL count", got=got)


def _whole(text: str) -> int:
    number = float(text)
    if not number.is_integer():
        raise ValueError(f"{text} votes")
    return int(number)
