"""Tasks from files: what is read, and the errors of files that are not what they should be."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, FileFormatError, MissingFile, UsageError
from wheeltap.core.task import Task
from wheeltap.sources import load_task
from wheeltap.sources.arrays import load_arrays

WORDS = {" 4": 1, " 5": 2, "2 + 2 =": 3, " Paris": 4, " Rome": 5, "The capital of France is": 6}


class Lookup:
    """A tokenizer of whole strings, with a start token 0."""

    def start(self, text: str) -> list[int]:
        return [0, WORDS[text]]

    def more(self, text: str) -> list[int]:
        return [WORDS[text]] if text else []


def save(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def test_arrays_are_read_in_the_types_that_torch_uses(tmp_path: Path) -> None:
    inputs = np.arange(12.0).reshape(4, 3).astype(">f8")
    task = load_task(save(tmp_path / "own.npz", inputs=inputs, targets=np.array([0, 1, 2, 0], dtype=np.uint8)))
    assert isinstance(task, Task)
    assert task.inputs.dtype == torch.float32 and task.targets.dtype == torch.int64
    assert task.inputs.tolist() == inputs.tolist() and task.targets.tolist() == [0, 1, 2, 0]
    assert task.name == "own"


def test_wanted_outputs_make_a_regression_task(tmp_path: Path) -> None:
    task = load_task(save(tmp_path / "r.npz", inputs=np.ones((3, 2)), targets=np.ones((3, 1), dtype=np.float32)))
    assert task.measure.name == "squared_error"


@pytest.mark.parametrize(
    ("arrays", "error", "words"),
    [
        ({"inputs": np.ones((3, 2))}, FileFormatError, "no array 'targets'"),
        ({"x": np.ones(3)}, FileFormatError, "got: x"),
        ({"inputs": np.ones((3, 2)), "targets": np.array([1, "a", None], dtype=object)}, FileFormatError, "pickle"),
        ({"inputs": np.array(["a", "b"]), "targets": np.array([0, 1])}, FileFormatError, "does not hold numbers"),
        ({"inputs": np.ones((3, 2)), "targets": np.array([0, 1])}, DataError, "differ in number"),
        ({"inputs": np.ones((3, 2)), "targets": np.zeros((3, 2), dtype=int)}, DataError, "wrong shape"),
        ({"inputs": np.array([[1.0], [np.nan]]), "targets": np.array([0, 1])}, DataError, "example 1"),
        ({"inputs": np.ones((0, 2)), "targets": np.zeros(0, dtype=int)}, DataError, "empty"),
        ({"inputs": np.float32(3.0), "targets": np.array([0])}, DataError, "no axes"),
    ],
)
def test_arrays_that_make_no_task(tmp_path: Path, arrays: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_task(save(tmp_path / "bad.npz", **arrays))


def test_an_array_that_unpacks_to_too_much_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, inputs=np.zeros((64, 2**20), np.uint8), targets=np.zeros(64, dtype=int))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"'inputs' most of all(.|\n)*at most 268,435,456 bytes"):  # as int64
        load_arrays(path)


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut short"])
def test_a_file_that_is_not_npz(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_task(path)


def test_an_npz_cut_short(tmp_path: Path) -> None:
    path = save(tmp_path / "cut.npz", inputs=np.ones((100, 20)), targets=np.zeros(100, dtype=int))
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_task(path)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("at", [60, 400, 900])
def test_an_npz_with_a_flipped_byte(tmp_path: Path, write: Callable[..., None], at: int) -> None:
    path = tmp_path / "flip.npz"
    write(path, inputs=np.random.default_rng(0).random((100, 20)), targets=np.zeros(100, dtype=int))
    data = bytearray(path.read_bytes())
    data[at] ^= 255
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="cannot be read"):
        load_task(path)


def write_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"inputs": [1]}))


def write_checkpoint(path: Path) -> None:
    torch.save({"weight": torch.ones(3)}, path)


@pytest.mark.parametrize("write", [write_pickle, write_checkpoint])
@pytest.mark.parametrize("name", ["data.npz", "data.jsonl", "data.pkl", "data.pt", "data.bin"])
def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    with pytest.raises(FileFormatError, match="pickle, which can run any code"):
        load_task(tmp_path / name, tokenizer=Lookup())


@pytest.mark.parametrize("name", ["none.npz", "none.jsonl"])
def test_a_data_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    with pytest.raises(MissingFile, match="no data file at this path"):
        load_task(tmp_path / name, tokenizer=Lookup())


def test_other_endings_and_text_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("a,b\n")
    (tmp_path / "data.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="kind of data file"):
        load_task(tmp_path / "data.csv")
    with pytest.raises(UsageError, match="Text cannot be read"):
        load_task(tmp_path / "data.jsonl")


GOOD = {"context": "2 + 2 =", "choices": [" 4", " 5"], "answer": 0}
CAPITAL = {"context": "The capital of France is", "choices": [" Rome", " Paris"], "answer": " Paris"}


def lines(path: Path, *items: object) -> Path:
    path.write_text("\n".join(item if isinstance(item, str) else json.dumps(item) for item in items) + "\n")
    return path


def test_items_are_tokenised_apart_and_answers_may_be_texts(tmp_path: Path) -> None:
    task = load_task(lines(tmp_path / "own.jsonl", GOOD, "", CAPITAL), tokenizer=Lookup())
    assert isinstance(task, ChoiceTask)
    assert task.contexts == ((0, 3), (0, 6))
    assert task.choices == (((1,), (2,)), ((5,), (4,)))
    assert task.targets.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("bad", "error", "words"),
    [
        ("{not json", FileFormatError, "line 3"),
        ("[1, 2]", FileFormatError, "line 3"),
        ('{"context": "2 + 2 ="}', FileFormatError, "line 3(.|\n)*choices"),
        ({**GOOD, "choices": [" 4", 5]}, FileFormatError, "line 3"),
        ({**GOOD, "answer": 2}, DataError, "line 3(.|\n)*none of the choices|none of the choices(.|\n)*line 3"),
        ({**GOOD, "answer": -1}, DataError, "none of the choices(.|\n)*line 3"),
        ({**GOOD, "answer": "4"}, DataError, "none of the choices(.|\n)*line 3"),
        ({**GOOD, "answer": True}, FileFormatError, "line 3"),
        ({**GOOD, "choices": [" 4"]}, DataError, "wrong number of choices(.|\n)*line 3"),
        ({**GOOD, "choices": [" 4", " 5", " Rome"]}, DataError, "wrong number of choices(.|\n)*line 3"),
        ({**GOOD, "choices": [" 4", " 4"]}, DataError, "same choice twice(.|\n)*line 3"),
        ({**GOOD, "choices": [" 4", ""]}, DataError, "no tokens(.|\n)*line 3"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, bad: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        load_task(lines(tmp_path / "bad.jsonl", GOOD, CAPITAL, bad, GOOD), tokenizer=Lookup())


def test_a_line_of_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(json.dumps(GOOD).encode() + b'\n{"context": "\xff\xfe"}\n')
    with pytest.raises(FileFormatError, match="line 2"):
        load_task(tmp_path / "bad.jsonl", tokenizer=Lookup())


@pytest.mark.parametrize("content", ["", "\n\n  \n"])
def test_a_file_without_items(tmp_path: Path, content: str) -> None:
    (tmp_path / "empty.jsonl").write_text(content)
    with pytest.raises(DataError, match="data file is empty"):
        load_task(tmp_path / "empty.jsonl", tokenizer=Lookup())


def test_a_line_and_a_file_that_are_too_long(tmp_path: Path) -> None:
    (tmp_path / "long.jsonl").write_bytes(json.dumps(GOOD).encode() + b"\n" + b" " * 1_000_002)
    with pytest.raises(DataError, match="line 2"):
        load_task(tmp_path / "long.jsonl", tokenizer=Lookup())
    with (tmp_path / "huge.jsonl").open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(DataError, match="file is too large"):
        load_task(tmp_path / "huge.jsonl", tokenizer=Lookup())
