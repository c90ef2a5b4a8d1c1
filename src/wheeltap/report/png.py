"""PNG files from arrays, without a library for images."""

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encode(picture: NDArray[np.floating] | NDArray[np.uint8]) -> bytes:
    """A PNG file of ``[row, column, 3]``, colors from 0 to 1 (or bytes).

    Source: W3C, "Portable Network Graphics", third edition: 8-bit truecolor, rows without a filter.
    """
    pixels = picture if picture.dtype == np.uint8 else np.rint(np.clip(picture, 0.0, 1.0) * 255)
    rows, columns, _ = pixels.shape
    lines = np.zeros((rows, 1 + 3 * columns), dtype=np.uint8)
    lines[:, 1:] = pixels.astype(np.uint8).reshape(rows, -1)
    header = struct.pack(">IIBBBBB", columns, rows, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
