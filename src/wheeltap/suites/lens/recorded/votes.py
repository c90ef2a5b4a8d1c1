"""Votes as files write them: tables with a column for each label, and rows of AmbiEnt's crowd."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.ambient import confirmed
from wheeltap.suites.lens.recorded.base import AnswerFile
from wheeltap.suites.lens.recorded.gathered import AnswerTable, in_order
from wheeltap.suites.lens.recorded.lines import decoded, first, misfit, numbered, table
from wheeltap.suites.lens.specs import LABELS

TABLE: Final = "a table of votes"
CROWD: Final = "votes of AmbiEnt's crowd"

_PREFIX: Final = "c_"
_NAMES: Final = ("id", "example_id")
_SUM: Final = "n"
_PERSON: Final = re.compile("a[0-9]+")

REWRITTEN: Final = frozenset({"labels", "q1_gold", "d1_gold"})
"""Fields of a row with votes on rewrites beside those on the ambiguous pair."""


def plain(label: Any) -> str:
    """The name of a label: a whole number without a point."""
    try:
        number = float(label)
    except (TypeError, ValueError, OverflowError):
        return str(label)
    return str(int(number)) if number.is_integer() and not isinstance(label, bool) else str(label)


# ---- tables --------------------------------------------------------------------------------------------------------


def table_of_votes(path: Path) -> AnswerFile:
    """The votes in a table.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If there are no such columns, or a line has other ones.
        DataError: If an item is there twice, or nobody voted on it.
    """
    gathered = AnswerTable(TABLE, str(path))
    head, rows = table(path)
    name = next((one for one in _NAMES if one in head), None)
    labels = {plain(one.removeprefix(_PREFIX)): one for one in head if one.startswith(_PREFIX)}
    if name is None or len(labels) < 2:
        raise FileFormatError(
            "A table has no votes.",
            where=str(path),
            expected=f"a column {' or '.join(_NAMES)}, and one {_PREFIX}LABEL for each label",
            got=", ".join(head)[:200] or "an empty file",
            do="See docs/lens.md for what a table may look like; answers are JSON lines.",
        )
    people = [one for one in head if _PERSON.fullmatch(one)]
    for number, row in rows:
        votes = _counts(path, number, row, labels)
        raters = {who: plain(row[who]) for who in people if row[who]}
        if raters and Counter(raters.values()) != Counter({label: count for label, count in votes.items() if count}):
            got = ", ".join(f"{who} {label}" for who, label in raters.items())
            expected = "people (a1, a2 ...) who chose what the columns c_LABEL count"
            raise misfit(path, number, expected=expected, got=got)
        gathered.vote(plain(row[name]), number, votes, raters=raters)
    order, ordinal = in_order(list(labels))
    return gathered.recording(labels=order, ordinal=ordinal)


def _counts(path: Path, line: int, row: Mapping[str, str], columns: Mapping[str, str]) -> dict[str, int]:
    """Votes by label."""
    try:
        numbers = [float(row[name] or "0") for name in columns.values()] + [float(row.get(_SUM, 0))]
        broken = next((text for text, number in zip([*columns.values(), _SUM], numbers, strict=True)
                       if not number.is_integer()), None)  # fmt: skip
    except (ValueError, OverflowError) as error:
        raise misfit(path, line, expected="whole numbers of votes", got=str(error)) from error
    if broken is not None:
        raise misfit(path, line, expected="whole numbers of votes", got=f"{row[broken]} votes")
    *votes, total = map(int, numbers)
    if _SUM in row and total != sum(votes):
        raise misfit(path, line, expected=f"{total} votes, as {_SUM} says", got=f"{sum(votes)} votes")
    return dict(zip(columns, votes, strict=True))


# ---- rows of AmbiEnt's crowd -------------------------------------------------------------------------------------


class _Line(msgspec.Struct, frozen=True):
    id: str | int
    q0_gold: list[str]


def crowd(path: Path) -> AnswerFile:
    """The votes of AmbiEnt's crowd, and what it says of gold rewrites where the file has that.

    Raises:
        FileFormatError: If a line has no votes.
        DataError: If a label is none of the set, an item is there twice, or nobody voted on it.
    """
    gathered, seen, again = AnswerTable(CROWD, str(path)), dict[str, list[list[str]]](), 0
    for number, line in decoded(path, _Line, shape=CROWD):
        outside = sorted(set(line.q0_gold) - set(LABELS))
        if outside:
            raise DataError(
                "A vote is for a label that is not in the set.", where=f"{path}, line {number}",
                expected=", ".join(LABELS), got=", ".join(outside[:5]),
                do="Correct the label: other labels need rows of our own (votes).",
            )  # fmt: skip
        # A pair with other votes than before was put to a second panel: an item of its own.
        item, before = str(line.id), seen.setdefault(str(line.id), [])
        if line.q0_gold not in before:
            before.append(line.q0_gold)
            again += len(before) > 1
            item = item if len(before) == 1 else f"{item} ({len(before)})"
        gathered.vote(item, number, Counter(line.q0_gold))
    were = "was" if again == 1 else "were"
    notes = [f"{many(again, 'pair')} {were} put to people a second time: each time is an item of its own."]
    found = gathered.recording(labels=LABELS, notes=notes if again else [])
    if not first(path).keys() >= REWRITTEN:
        return found
    return replace(found, more=(confirmed([line for _, line in numbered(path)], where=str(path)),))
