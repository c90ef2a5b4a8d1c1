"""Clean passes side by side: two of one model must agree, and a control copy must compute the same function."""

from dataclasses import dataclass
from typing import final

import numpy as np

from wheeltap.audits.case import Case
from wheeltap.core.records import Control, Estimate, SubjectRecord, Trial
from wheeltap.plans.plan import Plan

BASELINE_TOLERANCE = 1e-6
"""Largest difference of two clean passes, as a share of the scores' scale."""

TWIN_TOLERANCE = 1e-4
"""Largest difference between a gauge copy's scores and the original's, as a share of the scores' scale."""

COARSE = {"bfloat16": 2.0**-7, "float16": 2.0**-10}
"""The same where sums are rounded to 16 bits: two of their steps, for a copy sums the same numbers in another order."""


@final
@dataclass(frozen=True)
class _Compared:
    """Two clean passes.

    Attributes:
        gap: Largest difference of their scores, as a share of the scores' scale.
        same: Share of equal answers.
        constant: Whether every example has the same scores, so that much could differ and not be seen.
        examples: How many there are.
    """

    gap: float
    same: float
    constant: bool
    examples: int

    @property
    def estimate(self) -> Estimate:
        """The difference as a number of a control."""
        return Estimate.exact("largest_difference", self.gap, "share of the scores' scale", n=self.examples)


def _compared(case: Case, one: Trial, two: Trial) -> _Compared | None:
    """Two clean trials side by side; ``None`` where one of them has no scores."""
    outcomes = [case.outcome(trial) for trial in (one, two)]
    if any(outcome is None or "scores" not in outcome.values for outcome in outcomes):
        return None
    a, b = (outcome.values["scores"].astype(np.float64) for outcome in outcomes if outcome is not None)
    # A single output has nothing beside it in its row: its scale is that over the examples, or its own size.
    spread = a - a.mean(1 if a.shape[1] > 1 else 0, keepdims=True)
    scale = float(np.abs(spread).max()) or float(np.abs(a).max()) or 1.0
    same = float((a.argmax(1) == b.argmax(1)).mean())
    constant = len(a) > 1 and bool((a == a[0]).all())
    return _Compared(float(np.abs(a - b).max()) / scale, same, constant, len(a))


def baseline(case: Case) -> Control:
    """Do two passes without any disturbance agree?"""
    plan = case.plan
    compared = _compared(case, plan.clean(plan.reference), plan.clean(plan.reference, seed=1))
    if compared is None:
        both = [plan.clean(plan.reference, seed=seed) for seed in (0, 1)]
        if not case.known(both):
            why = "The clean passes have not run."
            return Control(name="two clean passes agree", kind="baseline", status="skipped", because=why)
        return Control(name="two clean passes agree", kind="baseline", status="failed", because="A clean pass failed.")
    failed = compared.gap > BASELINE_TOLERANCE
    words = f"Two passes without any disturbance differ by at most {compared.gap:.1e} of the scores' scale."
    return Control(
        name="two clean passes agree",
        kind="baseline",
        status="failed" if failed else "skipped" if compared.constant else "passed",
        estimates=(compared.estimate,),
        because=words if failed or not compared.constant else f"{words} {_CONSTANT} would not show either.",
    )


_CONSTANT = "But every example has the same scores, so what is random in the model, or wrong in a copy of it,"


def copies(plan: Plan, case: Case) -> list[Control]:
    """For each control subject: is it really a copy that computes the same function?"""
    found: list[Control] = []
    kinds = {"twin": "reparametrized copy", "planted": "planted copy"}
    for subject in (*(() if plan.twin is None else (plan.twin,)), *plan.plants):
        if subject in plan.stronger and case.outcome(plan.clean(subject)) is None:
            continue  # it was not needed
        kind = f"{kinds[subject.role]}{_strength(subject) if subject in plan.stronger else ''}"
        exact, why, estimate = same_function(case, subject)
        found.append(
            Control(
                name=f"{kind} computes the same function",
                kind="gate",
                status="passed" if exact else "skipped",
                estimates=() if estimate is None else (estimate,),
                because=why if exact else f"{why} So it is not used as a control.",
            )
        )
    return found


def _strength(subject: SubjectRecord) -> str:
    return "" if subject.made is None else f" at {subject.made.settings.get('scale', 0.0):g} times the outgoing weights"


def same_function(case: Case, subject: SubjectRecord) -> tuple[bool, str, Estimate | None]:
    """Whether a copy is exact, why it is said, and how far its scores are from the original's."""
    plan = case.plan
    compared = _compared(case, plan.clean(plan.reference), plan.clean(subject))
    if compared is None:
        return False, "The copy gave no finite answer.", None
    words = (
        f"Its scores differ by at most {compared.gap:.1e} of the scores' scale; {compared.same:.1%} of answers are "
        "equal."
    )
    tolerance = COARSE.get(subject.path.rpartition("/")[2], TWIN_TOLERANCE)
    exact = compared.gap <= tolerance and compared.same == 1.0
    if exact and compared.constant:
        return False, f"{words} {_CONSTANT} would not show.", compared.estimate
    return exact, words, compared.estimate
