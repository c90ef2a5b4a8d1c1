"""Outcomes as these tests store them, whether what comes back is the same to the bit, and what an audit says."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

import wheeltap as wt
from wheeltap.core.records import Outcome
from wheeltap.plans.store import Store

LITTLE = wt.Effort(draws=3, control_draws=3, block_draws=2)

AUDITS = ("score", "relative-noise", "function-noise", "quantization", "pruning")
"""One pass a trial, so that passes can be counted against outcomes."""


def outcome(key: str, *values: float) -> Outcome:
    return Outcome(
        key=key, status="done", values={"nll": np.array(values, dtype=np.float32)}, seconds=0.25, forwards=1.0
    )


def same(a: Outcome | None, b: Outcome) -> bool:
    def bits(one: Outcome | None) -> object:
        if one is None:
            return None
        arrays = {name: (v.shape, v.dtype, v.tobytes()) for name, v in one.values.items()}
        return one.key, one.status, one.seconds, one.forwards, one.because, arrays

    return bits(a) == bits(b)


def judged(report: wt.Report) -> object:
    """What an audit says, without its cost."""
    return report.findings, report.controls, report.record.curves, report.record.blocks


def changed(path: Path, *statements: str, values: tuple[object, ...] = ()) -> Path:
    """A database after statements of SQL, the values put into each."""
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement, values)
        db.commit()
    return path


def stored(path: Path) -> dict[str, Outcome]:
    """Every outcome of a store by its key."""
    with Store(path, readonly=True) as store:
        outcomes = [store.get(key) for key in store.keys()]  # noqa: SIM118 - a Store is no mapping
    return {outcome.key: outcome for outcome in outcomes if outcome is not None}
