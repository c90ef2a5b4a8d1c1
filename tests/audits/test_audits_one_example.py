"""Of tasks too small, and of readings that gave nothing, every audit says so, and no number is infinite."""

from typing import Any

import msgspec
import numpy as np
import pytest
import reports
import torch
from torch import nn

import wheeltap as wt
from wheeltap.audits.base import BUILTIN, Case, audits, create
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.audits.settle import settle
from wheeltap.core.records import Outcome, OutcomeStatus
from wheeltap.plans.plan import Plan
from wheeltap.report import jsonfile
from wheeltap.report.report import Report

SETTINGS: dict[str, dict[str, Any]] = {
    "bit-flips": {"draws": 4},
    "fine-tuning": {"doses": [1, 2], "tested": 2, "draws": 2},
    "relearning": {"group": 0, "steps": [1, 2], "benign_steps": [1], "draws": 2, "noise_draws": 2},
    "symmetry": {"weights": 4, "directions": 0, "copies": 1},
}


def nets(outputs: int, count: int) -> list[wt.Subject]:
    found: list[wt.Subject] = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, outputs)).eval()
        found.append(wt.Subject(model, name=f"net {seed}"))
    return found


def task(kind: str, count: int) -> wt.Task:
    stream = torch.Generator().manual_seed(3)
    inputs = torch.randn(count, 4, generator=stream)
    targets = torch.randn(count, 1, generator=stream) if kind == "regression" else torch.arange(count) % 3
    return wt.Task(inputs, targets, name=f"{kind} {count}")


def run(name: str, kind: str, count: int, *, several: int = 2) -> Report:
    subjects = nets(1 if kind == "regression" else 3, several)
    spec = wt.AuditSpec(name=name, settings=SETTINGS.get(name, {}))
    effort = wt.Effort(draws=1, control_draws=1, block_draws=1)
    return reports.run(subjects, task(kind, count), spec, keep=("twin", "planted", "stronger"), effort=effort)


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("score", "classes", 1), ("relative-noise", "regression", 1), ("deployment", "classes", 2),
        ("single-point", "regression", 2), ("redundancy", "classes", 2), ("input-shift", "regression", 1),
        ("improvement", "classes", 1),
    ],
)  # fmt: skip
def test_a_report_on_hardly_any_examples_holds_finite_numbers_and_claims_nothing(
    name: str, kind: str, count: int
) -> None:
    report = run(name, kind, count)
    record = report.record
    again = jsonfile.validate(jsonfile.to_json(record))
    assert msgspec.to_builtins(again) == msgspec.to_builtins(record)
    for finding in record.findings:
        if finding.status == "excluded" and " vs " in finding.subject:
            assert finding.smallest_detectable is not None, f"{finding.code} could have seen nothing: {finding.because}"


def test_the_difference_of_one_wanted_output_stays_open() -> None:
    [_, _, gap] = run("score", "regression", 1)["WT001"]
    assert gap.status == "inconclusive" and gap.smallest_detectable is None


NAMES = [name for name in BUILTIN if issubclass(audits.get(name), SingleReadingAudit)]
ENDS: list[tuple[OutcomeStatus | None, str]] = [
    ("skipped", "not_applicable"), ("failed", "error"), ("diverged", "error"), (None, "error"),
]  # fmt: skip
"""How a reading ended, ``None`` where it did not run, and what its audit says then."""


def plan_of(name: str) -> Plan:
    nets = [nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval() for _ in range(2)]
    inputs = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    task = wt.Task(inputs, torch.arange(60) % 3)
    return wt.plan([wt.Subject(net, name=one) for net, one in zip(nets, "ab", strict=True)], task, audits=[name])


def test_readings_that_gave_nothing() -> None:
    assert len(NAMES) >= 5
    clean = {"accuracy": np.ones(60, dtype=np.float32), "scores": np.eye(3, dtype=np.float32)[np.arange(60) % 3],
             "chance": np.float32(1 / 3)}  # fmt: skip
    for name in NAMES:
        plan, audit = plan_of(name), create(name)
        assert audit.ask(Case(plan, lambda _: None)) == []
        done = {trial.key: Outcome(key=trial.key, status="done", values=clean) for trial in plan.baselines()}
        for ended, status in ENDS:
            gap = None if ended is None else Outcome(key="", status=ended, because="Nothing was read.")
            case = Case(plan, lambda key, done=done, gap=gap: done.get(key, gap))
            assert 0 < len(audit.ask(case)) <= audit.most(plan)
            found = settle(audit.judge(case).drafts, alpha=0.05)
            assert {one.subject for one in found} >= {"a", "b"} and {one.status for one in found} == {status}, name
