"""Artifacts and states of training: whole or not there, what was written or an error, and nothing that runs."""

import json
import pickle
import resource
import struct
import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from wheeltap.core.canon import ArtifactSpec
from wheeltap.core.errors import FileFormatError, StoreError
from wheeltap.core.files import VARIABLE
from wheeltap.plans.artifacts import MOST_BESIDE, ArtifactFile, Artifacts
from wheeltap.recipes.base import Given, recipe_of, spec
from wheeltap.recipes.make import Artifact, Pace, make

ARRAYS = {"weights": np.arange(6, dtype=np.float32), "count": np.array(3)}
REPORT = {"errors": np.array([0.5, 0.25])}
KEPT = ArtifactFile(ARRAYS, {"step": 3, "status": "training"}, REPORT)
SPEC = ArtifactSpec(recipe="any", seed=1)


def _files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir() if file.is_file())


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "a" / "b")
    assert artifacts.load(SPEC, like=ARRAYS) is None and artifacts.load_state(SPEC, like=ARRAYS) is None
    artifacts.keep(SPEC, ArtifactFile(ARRAYS))
    artifacts.keep(SPEC, KEPT)
    found = artifacts.load(SPEC, like=ARRAYS)
    assert found is not None
    assert found.note == KEPT.note and found.digest == KEPT.digest
    for name, array in ARRAYS.items():
        assert np.array_equal(found.arrays[name], array) and found.arrays[name].shape == array.shape
    assert np.array_equal(found.report["errors"], REPORT["errors"])
    assert artifacts.load_state(SPEC, like=ARRAYS) is None
    assert _files(artifacts.folder) == [f"{SPEC.key}.safetensors"]
    # A state is another file, and can be dropped.
    states = Artifacts(tmp_path / "c")
    states.keep_state(SPEC, KEPT)
    assert states.load(SPEC, like=ARRAYS) is None
    state = states.load_state(SPEC, like=ARRAYS)
    assert state is not None and state.note["step"] == 3
    for _ in range(2):
        states.drop_state(SPEC)
    assert _files(states.folder) == []


def test_what_others_put_there_is_not_taken_for_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With all digests right; only a digest that the store knows makes up for the mark."""
    artifacts = Artifacts(tmp_path)
    with monkeypatch.context() as others:
        others.setenv(VARIABLE, "the key of someone else")
        artifacts.keep(SPEC, KEPT)
        artifacts.keep_state(SPEC, KEPT)
    for load_one in (artifacts.load, artifacts.load_state):
        with pytest.raises(FileFormatError, match="one that this user made"):
            load_one(SPEC, like=ARRAYS)
    assert artifacts.load(SPEC, like=ARRAYS, expected=KEPT.digest) is not None


def _rewritten(
    change: Callable[[dict[str, Any]], object], arrays: dict[str, Any] | None = None
) -> Callable[[bytes], bytes]:
    def rewrite(data: bytes) -> bytes:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        found = json.loads(header["__metadata__"]["note"])
        return save({**load(data), **(arrays or {})}, {"note": json.dumps(change(found) or found)})

    return rewrite


def _flipped(data: bytes) -> bytes:
    return data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[:-9],
    "one bit": _flipped,
    "a pickle": lambda data: pickle.dumps(ARRAYS),
    "a header that says it is huge": lambda data: struct.pack("<Q", 2**60) + data[8:],
    "too large": lambda data: data + bytes(MOST_BESIDE + 100),
    "no note": lambda data: save(load(data)),
    "a note that is a list": _rewritten(lambda note: [1, 2]),
    "a note of fractions": _rewritten(lambda note: note["note"].update(step=1.5)),
    "deep brackets": lambda data: save(load(data), {"note": "[" * 50_000}),
    "of another net": _rewritten(lambda note: note.update(key="other")),
    "an array too many": _rewritten(lambda note: None, {"more": np.zeros(2)}),
    "an array of another shape": _rewritten(lambda note: None, {"weights": np.zeros(5, dtype=np.float32)}),
    "not finite": _rewritten(lambda note: None, {"report:errors": np.array([0.5, np.nan])}),
    "other numbers": _rewritten(lambda note: None, {"weights": np.ones(6, dtype=np.float32)}),
}


def test_a_file_that_is_anything_else_is_an_error(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    artifacts.keep(SPEC, KEPT)
    data = artifacts.path(SPEC).read_bytes()
    for name, damage in DAMAGES.items():
        assert damage(data) != data
        artifacts.path(SPEC).write_bytes(damage(data))
        with pytest.raises(FileFormatError, match="at most" if name == "too large" else "artifact cannot be used"):
            artifacts.load(SPEC, like=ARRAYS)
    # Numbers that are not finite, even where they were written.
    one, nan = np.array([1.0]), np.array([np.nan])
    for kept in (ArtifactFile({"a": np.array([np.inf])}), ArtifactFile({"a": one}, report={"b": nan})):
        artifacts.keep(SPEC, kept)
        with pytest.raises(FileFormatError, match="finite numbers"):
            artifacts.load(SPEC, like={"a": np.zeros(1)})


def test_where_nothing_can_be_written_or_moved_the_error_says_so(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path / "kept")
    artifacts.path(SPEC).mkdir(parents=True)
    with pytest.raises(FileFormatError, match="artifact cannot be used"):
        artifacts.load(SPEC, like=ARRAYS)
    with pytest.raises(StoreError, match="cannot be written"):
        artifacts.keep(SPEC, KEPT)
    assert [file.name for file in artifacts.folder.iterdir()] == [f"{SPEC.key}.safetensors"]
    (tmp_path / "file").write_text("in the way")
    inside = Artifacts(tmp_path / "file" / "folder")
    with pytest.raises(StoreError, match="cannot be written"):
        inside.keep(SPEC, KEPT)
    with pytest.raises(StoreError, match="Name a folder"), inside.lock(SPEC):
        raise AssertionError("it was not locked")


def test_two_that_write_at_the_same_time_do_not_write_into_one_file(tmp_path: Path) -> None:
    # Two threads share the number of their process, as do the first processes of two containers.
    def write(value: int) -> None:
        for _ in range(40):
            weights = np.full(100_000, value, dtype=np.float32)
            Artifacts(tmp_path).keep_state(SPEC, ArtifactFile({"weights": weights}, {"value": value}))

    like = {"weights": np.zeros(100_000, dtype=np.float32)}
    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(write, value) for value in range(3)]
        while not all(one.done() for one in writing):
            found = Artifacts(tmp_path).load_state(SPEC, like=like)
            assert found is None or bool((found.arrays["weights"] == found.note["value"]).all())
        assert [one.result() for one in writing] == [None] * 3
    assert _files(tmp_path) == [f"{SPEC.key}.state.safetensors"]


def test_a_file_can_be_read_by_whoever_the_umask_lets(tmp_path: Path) -> None:
    artifacts = Artifacts(tmp_path)
    artifacts.keep(SPEC, KEPT)
    (tmp_path / "other").write_bytes(b"")
    assert artifacts.path(SPEC).stat().st_mode == (tmp_path / "other").stat().st_mode


# ---- what becomes of files that are being made -------------------------------------------------------------------

QUICK = {"hidden": "8", "epochs": 2, "batch": 100}
EACH_STEP = Pace(watch=0.0, keep=0.0)


def _given() -> Given:
    return Given(spec("digits", QUICK, seed=5))


def _make(folder: Path | None = None) -> Artifact:
    given = _given()
    return make(given, recipe_of(given.spec), folder and Artifacts(folder), pace=EACH_STEP)


class Broken(Exception):
    pass


def _break_at(step: int) -> Callable[[int, int], None]:
    def watch(taken: int, steps: int) -> None:
        if taken >= step:
            raise Broken

    return watch


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A folder with a training that its watch ended at step 9."""
    given = _given()
    never = Pace(watch=0.0, keep=1e9)
    with pytest.raises(Broken):
        make(given, recipe_of(given.spec), Artifacts(tmp_path), watch=_break_at(9), pace=never)
    return tmp_path


