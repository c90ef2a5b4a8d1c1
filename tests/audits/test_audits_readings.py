"""What every audit of one reading says where that gave nothing; clean passes come first."""

import numpy as np
import torch
from torch import nn

import wheeltap as wt
from wheeltap.audits.base import BUILTIN, Case, audits, create
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.audits.settle import settle
from wheeltap.core.records import Outcome, OutcomeStatus
from wheeltap.plans.plan import Plan

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
            assert ended is None or all(one.because.startswith("Nothing was read.") for one in found)
