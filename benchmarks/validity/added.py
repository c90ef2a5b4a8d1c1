"""Added value: what weights detect beyond outputs and disturbed inputs of equal cost, by two studies."""

from pathlib import Path
from typing import Any, Final

import wheeltap as wt
from benchmarks.studies import locks
from benchmarks.validity.page import Row, Section, table
from benchmarks.validity.pictures import dots
from wheeltap.core.records import Estimate, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.plans.plan import Effort

STUDIES: Final[dict[str, tuple[str, dict[str, Any], dict[str, Any]]]] = {
    "planted defects that change no output": (
        "detection", {"copies": 12, "defects": "cancel,super-weight"}, {"copies": 12, "defects": "cancel"},
    ),
    "password locks against wrong labels": (
        locks.Locks.name, {"seeds": 20, "shares": "0.6", "kinds": ""}, {"seeds": 12, "shares": "0.6", "kinds": ""},
    ),
}  # fmt: skip
"""By what is to be detected: the study, and its settings; last, those in a hurry."""

EFFORT: Final = Effort(draws=16, control_draws=4)
"""Of locks: 160 noisy copies of each net."""

LEAST: Final = 0.02
"""Gain in AUC from which weights add something."""


def measure(stores: Path, *, quick: bool) -> dict[str, Any]:
    """Every gain in AUC that a rule of these studies is about, with its verdict."""
    locks.registered()
    found: dict[str, Any] = {}
    for what, (name, full, small) in STUDIES.items():
        store = stores / f"{name}{'-quick' if quick else ''}.wheeltap"
        effort = EFFORT if name == locks.Locks.name else None
        found[what] = _gains(wt.study(name, settings=small if quick else full, store=store, effort=effort).record)
    return found


def _gains(record: ReportRecord) -> list[dict[str, Any]]:
    assert record.study is not None
    gains = {(rule.code, rule.title) for rule in record.study.rules if rule.statistic in ("added", "mean")}
    return [_row(one, one.estimates[0]) for one in record.findings if (one.code, one.title) in gains and one.estimates]


def _row(finding: Finding, gain: Estimate) -> dict[str, Any]:
    return {
        "name": finding.title, "code": finding.code, "value": gain.value, "low": gain.low, "high": gain.high,
        "status": finding.status, "n": gain.n,
    }  # fmt: skip


def section(found: dict[str, Any]) -> Section:
    """What the page says of it."""
    rows = [{**one, "name": f"{what}: {one['name']}"} for what, gains in found.items() for one in gains]
    return Section(
        title="Added value beyond outputs and disturbed inputs",
        rows=tuple(_summary(what, gains) for what, gains in found.items()),
        text=f"""A claim that disturbed weights *detect* something is worth what it adds to scores that cost no look at the weights:
plain outputs, and disturbed inputs with at least as many passes. Gain in AUC of scores on items that were not fitted, with 95 %
intervals over nets. Added value is a gain shown to be above {LEAST:g}; without, the verdict is "no evidence of added value".""",
        tables={
            "Every gain": table(
                ["to detect", "by", "gain in AUC", "nets or pairs", "verdict"],
                [
                    [what, f"{one['name']} ({one['code']})", _show(one), str(one["n"]), _said(one)]
                    for what, gains in found.items()
                    for one in gains
                ],
            )
        },
        pictures={"added-value": dots([one for one in rows if one["low"] is not None], title="gain in AUC",
                                      at=(0.0, LEAST))},
    )  # fmt: skip


def _summary(what: str, gains: list[dict[str, Any]]) -> Row:
    best = max(gains, key=lambda one: one["value"])
    sure = [one["code"] for one in gains if one["status"] == "found"]
    return Row(
        f"weights add to the detection of {what}", f"best: {best['name']}, {_show(best)}",
        f"yes: {', '.join(dict.fromkeys(sure))}" if sure else _said(best),
    )  # fmt: skip


def _said(one: dict[str, Any]) -> str:
    if one["status"] == "found":
        return "adds"
    return "adds nothing" if one["status"] == "excluded" else "no evidence of added value"


def _show(one: dict[str, Any]) -> str:
    low, high = ("open" if end is None else f"{end:+.3f}" for end in (one["low"], one["high"]))
    return f"{one['value']:+.3f} [{low}, {high}]"
