"""Files that appear whole or not at all: the one way in which this package writes what must not be found half done."""

import contextlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import Final

from wheeltap.core.errors import FileError

ODD_PATH: Final = (ValueError, RecursionError)
"""What Python fails with at a path with a NUL byte, and at thousands of folders."""


_UNNAMED: Final = int(getattr(os, "O_TMPFILE", 0))
_OPEN: Final = "/proc/self/fd"


def write_whole(target: Path, data: bytes) -> None:
    """Puts a file in its place in one step: a reader sees the old contents or the new ones, never half of them.

    A pipe or a device is written to: in its place would be a file.

    Raises:
        FileError: If it cannot be written; what was there stays as it was.
    """
    try:
        if os.path.exists(target) and not (os.path.isfile(target) or os.path.isdir(target)):
            target.write_bytes(data)
            return
        with beside(target) as (temporary, handle):
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                give_name(file.fileno(), temporary)
            os.replace(temporary, target)
    except BrokenPipeError:
        raise
    except (OSError, *ODD_PATH) as error:
        raise FileError.of(
            error, target,
            what="The file could not be written.",
            do="Choose a path that can be written and give the command again: what was measured or trained is kept.",
        ) from error  # fmt: skip


@contextlib.contextmanager
def beside(target: Path) -> Generator[tuple[Path, int]]:
    """A new file beside ``target``, open for writing; gone afterwards unless it was put in the place of another.

    Where the system can, it has no name before ``give_name``: a process that is killed leaves nothing then. The folder
    is made where it is missing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Drawn, not the number of the process: two containers on one volume may have the same.
    temporary = target.parent / f".{target.name}.{secrets.token_hex(6)}.tmp"
    # Not tempfile: its files are private to the user, and these may be shared (the umask decides).
    handle = -1
    if _UNNAMED and os.path.exists(_OPEN):
        with contextlib.suppress(OSError):  # not all file systems have such files
            handle = os.open(target.parent, os.O_WRONLY | _UNNAMED, 0o666)
    if handle < 0:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield temporary, handle
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def give_name(handle: int, temporary: Path) -> None:
    """Gives the open file of ``beside`` its name, where it has none yet."""
    if not temporary.exists():
        # A folder is named, though it plays no part, or Python would link the link and not the file.
        os.link(f"{_OPEN}/{handle}", temporary, src_dir_fd=handle)
