"""Every reading of ours keeps the contract, and what does not fit a spec is refused."""

from typing import Any

import numpy as np
import pytest

from wheeltap.engine import readings
from wheeltap.engine.readings import base
from wheeltap.plans.readings import Array, ReadingSpec
from wheeltap.testing.contract import ReadingContract

SETTINGS: dict[str, dict[str, Any]] = {
    "cancellation": {"pairs": 2},
    "unit-effects": {"limit": 16},
    "single-point": {"nulls": 4},
    "parts": {"nulls": 2, "draws": 1, "tries": 1},
    "symmetry-response": {"weights": 4, "directions": 2},
    "input-search": {"passes": 8, "doses": 2},
}
"""Of readings that would take long with their defaults."""

# Heads are read by tests of their own, of models that attend.
for _name in sorted(set(base.BUILTIN) - {"head-effects"}):
    _held = {"reading": readings.readings.get(_name), "settings": SETTINGS.get(_name, {})}
    globals()[f"Test {_name}"] = type(f"Test{_name}", (ReadingContract,), _held)


SPEC = ReadingSpec(
    "made-up",
    "Made up",
    {
        "one": Array("unit example", "numbers"),
        "two": Array("unit", "whole numbers", "count"),
        "three": Array("", "a flag", "flag", optional=True),
        "four": Array("unit", "states", "count", of=("off", "on"), optional=True),
    },
)
FITS = {"one": np.ones((2, 3)), "two": np.arange(2.0)}


def test_arrays_that_do_not_fit_are_refused() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"one": np.ones(2)}, r"one has shape \(2,\), where \[unit example\] was declared"),
        ({"one": np.ones((2, 4))}, "one has 4 along 'example', where the task has 3"),
        ({"two": np.arange(3.0)}, "two has 3 along 'unit', where other arrays have 2"),
        ({"two": np.array([0.5, 1.0])}, "two holds what is no count"),
        ({"three": np.array(2)}, "three holds what is no flag"),
        ({"four": np.array([0, 2])}, "four holds numbers that stand for nothing"),
        ({"five": np.ones(2)}, "made-up declares no array 'five'"),
    ]
    for changed, message in wrong:
        with pytest.raises(ValueError, match=message):
            SPEC.typed({**FITS, **changed}, examples=3)
    with pytest.raises(ValueError, match="made-up gives no two"):
        SPEC.typed({"one": FITS["one"]}, examples=3)
