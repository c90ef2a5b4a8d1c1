"""Reading and writing report files: whole or not at all."""

import contextlib
import errno
import os
from pathlib import Path

from wheeltap.core.errors import FileFormatError, MissingFile, WheeltapError
from wheeltap.core.files import beside, write_whole


class ReportFileError(WheeltapError, OSError):
    """A report that could not be written or read."""


def write(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write ``data`` to ``path`` atomically: a reader sees the old file or the new one, never half of it.

    Args:
        path: Where to; its folder is made where it is missing.
        data: The whole content.

    Returns:
        The path written.

    Raises:
        ReportFileError: If the disk is full, or the file cannot be written.
    """
    target = Path(path)
    _refuse_database(target)
    try:
        if target.exists() and not (target.is_file() or target.is_dir()):
            target.write_bytes(data)  # a pipe or a device is written to: in its place would be a file
            return target
        write_whole(target, data)
    except OSError as error:
        raise explain(target, error) from error
    return target


def require_writable(path: str | os.PathLike[str]) -> None:
    """Makes the folder of a report that is yet to be written, and proves that the file can be made there.

    Args:
        path: Where the report is to go; a file that is there stays as it is.

    Raises:
        ReportFileError: If it cannot be written there.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with beside(target) as (_, handle):
            os.close(handle)
    except OSError as error:
        raise ReportFileError(
            "The report cannot be written to this path.",
            where=str(target),
            expected="a file in a folder that can be written",
            got=error.strerror or str(error),
            do="Give another path; nothing was run.",
        ) from error
    _refuse_database(target)


def _refuse_database(target: Path) -> None:
    """Refuses to put a report in the place of a store: hours of trials for one mistyped path."""
    start = b""
    if not target.is_file():
        return
    with contextlib.suppress(OSError), target.open("rb") as file:
        start = file.read(6)
    if start != b"SQLite":
        return
    raise ReportFileError(
        "The report would replace a database.",
        where=str(target),
        expected="a path of its own for the report",
        got="a store, or another SQLite file",
        do="Give another path; the file was left as it is.",
    )


def explain(target: Path, error: OSError) -> ReportFileError:
    """What to tell the user of an error of the file system."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    what = "The disk is full: the report was not written." if full else "The report could not be written."
    do = "Free some space" if full else "Choose a path that can be written"
    do += " and give the command again: what was measured or trained is kept."
    return ReportFileError(what, where=str(target), got=error.strerror or str(error), do=do)


def read(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """The content of the file at ``path``.

    Args:
        path: The file.
        limit: Largest size to read, in bytes.

    Returns:
        Its bytes.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is larger than ``limit``.
        ReportFileError: If it cannot be read.
    """
    source = Path(path)
    if not source.is_file():
        do = "Give the path of a report.json."
        raise MissingFile("There is no such report file.", where=str(source), expected="a file", do=do)
    try:
        with source.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        got = error.strerror or str(error)
        do = "Check the permissions of the file."
        raise ReportFileError("The report could not be read.", where=str(source), got=got, do=do) from error
    if len(data) > limit:
        raise FileFormatError(
            "The report file is too large.",
            where=str(source),
            expected=f"at most {limit:,} bytes",
            got=f"{source.stat().st_size:,} bytes",
            do="Give a report.json that wheeltap wrote.",
        )
    return data
