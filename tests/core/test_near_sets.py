"""Copies and rows of one subject are noticed by gaps in nearest-neighbor distances; independent rows are not."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import wheeltap as wt
from wheeltap.core.near_duplicates import near_sets
from wheeltap.core.repeats import lookalikes
from wheeltap.sources.arrays import load_arrays

Rows = NDArray[Any]
ORIGINALS, COPIES = 60, 10


def pictures(rng: np.random.Generator, count: int) -> Rows:
    """Two bumps of random place and height on 8 x 8 pixels."""
    x, y = np.meshgrid(np.arange(8), np.arange(8))
    bumps: list[Any] = [
        height * np.exp(-((x - a) ** 2 + (y - b) ** 2) / 4.0)
        for a, b, height in zip(*rng.uniform(0, 8, (2, 2 * count)), rng.uniform(0.5, 1.0, 2 * count), strict=True)
    ]
    return np.array(bumps).reshape(count, 2, 64).sum(1)


def tables(rng: np.random.Generator, count: int) -> Rows:
    return rng.uniform(size=(count, 12))


def effective(sets: NDArray[np.int64]) -> float:
    return len(sets) ** 2 / float(np.square(np.unique(sets, return_counts=True)[1]).sum())


def noticed(rows: Rows) -> NDArray[np.int64] | None:
    return near_sets(rows.astype(np.float32), [""] * len(rows))


@pytest.mark.parametrize("make", [pictures, tables])
@pytest.mark.parametrize("jitter", [0.0005, 0.02, 0.1])
@pytest.mark.parametrize("unequal", [False, True])
def test_jittered_copies_are_noticed_in_any_order(make: Any, jitter: float, unequal: bool) -> None:
    rng = np.random.default_rng(int(1e5 * jitter))
    times = rng.integers(1, 2 * COPIES, size=ORIGINALS) if unequal else COPIES
    groups = rng.permutation(np.repeat(np.arange(ORIGINALS), times))
    rows = make(rng, ORIGINALS)[groups]
    sets = noticed(rows + jitter * rng.normal(size=rows.shape))
    assert sets is not None
    assert effective(sets) < 1.7 * effective(groups), "copies are joined"
    if jitter < 0.1:
        assert effective(sets) > 0.6 * effective(groups), "and others are not"


def test_large_groups_and_rows_of_one_subject_are_noticed() -> None:
    rng = np.random.default_rng(1)
    many = np.repeat(np.arange(30), 100)
    sets = noticed(tables(rng, 30)[many] + 0.01 * rng.normal(size=(3000, 12)))
    assert sets is not None and effective(sets) == pytest.approx(30)
    subjects = np.repeat(np.arange(80), 10)
    rows = np.sqrt(0.9) * rng.normal(size=(80, 20))[subjects] + np.sqrt(0.1) * rng.normal(size=(800, 20))
    sets = noticed(rows)
    assert sets is not None and effective(sets) == pytest.approx(80, rel=0.1)


INDEPENDENT: dict[str, Callable[[np.random.Generator], Rows]] = {
    "normal": lambda rng: rng.normal(size=(200, 8)),
    "many columns": lambda rng: rng.normal(size=(150, 100)),
    "heavy tails": lambda rng: rng.standard_t(2, size=(200, 6)),
    "skewed": lambda rng: np.exp(rng.normal(size=(200, 8))),
    "classes": lambda rng: 6 * rng.normal(size=(5, 20))[rng.integers(5, size=200)] + rng.normal(size=(200, 20)),
    "low rank": lambda rng: rng.normal(size=(200, 3)) @ rng.normal(size=(3, 30)),
    "few values": lambda rng: rng.integers(0, 3, size=(200, 8)) * rng.uniform(0.5, 2, size=8),
    "a choice and numbers": lambda rng: np.c_[np.eye(5)[rng.integers(5, size=200)], rng.normal(size=(200, 4))],
    "pictures": lambda rng: pictures(rng, 150),
    "walk": lambda rng: rng.normal(size=(200, 8)).cumsum(0),
}


@pytest.mark.parametrize("kind", INDEPENDENT)
def test_independent_rows_are_not_taken_for_groups(kind: str) -> None:
    rng = np.random.default_rng(3)
    alarms = sum(noticed(INDEPENDENT[kind](rng)) is not None for _ in range(40))
    assert alarms <= 2


@pytest.mark.parametrize(("symbols", "length"), [(5, 3), (10, 4), (20, 4), (50, 8), (1000, 12)])
@pytest.mark.parametrize("placed", [False, True])
def test_independent_short_sequences_are_not_taken_for_groups(symbols: int, length: int, placed: bool) -> None:
    rng = np.random.default_rng(symbols)
    alarms = 0
    for _ in range(8):
        rows = rng.integers(symbols, size=(150, length))
        texts = [[f"{at}:{token}" if placed else f"{token}" for at, token in enumerate(row)] for row in rows]
        alarms += lookalikes(texts) is not None
    assert alarms == 0


@pytest.mark.parametrize("replaced", [1, 2])
def test_sequences_with_replaced_tokens_are_noticed(replaced: int) -> None:
    rng = np.random.default_rng(replaced)
    groups = rng.permutation(np.repeat(np.arange(30), 8))
    rows = rng.integers(100, size=(30, 16))[groups]
    for row in rows:
        row[rng.choice(16, replaced, replace=False)] = rng.integers(100, size=replaced)
    task = wt.Task(torch.tensor(rows), torch.arange(len(rows)) % 3).once()
    assert task.clusters is not None and effective(task.clusters.numpy()) == pytest.approx(30, rel=0.2)
    assert task.record.found is not None


def test_sets_that_are_the_classes_are_no_groups() -> None:
    rng = np.random.default_rng(4)
    kinds = rng.integers(40, size=400)
    rows = 6 * rng.normal(size=(40, 20))[kinds] + rng.normal(size=(400, 20))
    assert near_sets(rows, [""] * 400, kinds) is None
    assert near_sets(rows, [""] * 400) is not None


def test_groups_are_an_argument_of_tasks() -> None:
    inputs, targets = torch.arange(12.0)[:, None], torch.arange(12) % 2
    groups = ["a", "b", "c"] * 4
    task = wt.Task(inputs, targets, groups=groups)
    assert task.digest == wt.Task(inputs, targets).with_groups(groups).digest
    assert task.clusters is not None and len(np.unique(task.clusters.numpy())) == 3


def test_an_id_that_repeats_gives_the_groups(tmp_path: Path) -> None:
    rng, patients = np.random.default_rng(5), np.repeat([f"p{at}" for at in range(20)], 5)
    arrays: dict[str, Any] = {"inputs": rng.normal(size=(100, 4)).astype(np.float32), "targets": np.arange(100) % 2}
    for name, values, count in (
        ("patient_id", patients, 20),
        ("factor_document", np.repeat(np.arange(25), 4), 25),
        ("id", np.arange(100), None),
        ("case", np.arange(100) % 4, None),
        ("age", np.arange(100) % 40, None),
    ):
        np.savez(tmp_path / "data.npz", **{**arrays, name: values})
        task = load_arrays(tmp_path / "data.npz")
        assert (None if task.clusters is None else len(np.unique(task.clusters.numpy()))) == count, name
        assert (task.record.found is None) == (count is None)
    np.savez(tmp_path / "data.npz", **arrays, patient=patients, groups=np.arange(100) // 2)
    declared = load_arrays(tmp_path / "data.npz")
    assert (
        declared.clusters is not None
        and len(np.unique(declared.clusters.numpy())) == 50
        and declared.record.found is None
    )
