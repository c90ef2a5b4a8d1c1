"""Trials that diverge, fail or cannot be done end as that status; what surrounds an audit changes no number."""

from pathlib import Path

import numpy as np
import pytest
import torch
from engine_nets import Exponential, Unruly, numbers, seeded, taught
from engine_trials import run, trial
from torch import Tensor, nn
from twins import Wired

import wheeltap as wt
from wheeltap.core.errors import ModelError
from wheeltap.core.records import Outcome
from wheeltap.core.subject import Subject
from wheeltap.models.mlp import mlp
from wheeltap.plans.store import Store
from wheeltap.report.report import Report
from wheeltap.runs.pace import Progress

LITTLE = wt.Effort(draws=6, control_draws=4, block_draws=2)
AUDITS = ("score", "relative-noise", "function-noise", "quantization", "pruning")


def stored(path: Path, plan: wt.Plan, report: Report) -> list[Outcome]:
    """Every outcome in a store; none holds a number that is not finite, nor numbers unless it is done."""
    with Store(path, readonly=True) as kept:
        found = [kept.get(key) for key in sorted(kept.keys())]
    outcomes = [outcome for outcome in found if outcome is not None]
    assert outcomes and len(outcomes) == len(found)
    for outcome in outcomes:
        assert all(np.isfinite(values).all() for values in outcome.values.values())
        assert (outcome.status == "done") == bool(outcome.values)
        assert (outcome.status == "done") == (not outcome.because)
    assert plan.key == report.record.provenance["plan"]
    assert b"NaN" not in plan.to_bytes()
    return outcomes


def test_a_diverging_trial_counts_as_chance(tmp_path: Path) -> None:
    subject = Subject(seeded(Exponential), name="exponential")
    task = taught(subject.model, numbers(200, 4, seed=3))
    # A curve that reaches doses at which the exponentials overflow.
    spec = wt.AuditSpec(name="relative-noise", settings={"rungs": [-4, 0, 4, 8, 12], "control_rungs": [0]})
    plan = wt.plan(subject, task, audits=["score", spec], effort=LITTLE)
    report = wt.run(plan, subject, task, store=tmp_path / "s.wheeltap")
    outcomes = stored(tmp_path / "s.wheeltap", plan, report)
    diverged = {outcome.key for outcome in outcomes if outcome.status == "diverged"}
    assert diverged and any(outcome.status == "done" for outcome in outcomes)
    [finding] = report["WT101"]
    count = len(diverged & set(finding.trials))
    assert 0 < count < len(finding.trials)
    assert finding.status in ("found", "excluded", "inconclusive")


def test_a_failing_trial_fails_alone_and_the_audit_says_why(tmp_path: Path) -> None:
    model = seeded(Unruly)  # which pass comes fourth depends on the weights
    task = taught(model.body, numbers(60, 6, seed=1), more=numbers(60, 6, seed=2))
    subject = Subject(model, name="unruly")
    plan = wt.plan(subject, task, audits=AUDITS, effort=LITTLE)
    disturbed = len(plan.baselines()) + 3  # amid the first curve's draws, the next pass is a disturbed one

    def watch(progress: Progress) -> None:
        if progress.done == disturbed:
            model.fail_next()

    report = wt.run(plan, subject, task, store=tmp_path / "s.wheeltap", watch=watch)
    outcomes = stored(tmp_path / "s.wheeltap", plan, report)
    [failed] = [outcome for outcome in outcomes if outcome.status == "failed"]
    assert failed.because.endswith("RuntimeError: told to")
    wrong = [finding for finding in report.findings if finding.status == "error"]
    assert [finding.because for finding in wrong] == [failed.because]
    assert {finding.code for finding in report.findings} == {"WT001", "WT002", "WT101", "WT102", "WT103", "WT104"}


