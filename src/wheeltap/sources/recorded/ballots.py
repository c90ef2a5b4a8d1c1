"""Votes as files write them: lists, dictionaries, texts with commas, and what Python prints of a list."""

import ast
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

from wheeltap.core.errors import FileFormatError

LONGEST: Final = 100_000
"""Characters of one text of votes."""


def ballots(value: Any, *, where: str) -> list[str]:
    """The label of each vote; a person who chose several has one vote for each.

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
        return [part.strip() for part in value.replace(";", ",").split(",") if part.strip()]
    if isinstance(value, dict):
        value = list(cast("dict[str, Any]", value).values())
    if isinstance(value, list | tuple):
        return [label for one in cast("Iterable[Any]", value) for label in _labels(one, where)]
    raise _unreadable(str(value)[:80], where)


def counted(value: Any, *, where: str) -> Mapping[str, int]:
    """Votes by label."""
    return Counter(ballots(value, where=where))


def _labels(one: Any, where: str) -> list[str]:
    """Of one person; none where that person did not vote."""
    if one is None:
        return []
    if isinstance(one, str):
        return ballots(one, where=where) if one.strip()[:1] not in ("[", "(", "{") else [one]
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
