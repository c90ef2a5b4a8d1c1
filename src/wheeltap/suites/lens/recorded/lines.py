"""JSON lines, read one at a time and checked against a type: a wrong line is named."""

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from wheeltap.core import bounded
from wheeltap.core.bounded import SETTINGS, Line, contents, few_parts
from wheeltap.core.errors import FileFormatError

T = TypeVar("T")

NOUN: Final = "file of answers or votes"
DO: Final = "Give the path of a file; of a folder, the files in it: FOLDER/*.jsonl, say."

LONGEST: Final = 64 * 2**20
"""Bytes that one line may have."""

BROKEN: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What is raised of text that is no JSON, or JSON within JSON beyond what can be read."""

_NO_NUMBERS: Final = (b"NaN", b"Infinity")

_BYTE: Final = re.compile(r"\(byte (\d+)\)")
_BETWEEN: Final = (",", ";", "\t")


def decoded(path: Path, kind: type[T], *, shape: str) -> Iterator[tuple[int, T]]:
    """Each line as a record, with its number from 1; empty lines are passed over.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If a line is not JSON of this type, or cut short; the message names the line.
    """
    decoder = msgspec.json.Decoder(kind)
    for number, line in numbered(path):
        try:
            yield number, decoder.decode(few_parts(line, where=f"{path}, line {number}", most=SETTINGS))
        except msgspec.ValidationError as error:
            raise misfit(path, number, expected=shape, got=str(error)) from error
        except BROKEN as error:
            raise no_json(path, number, line, error, expected=shape) from error


def no_json(path: Path, number: int, line: bytes, error: Exception, *, expected: str) -> FileFormatError:
    """The error of a line that is cut short, damaged, has no number where one should be, or is nested too deeply."""
    deep = isinstance(error, RecursionError)
    nan = not deep and any(word in line for word in _NO_NUMBERS)
    return FileFormatError(
        "A line is nested too deeply." if deep else "A line is no JSON.",
        where=f"{path}, line {number}",
        expected=expected,
        got="lists within lists beyond what can be read" if deep else str(error),
        do="Do not trust this file: no log looks like that."
        if deep
        else "JSON has no NaN and no Infinity: write numbers, or null for an answer that was not graded."
        if nan
        else "If it is the last line, the log was cut short: get all of it, or delete that line.",
    )


def misfit(path: Path, number: int, *, expected: str, got: str) -> FileFormatError:
    """The error of a line that is not like the first one."""
    return FileFormatError(
        "A line does not fit the file's shape.",
        where=f"{path}, line {number}",
        expected=expected,
        got=got,
        do="Give every line the fields of the first one, with values of the same kind.",
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
        FileFormatError: If the file is empty, or its first line is nested too deeply.
    """
    for number, line in numbered(path):
        try:
            return msgspec.json.decode(line)
        except RecursionError as error:
            raise no_json(path, number, line, error, expected="JSON lines") from error
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    raise FileFormatError("The file is empty.", where=str(path), expected="answers or votes, one object a line",
                          got=f"{path.stat().st_size:,} bytes", do="Write it again.")  # fmt: skip


def placed(where: str, data: bytes, error: Exception) -> str:
    """Where a document is damaged: its line, where the error says which byte."""
    if not (found := _BYTE.search(str(error))):
        return where
    line = 1 + data.count(b"\n", 0, int(found[1]))
    return f"{where}, line {line}"


def head_of(path: Path) -> tuple[list[str], str]:
    """Names of the columns of a table, and what stands between them: what makes most columns of the first line."""
    line = next(numbered(path), (0, b""))[1]
    try:
        read = {mark: next(csv.reader([line.decode()], delimiter=mark), list[str]()) for mark in _BETWEEN}
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_table(path, error) from error
    mark = max(_BETWEEN, key=lambda one: len(read[one]))
    return [name.strip() for name in read[mark]], mark


def table(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a table with a head, each with its line; commas, semicolons or tabs stand between the cells.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is no table, or a row has another number of cells than the head.
    """
    head, mark = head_of(path)
    try:
        rows = csv.reader(io.StringIO(whole(path).decode(), newline=""), delimiter=mark)
        next(rows, None)
        for row in rows:
            if row and len(row) != len(head):
                raise misfit(path, rows.line_num, expected=f"{len(head)} columns", got=f"{len(row)} columns")
            if row:
                yield rows.line_num, dict(zip(head, row, strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise _no_table(path, error) from error


def _no_table(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(
        "A table cannot be read.", where=str(path), expected="UTF-8 with commas, semicolons or tabs", got=str(error)
    )
