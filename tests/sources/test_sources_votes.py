"""Votes of people in data files: arrays of .npz, counts in lines of .jsonl."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wheeltap.core.errors import DataError
from wheeltap.sources.arrays import load_arrays
from wheeltap.sources.jsonl import load_items


class Letters:
    """A token for each letter."""

    def start(self, text: str) -> list[int]:
        return self.more(text)

    def more(self, text: str) -> list[int]:
        return [ord(letter) for letter in text]


def items(path: Path, *votes: list[int] | None) -> Path:
    lines: list[dict[str, Any]] = [
        {"context": "a", "choices": [" b", " c"], "answer": 0, **({} if one is None else {"votes": one})}
        for one in votes
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("name", ["votes", "ordinal_votes"])
def test_arrays(tmp_path: Path, name: str) -> None:
    votes = np.array([[2, 1], [0, 3], [1, 1]], dtype=np.uint8)
    np.savez(
        tmp_path / "x.npz", inputs=np.zeros((3, 2), dtype=np.float32), targets=np.array([0, 1, 0]), **{name: votes}
    )
    task = load_arrays(tmp_path / "x.npz")
    assert task.annotations.votes is not None and task.annotations.votes.tolist() == votes.tolist()
    assert task.annotations.ordinal == (name == "ordinal_votes")


def test_lines(tmp_path: Path) -> None:
    task = load_items(items(tmp_path / "x.jsonl", [2, 1], [0, 3]), Letters())  # type: ignore[arg-type]
    assert task.annotations.votes is not None and task.annotations.votes.tolist() == [[2, 1], [0, 3]]
    assert load_items(items(tmp_path / "y.jsonl", None, None), Letters()).annotations.votes is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("votes", "message"),
    [
        (([2, 1], None), "Some items have votes and some have none"),
        ((None, [2, 1]), "Some items have votes and some have none"),
        (([2, 1, 0], [1, 1, 1]), "votes on another number of choices"),
        (([2, 1], [0, 0]), "votes do not fit"),
    ],
)
def test_lines_that_do_not_fit(tmp_path: Path, votes: tuple[list[int] | None, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_items(items(tmp_path / "x.jsonl", *votes), Letters())  # type: ignore[arg-type]
