"""Counts of right answers: rows ``{"id": ..., "n": samples, "c": right, "source": ...}``, one for each item."""

from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.base import Answers, Recording
from wheeltap.suites.lens.recorded.lines import rows

SHAPE = "counts of right answers"


MOST: Final = 2**31 - 1
"""Answers of an item that can be counted."""

_Count = Annotated[int, msgspec.Meta(ge=-MOST, le=MOST)]


class _Row(msgspec.Struct, frozen=True):
    id: str | int
    n: _Count
    c: _Count
    source: str = ""


def fits(first: Any) -> bool:
    """Whether a file whose first row is this has this shape."""
    return isinstance(first, dict) and {"id", "n", "c"} <= first.keys()


def read(path: Path) -> Recording:
    """The counts in a file.

    Raises:
        FileFormatError: If a line has another shape.
        DataError: If an item has no sample, or more right answers than samples.
    """
    held: list[_Row] = list(rows(path, _Row, shape=SHAPE))
    right = np.array([row.c for row in held], dtype=np.int32)
    samples = np.array([row.n for row in held], dtype=np.int32)
    wrong = [row for row in held if not (row.n >= 1 and 0 <= row.c <= row.n)]
    if wrong:
        named = ", ".join(f"{row.id} (c {row.c}, n {row.n})" for row in wrong[:5])
        raise DataError(
            "Counts cannot be counts of right answers.",
            where=str(path),
            expected="0 <= c <= n and n >= 1 for each item",
            got=f"{many(len(wrong), 'item')}: {named}",
        )
    return Recording(
        shape=SHAPE, items=tuple(str(row.id) for row in held),
        systems=(Answers(name=path.stem, right=right, samples=samples),),
        groups=tuple(row.source for row in held) if any(row.source for row in held) else (), parts=True,
    )  # fmt: skip
