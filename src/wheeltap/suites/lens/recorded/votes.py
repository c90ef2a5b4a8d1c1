"""Votes as files write them: tables with a column for each label, and rows of AmbiEnt's crowd.

Labels are in lists, in dictionaries, or in what Python prints of these.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast, final

import msgspec

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.ambient import confirmed
from wheeltap.suites.lens.recorded.base import AnswerFile
from wheeltap.suites.lens.recorded.gathered import AnswerTable, in_order
from wheeltap.suites.lens.recorded.lines import decoded, first, head_of, misfit, numbered, table
from wheeltap.suites.lens.specs import LABELS

TABLE: Final = "a table of votes"
CROWD: Final = "votes of AmbiEnt's crowd"

LONGEST: Final = 100_000
"""Characters of one text of votes."""

_PREFIX: Final = "c_"
_NAMES: Final = ("id", "example_id")
_SUM: Final = "n"
_PERSON: Final = re.compile("a[0-9]+")

REWRITTEN: Final = frozenset({"labels", "q1_gold", "d1_gold"})
"""Fields of a row with votes on rewrites beside those on the ambiguous pair."""


@final
@dataclass(frozen=True)
class Ballot:
    """The votes on one item.

    Attributes:
        counts: By label; every person has one vote.
        raters: What each person chose, by name; empty where people have no names.
        several: How many people chose several labels: one of those is drawn.
    """

    counts: Mapping[str, int]
    raters: Mapping[str, str]
    several: int = 0


def counted(value: Any, *, where: str) -> Ballot:
    """The votes on one item; of a person who chose several labels, one of them at random, by the line ``where`` it is.

    Several choices of one person are not several people, and half a vote would be no person. See ``ballots``.

    Raises:
        FileFormatError: See ``ballots``.
    """
    people = ballots(value, where=where)
    own = list(cast("dict[str, Any]", value)) if isinstance(value, dict) else []
    rng = seeds.generator(0, "choices", where.rpartition("/")[2])
    drawn = [labels[int(rng.integers(len(labels)))] if len(labels) > 1 else "".join(labels) for labels in people]
    voted = [(name, label) for name, label in zip(own or [""] * len(drawn), drawn, strict=True) if label]
    return Ballot(
        counts=Counter(label for _, label in voted), raters=dict(voted) if own else {},
        several=sum(len(labels) > 1 for labels in people),
    )  # fmt: skip


def one_each(several: int) -> list[str]:
    """What is said of people who chose several labels."""
    if not several:
        return []
    said = f"{many(several, 'time')} a person chose several labels of one item: one of them is drawn at random"
    return [f"{said}, because several choices of one person are not several people."]


def ballots(value: Any, *, where: str) -> list[list[str]]:
    """The labels that each person chose, ``[person][label]``; none where a person did not vote.

    They are in a list of labels, a dictionary from people to labels, or what Python prints of a list.

    Raises:
        FileFormatError: If it is none of these.
    """
    if isinstance(value, str):
        if len(value) > LONGEST:
            raise _unreadable(f"{len(value):,} characters", where)
        try:
            return ballots(ast.literal_eval(value), where=where)
        except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
            raise _unreadable(value[:80], where) from error
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list | tuple):
        return [_labels(one, where) for one in cast("Iterable[Any]", value)]
    raise _unreadable(str(value)[:80], where)


def _apart(text: str) -> list[str]:
    return [part.strip() for part in text.replace(";", ",").split(",") if part.strip()]


def _labels(one: Any, where: str) -> list[str]:
    """Of one person; none where that person did not vote."""
    if one is None:
        return []
    if isinstance(one, str):
        if len(one) > LONGEST:
            raise _unreadable(f"{len(one):,} characters", where)
        return list(dict.fromkeys(_apart(one))) if one.strip()[:1] not in ("[", "(", "{") else [one]
    if isinstance(one, bool | int | float):
        return [plain(one)]
    raise _unreadable(str(one)[:80], where)


def plain(label: Any) -> str:
    """The name of a label: a whole number without a point."""
    try:
        number = float(label)
    except (TypeError, ValueError, OverflowError):
        return str(label)
    return str(int(number)) if number.is_integer() and not isinstance(label, bool) else str(label)


def _unreadable(got: str, where: str) -> FileFormatError:
    return FileFormatError(
        "Votes cannot be read.",
        where=where,
        expected='a list of labels, such as ["neutral", "entailment"]',
        got=got,
    )


# ---- tables --------------------------------------------------------------------------------------------------------


def table_of_votes(path: Path) -> AnswerFile:
    """The votes in a table.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If there are no such columns, or a line has other ones.
        DataError: If an item is there twice, or nobody voted on it.
    """
    gathered = AnswerTable(TABLE, str(path))
    head, _ = head_of(path)
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
    for number, row in table(path):
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
    q0_gold: Any


def crowd(path: Path) -> AnswerFile:
    """The votes of AmbiEnt's crowd, and what it says of gold rewrites where the file has that.

    Raises:
        FileFormatError: If a line has no votes.
        DataError: If a label is none of the set, an item is there twice, or nobody voted on it.
    """
    gathered, seen, again, several = AnswerTable(CROWD, str(path)), dict[str, list[Any]](), 0, 0
    for number, line in decoded(path, _Line, shape=CROWD):
        where = f"{path}, line {number}"
        ballot = counted(line.q0_gold, where=where)
        outside = [label for label in ballot.counts if label not in LABELS]
        if outside:
            raise DataError(
                "A vote is for a label that is not in the set.", where=where, expected=", ".join(LABELS),
                got=", ".join(outside[:5]), do="Correct the label: other labels need rows of our own (votes).",
            )  # fmt: skip
        several += ballot.several
        # A pair with other votes than before was put to a second panel: an item of its own.
        item, before = str(line.id), seen.setdefault(str(line.id), [])
        if line.q0_gold not in before:
            before.append(line.q0_gold)
            again += len(before) > 1
            item = item if len(before) == 1 else f"{item} ({len(before)})"
        gathered.vote(item, number, ballot.counts, raters=ballot.raters)
    notes = one_each(several)
    if again:
        were = "was" if again == 1 else "were"
        notes.insert(0, f"{many(again, 'pair')} {were} put to people a second time: each time is an item of its own.")
    found = gathered.recording(labels=LABELS, notes=notes)
    if not first(path).keys() >= REWRITTEN:
        return found
    return replace(found, more=(confirmed([line for _, line in numbered(path)], where=str(path)),))
