"""Reading and writing report files: whole or not at all."""

import contextlib
import errno
import os
from pathlib import Path

from wheeltap.core.errors import FileError
from wheeltap.core.files import ODD_PATH, beside, write_whole


def write(path: str | os.PathLike[str], data: bytes) -> Path:
    """Write a file atomically, in a folder that is made where it is missing; returns the path.

    A reader sees the old file or the new one, never half of it.

    Raises:
        FileError: If the disk is full, or the file cannot be written.
    """
    target = Path(path)
    _refuse_database(target)
    write_whole(target, data)
    return target


def require_writable(path: str | os.PathLike[str]) -> None:
    """Makes the folder of a report that is yet to be written, and proves that the file can be made there.

    A file that is there stays as it is.

    Raises:
        FileError: If it cannot be written there.
    """
    target = Path(path)
    try:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not target.exists() or target.is_file():
            with beside(target) as (_, handle):
                os.close(handle)
    except (OSError, *ODD_PATH) as error:
        raise FileError.of(
            error, target, what="The file cannot be written to this path.", do="Give another path; nothing was run."
        ) from error
    _refuse_database(target)


def _refuse_database(target: Path) -> None:
    """Refuses to put a report in the place of a store: hours of trials for one mistyped path."""
    start = b""
    if not os.path.isfile(target):
        return
    with contextlib.suppress(OSError), target.open("rb") as file:
        start = file.read(6)
    if start != b"SQLite":
        return
    raise FileError(
        "The report would replace a database.",
        where=str(target),
        expected="a path of its own for the report",
        got="a store, or another SQLite file",
        do="Give another path; the file was left as it is.",
    )
