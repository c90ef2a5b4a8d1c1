"""Files of others: sizes are looked at before anything is made of them, and whatever a parser fails with is said.

A size in a header is no promise: it is held against the bytes that there are, and against a bound, before memory is set
aside for it. Nothing is unpacked to a file.
"""

import codecs
import contextlib
import importlib
import importlib.util
import math
import os
import stat
import struct
import tomllib
import zipfile
import zlib
from collections.abc import Generator, Iterator, Mapping
from io import BufferedReader
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Annotated, Any, ClassVar, Final, Self, TypeVar, final

import msgspec
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from wheeltap.core.errors import DataError, FileError, FileFormatError, MissingFile, WheeltapError

T = TypeVar("T")

Line = tuple[int, bytes]
"""Its number, from 1, and its bytes."""

DOCUMENT: Final = 2**28
"""Bytes of a document that is read as a whole."""

PARTS: Final = 2**23
"""Lists, objects and items of a document, at most: an empty list of three bytes takes 70 in memory."""

SETTINGS: Final = 2**22
"""The same of files of settings, and of lists of tensors: they may be nested, and an object of one item takes 285."""

MEMBER: Final = 2**26
"""Bytes of one document in an archive."""

LEAST: Final = 2**28
"""Bytes that the documents of an archive may have, however small it is."""

RATIO: Final = 200
"""How many times its size they may have: text is compressed by 5 to 30."""

SPARE: Final = 2**28
"""Bytes that the arrays of a file may take in memory, however small it is."""

TIMES: Final = 16
"""How many times its size they may take."""

MOST: Final = 2**32
"""Bytes that they may take in any case."""

_HEADER: Final = 2**25
"""Bytes of the header of a file of tensors, and of the list of contents of an archive: some 300,000 names."""

NAME: Final = 2**12
"""Characters of a tensor's name: it is printed."""

_PIECE: Final = 2**20
"""Bytes of an array that are unpacked at once."""


def size_of(path: Path, noun: str, *, limit: int | None = None, do: str = "") -> int:
    """Bytes of a file.

    Args:
        path: Of the file.
        noun: What it should be.
        limit: Bytes that it may have.
        do: What to do where there is none.

    Raises:
        MissingFile: If there is none, or something else than a file.
        FileFormatError: If it is larger.
    """
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # a path with a NUL byte
        got = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise MissingFile(f"There is no {noun} at this path.", where=str(path), expected="a file", got=got, do=do
                          ) from error  # fmt: skip
    if not stat.S_ISREG(found.st_mode):
        got = "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe, a socket or a device"
        raise MissingFile(f"There is no {noun} at this path.", where=str(path), expected="a file", got=got, do=do)
    if limit is not None and found.st_size > limit:
        raise FileFormatError(f"The {noun} is too large.", where=str(path), expected=f"at most {limit:,} bytes",
                              got=f"{found.st_size:,} bytes")  # fmt: skip
    return found.st_size


@contextlib.contextmanager
def opened(path: Path, noun: str, *, limit: int | None = None, do: str = "") -> Generator[BufferedReader]:
    """A file, open for reading; see ``size_of``.

    Raises:
        FileError: If it cannot be read.
    """
    size_of(path, noun, limit=limit, do=do)
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        if isinstance(error, WheeltapError) or error.errno is None:
            raise
        raise FileError.of(error, path, what=f"The {noun} could not be read.") from error


def contents(path: Path, noun: str, *, limit: int = DOCUMENT, do: str = "") -> bytes:
    """All of a file, without the mark of UTF-8 that some programs put before it; see ``opened``."""
    with opened(path, noun, limit=limit, do=do) as file:
        return file.read(limit + 1).removeprefix(codecs.BOM_UTF8)


def document(path: Path, noun: str, *, limit: int = DOCUMENT, do: str = "", parts: int = PARTS) -> bytes:
    """All of a JSON file that does not take far more memory than bytes; see ``contents`` and ``few_parts``."""
    return few_parts(contents(path, noun, limit=limit, do=do), where=path, most=parts)


def few_parts(data: bytes, *, where: object, most: int = PARTS) -> bytes:
    """The bytes of a JSON document.

    Raises:
        FileFormatError: If it has more than ``most`` lists, objects and items.
    """
    if (found := parts_of(data)) > most:
        raise FileFormatError("A JSON document has too many parts.", where=str(where),
                              expected=f"at most {most:,} lists, objects and items", got=f"{found:,}",
                              do="Do not trust this file, or give its rows one a line.")  # fmt: skip
    return data


DOTS: Final = 200
"""Dots on a line of TOML. The parser keeps, for each part of a dotted key, all parts before it."""


