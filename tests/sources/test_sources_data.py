"""Tasks from files: what is read, and the errors of files that are not what they should be."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from letters import Letters

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, FileFormatError, MissingFile, UsageError
from wheeltap.core.task import BaseTask, Task
from wheeltap.sources import load_task
from wheeltap.sources.arrays import load_arrays

STILL = np.arange(4)
SWAPPED = np.stack([STILL, STILL[::-1]])


def arrays(folder: Path, **more: Any) -> BaseTask:
    """A task of four examples, with these arrays beside or in place of its own."""
    held = {"inputs": np.eye(4, dtype=np.float32), "targets": STILL, **more}
    np.savez(folder / "own.npz", **{name: one for name, one in held.items() if one is not None})
    return load_task(folder / "own.npz")


def items(folder: Path, *lines: object) -> BaseTask:
    """A task of these lines."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "own.jsonl").write_text("\n".join(texts) + "\n")
    return load_task(folder / "own.jsonl", tokenizer=Letters())


# ---- arrays ----------------------------------------------------------------------------------------------------


def test_arrays_are_read_in_the_types_that_torch_uses(tmp_path: Path) -> None:
    inputs = np.arange(12.0).reshape(4, 3).astype(">f8")
    task = arrays(tmp_path, inputs=inputs, targets=np.array([0, 1, 2, 0], dtype=np.uint8))
    assert isinstance(task, Task) and isinstance(task.inputs, torch.Tensor)
    assert task.inputs.dtype == torch.float32 and task.targets.dtype == torch.int64
    assert task.inputs.tolist() == inputs.tolist() and task.targets.tolist() == [0, 1, 2, 0]
    assert task.name == "own"
    assert arrays(tmp_path, targets=np.ones((4, 1), dtype=np.float32)).measure.name == "squared_error"


def test_arrays_beside_the_examples_are_known_of_them(tmp_path: Path) -> None:
    odd, votes = np.array([0, 1, 0, 1], dtype=np.uint8), np.array([[2, 1], [0, 3], [1, 1], [4, 0]], dtype=np.uint8)
    plain = arrays(tmp_path)
    factors = arrays(tmp_path, factor_odd=odd, factor_big=np.array([False, True] * 2))
    assert plain.annotations.factors == {}
    assert {name: labels.tolist() for name, labels in factors.annotations.factors.items()} == {
        "odd": [0, 1, 0, 1],
        "big": [0, 1, 0, 1],
    }
    moved = arrays(tmp_path, symmetry=SWAPPED)
    assert moved.annotations.symmetry is not None and moved.annotations.symmetry.order == 2
    voted = [arrays(tmp_path, **{name: votes}) for name in ("votes", "ordinal_votes")]
    for task in voted:
        assert task.annotations.votes is not None and task.annotations.votes.tolist() == votes.tolist()
    assert [task.annotations.ordinal for task in voted] == [False, True]
    assert len({task.digest for task in (plain, factors, moved, *voted)}) == 5


BAD_ARRAYS: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"targets": None}, FileFormatError),
    ({"targets": np.array([1, "a", None, 0], dtype=object)}, FileFormatError),
    ({"targets": np.array([0, 1])}, DataError),
    ({"inputs_x": np.ones((4, 2))}, DataError),
    ({"targets": np.full((4, 2), 2), "mask": np.ones((4, 3))}, DataError),
    ({"inputs": np.array([[1.0], [np.nan], [2.0], [3.0]])}, DataError),
    ({"inputs": np.ones((0, 2)), "targets": np.zeros(0, dtype=int)}, DataError),
    ({"factor_odd": np.array([0, 1, 0])}, DataError),
    ({f"factor_{at}": STILL for at in range(65)}, DataError),
    ({"votes": np.array([[2, 1], [0, 0], [1, 1], [4, 0]])}, DataError),
    ({"symmetry": np.stack([STILL, STILL * 0])}, DataError),
    ({"symmetry": SWAPPED[:, 1:3] - 1}, DataError),
    ({"symmetry": np.stack([STILL, STILL + 1])}, DataError),
]


def test_arrays_that_make_no_task(tmp_path: Path) -> None:
    for more, error in BAD_ARRAYS:
        with pytest.raises(error):
            arrays(tmp_path, **more)


def test_an_array_that_unpacks_to_too_much_is_refused_from_its_header(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, inputs=np.zeros((64, 2**20), np.uint8), targets=np.zeros(64, dtype=int))
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match="inputs"):  # as int64
        load_arrays(path)


