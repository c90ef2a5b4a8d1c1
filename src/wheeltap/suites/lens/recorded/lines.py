"""JSON lines, read one at a time and checked against a type: a wrong line is named."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from wheeltap.core import bounded
from wheeltap.core.bounded import SETTINGS, Line, contents, few_parts, parsing
from wheeltap.core.errors import FileFormatError

T = TypeVar("T")

NOUN: Final = "file of answers or votes"
DO: Final = "Give the path of a file; of a folder, the files in it: FOLDER/*.jsonl, say."

LONGEST: Final = 64 * 2**20
"""Bytes that one line may have."""

_LINE: Final = (
    "Give every line the fields of the first one, with values of the same kind; JSON has no NaN and no Infinity. Where "
    "the last line is cut short, get all of the log, or delete that line."
)


def decoded(path: Path, kind: type[T], *, shape: str) -> Iterator[tuple[int, T]]:
    """Each line as a record, with its number from 1; empty lines are passed over.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If a line is not JSON of this type, or cut short; the message names the line.
    """
    for number, line in numbered(path):
        yield number, record(path, number, line, kind, shape=shape)


def record(path: Path, number: int, line: bytes, kind: type[T], *, shape: str) -> T:
    """One line as a record; see ``decoded``."""
    where = f"{path}, line {number}"
    data = few_parts(line, where=where, most=SETTINGS)
    return bounded.decoded(data, kind, where, "A line does not fit the file's shape.", expected=shape, do=_LINE)


def misfit(path: Path, number: int, *, expected: str, got: str) -> FileFormatError:
    """The error of a line that is not like the first one."""
    return FileFormatError(
        "A line does not fit the file's shape.",
        where=f"{path}, line {number}",
        expected=expected,
        got=got,
        do=_LINE,
    )


def numbered(path: Path) -> Iterator[Line]:
    """Lines that are not empty, with their numbers from 1; see ``bounded.numbered``."""
    return bounded.numbered(path, NOUN, longest=LONGEST, do=DO)


def whole(path: Path) -> bytes:
    """A document; see ``bounded.contents``."""
    return contents(path, NOUN, do=DO)


def first(path: Path) -> Any:
    """The first record of a file of JSON lines; ``None`` where its first line is no JSON.

    Raises:
        FileFormatError: If the file is empty.
    """
    for _, line in numbered(path):
        try:
            return msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    raise FileFormatError("The file is empty.", where=str(path), expected="answers or votes, one object a line",
                          got=f"{path.stat().st_size:,} bytes", do="Write it again.")  # fmt: skip


def table(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, str]]]]:
    """The head of a table, and its rows, each with its line; commas separate the cells.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is no table, or a row has another number of cells than the head.
    """
    with parsing(path, "A table cannot be read.", expected="UTF-8 with commas"):
        rows = csv.reader(io.StringIO(whole(path).decode(), newline=""))
        head = [name.strip() for name in next(rows, list[str]())]
    return head, _rows(path, head, rows)


def _rows(path: Path, head: list[str], rows: Any) -> Iterator[tuple[int, dict[str, str]]]:
    with parsing(path, "A table cannot be read.", expected="UTF-8 with commas", of=csv.Error):
        for row in rows:
            if row and len(row) != len(head):
                raise misfit(path, rows.line_num, expected=f"{len(head)} columns", got=f"{len(row)} columns")
            if row:
                yield rows.line_num, dict(zip(head, row, strict=True))
