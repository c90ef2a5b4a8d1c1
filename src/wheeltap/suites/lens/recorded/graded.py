"""Counts of right answers to each item, for pass@k."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.base import AnswerFile, Answers
from wheeltap.suites.lens.recorded.gathered import twice
from wheeltap.suites.lens.recorded.lines import decoded

COUNTED: Final = "counts of right answers"

MOST: Final = 2**31 - 1
"""Answers of an item that can be counted."""

_Count = Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]


class _Row(msgspec.Struct, frozen=True):
    id: str | int
    n: _Count
    c: _Count
    source: str = ""


def counts(path: Path) -> AnswerFile:
    """The counts in a file.

    Raises:
        FileFormatError: If a line has another shape.
        DataError: If an item is there twice, has no sample, or more right answers than samples.
    """
    numbered = list(decoded(path, _Row, shape=COUNTED))
    held, lines = [row for _, row in numbered], dict[str, int]()
    for line, row in numbered:
        if (before := lines.setdefault(str(row.id), line)) != line:
            raise twice(str(path), str(row.id), (before, line))
    right = np.array([row.c for row in held], dtype=np.int32)
    samples = np.array([row.n for row in held], dtype=np.int32)
    wrong = [(line, row) for line, row in numbered if not (row.n >= 1 and 0 <= row.c <= row.n)]
    if wrong:
        named = ", ".join(f"{row.id} (c {row.c}, n {row.n})" for _, row in wrong[:5])
        raise DataError(
            "Counts cannot be counts of right answers.",
            where=f"{path}, line {wrong[0][0]}",
            expected="0 <= c <= n and n >= 1 for each item",
            got=f"{many(len(wrong), 'item')}: {named}",
            do="Correct these lines: n counts the answers to an item, c those that are right.",
        )
    return AnswerFile(
        shape=COUNTED, items=tuple(str(row.id) for row in held),
        systems=(Answers(name=path.stem, right=right, samples=samples),),
        groups=tuple(row.source for row in held) if any(row.source for row in held) else (), parts=True,
    )  # fmt: skip
