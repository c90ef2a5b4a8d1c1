"""Null comparisons: how often is a network told apart from a copy that computes the same function?"""

from typing import Any

import msgspec
import numpy as np
from scipy import stats

from benchmarks.validity.nets import kinds, net
from wheeltap import gauge
from wheeltap.core.subject import Subject
from wheeltap.plans.plan import AuditSpec, Effort
from wheeltap.runs import loop, planning
from wheeltap.testing import zoo
from wheeltap.testing.planted import Planted

SILENT = ("permute", "rescale", "heads", "fold")
"""Gauges on which every instrument that is tried here says it is silent."""

AUDITS = (
    AuditSpec(name="score"),
    AuditSpec(name="relative-noise", settings={"rungs": [-2, 0, 2], "block_map": False}),
    AuditSpec(name="function-noise", settings={"rungs": [-2, 0, 2], "block_map": False}),
    AuditSpec(name="redundancy"),
    AuditSpec(name="entanglement"),
    AuditSpec(name="single-point"),
)


def _kinds() -> tuple[str, ...]:
    """Architectures that are compared: beside those of all pages one whose layers rescaling moves apart."""
    return (*kinds(), "depthwise")


def _case(kind: str, seed: int) -> Planted:
    if kind == "depthwise":
        return zoo.made(kind, seed=seed % 5)
    return net(kind, seed % 5 if kind in ("mlp", "cnn") else 0)


def _alarms(kind: str, seed: int) -> list[str]:
    """Codes that were found between a network and a twin of its own."""
    case = _case(kind, seed)
    family = gauge.find(case.subject.model)
    assert isinstance(family, gauge.Family)
    made = gauge.describe(family, *(name for name in SILENT if name in family.offers), seed=seed)
    pair = [case.subject, Subject(gauge.twin(case.subject.model, made), name="twin")]
    plan = planning.plan(
        pair, case.task, audits=AUDITS, effort=Effort(draws=8, control_draws=8, block_draws=0), seed=seed
    )
    plan = msgspec.structs.replace(plan, twin=None, planted=None, graded=())
    report = loop.run(plan, pair, case.task)
    return [f.code for f in report.findings if " vs " in f.subject and f.status == "found"]


def measure(*, quick: bool) -> dict[str, Any]:
    """False alarms by architecture and code, and the family-wise rate."""
    count = 8 if quick else 200
    rows = [(_kinds()[i % len(_kinds())], _alarms(_kinds()[i % len(_kinds())], i)) for i in range(count)]
    wrong = sum(bool(codes) for _, codes in rows)
    interval = stats.binomtest(wrong, count).proportion_ci()
    return {
        "comparisons": count,
        "alarms": wrong,
        "rate": wrong / count,
        "low": float(interval.low),
        "high": float(interval.high),
        "by_kind": {
            kind: [sum(bool(c) for k, c in rows if k == kind), sum(k == kind for k, _ in rows)] for kind in _kinds()
        },
        "by_code": dict(
            sorted(
                {
                    str(c): sum(c in codes for _, codes in rows) for c in np.unique([c for _, s in rows for c in s])
                }.items()
            )
        ),
    }


def told(found: dict[str, Any]) -> str:
    """The section of the page."""
    kinds_told = "\n".join(f"| {kind} | {wrong} of {count} |" for kind, (wrong, count) in found["by_kind"].items())
    codes = ", ".join(f"{code}: {count}" for code, count in found["by_code"].items()) or "none"
    return f"""## False alarms

{found["comparisons"]} comparisons of a network with a re-coded copy that computes the same function ({", ".join(SILENT)}, as far
as each architecture has them), with WT001, WT101, WT102, WT105, WT201 and WT202 and one correction over all of them at alpha .05.
Something was found in **{found["alarms"]} of {found["comparisons"]}: {found["rate"]:.1%} [{found["low"]:.1%}, {found["high"]:.1%}]**; by code: {codes}.

| network | comparisons with a false alarm |
|---|---|
{kinds_told}
"""
