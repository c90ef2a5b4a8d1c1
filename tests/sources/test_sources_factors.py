"""Factors from files and of the built-in tasks: what is read, and the errors of labels that are none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.core.task import BaseTask
from wheeltap.sources import agreement, digits, load_task

WORDS = {" a": 1, " b": 2, "x": 3, "y": 4}


class Lookup:
    """A tokenizer of whole strings, with a start token 0."""

    def start(self, text: str) -> list[int]:
        return [0, WORDS[text]]

    def more(self, text: str) -> list[int]:
        return [WORDS[text]]


def arrays(path: Path, **factors: Any) -> BaseTask:
    np.savez(path / "own.npz", inputs=np.eye(4, dtype=np.float32), targets=np.arange(4), **factors)
    return load_task(path / "own.npz")


def items(path: Path, *factors: dict[str, Any]) -> BaseTask:
    lines = [
        {"context": "x", "choices": [" a", " b"], "answer": 0, **({"factors": one} if one else {})} for one in factors
    ]
    (path / "own.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return load_task(path / "own.jsonl", tokenizer=Lookup())


def test_arrays_of_factors_are_read_and_enter_the_digest(tmp_path: Path) -> None:
    plain = arrays(tmp_path)
    known = arrays(tmp_path, factor_odd=np.array([0, 1, 0, 1], dtype=np.uint8), factor_big=np.array([False, True] * 2))
    assert plain.annotations.factors == {} and plain.digest != known.digest
    assert {name: labels.tolist() for name, labels in known.annotations.factors.items()} == {
        "odd": [0, 1, 0, 1],
        "big": [0, 1, 0, 1],
    }


@pytest.mark.parametrize(
    ("labels", "error", "words"),
    [
        (np.array([0, 1, 0]), DataError, "do not fit"),
        (np.array([0.0, 1.0, 0.0, 1.0]), DataError, "do not fit"),
        (np.array([[0, 1, 0, 1]]), DataError, "do not fit"),
        (np.array(["a", "b", "a", "b"]), FileFormatError, "does not hold numbers"),
    ],
)
def test_arrays_that_are_no_labels(tmp_path: Path, labels: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        arrays(tmp_path, factor_odd=labels)


def test_too_many_arrays_of_factors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too many factors"):
        arrays(tmp_path, **{f"factor_{at}": np.arange(4) for at in range(65)})


def test_factors_of_items_are_read(tmp_path: Path) -> None:
    known = items(tmp_path, {"odd": 0, "big": 3}, {"big": 1, "odd": 1})
    assert {name: labels.tolist() for name, labels in known.annotations.factors.items()} == {
        "odd": [0, 1],
        "big": [3, 1],
    }
    assert items(tmp_path, {}, {}).annotations.factors == {}


@pytest.mark.parametrize(
    ("factors", "error", "words"),
    [
        (({"odd": 0}, {}), DataError, "other factors than the first"),
        (({"odd": 0}, {"even": 0}), DataError, "other factors than the first"),
        (({"odd": 0.5},), FileFormatError, "not an item"),
        (({"odd": "yes"},), FileFormatError, "not an item"),
        (({str(at): 0 for at in range(65)},), DataError, "too many factors"),
        (({"odd": 2**63},), DataError, "too large a number"),
    ],
)
def test_items_with_labels_that_do_not_do(
    tmp_path: Path, factors: tuple[dict[str, Any], ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        items(tmp_path, *factors)


def test_the_factors_of_the_digits_say_what_they_should() -> None:
    task = digits.task()
    known = task.annotations.factors
    assert set(known) == {"even", "left_heavy", "much_ink"}
    assert torch.equal(known["even"] == 1, task.targets % 2 == 0)
    images = task.inputs.reshape(-1, 8, 8).double()
    assert torch.equal(known["left_heavy"] == 1, images[:, :, :4].sum((1, 2)) > images[:, :, 4:].sum((1, 2)))
    assert 0.4 < float(known["much_ink"].double().mean()) < 0.6


def test_the_factors_of_agreement_say_what_they_should() -> None:
    pairs = agreement.scored()
    known = agreement.factors(pairs)
    said = {
        pair.context: tuple(int(known[name][at]) for name in ("number", "nearest", "opener"))
        for at, pair in enumerate(pairs)
    }
    assert said["The artist near the orchards beside the stations"] == (0, 1, 0)
    assert said["That night, my queens"] == (1, 1, 1)
    assert said["Only one of the statues"] == (0, 1, 0)
    assert said["On Sundays, her citizen and her thief"] == (1, 0, 1)
    assert said["Down by the river, the witch, in addition to the sailors,"] == (0, 1, 1)
    assert float(known["number"].double().mean()) == 0.5