@pytest.mark.parametrize("damage", ["one bit", "too large"])
@pytest.mark.parametrize("finished", [False, True], ids=["state", "finished"])
def test_a_damaged_file_is_set_aside_and_made_again(broken: Path, damage: str, finished: bool) -> None:
    given, artifacts = _given(), Artifacts(broken)
    if finished:
        _make(broken)
    path = artifacts.path(given.spec) if finished else artifacts.state_path(given.spec)
    data = path.read_bytes()
    damaged = data + bytes(2 * MOST_BESIDE) if damage == "too large" else DAMAGES[damage](data)
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match="made again: its file could not be used") as warned:
        again = _make(broken)
    assert len(warned) == 1
    assert again.digest == _make().digest and again.steps == _make().steps
    [aside] = broken.glob("*.unusable-*")
    assert str(aside) in str(warned[0].message) and aside.read_bytes() == damaged
    assert _make(broken).steps == 0  # no warning any more


@pytest.mark.parametrize("note", [{"step": 10**9}, {}], ids=str)
def test_a_state_that_there_cannot_be_is_set_aside_too(broken: Path, note: dict[str, Any]) -> None:
    given, artifacts, whole = _given(), Artifacts(broken), _make().digest
    state = recipe_of(given.spec).start(given)
    arrays = state.arrays()
    strange = [{name: np.full_like(arrays[name], 255)} for name in ("order", "random")]
    for change in [{}] if note else strange:
        artifacts.keep_state(given.spec, ArtifactFile({**arrays, **change}, {**state.note(), **note}))
        with pytest.warns(UserWarning, match="random number generators" if change else "a status, and counts"):
            assert _make(broken).digest == whole
        artifacts.path(given.spec).unlink()


@contextmanager
def _small_files_alone(size: int) -> Generator[None]:
    """A block in which no file can be longer: what a full disk is to whoever writes."""
    before, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (before, most))


def test_on_a_full_disk_nothing_is_lost(broken: Path) -> None:
    before = {file: file.read_bytes() for file in broken.iterdir() if file.is_file()}
    with _small_files_alone(2_000), pytest.raises(StoreError, match="cannot be written"):
        _make(broken)
    assert {file: file.read_bytes() for file in broken.iterdir() if file.is_file()} == before
    whole, resumed = _make(), _make(broken)
    assert resumed.digest == whole.digest and resumed.steps == whole.steps - 9


def test_one_makes_and_the_others_wait(tmp_path: Path) -> None:
    # Threads: each has an open file of its own, as a process has. Nets of pictures can be made in threads.
    given = Given(spec("picture", {"picture": "face", "size": 8, "layout": "1;sin:3", "steps": 40}, seed=1))
    met = threading.Barrier(3, timeout=60)

    def made(at: int) -> int:
        met.wait()
        return make(given, recipe_of(given.spec), Artifacts(tmp_path), pace=EACH_STEP).steps

    with ThreadPoolExecutor(3) as pool:
        assert sorted(pool.map(made, range(3))) == [0, 0, 40]