def toml(data: bytes, *, where: object) -> dict[str, Any]:
    """A TOML document.

    Raises:
        FileFormatError: If a line has so many dots that it may be a key of thousands of parts.
        ValueError: If it is no TOML in UTF-8.
    """
    if (most := max(line.count(b".") for line in data.split(b"\n"))) > DOTS:
        raise FileFormatError("A line of a TOML file has too many dots.", where=str(where),
                              expected=f"at most {DOTS}: keys have few parts, and texts several lines",
                              got=f"{most:,}")  # fmt: skip
    return tomllib.loads(data.decode())


def parts_of(data: bytes) -> int:
    """How many lists, objects and items a JSON document has, at most."""
    return sum(map(data.count, (b",", b"[", b"{")))


TOO_MUCH: Final = (RecursionError, MemoryError, OverflowError, UnicodeError)
"""What our own code may fail with on what a parser let pass."""


@contextlib.contextmanager
def parsing(
    where: object, what: str, *, expected: str, do: str = "",
    of: type[Exception] | tuple[type[Exception], ...] = Exception,
) -> Generator[None]:  # fmt: skip
    """A block that takes apart what others wrote.

    Parsers fail on that in every way that there is: nested too deeply, for want of memory, by an error of their own.

    Args:
        where: The file, and the place in it.
        what: What is said of it where they fail, in a sentence.
        expected: What it should be.
        do: What to do about it.
        of: Errors that are meant; all, where nothing but a parser runs.

    Raises:
        FileFormatError: Whatever it failed with; our own errors pass.
    """
    try:
        yield
    except WheeltapError:
        raise
    except of as error:
        got = str(error).strip() or type(error).__name__
        if isinstance(error, RecursionError):
            got = "lists within lists beyond what can be read"
        raise FileFormatError(what, where=str(where), expected=expected, got=got[:200], do=do) from error


def inside(folder: Path, name: str, noun: str) -> Path:
    """Where a file lies that another one names, in the folder of that one or below.

    Raises:
        FileFormatError: If it lies elsewhere, by its name or by a link.
    """
    what, expected = f"The {noun} is not in the folder of the file that names it.", "a path in this folder or below it"
    with parsing(folder, what, expected=expected):
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name}, which leads elsewhere")
    return folder / name


def decoded(data: bytes, kind: type[T], where: object, what: str, *, expected: str, do: str = "") -> T:
    """JSON of a type; see ``parsing``."""
    with parsing(where, what, expected=expected, do=do):
        return msgspec.json.decode(data, type=kind)


def numbered(path: Path, noun: str, *, longest: int, limit: int | None = None, do: str = "") -> Iterator[Line]:
    """Lines of a file that are not empty, with their numbers from 1; see ``opened``.

    Args:
        path: Of the file.
        noun: What it should be.
        longest: Bytes that a line may have.
        limit: Bytes that the file may have.
        do: What to do where there is none.

    Raises:
        FileFormatError: If a line is longer.
    """
    with opened(path, noun, limit=limit, do=do) as file:
        number = 0
        while line := file.readline(longest + 1):
            number += 1
            if len(line) > longest:
                raise FileFormatError("A line is too long.", where=f"{path}: line {number}",
                                      expected=f"at most {longest:,} bytes, one record a line", got="more")  # fmt: skip
            line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            if stripped := line.strip():
                yield number, stripped


# ---- archives -------------------------------------------------------------------------------------------------------

_ZSTANDARD: Final = 93
"""Method of members in newer logs of inspect; the package ``zstandard`` reads it."""

_WINDOW: Final = 2**27
"""Bytes that a member packed by it may look back, which are held in memory: more than any level of its own asks for."""


