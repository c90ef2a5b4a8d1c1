"""Dependence on the order of the file: ten rows per patient are noticed, independent examples are not."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import wheeltap as wt
from tests.doors.test_doors_tasks import linear
from wheeltap.stats.serial import serial_groups, strata_of


def patients(rng: np.random.Generator, *, alike: float, examples: int = 1000) -> NDArray[Any]:
    of_patient = rng.normal(size=examples)[np.arange(examples) // 10]
    values = np.sqrt(alike) * of_patient + np.sqrt(1 - alike) * rng.normal(size=examples)
    return np.stack([(values < 1.0) * 1.0, np.exp(values)])


def test_rows_of_one_patient_in_file_order_are_noticed() -> None:
    rng = np.random.default_rng(0)
    groups = [serial_groups(patients(rng, alike=0.3), np.zeros(1000, dtype=int)) for _ in range(8)]
    sizes = [np.bincount(one)[0] for one in groups if one is not None]
    assert len(sizes) == 8 and 6 <= np.median(sizes) <= 25
    shuffled = patients(rng, alike=0.3)[:, rng.permutation(1000)]
    assert serial_groups(shuffled, np.zeros(1000, dtype=int)) is None


@pytest.mark.parametrize(("examples", "right"), [(60, 0.9), (300, 0.98), (600, 0.8)])
def test_independent_examples_are_not(examples: int, right: float) -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(100):
        values: NDArray[Any] = np.stack([(rng.random(examples) < right) * 1.0, rng.exponential(size=examples)])
        alarms += serial_groups(values, rng.integers(5, size=examples)) is not None
    assert alarms <= 3


def test_a_file_sorted_by_class_or_target_is_not() -> None:
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(50):
        classes = np.sort(rng.integers(10, size=500))
        right: NDArray[Any] = (rng.random(500) < np.linspace(0.5, 0.99, 10)[classes]) * 1.0
        alarms += serial_groups(right[None], strata_of(classes)) is not None
        numbers = np.sort(rng.normal(size=500))
        errors = np.square(numbers * rng.normal(size=500))
        alarms += serial_groups(errors[None], strata_of(numbers)) is not None
    assert alarms <= 3


def test_an_audit_uses_blocks_of_the_file_and_says_so() -> None:
    rng = np.random.default_rng(3)
    patient = np.repeat(np.arange(80), 10)
    means = rng.normal(size=(80, 4))[patient]
    inputs = torch.tensor(np.sqrt(0.7) * means + np.sqrt(0.3) * rng.normal(size=(800, 4)), dtype=torch.float32)
    noise = 2.0 * rng.normal(size=(80, 3))[patient]
    targets = torch.tensor((inputs.numpy()[:, :3] + noise).argmax(1))
    net = linear(torch.eye(4)[:3])
    report = wt.audit(net, (inputs, targets), schemes="int8")
    task = report.record.task
    assert task.found is not None and "follow each other in the file" in task.found
    assert "which count as about" in report.text()
    alone = wt.audit(net, wt.Task(inputs, targets, groups=range(800)), schemes="int8")
    assert alone.record.task.found is None and "Assumes independent examples" in alone.text()
