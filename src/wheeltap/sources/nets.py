"""Layered CPPNs from ``.npz`` files: a layout and arrays of parameters, never objects (pickles)."""

import zipfile
import zlib
from pathlib import Path
from typing import Final

import numpy as np

from wheeltap.errors import FileFormatError, MissingFile, WheeltapError
from wheeltap.models.cppn import MOST_PARAMETERS, Cppn, Layout

MOST_NETS: Final = 64
LARGEST: Final = 1e6
"""Of a weight: beyond it every unit is saturated, and single precision overflows."""

MOST_BYTES: Final = 8 * MOST_PARAMETERS
"""Of one array, unpacked."""


def read_nets(path: Path) -> dict[str, Cppn]:
    """The nets in a file: ``arch`` (a text such as ``12;cache:15,gaussian:4``), and one array of parameters for each.

    Args:
        path: An ``.npz`` file; parameters in the published order, layers sorted by name, each ``[in, out]`` row by row.

    Returns:
        Nets by the names of their arrays.

    Raises:
        MissingFile: If it is not there.
        FileFormatError: If it is no such file, an array has another number of parameters than the layout, or a number
            is not finite or very large.
    """
    if not path.is_file():
        raise MissingFile("There are no nets at this path.", where=str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MOST_NETS + 1 or max((m.file_size for m in members), default=0) > MOST_BYTES:
                raise _unreadable(path, f"at most {MOST_NETS} arrays of {MOST_BYTES:,} bytes", "more")
        with np.load(path, allow_pickle=False) as arrays:
            if "arch" not in arrays or arrays["arch"].dtype.kind != "U" or arrays["arch"].ndim:
                raise _unreadable(path, "a text arch and arrays of parameters", ", ".join(arrays)[:80])
            layout = Layout.parse(str(arrays["arch"]))
            held = {name: np.asarray(arrays[name]) for name in arrays if name != "arch"}
    except WheeltapError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise _unreadable(path, "an .npz file", str(error)[:80]) from error
    for name, flat in held.items():
        wanted = f"{layout.parameters:,} floating-point numbers of at most {LARGEST:g} in {name}"
        if flat.dtype.kind != "f" or flat.shape != (layout.parameters,):
            raise _unreadable(path, wanted, f"{flat.dtype} {list(flat.shape)}")
        if not float(np.abs(flat).max(initial=0.0)) <= LARGEST:  # written so that NaN fails
            raise _unreadable(path, wanted, "NaN, infinite or larger numbers")
    if not held:
        raise _unreadable(path, "one array of parameters or more beside arch", "none")
    return {name: Cppn.of(layout, layout.split(flat)) for name, flat in held.items()}


def _unreadable(path: Path, expected: str, got: str) -> FileFormatError:
    return FileFormatError("The file holds no nets that can be read.", where=str(path), expected=expected, got=got)
