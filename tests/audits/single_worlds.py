"""Worlds of single weights, without a model: what each screen names, and what each removal costs."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from worlds import subject as record_of

import wheeltap as wt
from wheeltap.audits.base import Case
from wheeltap.audits.settle import settle
from wheeltap.audits.single_point import SinglePointAudit
from wheeltap.core.records import Finding, Outcome, TaskRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.single_point import SORTS, written

CONFIRM, NULLS, EXAMPLES, CHANCE = 3, 20, 200, 0.1
Right = Callable[[Trial, int], NDArray[np.floating]]
"""The score per example of a trial without the weight of one row (candidates 0 to 2, random ones from 100)."""


def plan_of(*names: str, measure: str = "accuracy") -> Plan:
    bounded = measure == "accuracy"
    task = TaskRecord(
        name="world", digest="task", examples=EXAMPLES, measure=measure, measures=(measure,), bounded=bounded,
        higher_is_better=bounded,
    )  # fmt: skip
    subjects = tuple(record_of(name, blocks=("front", "back")) for name in names)
    return Plan(command="audit", subjects=subjects, task=task, audits=(wt.AuditSpec(name="single-point"),))


def reading(first: int = 0) -> dict[str, NDArray[np.number]]:
    """What a subject's screen names: ``CONFIRM`` rows from ``first`` on, and random ones from 100 on."""

    def places(of: str, first: int, count: int, value: float) -> dict[str, NDArray[np.number]]:
        return {
            f"{of}_parameters": written(["back.weight"] * count),
            f"{of}_places": np.array([(first + index, 5) for index in range(count)], dtype=np.int32),
            f"{of}_sorts": np.full(count, SORTS.index("output and input"), dtype=np.int32),
            f"{of}_values": np.full(count, value, np.float32),
        }

    return {
        **places("candidate", first, CONFIRM, 2.5), **places("null", 100, NULLS, 2.0),
        "scores": np.ones(CONFIRM, np.float32), "screened": np.array(1.0, np.float32),
    }  # fmt: skip


def answered(
    plan: Plan,
    right: Right,
    *,
    clean: float = 1.0,
    chance: float = CHANCE,
    first: dict[str, int] | None = None,
) -> Case:
    """The case after everything that the audit asks for has been answered."""
    known: dict[str, Outcome] = {}
    case, audit = Case(plan, known.get), SinglePointAudit()

    def answer(trial: Trial) -> Outcome:
        if trial.kind == "clean":
            values = {plan.task.measure: np.full(EXAMPLES, clean), "chance": np.array(chance)}
            return Outcome(key=trial.key, status="done", values=values)
        if trial.perturbation == "single-point":
            named = reading((first or {}).get(trial.subject, 0))
            return Outcome(key=trial.key, status="done", values=named)
        assert (trial.perturbation, trial.dose, trial.site.layer) == ("erase", 1.0, "back.weight")
        assert trial.site.entry is not None
        _, (row, column) = trial.site.entry
        assert column == 5
        values = right(trial, row)
        if values.ndim == 0:
            return Outcome(key=trial.key, status="skipped", because="no such number")
        if not len(values):
            return Outcome(key=trial.key, status="failed", because="no memory")
        if np.isnan(values).any():
            return Outcome(key=trial.key, status="diverged")
        return Outcome(key=trial.key, status="done", values={plan.task.measure: values.astype(np.float32)})

    asked: list[Trial] = []
    for _ in range(10):
        new = [t for t in (*plan.baselines(), *audit.ask(case)) if t.key not in known]
        if not new:
            assert len(asked) <= audit.most(plan) + len(plan.baselines())
            return case
        asked += new
        known.update({trial.key: answer(trial) for trial in new})
    raise AssertionError("it never stops asking")


def single(right: Right, *, margin: float | None = None, **how: Any) -> Finding:
    [found] = settled(answered(plan_of("net"), right, **how), margin=margin)
    return found


def losing(shares: dict[int, float]) -> Right:
    """Without the weight of a row, this share of the first examples goes wrong."""
    return lambda trial, row: (np.arange(EXAMPLES) >= round(shares.get(row, 0.0) * EXAMPLES)).astype(np.float64)


def settled(case: Case, *, margin: float | None = None) -> list[Finding]:
    return settle(SinglePointAudit({"margin": margin}).judge(case).drafts, alpha=case.plan.alpha)
