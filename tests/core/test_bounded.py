"""Files of others: what is no file, lies about its size, or would fill the memory is refused before it does."""

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.fuzz.__main__ import memory
from wheeltap.core import bounded
from wheeltap.core.errors import FileFormatError, MissingFile
from wheeltap.report.report import Report

MEGABYTE = 2**20


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    places = {
        tmp_path / "none": "No such file", tmp_path: "a folder", tmp_path / "pipe": "a pipe",
        Path("/dev/zero"): "device",
        Path("a\0b"): "null", tmp_path / ("n" * 300): "too long", tmp_path / ("d/" * 3000): "too long",
        Path("\udcff"): "No such file",
    }  # fmt: skip
    for place, got in places.items():
        with pytest.raises(MissingFile, match=f"There is no seal at this path(.|\n)*got: .*{got}"):
            bounded.contents(place, "seal")


def test_a_file_larger_than_it_may_be_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as file:
        file.truncate(2**40)  # of no bytes on disk
    before = memory(reset=True)
    with pytest.raises(FileFormatError, match="at most 268,435,456 bytes"):
        bounded.contents(tmp_path / "x", "report")
    assert memory() - before < MEGABYTE


def test_a_document_of_more_parts_than_memory_for_them_is_refused(tmp_path: Path) -> None:
    """Of empty lists each takes 25 times its bytes."""
    many = b'{"cfg": [' + b"[]," * (bounded.PARTS // 2) + b"[]]}"
    (path := tmp_path / "x.json").write_bytes(many)
    before = memory(reset=True)
    with pytest.raises(FileFormatError, match="A JSON document has too many parts"):
        Report.read(path)
    assert memory() - before < 64 * MEGABYTE


@pytest.mark.parametrize(
    ("change", "got"),
    [
        ({"data_offsets": [0, 2**40]}, "at .0, 1099511627776"),
        ({"shape": [-1]}, "shape"),
        ({"dtype": "F64"}, "F64"),
    ],
)
def test_tensors_that_are_not_there(tmp_path: Path, change: dict[str, object], got: str) -> None:
    def written(held: dict[str, object], more: bytes = b"", *, name: str = "a") -> Path:
        header = json.dumps({name: held}).encode()
        (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4) + more)
        return tmp_path / "x"

    sound = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    assert bounded.tensors(written(sound), "file")[0]["a"].shape == (1,)
    with pytest.raises(FileFormatError, match="bytes behind the header"):
        bounded.tensors(written(sound, b"more"), "file")
    with pytest.raises(FileFormatError, match=got):
        bounded.tensors(written({**sound, **change}), "file")
    with pytest.raises(FileFormatError, match="a name of 5,000 characters"):
        bounded.tensors(written(sound, name=5000 * "a"), "file")


@pytest.mark.parametrize(
    "header",
    [b"[" * 9000, b"{'descr': '<U0', 'fortran_order': False, 'shape': (1000000000000000,)}"],
)  # fmt: skip
def test_an_array_with_a_hostile_header(tmp_path: Path, header: bytes) -> None:
    held = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + bytes(8)
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("a.npy", held)
    with (
        bounded.Npz(tmp_path / "x.npz", "data file") as archive,
        pytest.raises(FileFormatError, match="cannot be read"),
    ):
        archive.array("a", np.dtype("i8"))


def test_arrays_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "c": rng.normal(size=(700, 300)), "f": np.asfortranarray(rng.integers(0, 99, (5, 7, 3))),
        "none": np.zeros((0, 3)),
        "big": rng.normal(size=9).astype(">f4"), "texts": np.array(["ab", "é"]), "one": np.array(3),
    }  # fmt: skip
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    with bounded.Npz(tmp_path / "x.npz", "data file") as archive:
        assert archive.names == tuple(arrays)
        for name, array in arrays.items():
            kept = array.dtype.newbyteorder("=")
            np.testing.assert_array_equal(archive.array(name, kept), array)


def test_a_list_of_contents_larger_than_any(tmp_path: Path) -> None:
    """Python makes an object of each entry: of a million members with nothing in them, before anyone asks."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("x", b"")
    data = made.getvalue()
    at = data.index(b"PK\1\2")
    (tmp_path / "x").write_bytes(data[:at] + bytes(2**25) + data[at : at + 46] + b"x" + data[-22:-10]
                                 + struct.pack("<II", 2**25 + 47, at) + b"\0\0")  # fmt: skip
    with pytest.raises(FileFormatError, match="a list of contents of 33,554,479 bytes"):
        bounded.Archive(tmp_path / "x")
