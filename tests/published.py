"""What the paper published, read in place: genomes, parameters and pictures."""

import functools
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from wheeltap.models.cppn import Cppn, Fold, Layout

DATA = Path(__file__).parents[2] / "shared" / "data" / "picbreeder"
NAMES = ("skull", "butterfly")


def published(path: str) -> Path:
    """A file of the test data, by its path among them; the test skips where it is absent."""
    found = DATA.parent / path
    if not found.exists():
        pytest.skip(f"needs the published data: {path}")
    return found


needs_data = pytest.mark.skipif(not (DATA / "skull.zip").is_file(), reason="needs the published genomes")

ARCH = {"skull": "12;cache:15,gaussian:4,identity:2,sin:1", "butterfly": "16;cache:17,gaussian:4,sigmoid:1,sin:1"}

DECODED = {
    "skull": {4371: (7, 15, 15, 2.105), 5009: (9, 0, 15, 0.330), 5097: (9, 4, 15, -0.852), 37: (0, 1, 15, -2.262)},
    "butterfly": {
        1949: (12, 11, 17, -0.924),
        3702: (15, 18, 22, -1.493),
        17: (0, 0, 17, -3.0),
        133: (1, 1, 18, -1.970),
    },
}
"""Layer, unit from, unit to and weight of the ids that the paper names."""


def parameters(name: str, which: str) -> NDArray[np.float32]:
    """``pb`` (evolved) or ``sgd`` (trained)."""
    with np.load(DATA / f"{name}_layerized_and_sgd_params.npz") as file:
        assert str(file["arch"]) == ARCH[name]
        return file[which]


def cppn(arch: str, flat: NDArray[np.floating], *, fold: Fold = "") -> Cppn:
    """The net of these parameters in the published order."""
    layout = Layout.parse(arch)
    return Cppn.of(layout, layout.split(flat), fold=fold)


def published_net(name: str, which: str) -> Cppn:
    """The net of published parameters."""
    return cppn(ARCH[name], parameters(name, which))


@functools.cache
def png(name: str) -> NDArray[np.float64]:
    """A published picture, ``[row, column, 3]`` from 0 to 1: 8 bits, with or without an alpha channel."""
    data = (DATA / f"ref_{name}.png").read_bytes()
    at, packed = 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        if kind == b"IHDR":
            width, height, depth, colours = struct.unpack(">IIBB", data[at + 8 : at + 18])
            assert (depth, data[at + 20]) == (8, 0)
        if kind == b"IDAT":
            packed += data[at + 8 : at + 8 + size]
        at += 12 + size
    step = {2: 3, 6: 4}[colours]
    rows = np.frombuffer(zlib.decompress(packed), dtype=np.uint8).reshape(height, 1 + width * step)
    lines, above = list[list[int]](), [0] * (width * step)
    for row in rows.tolist():
        above = _unfiltered(row[0], row[1:], above, step)
        lines.append(above)
    return np.array(lines).reshape(height, width, step)[:, :, :3] / 255.0


def _unfiltered(kind: int, line: list[int], above: list[int], step: int) -> list[int]:
    for at in range(len(line)):
        left, up = (line[at - step] if at >= step else 0), above[at]
        corner = above[at - step] if at >= step else 0
        guess = left + up - corner
        paeth = min((left, up, corner), key=lambda value: abs(guess - value))
        line[at] = (line[at] + (0, left, up, (left + up) // 2, paeth)[kind]) % 256
    return line
