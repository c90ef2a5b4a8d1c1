"""Power: how often are planted cancelling units found, and does the report say so beforehand?"""

from typing import Any

import msgspec

from wheeltap import api, gauge
from wheeltap.core.subject import Subject
from wheeltap.plans.plan import Effort
from wheeltap.runs import loop, planning
from wheeltap.sources import digits

AUDITS = ("score", "relative-noise", "redundancy")
SHARES = planning.GRADED_PAIRS
CODES = ("WT101", "WT201")


def _found(subject: Subject, share: float, seed: int) -> list[str]:
    family = gauge.find(subject.model)
    assert isinstance(family, gauge.Family)
    made = gauge.describe(family, "cancel", seed=1000 + seed, pairs=share, layers=1)
    both = [subject, Subject(gauge.twin(subject.model, made), name="planted")]
    effort = Effort(draws=32, control_draws=16, block_draws=0)
    plan = planning.plan(both, digits.task(), audits=AUDITS, effort=effort, seed=seed)
    plan = msgspec.structs.replace(plan, twin=None, planted=None, stronger=(), graded=())
    report = loop.run(plan, both, digits.task())
    return [f.code for f in report.findings if " vs " in f.subject and f.status == "found"]


def _stated(subject: Subject) -> dict[str, dict[str, float]]:
    """What a plain audit says of its power, by code and share of pairs."""
    report = api.audit(subject, digits.task(), audits=AUDITS, effort=Effort(draws=32, control_draws=16, block_draws=0))
    told: dict[str, dict[str, float]] = {}
    for control in report.controls:
        if control.name.endswith("detection power"):
            told[control.name[:5]] = {e.name.split()[4]: float(e.value or 0.0) for e in control.estimates}
    return told


def measure(*, quick: bool) -> dict[str, Any]:
    """Share of runs in which each code was found, and what was stated."""
    runs, subject = (4 if quick else 40), digits.subject()
    rows = {f"{share:.0%}": [_found(subject, share, seed) for seed in range(runs)] for share in SHARES}
    observed = {code: {p: sum(code in f for f in found) / runs for p, found in rows.items()} for code in CODES}
    return {"runs": runs, "observed": observed, "stated": _stated(subject)}


def told(found: dict[str, Any]) -> str:
    """The section of the page."""
    rows = [
        f"| {code} | {pairs} | {share:.2f} | {_show(found['stated'].get(code, {}).get(pairs))} |"
        for code, shares in found["observed"].items()
        for pairs, share in shares.items()
    ]
    table = "\n".join(rows)
    return f"""## Power

Cancelling pairs at scale 4, planted in one hidden layer at random of the digits net (64-128-128-10): the copy computes the same function.
Found by a comparison with the original, in {found["runs"]} runs with other plants and other draws; beside it what the report of a plain audit
of the original states beforehand, from three planted copies of each strength.

| code | pairs, share of the layer's units | found, share of runs | stated |
|---|---|---|---|
{table}
"""


def _show(share: float | None) -> str:
    return "not stated" if share is None else f"{share:.2f}"
