"""WT505 on nets with a planted answer: people divided where units cancel; divided at random; too few people."""

import numpy as np
import pytest

import wheeltap as wt
from benchmarks.nets import fragile as fragile_nets
from wheeltap.core.records import Finding
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task

CLEAR, DIVIDED, PEOPLE = 0.0, 0.8, 9


def voted(chosen: np.ndarray, *, people: int = PEOPLE) -> Task:
    """The digits, on some of which people are divided."""
    task, rng = fragile_nets.task(), np.random.default_rng(0)
    share = np.where(chosen, DIVIDED, CLEAR)
    belief = np.eye(10)[task.targets.numpy()] * (1.0 - share[:, None]) + share[:, None] / 10
    return Task(task.inputs, task.targets, name="digits").with_votes(rng.multinomial(people, belief))


def judged(task: Task) -> tuple[Finding, wt.Report]:
    settings = {"weight_draws": 6, "image": "8x8"}
    asked = [wt.AuditSpec(name="item-noise", settings=settings)]
    report = wt.audit(Subject(fragile_nets.net(0), name="net"), task, audits=asked)
    [one] = [one for one in report.record.findings if one.code == "WT505"]
    return one, report


def test_people_divided_where_units_cancel() -> None:
    one, report = judged(voted((fragile_nets.height() > 0).numpy()))
    assert (one.status, one.verdict, one.alarm) == ("found", "adds", False), one.because
    [control] = [control for control in report.record.controls if "shuffled" in control.name]
    assert control.status in ("passed", "skipped")


def test_people_divided_at_random() -> None:
    chosen = fragile_nets.dealt_at_random((fragile_nets.height() > 0).long(), 3).bool().numpy()
    one, _ = judged(voted(chosen))
    assert one.status in ("excluded", "inconclusive")
    assert one.verdict in ("adds nothing", "no evidence of added value", "may add")


@pytest.mark.parametrize("people", [1, 5])
def test_too_few_people(people: int) -> None:
    one, _ = judged(voted(np.ones(len(fragile_nets.task().targets), dtype=bool), people=people))
    assert one.status == "not_applicable"


def test_no_votes() -> None:
    one, _ = judged(fragile_nets.task())
    assert one.status == "not_applicable" and "no votes" in one.because
