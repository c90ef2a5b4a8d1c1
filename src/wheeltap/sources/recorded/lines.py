"""JSON lines, read one at a time and checked against a type: a wrong line is named."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from wheeltap.core.errors import FileFormatError, MissingFile

T = TypeVar("T")

LONGEST = 64 * 2**20
"""Bytes that one line may have."""


def rows(path: Path, kind: type[T], *, shape: str) -> Iterator[T]:
    """Each line as a record; empty lines are passed over.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If a line is not JSON of this type, or cut short; the message names the line.
    """
    for _, row in decoded(path, kind, shape=shape):
        yield row


def decoded(path: Path, kind: type[T], *, shape: str) -> Iterator[tuple[int, T]]:
    """The same, each with the number of its line from 1."""
    decoder = msgspec.json.Decoder(kind)
    for number, line in numbered(path):
        try:
            yield number, decoder.decode(line)
        except msgspec.ValidationError as error:
            raise misfit(path, number, expected=shape, got=str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FileFormatError(
                "A line is no JSON.",
                where=f"{path}, line {number}",
                expected=shape,
                got=str(error),
                do="If it is the last line, the log was cut short: get all of it, or delete that line.",
            ) from error


def misfit(path: Path, number: int, *, expected: str, got: str) -> FileFormatError:
    """The error of a line that is not like the first one."""
    return FileFormatError(
        "A line does not fit the file's shape.",
        where=f"{path}, line {number}",
        expected=expected,
        got=got,
        do="Give every line the fields of the first one.",
    )


def numbered(path: Path) -> Iterator[tuple[int, bytes]]:
    """Lines that are not empty, with their numbers from 1.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If a line is too long to be a record.
    """
    if not path.is_file():
        raise MissingFile("There is no file at this path.", where=str(path))
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST + 1):
            number += 1
            if len(line) > LONGEST:
                raise FileFormatError("A line is too long.", where=f"{path}, line {number}", expected="JSON lines")
            if stripped := line.strip():
                yield number, stripped


def first(path: Path) -> Any:
    """The first record of a file of JSON lines; ``None`` where its first line is no JSON."""
    for _, line in numbered(path):
        try:
            return msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
    return None
