"""Checks on the instruments of a picture study: nets whose right answer is known beforehand."""

from typing import Final

import numpy as np

from wheeltap.audits.case import Case
from wheeltap.core.records import Control, Estimate, Trial
from wheeltap.stats.members import Single
from wheeltap.studies.table import Numbers, Table

SAME: Final = 1e-9
"""Largest difference between a genome and its layered net, both computed in double precision: in hue, saturation or
brightness, as a share of the largest value that this has in the picture where that is above 1."""

RECODED: Final = {
    "unit_parity": 1e-3,
    "feature_symmetry": 1e-3,
    "effective_rank": 1e-2,
    "roughness": 1e-3,
}
"""What a net with its units in another order must have too, and to what; of the responses, the sample is another."""

SMALLEST: Final = 1e-6
"""Of numbers that are compared as shares: below it there is only rounding."""

FULLY: Final = 0.999
"""Symmetry that nets must be found to have that read |x|."""


def same_function(case: Case, graph: Trial) -> Control:
    """Does the layered net draw what the graph draws?"""
    name, outcome = "the layered net draws what the graph draws", case.outcome(graph)
    if outcome is None or outcome.status != "done":
        why = "The graph was not read." if outcome is None else outcome.because
        return Control(name=name, kind="gate", status="skipped" if outcome is None else "failed", because=why)
    gap, rmse = (float(outcome.values.get(key, np.inf)) for key in ("gap", "rmse"))
    numbers = {
        ("largest_difference", "share of hue, saturation or brightness"): gap,
        ("picture_in_single_precision", "root mean square of color"): rmse,
    }
    rounded = f"off by a root mean square of {rmse:.1e} in color" if np.isfinite(rmse) else "not finite everywhere"
    return Control(
        name=name, kind="gate", status="passed" if gap <= SAME else "failed",
        estimates=tuple(Estimate.exact(name, n, unit) for (name, unit), n in numbers.items() if np.isfinite(n)),
        because=f"In double precision, and with weights rounded to single precision in both, they differ by at most "
        f"{gap:.1e} of the range of hue, saturation or brightness at any pixel ({SAME:g} is allowed). In single "
        f"precision, in which nets are measured, the picture is {rounded}.",
    )  # fmt: skip


def recoded(own: Numbers, twin: Numbers) -> Control:
    """Has a copy with its units in another order the same numbers?"""
    name, compared = "WT206, WT207 reparametrized copy", {key: m for key, m in RECODED.items() if key in {*own, *twin}}
    if not compared:
        because = f"It takes one of {', '.join(RECODED)}, and the net has none."
        return Control(name=name, kind="null", status="skipped", because=because)
    gaps = {key: _gap(own.get(key), twin.get(key)) for key in compared}
    failed = [key for key, most in compared.items() if gaps[key] > most]
    worst = max(gaps.values())
    told = f"they differ by at most {worst:.1e}" if np.isfinite(worst) else "one has a number that the other has not"
    return Control(
        name=name, kind="null", status="failed" if failed else "passed",
        estimates=(Estimate.exact("largest_difference", worst, "share of the number"),) if np.isfinite(worst) else (),
        because="A copy with the units of each block in another order computes the same function and must have the "
        f"same numbers: {told}{f' ({failed[0]})' if failed else ''}; compared were {', '.join(compared)}.",
    )  # fmt: skip


def _gap(own: Single | None, twin: Single | None) -> float:
    """As a share of the number; infinite where one of them is none."""
    if own is None or twin is None:
        return np.inf
    gap = abs(twin.value - own.value) / max(abs(own.value), SMALLEST)
    return gap if np.isfinite(gap) else np.inf


def symmetric_inputs(table: Table, folded: str, *, mirror: bool) -> Control:
    """Do nets that read |x| answer with full symmetry, as they must?

    Args:
        table: The numbers.
        folded: Name of these nets' cohort.
        mirror: Whether the picture's symmetry is the mirror left-right.
    """
    name = f"WT204, WT206 {folded} nets are symmetric"
    keys = ("response_symmetry", "feature_symmetry", "unit_parity")
    there = any(cohort.name == folded for cohort in table.cohorts)
    found = [value for key in keys for value in table.values(folded, key)] if there else []
    if not found or not mirror:
        because = f"It takes trained {folded} nets and a picture whose symmetry is the mirror left-right."
        return Control(name=name, kind="planted", status="skipped", because=because)
    least = min(found)
    return Control(
        name=name, kind="planted", status="passed" if least >= FULLY else "failed",
        estimates=(Estimate.exact("least_symmetry", least, "share"),),
        because=f"A net that reads |x| can only draw mirror images: every symmetry must be 1. The least is {least:.5f} "
        f"(fails below {FULLY:g}).",
    )  # fmt: skip


def training(case: Case) -> Control:
    """How training went: starts that were lost are counted."""
    makings = [case.outcome(case.plan.make(subject)) for subject in case.whole.subjects if subject.artifact is not None]
    lost = sum(int(one.values["restarts"]) for one in makings if one is not None and "restarts" in one.values)
    there = all(one is not None for one in makings)
    return Control(
        name="starts of training", kind="gate", status="passed" if there else "skipped",
        estimates=(Estimate.exact("starts_lost", float(lost), "starts", n=len(makings)),),
        because=f"Starts that were lost, and made again from another seed: {lost}.",
    )  # fmt: skip
