"""Layered CPPNs from ``.npz`` files: a layout and arrays of parameters, never objects (pickles).

A file comes from strangers. Layout and headers are read first, and say how many bytes the numbers may be; nothing
larger is unpacked.
"""

from pathlib import Path
from typing import Final

import numpy as np

from wheeltap.core.bounded import Npz
from wheeltap.core.errors import FileFormatError, UsageError
from wheeltap.models.cppn import MOST_PARAMETERS, Cppn, Layout

MOST_NETS: Final = 64
LARGEST: Final = 1e6
"""Of a weight: beyond it every unit is saturated, and single precision overflows."""

MOST_ARCH: Final = 16_384
"""Bytes of ``arch``."""

FLOATS: Final = (2, 4, 8)
"""Bytes of a number: half, single or double precision."""


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
    with Npz(path, "file of nets") as archive:
        nets = [name for name in archive.names if name != "arch"]
        layout = _layout(archive)
        whole = len(nets) * layout.parameters
        if not 1 <= len(nets) <= MOST_NETS or whole > MOST_PARAMETERS:
            wanted = f"1 to {MOST_NETS} arrays of parameters beside arch, {MOST_PARAMETERS:,} numbers at most in all"
            raise _unreadable(path, wanted, f"{len(nets)} of {layout.parameters:,} each")
        return {name: _net(archive, name, layout) for name in nets}


def _layout(archive: Npz) -> Layout:
    wanted = "a text arch and arrays of parameters"
    if "arch" not in archive.names:
        raise _unreadable(archive.path, wanted, "no arch")
    shape, dtype, _ = archive.header("arch")
    if shape != () or dtype.kind != "U" or dtype.itemsize > MOST_ARCH:
        raise _unreadable(archive.path, wanted, f"an arch of {dtype} {list(shape)}"[:80])
    text = str(archive.array("arch", dtype))
    try:
        return Layout.parse(text)
    except (UsageError, FileFormatError) as error:
        got = f"{ascii(text)[:80]} ({error.what})"
        raise _unreadable(archive.path, f"a net in arch: {error.expected}", got) from error


def _net(archive: Npz, name: str, layout: Layout) -> Cppn:
    wanted = f"{layout.parameters:,} floating-point numbers of at most {LARGEST:g} in {ascii(name)[1:80]}"
    shape, dtype, _ = archive.header(name)
    if dtype.kind != "f" or dtype.itemsize not in FLOATS or shape != (layout.parameters,):
        raise _unreadable(archive.path, wanted, f"{dtype} {list(shape)}"[:80])
    flat = archive.array(name, dtype)
    if not float(np.abs(flat).max()) <= LARGEST:  # written so that NaN fails
        raise _unreadable(archive.path, wanted, "NaN, infinite or larger numbers")
    return Cppn.of(layout, layout.split(flat))


def _unreadable(path: Path, expected: str, got: str) -> FileFormatError:
    return FileFormatError("The file holds no nets that can be read.", where=str(path), expected=expected, got=got)
