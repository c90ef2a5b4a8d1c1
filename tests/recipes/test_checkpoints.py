"""Checkpoints: whole or not there, what was written or an error, and nothing that runs."""

import json
import pickle
import struct
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from wheeltap.core.errors import FileFormatError, StoreError
from wheeltap.models.cppn import Layout, grid
from wheeltap.recipes.checkpoints import MOST_NOTE, Checkpoint, Checkpoints
from wheeltap.recipes.paint import Canvas, Studio, paint, steps_kept
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


def test_two_that_write_at_the_same_time_do_not_write_into_one_file(tmp_path: Path) -> None:
    # Two threads share the number of their process, as do the first processes of two containers.
    def write(value: int) -> None:
        for _ in range(40):
            weights = np.full(100_000, value, dtype=np.float32)
            Checkpoints(tmp_path).save("k", Checkpoint({"weights": weights}, {"value": value}))

    like = {"weights": np.zeros(100_000, dtype=np.float32)}
    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, value) for value in range(3)]
        while not all(one.done() for one in writing):
            found = Checkpoints(tmp_path).load("k", like=like)
            assert found is None or bool((found.arrays["weights"] == found.note["value"]).all())
        assert [one.result() for one in writing] == [None] * 3
    assert [file.name for file in tmp_path.iterdir()] == ["k.safetensors"]


def test_a_checkpoint_can_be_read_by_whoever_the_umask_lets(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save("k", KEPT)
    (tmp_path / "other").write_bytes(b"")
    assert (tmp_path / "k.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


LAYOUT, CANVAS = Layout.parse("1;gaussian:2"), Canvas(grid(3), grid(3)[:, 1:].clamp(0, 1))
SETTINGS = PaintSettings(steps=3)
NOTES: dict[str, dict[str, int | str]] = {
    "no such status": {"status": "well"},
    "steps below none": {"step": -1},
    "too many steps": {"step": 10**9},
    "too many restarts": {"restarts": 99},
    "a word for a number": {"still": "a"},
}
LOST: dict[str, Callable[[bytes], bytes]] = {
    **{name: DAMAGES[name] for name in ("empty", "cut off", "one bit", "a pickle", "of another net", "too large")},
    **{name: _rewritten(lambda found, note=note: found.update(note)) for name, note in NOTES.items()},
}


@pytest.mark.parametrize("damage", LOST)
def test_a_damaged_checkpoint_is_set_aside_and_its_net_trained_anew(tmp_path: Path, damage: str) -> None:
    whole = paint(LAYOUT, CANVAS, seeds=[0, 1], settings=SETTINGS, studio=Studio(tmp_path))
    file, other = sorted(tmp_path.iterdir())
    damaged = LOST[damage](file.read_bytes())
    file.write_bytes(damaged)
    before = other.stat().st_mtime_ns
    assert steps_kept(LAYOUT, CANVAS, seeds=[0, 1, 2], settings=SETTINGS, folder=tmp_path) == SETTINGS.steps
    assert file.read_bytes() == damaged
    with pytest.warns(UserWarning, match="trained from the start: its checkpoint could not be used") as warned:
        again = paint(LAYOUT, CANVAS, seeds=[0, 1], settings=SETTINGS, studio=Studio(tmp_path))
    assert len(warned) == 1
    for one, two in zip(whole.nets, again.nets, strict=True):
        assert np.array_equal(one.flat_parameters(), two.flat_parameters())
    [aside] = tmp_path.glob("*.unusable-*")
    assert str(aside) in str(warned[0].message)
    assert aside.read_bytes() == damaged
    assert other.stat().st_mtime_ns == before
    paint(LAYOUT, CANVAS, seeds=[0, 1], settings=SETTINGS, studio=Studio(tmp_path))  # no warning any more


def test_a_folder_in_the_place_of_a_checkpoint_is_set_aside_too(tmp_path: Path) -> None:
    paint(LAYOUT, CANVAS, seeds=[0], settings=SETTINGS, studio=Studio(tmp_path))
    [file] = tmp_path.iterdir()
    for _ in range(2):
        file.unlink()
        file.mkdir()
        with pytest.warns(UserWarning, match="set aside"):
            assert paint(LAYOUT, CANVAS, seeds=[0], settings=SETTINGS, studio=Studio(tmp_path)).status == ("done",)
    assert len(list(tmp_path.iterdir())) == 3


def test_what_another_process_has_set_aside_already_is_no_error(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).set_aside("k").parent == tmp_path
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="out of the way either"):
        Checkpoints(tmp_path / "file").set_aside("k")
