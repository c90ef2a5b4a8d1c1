"""Judging from a store alone: no model, no torch."""

from pathlib import Path

import msgspec

from wheeltap.audits.settle import judge as judged
from wheeltap.audits.settle import wanted
from wheeltap.core.errors import StoreError
from wheeltap.core.records import Cost, Scalar
from wheeltap.plans.outcomes import Outcomes
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Store
from wheeltap.report.report import Report
from wheeltap.report.unfinished import unfinished


def noted(store: Store) -> dict[str, Scalar]:
    """The provenance kept with the run."""
    note = store.note("provenance")
    return {} if note is None else msgspec.json.decode(note, type=dict[str, Scalar])


def plan_of(store: Store) -> Plan:
    """The plan a store was last run with.

    Raises:
        StoreError: If nothing was ever run into it.
    """
    data = store.plan()
    if data is None:
        raise StoreError(
            "The store holds no plan.",
            where=str(store.path),
            do="Run an audit into it first: wheeltap audit ... --store",
        )
    return Plan.from_bytes(data, where=str(store.path))


def judge(store: str | Path, *, again: str = "") -> Report:
    """The report on the plan a store was last run with, from what is there; it says so first if trials are missing.

    Args:
        store: The file.
        again: How the run was started, to be told where it is not over.

    Raises:
        MissingFile: If there is no store.
        StoreError: If it cannot be read or holds no plan.
    """
    with Store(store, readonly=True) as kept:
        plan, known = plan_of(kept), Outcomes(kept)
        asked = wanted(plan, known)
        reused = sum(known(trial.key) is not None for trial in asked)
        cost = Cost(forwards=0.0, seconds=0.0, trials=0, reused=reused)
        found = judged(plan, known, cost=cost, provenance=noted(kept))
        return Report(unfinished(found, len(asked) - reused, again=again))