class Archive:
    """A zip, checked before anything of it is read: no name leads out of it, and it is as large as it says.

    Args:
        path: Of the file.
        noun: What it should be.
        do: What to do where it is damaged.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is no whole zip, a name escapes, or a member is packed in an unusual way.
    """

    _METHODS: ClassVar = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, _ZSTANDARD)

    def __init__(self, path: Path, noun: str = "archive", *, do: str = "") -> None:
        self.path, self.noun, self.do = path, noun, do
        self.size = size_of(path, noun, do="Check the path that was given.")
        with self.parsing():
            # Python makes an object of each entry of the list of contents, unasked.
            with open(path, "rb") as file:
                file.seek(max(self.size - 2**16 - 98, 0))
                end = file.read()
            at, more = end.rfind(b"PK\5\6"), end.rfind(b"PK\6\6")
            listed = [int.from_bytes(end[at + 12 : at + 16], "little")] if at >= 0 else []
            listed += [int.from_bytes(end[more + 40 : more + 48], "little")] if more >= 0 else []
            most = max((one for one in listed if one != 2**32 - 1), default=0)
            if most > _HEADER:
                raise ValueError(f"a list of contents of {most:,} bytes, more than {_HEADER:,}")
            self._zip = zipfile.ZipFile(path)
        # What was written twice is there twice; the last one counts.
        self.members = {info.filename: info for info in self._zip.infolist()}
        for name, info in self.members.items():
            # Other methods unpack by dictionaries of any size.
            usual = info.compress_type in self._METHODS and not info.flag_bits & 1
            read = info.compress_type != _ZSTANDARD or importlib.util.find_spec("zstandard") is not None
            plain = PurePosixPath(name.replace("\\", "/"))
            inside = name and not plain.is_absolute() and ".." not in plain.parts and "\0" not in name
            if not inside or PureWindowsPath(name).drive or not usual or not read:
                self.close()
                why = "leads out of it" if usual else "is encrypted or packed in another way"
                do = "Do not trust this file: no program writes it like that."
                if inside and usual and not read:
                    why, do = (
                        "is packed by Zstandard",
                        "pip install zstandard, or write it as JSON: inspect log convert FILE --to json "
                        "--output-dir DIR",
                    )
                raise FileFormatError(
                    f"A member of the archive {why}.",
                    where=str(self.path),
                    expected="plain names such as samples/1_epoch_1.json; members stored or deflated",
                    got=repr(name),
                    do=do,
                )

    def parsing(self) -> contextlib.AbstractContextManager[None]:
        """See the function."""
        return parsing(self.path, f"The {self.noun} cannot be read.", expected="a whole zip", do=self.do)

    def require_documents(self) -> None:
        """Raises ``FileFormatError`` if its members are together, or one of them, larger than documents can be."""
        bound = max(LEAST, RATIO * self.size)
        declared = sum(info.file_size for info in self.members.values())
        largest = max((info.file_size for info in self.members.values()), default=0)
        if declared > bound or largest > MEMBER:
            raise FileFormatError(
                "The archive inflates beyond a bound.",
                where=str(self.path),
                expected=f"at most {bound:,} bytes in all, and {MEMBER:,} for one member",
                got=f"{declared:,} bytes, the largest member {largest:,}",
                do="Do not trust this file, or write the log as JSON.",
            )

    def member(self, name: str, *, limit: int = MEMBER) -> bytes:
        """The contents of a member, never more than it promised.

        Raises:
            FileFormatError: If it is damaged, or larger.
        """
        info = self.members[name]
        if info.file_size > limit:
            raise FileFormatError(f"The {self.noun} is too large.", where=f"{self.path}: {name}",
                                  expected=f"at most {limit:,} bytes", got=f"{info.file_size:,} bytes")  # fmt: skip
        with self.parsing():
            if info.compress_type == _ZSTANDARD:
                data = self._by_zstandard(info)
            else:
                with self._zip.open(info) as file:
                    data = file.read(info.file_size + 1)
            if len(data) != info.file_size:
                raise ValueError(f"{name}: {len(data):,} bytes of {info.file_size:,}")
        return data

    def _by_zstandard(self, info: zipfile.ZipInfo) -> bytes:
        library: Any = importlib.import_module("zstandard")
        with open(self.path, "rb") as file:
            file.seek(info.header_offset + 26)  # the lengths of what stands before its bytes
            file.seek(sum(struct.unpack("<HH", file.read(4))), os.SEEK_CUR)
            packed = file.read(min(info.compress_size, self.size))
        unpacked = library.ZstdDecompressor(max_window_size=_WINDOW).stream_reader(packed, read_across_frames=True)
        data: bytes = unpacked.read(info.file_size + 1)
        if zlib.crc32(data) != info.CRC and len(data) == info.file_size:
            raise ValueError(f"{info.filename}: other bytes than were written")
        return data

    def close(self) -> None:
        """Closes the file."""
        self._zip.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


# ---- arrays ---------------------------------------------------------------------------------------------------------

Header = tuple[tuple[int, ...], "np.dtype[Any]", bool]
"""Shape and type of an array, and whether its first index runs fastest."""


