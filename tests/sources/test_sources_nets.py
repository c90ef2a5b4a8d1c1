"""Nets from data files: those that were written come back, and nothing else gets in."""

from pathlib import Path

import numpy as np
import pytest

from wheeltap.errors import FileFormatError, MissingFile
from wheeltap.models.pictures import picture
from wheeltap.sources.nets import read_nets


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    net = picture("flower").genome.layerize()
    np.savez(tmp_path / "nets.npz", arch=net.arch, one=net.flat_parameters(), two=net.flat_parameters() * 2)
    found = read_nets(tmp_path / "nets.npz")
    assert list(found) == ["one", "two"]
    assert np.array_equal(found["one"].flat_parameters(), net.flat_parameters())
    assert found["two"].arch == net.arch


FLAT = np.zeros(picture("flower").genome.layerize().flat_parameters().shape, dtype=np.float32)
ARCH = picture("flower").genome.layerize().arch


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"arch": ARCH}, "one array of parameters or more"),
        ({"one": FLAT}, "a text arch"),
        ({"arch": np.array(3), "one": FLAT}, "a text arch"),
        ({"arch": "12;evil:3", "one": FLAT}, "activation"),
        ({"arch": "nonsense", "one": FLAT}, "layout"),
        ({"arch": ARCH, "one": FLAT[1:]}, "numbers of at most"),
        ({"arch": ARCH, "one": FLAT.astype(np.int64)}, "numbers of at most"),
        ({"arch": ARCH, "one": FLAT + np.nan}, "NaN"),
        ({"arch": ARCH, "one": FLAT + 1e30}, "larger"),
        ({"arch": ARCH, "one": np.array([{}] * 3, dtype=object)}, "npz"),
    ],
)
def test_what_is_no_net_is_refused(arrays: dict[str, np.ndarray], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "nets.npz", **arrays)
    with pytest.raises((FileFormatError, LookupError), match=words):
        read_nets(tmp_path / "nets.npz")


def test_what_is_no_file_of_arrays_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        read_nets(tmp_path / "nets.npz")
    (tmp_path / "nets.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(FileFormatError):
        read_nets(tmp_path / "nets.npz")
