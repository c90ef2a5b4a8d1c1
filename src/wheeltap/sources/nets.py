"""Layered CPPNs from ``.npz`` files: a layout and arrays of parameters, never objects (pickles).

A file comes from strangers. Layout and headers are read first, and say how many bytes the numbers may be; nothing
larger is unpacked.
"""

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, cast

import numpy as np
from numpy.lib import format as npy

from wheeltap.core.errors import FileFormatError, MissingFile, UsageError, WheeltapError
from wheeltap.models.cppn import MOST_PARAMETERS, Cppn, Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_NETS: Final = 64
LARGEST: Final = 1e6
"""Of a weight: beyond it every unit is saturated, and single precision overflows."""

MOST_HEADER: Final = 16_384
"""Bytes of an array beside its numbers, and of all of ``arch``: more than the 10,000 that numpy reads of a header."""

FLOATS: Final = (2, 4, 8)
"""Bytes of a number: half, single or double precision."""

_HEADERS: Final = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
"""By version; the third is for names of fields in other scripts."""

# What zipfile, zlib and numpy raise on damaged files. Headers are Python literals: a strange one can make the parser
# fail in every way that a parser can, for want of memory too.
_DAMAGED: Final = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, OSError, EOFError, ValueError, TypeError, LookupError,
    ArithmeticError, SyntaxError, RuntimeError, MemoryError, AttributeError,
)  # fmt: skip

_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

_Member = zipfile.ZipInfo


def read_nets(path: Path) -> dict[str, Cppn]:
    """The nets in a file: ``arch`` (a text such as ``12;cache:15,gaussian:4``), and one array of parameters for each.

    Args:
        path: An ``.npz`` file; parameters in the published order, layers sorted by name, each ``[in, out]`` row by row.

    Returns:
        Nets by the names of their arrays.

    Raises:
        MissingFile: If it is not there.
        FileFormatError: If it is no such file, an array has another number of parameters than the layout, there are
            too many of them, or a number is not finite or very large.
    """
    if not path.is_file():
        raise MissingFile("There are no nets at this path.", where=str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            layout = _layout(archive, members.pop("arch", None), path)
            whole = len(members) * layout.parameters
            if not members or whole > MOST_PARAMETERS:
                wanted = f"one array of parameters or more beside arch, {MOST_PARAMETERS:,} numbers at most in all"
                raise _unreadable(path, wanted, f"{whole:,}" if members else "none")
            return {name: _net(archive, member, layout, path) for name, member in members.items()}
    except WheeltapError:
        raise
    except _DAMAGED as error:
        raise _unreadable(path, "an .npz file", (str(error) or type(error).__name__)[:80]) from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, _Member]:
    """Members by the names of their arrays."""
    found = archive.infolist()
    members = {member.filename.removesuffix(".npy"): member for member in found}
    if len(found) > MOST_NETS + 1 or len(members) < len(found):
        raise _unreadable(path, f"at most {MOST_NETS} arrays beside arch, each of another name", f"{len(found)}")
    # Other methods unpack by dictionaries of any size, or not at all without a password.
    odd = [name for name, member in members.items() if member.compress_type not in _METHODS or member.flag_bits & 1]
    if odd:
        raise _unreadable(path, "arrays stored or deflated, not encrypted", ascii(odd[0])[:80])
    return members


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], "np.dtype[np.generic]"]:
    """Shape and type of an array; what comes next in the stream are its numbers.

    Raises:
        ValueError: If it is of a version that is not known.
    """
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"an array of version {version}")
    shape, _, dtype = _HEADERS[version](stream)
    return shape, dtype


def _layout(archive: zipfile.ZipFile, member: _Member | None, path: Path) -> Layout:
    wanted = "a text arch and arrays of parameters"
    if member is None or member.file_size > MOST_HEADER:
        raise _unreadable(path, wanted, "no arch" if member is None else f"an arch of {member.file_size:,} bytes")
    with archive.open(member) as stream:
        shape, dtype = _header(stream)
        if shape != () or dtype.kind != "U":
            raise _unreadable(path, wanted, f"an arch of {dtype} {list(shape)}")
        # By hand: numpy makes a SystemError of characters that there are not.
        text = stream.read().decode("utf-32-be" if dtype.str[0] == ">" else "utf-32-le").rstrip("\0")
    try:
        return Layout.parse(text)
    except (UsageError, FileFormatError) as error:
        raise _unreadable(path, f"a net in arch: {error.expected}", f"{ascii(text)[:80]} ({error.what})") from error


def _net(archive: zipfile.ZipFile, member: _Member, layout: Layout, path: Path) -> Cppn:
    name = ascii(member.filename.removesuffix(".npy"))[1:-1]
    wanted = f"{layout.parameters:,} floating-point numbers of at most {LARGEST:g} in {name[:80]}"
    if member.file_size > max(FLOATS) * layout.parameters + MOST_HEADER:
        raise _unreadable(path, wanted, f"{member.file_size:,} bytes")
    with archive.open(member) as stream:
        shape, dtype = _header(stream)
        if dtype.kind != "f" or dtype.itemsize not in FLOATS or shape != (layout.parameters,):
            raise _unreadable(path, wanted, f"{dtype} {list(shape)}"[:80])
        size = dtype.itemsize * layout.parameters
        data = stream.read(size + 1)  # one more than there may be: only at its end is a member's checksum looked at
    if len(data) != size:
        raise _unreadable(path, wanted, "fewer bytes than its header says" if len(data) < size else "bytes after them")
    flat = cast("NDArray[np.floating]", np.frombuffer(data, dtype))
    if not float(np.abs(flat).max()) <= LARGEST:  # written so that NaN fails
        raise _unreadable(path, wanted, "NaN, infinite or larger numbers")
    return Cppn.of(layout, layout.split(flat))


def _unreadable(path: Path, expected: str, got: str) -> FileFormatError:
    return FileFormatError("The file holds no nets that can be read.", where=str(path), expected=expected, got=got)