def test_a_damaged_npz(tmp_path: Path) -> None:
    path = tmp_path / "bad.npz"
    np.savez_compressed(path, inputs=np.random.default_rng(0).random((100, 20)), targets=np.zeros(100, dtype=int))
    data = path.read_bytes()
    flipped = [data[:at] + bytes([data[at] ^ 255]) + data[at + 1 :] for at in (60, 400, 900)]
    for content in (b"", b"not an archive", b"PK\x03\x04 cut short", data[:-300], *flipped):
        path.write_bytes(content)
        with pytest.raises(FileFormatError):
            load_task(path)


# ---- files of any kind -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["data.npz", "data.bin"])
def test_a_pickle_is_refused_whatever_it_is_called(tmp_path: Path, name: str) -> None:
    torch.save({"weight": torch.ones(3)}, tmp_path / "checkpoint")
    for data in (pickle.dumps({"inputs": [1]}), (tmp_path / "checkpoint").read_bytes()):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(FileFormatError, match="pickle"):
            load_task(tmp_path / name, tokenizer=Letters())


def test_files_of_no_use(tmp_path: Path) -> None:
    for name in ("none.npz", "none.jsonl"):
        with pytest.raises(MissingFile):
            load_task(tmp_path / name, tokenizer=Letters())
    (tmp_path / "data.csv").write_text("a,b\n")
    (tmp_path / "data.jsonl").write_text("{}\n")
    with pytest.raises(UsageError):
        load_task(tmp_path / "data.csv")
    with pytest.raises(UsageError):
        load_task(tmp_path / "data.jsonl")


# ---- items -----------------------------------------------------------------------------------------------------

SUM: dict[str, Any] = {"context": "2 + 2 =", "choices": [" 4", " 5"], "answer": 0}
CAPITAL: dict[str, Any] = {"context": "The capital is", "choices": [" Rome", " Paris"], "answer": " Paris"}


def test_items_are_tokenised_apart_and_answers_may_be_texts(tmp_path: Path) -> None:
    task = items(tmp_path, SUM, "", CAPITAL)
    assert isinstance(task, ChoiceTask)
    assert [list(context) for context in task.contexts] == [Letters().start(one["context"]) for one in (SUM, CAPITAL)]
    options = [[Letters().more(text) for text in one["choices"]] for one in (SUM, CAPITAL)]
    assert [[list(option) for option in one] for one in task.choices] == options
    assert task.targets.tolist() == [0, 1]
    assert task.annotations.factors == {} and task.annotations.votes is None


def test_lines_may_have_factors_and_votes(tmp_path: Path) -> None:
    task = items(
        tmp_path,
        {**SUM, "factors": {"odd": 0, "big": 3}, "votes": [2, 1]},
        {**SUM, "factors": {"big": 1, "odd": 1}, "votes": [0, 3]},
    )
    known = task.annotations
    assert {name: labels.tolist() for name, labels in known.factors.items()} == {"odd": [0, 1], "big": [3, 1]}
    assert known.votes is not None and known.votes.tolist() == [[2, 1], [0, 3]]


BAD_LINES: list[tuple[tuple[object, ...], type[Exception]]] = [
    ((SUM, CAPITAL, "{not json"), FileFormatError),
    ((SUM, CAPITAL, '{"context": "2 + 2 ="}'), FileFormatError),
    ((SUM, CAPITAL, {**SUM, "answer": 2}), DataError),
    ((SUM, CAPITAL, {**SUM, "answer": True}), FileFormatError),
    ((SUM, CAPITAL, {**SUM, "choices": [" 4", " 5", " Rome"]}), DataError),
    ((SUM, CAPITAL, {**SUM, "choices": [" 4", " 4"]}), DataError),
    (({**SUM, "factors": {"odd": 0}}, {**SUM, "factors": {"even": 0}}), DataError),
    (({**SUM, "factors": {str(at): 0 for at in range(65)}},), DataError),
    (({**SUM, "factors": {"odd": 2**63}},), DataError),
    (({**SUM, "votes": [2, 1]}, SUM), DataError),
]


def test_a_bad_line_is_named_by_its_number(tmp_path: Path) -> None:
    for lines, error in BAD_LINES:
        with pytest.raises(error, match=f"line {len(lines)}"):
            items(tmp_path, *lines, SUM)
    (tmp_path / "bad.jsonl").write_bytes(json.dumps(SUM).encode() + b'\n{"context": "\xff\xfe"}\n')
    with pytest.raises(FileFormatError, match="line 2"):
        load_task(tmp_path / "bad.jsonl", tokenizer=Letters())


def test_a_file_without_items_and_what_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    for content in (b"", b"\n\n  \n", json.dumps(SUM).encode() + b"\n" + b" " * 1_000_002):
        path.write_bytes(content)
        with pytest.raises(DataError):
            load_task(path, tokenizer=Letters())
    with path.open("wb") as file:
        file.truncate(300_000_000)
    with pytest.raises(DataError):
        load_task(path, tokenizer=Letters())
