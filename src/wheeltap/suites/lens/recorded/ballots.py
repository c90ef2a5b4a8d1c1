"""Votes as files write them: lists, dictionaries, texts with commas, and what Python prints of a list."""

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast, final

from wheeltap.core import seeds
from wheeltap.core.errors import FileFormatError

LONGEST: Final = 100_000
"""Characters of one text of votes."""


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


def counted(value: Any, *, where: str, names: Sequence[str] = ()) -> Ballot:
    """The votes on one item; of a person who chose several labels, one of them at random.

    Several choices of one person are not several people, and half a vote would be no person.

    Args:
        value: See ``ballots``.
        where: The line; the draws depend on it.
        names: Of the people, where ``value`` has none.

    Raises:
        FileFormatError: See ``ballots``; if there are not as many names as people.
    """
    people = ballots(value, where=where)
    own = list(cast("dict[str, Any]", value)) if isinstance(value, dict) else list(names)
    if own and (len(own) != len(people) or len(set(own)) != len(own)):
        raise FileFormatError(
            "Votes do not fit the people who gave them.",
            where=where,
            expected=f"{len(people)} people, one for each vote",
            got=", ".join(own)[:80],
            do="Name every person once, in the order of the votes; or leave the names out.",
        )
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
    many = f"{several:,} time{'' if several == 1 else 's'} a person chose several labels of one item"
    return [f"{many}: one of them is drawn at random, because several choices of one person are not several people."]


def ballots(value: Any, *, where: str) -> list[list[str]]:
    """The labels that each person chose, ``[person][label]``; none where a person did not vote.

    Args:
        value: A list of labels, a dictionary from people to labels, a text with commas or semicolons between labels,
            or what Python prints of a list.
        where: The line.

    Raises:
        FileFormatError: If it is none of these.
    """
    if isinstance(value, str):
        if len(value) > LONGEST:
            raise _unreadable(f"{len(value):,} characters", where)
        if value.strip()[:1] in ("[", "(", "{"):
            return ballots(_literal(value, where), where=where)
        return [[label] for label in _apart(value)]
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


def _literal(text: str, where: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        raise _unreadable(text[:80], where) from error


def _unreadable(got: str, where: str) -> FileFormatError:
    return FileFormatError(
        "Votes cannot be read.",
        where=where,
        expected='a list of labels, such as ["neutral", "entailment"], or labels with commas between them',
        got=got,
    )