def test_a_task_too_small_for_moments_skips_function_noise_with_the_reason(tmp_path: Path) -> None:
    model = seeded(lambda: mlp((64, 32, 3)), scale=1.0)
    subject = Subject(model, name="wide")
    task = taught(model, numbers(50, 64, seed=1))
    plan = wt.plan(subject, task, audits=AUDITS[:4], effort=LITTLE)
    report = wt.run(plan, subject, task, store=tmp_path / "s.wheeltap")
    outcomes = stored(tmp_path / "s.wheeltap", plan, report)
    skipped = [outcome for outcome in outcomes if outcome.status == "skipped"]
    [finding] = report["WT102"]
    assert finding.status == "not_applicable" and finding.because in {outcome.because for outcome in skipped}
    assert report["WT101"][0].status != "not_applicable" and report["WT103"][0].estimates
    # What cannot be done costs next to nothing: one clean pass to find out.
    assert report.cost.forwards <= sum(outcome.forwards for outcome in outcomes) + 4


def test_moments_that_cannot_be_read_fail_their_trials_only() -> None:
    model = Unruly(fail_at=1, error=MemoryError)
    subject, task = Subject(model, name="net"), taught(model.body, numbers(60, 6, seed=1))
    found = run(subject, task, [trial(subject, task, name, 0.1) for name in ("function", "relative")])
    assert [outcome.status for outcome in found] == ["failed", "done"]
    assert "MemoryError: " in found[0].because


QUICK = wt.Effort(draws=4, control_draws=4, block_draws=0)
ASKED = ["score", "relative-noise", "function-noise", "pruning"]


def rows(count: int = 120) -> Tensor:
    return numbers(count, 8, seed=1)


def net() -> nn.Module:
    return seeded(lambda: mlp((8, 16, 3)), scale=1.0)


def test_the_default_dtype_changes_no_number() -> None:
    model = net()
    plain = wt.audit(wt.Subject(model, name="net"), taught(model, rows()), audits=ASKED, effort=QUICK)
    torch.set_default_dtype(torch.bfloat16)
    try:
        other = wt.audit(wt.Subject(model, name="net"), taught(model, rows()), audits=ASKED, effort=QUICK)
    finally:
        torch.set_default_dtype(torch.float32)
    assert other.findings == plain.findings and other.record.curves == plain.record.curves


def test_autocast_around_an_audit_is_refused() -> None:
    model = net()
    subject, task = wt.Subject(model, name="net"), taught(model, rows())
    plan = wt.plan(subject, task, audits=["score"])
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ModelError, match="Autocast is on"):
        wt.audit(subject, task, audits=["score"])
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(ModelError, match="Autocast is on"):
        wt.run(plan, subject, task)


def test_a_model_that_writes_into_its_inputs_leaves_the_examples_alone() -> None:
    body, given = net(), rows()
    task = taught(body, given, more=rows(60))
    how = {"audits": ["score", "function-noise"], "effort": QUICK}
    clipping = Wired(lambda net, x: net.body(x.mul_(0.9).clamp_(-0.5, 0.5)), body=net())
    alone = wt.audit(wt.Subject(body, name="plain"), task, **how)
    both = wt.compare(wt.Subject(clipping.eval(), name="clips"), wt.Subject(body, name="plain"), task, **how)
    assert torch.equal(given, rows()) and task.more is not None and torch.equal(task.more, rows(60))
    (score,) = [f for f in both["WT001"] if f.subject == "plain"]
    assert score.estimates == alone["WT001"][0].estimates


def test_a_model_that_cannot_be_copied_has_no_controls_and_is_audited_all_the_same() -> None:
    class Loose(dict[str, float]):
        def __getattr__(self, name: str) -> float:
            return self[name]

    model = net()
    model.settings = Loose(scale=1.0)
    report = wt.audit(
        wt.Subject(model, name="net"), taught(model, rows()), audits=["score", "relative-noise"], effort=QUICK
    )
    assert report["WT101"][0].estimates
    assert any("KeyError" in control.because for control in report.controls)
