"""Checkpoints: whole or not there, what was written or an error, and nothing that runs."""

import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from wheeltap.errors import FileFormatError, StoreError
from wheeltap.models.cppn import Layout, grid
from wheeltap.recipes.checkpoints import MOST_NOTE, Checkpoint, Checkpoints
from wheeltap.recipes.paint import Canvas, Studio, paint
from wheeltap.recipes.trainee import PaintSettings

ARRAYS = {"weights": np.arange(6, dtype=np.float32), "errors": np.array([0.5, 0.25])}
KEPT = Checkpoint(ARRAYS, {"step": 3, "status": "training"})


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path / "a" / "b")
    assert folder.load("k", like=ARRAYS) is None
    folder.save("k", KEPT)
    folder.save("k", Checkpoint({**ARRAYS, "weights": ARRAYS["weights"] + 1}, {"step": 4, "status": "done"}))
    found = folder.load("k", like=ARRAYS)
    assert found is not None
    assert (found.note["step"], found.note["status"]) == (4, "done")
    assert np.array_equal(found.arrays["weights"], ARRAYS["weights"] + 1)
    assert [file.name for file in folder.folder.iterdir()] == ["k.safetensors"]


def _rewritten(
    note: Callable[[dict[str, Any]], object], arrays: dict[str, Any] | None = None
) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        found = json.loads(header["__metadata__"]["note"])
        return save({**load(data), **(arrays or {})}, {"note": json.dumps(note(found) or found)})

    return change


def _flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[:-9],
    "half a header": lambda data: data[:20],
    "one bit": _flipped,
    "a pickle": lambda data: pickle.dumps(ARRAYS),
    "text": lambda data: b"hello, here is no checkpoint at all",
    "a header that says it is huge": lambda data: struct.pack("<Q", 2**60) + data[8:],
    "too large": lambda data: data + bytes(MOST_NOTE + 100),
    "no note": lambda data: save(load(data)),
    "a note that is a list": _rewritten(lambda note: [1, 2]),
    "a note of lists": _rewritten(lambda note: note.update(step=[1])),
    "a note of fractions": _rewritten(lambda note: note.update(step=1.5)),
    "deep brackets": lambda data: save(load(data), {"note": "[" * 50_000}),
    "of another net": _rewritten(lambda note: note.update(key="other")),
    "an array too many": _rewritten(lambda note: None, {"more": np.zeros(2)}),
    "an array of another shape": _rewritten(lambda note: None, {"weights": np.zeros(5, dtype=np.float32)}),
    "an array of another type": _rewritten(lambda note: None, {"weights": np.zeros(6)}),
    "not finite": _rewritten(lambda note: None, {"errors": np.array([0.5, np.nan])}),
    "other numbers": _rewritten(lambda note: None, {"errors": np.array([0.5, 0.125])}),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_anything_else_is_an_error(tmp_path: Path, damage: str) -> None:
    folder = Checkpoints(tmp_path)
    folder.save("k", KEPT)
    data = folder.path("k").read_bytes()
    assert DAMAGES[damage](data) != data
    folder.path("k").write_bytes(DAMAGES[damage](data))
    with pytest.raises(FileFormatError, match="checkpoint cannot be used") as raised:
        folder.load("k", like=ARRAYS)
    assert "Delete the file" in str(raised.value)


def test_a_folder_in_its_place_is_an_error(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path)
    folder.path("k").mkdir()
    with pytest.raises(FileFormatError, match="checkpoint cannot be used"):
        folder.load("k", like=ARRAYS)
    with pytest.raises(StoreError, match="cannot be written"):
        folder.save("k", KEPT)
    assert [file.name for file in tmp_path.iterdir()] == ["k.safetensors"]


def test_where_nothing_can_be_written_the_error_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        Checkpoints(tmp_path / "file" / "folder").save("k", KEPT)


@pytest.mark.parametrize("note", [{"status": "well"}, {"step": -1}, {"step": 10**9}, {"restarts": 99}, {"still": "a"}])
def test_a_training_that_there_cannot_be_is_an_error(tmp_path: Path, note: dict[str, int | str]) -> None:
    layout, canvas = Layout.parse("1;gaussian:2"), Canvas(grid(3), grid(3)[:, 1:].clamp(0, 1))
    settings = PaintSettings(steps=3)
    paint(layout, canvas, seeds=[0], settings=settings, studio=Studio(tmp_path))
    [file] = tmp_path.iterdir()
    file.write_bytes(_rewritten(lambda found: found.update(note))(file.read_bytes()))
    with pytest.raises(FileFormatError, match="no training that there can be"):
        paint(layout, canvas, seeds=[0], settings=settings, studio=Studio(tmp_path))
    file.unlink()
    assert paint(layout, canvas, seeds=[0], settings=settings, studio=Studio(tmp_path)).status == ("done",)