@final
class Npz(Archive):
    """A file of numpy's arrays (``.npz``), never of objects: what they are is known before their numbers are read."""

    _METHODS: ClassVar = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

    def __init__(self, path: Path, noun: str, *, do: str = "") -> None:
        super().__init__(path, noun, do=do)
        self.names = tuple(name.removesuffix(".npy") for name in self.members)
        """Of its arrays, in their order."""
        if len(set(self.names)) < len(self._zip.infolist()):
            raise FileFormatError(f"The {noun} has an array twice.", where=str(path),
                                  expected="arrays, each of another name", got=", ".join(self.names[:8]), do=do
                                  )  # fmt: skip

    def header(self, name: str) -> Header:
        """What an array says that it is.

        Raises:
            FileFormatError: If it is no array, or has not as many bytes as it says.
        """
        with self.parsing():
            info = self.members[f"{name}.npy"]
            with self._zip.open(info) as file:
                shape, dtype, fast = _header(file)
                size, there = math.prod(shape) * dtype.itemsize, info.file_size - file.tell()
            if not dtype.hasobject and (size != there or not dtype.itemsize):
                why = "fewer bytes than its header says" if there < size else "bytes after its numbers"
                raise ValueError(f"{name}: {why}, {there:,} for {size:,}")
        return shape, dtype, fast

    def require_small(self, kept: "Mapping[str, np.dtype[Any]]", *, do: str = "") -> None:
        """Raises ``DataError`` if arrays, kept as other types, take more memory than a file of this size may."""
        sizes = {name: math.prod(self.header(name)[0]) * dtype.itemsize for name, dtype in kept.items()}
        bound, whole = min(max(SPARE, TIMES * self.size), MOST), sum(sizes.values())
        if whole > bound:
            name = max(sizes, key=sizes.__getitem__)
            raise DataError(
                f"The arrays are too large, {name!r} most of all.", where=str(self.path),
                expected=f"at most {bound:,} bytes in memory, of a file of {self.size:,}", got=f"{whole:,} bytes",
                do=do,
            )  # fmt: skip

    def array(self, name: str, dtype: "np.dtype[Any]") -> NDArray[Any]:
        """An array, as another type; no more is held than that and a piece of it."""
        shape, own, fast = self.header(name)
        made, at = np.empty(math.prod(shape), dtype), 0
        with self.parsing(), self._zip.open(f"{name}.npy") as file, np.errstate(over="ignore"):
            _header(file)
            size = max(_PIECE // max(own.itemsize, 1), 1) * own.itemsize
            while data := file.read(size):
                part = np.frombuffer(data, own, len(data) // own.itemsize)
                made[at : at + len(part)], at = part.astype(dtype), at + len(part)
            if at != len(made):
                raise ValueError(f"{name}: fewer bytes than its header says, {at:,} numbers of {len(made):,}")
            if own.kind == "U":
                codes = np.frombuffer(made.astype(dtype.newbyteorder("=")).tobytes(), np.uint32)
                if codes.size and bool(((codes > 0x10FFFF) | ((codes >= 0xD800) & (codes < 0xE000))).any()):
                    raise ValueError("characters that there are not")
        return made.reshape(shape, order="F" if fast else "C")


def _header(file: IO[bytes]) -> Header:
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"an array of version {version}")
    shape, fast, dtype = read(file)
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"an array of shape {shape}")
    return shape, dtype, fast


# ---- tensors --------------------------------------------------------------------------------------------------------

_Count = Annotated[int, msgspec.Meta(ge=0)]

_BITS: Final = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16,
                "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8}  # fmt: skip


class Tensor(msgspec.Struct, frozen=True):
    """What the header of a file of tensors says of one.

    Attributes:
        dtype: As safetensors calls it.
        shape: Its lengths.
        data_offsets: Where its bytes begin and end, behind the header.
    """

    dtype: str
    shape: tuple[_Count, ...]
    data_offsets: tuple[_Count, _Count]


def tensors(path: Path, noun: str, *, do: str = "") -> tuple[dict[str, Tensor], dict[str, str]]:
    """What a safetensors file holds, and what it says beside; nothing of its data is read.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If it is none, or its tensors are not the bytes behind its header.
    """
    size = size_of(path, noun, do=do)
    with (
        opened(path, noun) as file,
        parsing(path, f"The {noun} cannot be read.", expected="a whole safetensors file", do=do),
    ):
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _HEADER):
            raise ValueError(f"a header of {length:,} bytes in a file of {size:,} bytes")
        held = msgspec.json.decode(few_parts(file.read(length), where=path, most=SETTINGS), type=dict[str, Any])
        beside = msgspec.convert(held.pop("__metadata__", {}), dict[str, str])
        found = msgspec.convert(held, dict[str, Tensor])
        if (longest := max(map(len, found), default=0)) > NAME:
            raise ValueError(f"a name of {longest:,} characters")
        at = 0
        for name, one in sorted(found.items(), key=lambda each: each[1].data_offsets):
            start, at = one.data_offsets[0] - at, one.data_offsets[1]
            wanted = math.prod(one.shape) * _BITS[one.dtype] // 8 if one.dtype in _BITS else at - one.data_offsets[0]
            if start or at - one.data_offsets[0] != wanted:
                raise ValueError(f"{name!a}: {one.dtype} {list(one.shape)} at {list(one.data_offsets)}"[:160])
        if at != size - 8 - length:
            raise ValueError(f"{size - 8 - length:,} bytes behind the header, for tensors of {at:,}")
    return found, beside
