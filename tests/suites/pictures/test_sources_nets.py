"""Nets from data files: those that were written come back, and nothing else gets in."""

import io
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wheeltap.core.errors import FileFormatError, MissingFile
from wheeltap.suites.pictures.nets.pictures import picture
from wheeltap.suites.pictures.sources.drawn import read_nets


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    net = picture("flower").genome.layerize()
    np.savez(tmp_path / "nets.npz", arch=net.arch, one=net.flat_parameters(), two=net.flat_parameters() * 2)
    found = read_nets(tmp_path / "nets.npz")
    assert list(found) == ["one", "two"]
    assert np.array_equal(found["one"].flat_parameters(), net.flat_parameters())
    assert found["two"].arch == net.arch


FLAT = np.zeros(picture("flower").genome.layerize().flat_parameters().shape, dtype=np.float32)
ARCH = picture("flower").genome.layerize().arch

NO_NETS: list[dict[str, Any]] = [
    {"arch": ARCH}, {"one": FLAT}, {"arch": np.array(3), "one": FLAT}, {"arch": "12;evil:3", "one": FLAT},
    {"arch": "nonsense", "one": FLAT}, {"arch": "\udc80", "one": FLAT}, {"arch": "\x1b[2J", "one": FLAT},
    {"arch": "513;sin:1", "one": FLAT}, {"arch": "x" * 10_000, "one": FLAT}, {"arch": np.array([ARCH]), "one": FLAT},
    {"arch": ARCH, "one": FLAT[1:]}, {"arch": ARCH, "one": FLAT.astype(np.int64)}, {"arch": ARCH, "one": FLAT + np.nan},
    {"arch": ARCH, "one": FLAT + 1e30}, {"arch": ARCH, "one": FLAT.astype(np.longdouble)},
    {"arch": ARCH, "one": np.array([{}] * 3, dtype=object)},
    {"arch": ARCH, "one": np.array([{}] * len(FLAT), dtype=object)},
    {"arch": ARCH, **{f"net {at}": FLAT for at in range(65)}},
]  # fmt: skip


def test_what_is_no_net_is_refused(tmp_path: Path) -> None:
    for arrays in NO_NETS:
        np.savez(tmp_path / "nets.npz", **arrays)
        refused(tmp_path / "nets.npz")
    (tmp_path / "nets.npz").write_bytes(b"PK\x03\x04 nothing")
    refused(tmp_path / "nets.npz")
    with pytest.raises(MissingFile):
        read_nets(tmp_path / "none.npz")


def refused(path: Path) -> None:
    with pytest.raises(FileFormatError) as caught:
        read_nets(path)
    assert caught.value.where == str(path)
    str(caught.value).encode()


def test_floating_point_numbers_of_any_kind_are_read(tmp_path: Path) -> None:
    for dtype in ("<f2", ">f4", "<f8"):
        flat = np.linspace(-2, 2, len(FLAT)).astype(dtype)
        np.savez_compressed(tmp_path / "nets.npz", arch=np.array(ARCH).astype(f"{dtype[0]}U{len(ARCH)}"), one=flat)
        assert np.array_equal(read_nets(tmp_path / "nets.npz")["one"].flat_parameters(), flat.astype(np.float32))


def npy(header: str, body: bytes = b"", *, version: int = 1) -> bytes:
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    return b"\x93NUMPY" + bytes([version, 0]) + length + header.encode("latin1") + body


def described(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n"


def written(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def saved(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_a_member_whose_numbers_are_others_than_it_says_is_refused(tmp_path: Path) -> None:
    arch, one = ("arch.npy", saved(np.array(ARCH))), saved(FLAT)
    refused(written(tmp_path / "a.npz", arch, ("one.npy", one[:-1])))
    refused(written(tmp_path / "b.npz", arch, ("one.npy", one + b"\0")))
    refused(written(tmp_path / "c.npz", arch, ("one.npy", one), ("one", one)))
    refused(written(tmp_path / "d.npz", arch, ("one.npy", one), method=zipfile.ZIP_LZMA))
    refused(written(tmp_path / "e.npz", ("arch.npy", npy(described("()", "'<U1'"), b"\xff" * 4))))
    whole = written(tmp_path / "f.npz", arch, ("one.npy", saved(FLAT + 1)), method=zipfile.ZIP_STORED).read_bytes()
    (tmp_path / "f.npz").write_bytes(whole.replace(b"\0\0\x80\x3f" * 9, b"\0\0\x80\x3e" * 9, 1))
    refused(tmp_path / "f.npz")


def test_nothing_is_unpacked_that_no_net_of_the_layout_can_hold(tmp_path: Path) -> None:
    zeros = npy(described("(10000000,)"), bytes(40_000_000))
    bomb = written(tmp_path / "a.npz", ("arch.npy", saved(np.array(ARCH))), ("one.npy", zeros))
    large = saved(np.array("10;sin:1800"))  # 29 million parameters: one net may have them, two may not
    many = written(tmp_path / "b.npz", ("arch.npy", large), ("one.npy", zeros), ("two.npy", zeros))
    text = written(tmp_path / "c.npz", ("arch.npy", npy(described("()", "'<U10000000'"), bytes(40_000_000))))
    refused(bomb)  # before it is measured: what is imported on the way counts too
    tracemalloc.start()
    for path in (bomb, many, text):
        refused(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000
