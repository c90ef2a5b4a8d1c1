"""Archives and documents that others wrote: nothing is unpacked to a file, and nothing is read beyond a bound."""

import codecs
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Final

from wheeltap.core.errors import FileFormatError
from wheeltap.sources.recorded.lines import require_file

MEMBER: Final = 2**26
"""Bytes that one member of an archive may have."""

RATIO: Final = 200
"""How many times as large as the archive its contents may be: text is compressed by 5 to 30."""

LEAST: Final = 2**28
"""Bytes that an archive may hold, however small it is."""

DOCUMENT: Final = 2**30
"""Bytes that a single JSON document may have."""


def whole(path: Path) -> bytes:
    """A document, without the mark of UTF-8 that some programs put before it.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is too large to be read at once.
    """
    require_file(path)
    size = path.stat().st_size
    if size > DOCUMENT:
        raise FileFormatError(
            "A JSON document is too large to be read at once.",
            where=str(path),
            expected=f"at most {DOCUMENT:,} bytes",
            got=f"{size:,} bytes",
            do="Write JSON lines instead, one object a line.",
        )
    return path.read_bytes().removeprefix(codecs.BOM_UTF8)


class Archive:
    """A zip, checked before anything of it is read: no name leads out of it, and it is as large as it says.

    Args:
        path: Of the file.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is no whole zip, a name escapes, or it inflates beyond a bound.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        require_file(path)
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise self._damaged(str(error)) from error
        # What was written twice is there twice; the last one counts.
        self._members = {info.filename: info for info in self._zip.infolist()}
        for name in self._members:
            if _escapes(name):
                raise FileFormatError(
                    "A name in the archive leads out of it.",
                    where=str(path),
                    expected="names such as samples/1_epoch_1.json",
                    got=repr(name),
                    do="Do not trust this file: no log has such names.",
                )
        self._bound = max(LEAST, RATIO * path.stat().st_size)
        declared = sum(info.file_size for info in self._zip.infolist())
        largest = max((info.file_size for info in self._members.values()), default=0)
        if declared > self._bound or largest > MEMBER:
            raise FileFormatError(
                "The archive inflates beyond a bound.",
                where=str(path),
                expected=f"at most {self._bound:,} bytes in all, and {MEMBER:,} for one member",
                got=f"{declared:,} bytes, the largest member {largest:,}",
                do="Do not trust this file, or write the log as JSON.",
            )

    def names(self) -> Iterator[str]:
        """Of its members, in their order."""
        yield from self._members

    def member(self, name: str) -> bytes:
        """The contents of a member, never more than it promised.

        Raises:
            FileFormatError: If it is damaged, encrypted, or compressed by a method that is not known.
        """
        info = self._members[name]
        if info.flag_bits & 1:
            raise self._damaged(f"{name} is encrypted")
        try:
            with self._zip.open(info) as file:
                data = file.read(info.file_size + 1)
        except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, ValueError) as error:
            raise self._damaged(f"{name}: {error}") from error
        except Exception as error:  # zlib.error has no base of its own
            raise self._damaged(f"{name}: {type(error).__name__} {error}") from error
        if len(data) != info.file_size:
            raise self._damaged(f"{name}: {len(data):,} bytes of {info.file_size:,}")
        return data

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _damaged(self, got: str) -> FileFormatError:
        return FileFormatError(
            "The archive is damaged.",
            where=str(self._path),
            expected="a whole zip",
            got=got,
            do="Get the file again: a log that was cut short has no list of contents at its end.",
        )


def _escapes(name: str) -> bool:
    plain = PurePosixPath(name.replace("\\", "/"))
    return not name or plain.is_absolute() or ".." in plain.parts or bool(PureWindowsPath(name).drive) or "\0" in name
