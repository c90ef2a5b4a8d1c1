"""Outcomes as these tests store them, and whether what comes back is the same to the bit."""

import numpy as np

import wheeltap as wt
from wheeltap.core.records import Outcome

LITTLE = wt.Effort(draws=3, control_draws=3, block_draws=2)


def outcome(key: str, *values: float) -> Outcome:
    return Outcome(
        key=key, status="done", values={"nll": np.array(values, dtype=np.float32)}, seconds=0.25, forwards=1.0
    )


def same(a: Outcome | None, b: Outcome) -> bool:
    if a is None or (a.key, a.status, a.seconds, a.forwards, a.because) != (
        b.key,
        b.status,
        b.seconds,
        b.forwards,
        b.because,
    ):
        return False
    return a.values.keys() == b.values.keys() and all(
        a.values[name].shape == b.values[name].shape
        and a.values[name].dtype == b.values[name].dtype
        and a.values[name].tobytes() == b.values[name].tobytes()
        for name in b.values
    )
