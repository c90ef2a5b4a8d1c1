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
from wheeltap.core.task import Task
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


def finite(report: Report, tmp_path: Path) -> None:
    text = report.json(tmp_path / "r.json").read_text()
    assert "NaN" not in text and "Infinity" not in text


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
    assert {o.because for o in outcomes if o.key in diverged} == {"The disturbed model's outputs are not finite."}
    [finding] = report["WT101"]
    count = len(diverged & set(finding.trials))
    assert 0 < count < len(finding.trials)
    said = f"{count} of {len(finding.trials)} disturbed runs gave no finite answer and count as chance."
    assert said in finding.because
    assert finding.status in ("found", "excluded", "inconclusive")
    finite(report, tmp_path)


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
    assert failed.because == "RuntimeError: told to"
    wrong = [finding for finding in report.findings if finding.status == "error"]
    assert [finding.because for finding in wrong] == ["RuntimeError: told to"]
    assert {finding.code for finding in report.findings} == {"WT001", "WT002", "WT101", "WT102", "WT103", "WT104"}
    finite(report, tmp_path)


def test_a_task_too_small_for_moments_skips_function_noise_with_the_reason(tmp_path: Path) -> None:
    model = seeded(lambda: mlp((64, 32, 3)), scale=1.0)
    subject = Subject(model, name="wide")
    task = taught(model, numbers(50, 64, seed=1))
    plan = wt.plan(subject, task, audits=AUDITS[:4], effort=LITTLE)
    report = wt.run(plan, subject, task, store=tmp_path / "s.wheeltap")
    outcomes = stored(tmp_path / "s.wheeltap", plan, report)
    skipped = [outcome for outcome in outcomes if outcome.status == "skipped"]
    told = (
        "The task is too small for function-space noise (wide{}: 0): expected at least 98 rows of input (1.5 per "
        "input dimension), got 50. Give the task more inputs (more=...), or leave the function-noise audit out."
    )
    assert {outcome.because for outcome in skipped} == {told.format(""), told.format(" (twin)")}
    [finding] = report["WT102"]
    assert finding.status == "not_applicable" and finding.because == told.format("")
    assert report["WT101"][0].status != "not_applicable" and report["WT103"][0].estimates
    # What cannot be done costs next to nothing: one clean pass to find out.
    assert report.cost.forwards <= sum(outcome.forwards for outcome in outcomes) + 4
    finite(report, tmp_path)


class Explaining(nn.Module):
    """Raises one of our errors in each pass whose weights are disturbed."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 4)
        self.clean = self.body.weight.detach().clone()
        self.eval()

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        if not torch.equal(self.body.weight, self.clean):
            raise ModelError("It broke.", where="its body", expected="clean weights", got="others", do="Leave them.")
        return self.body(inputs)


def test_all_that_an_error_inside_a_trial_says_reaches_report_and_terminal(tmp_path: Path) -> None:
    import io

    from rich.console import Console

    from wheeltap.report.text import write

    model = seeded(Explaining, scale=1.0)
    whole = "It broke (its body): expected clean weights, got others. Leave them."
    task = taught(model, numbers(60, 6, seed=1), more=numbers(60, 6, seed=2))
    report = wt.audit(Subject(model, name="net"), task, audits=AUDITS, effort=LITTLE)
    reasons = {finding.code: finding.because for finding in report.findings if finding.status == "error"}
    assert reasons == dict.fromkeys(("WT101", "WT102", "WT103", "WT104"), whole)
    console = Console(file=io.StringIO(), width=200)
    write(report.record, console)
    assert whole in console.file.getvalue()
    assert whole in report.html(tmp_path / "r.html").read_text()


def test_moments_that_cannot_be_read_fail_their_trials_only() -> None:
    model = Unruly(fail_at=1, error=MemoryError)
    subject, task = Subject(model, name="net"), taught(model.body, numbers(60, 6, seed=1))
    found = run(subject, task, [trial(subject, task, name, 0.1) for name in ("function", "relative")])
    assert [outcome.status for outcome in found] == ["failed", "done"]
    assert found[0].because.startswith("MemoryError: ")


def test_a_clean_pass_that_is_not_finite_is_refused() -> None:
    model = Exponential().eval()
    model.inner.weight.data.fill_(1e4)
    with pytest.raises(ModelError, match="not finite before anything was disturbed"):
        wt.audit(Subject(model), Task(numbers(20, 4), torch.arange(20) % 3), effort=LITTLE)


QUICK = wt.Effort(draws=4, control_draws=4, block_draws=0)
ASKED = ["score", "relative-noise", "function-noise", "pruning"]


def rows(count: int = 120) -> Tensor:
    return numbers(count, 8, seed=1)


def net() -> nn.Module:
    return seeded(lambda: mlp((8, 16, 3)), scale=1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_no_number(dtype: torch.dtype) -> None:
    model = net()
    plain = wt.audit(wt.Subject(model, name="net"), taught(model, rows()), audits=ASKED, effort=QUICK)
    torch.set_default_dtype(dtype)
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


def test_further_inputs_for_moments_are_counted_in_passes() -> None:
    model = net()
    few, many = taught(model, rows()), taught(model, rows(), more=rows(12_000))
    spent = [
        wt.audit(wt.Subject(model), task, audits=["function-noise"], effort=QUICK).cost.forwards for task in (few, many)
    ]
    assert spent[1] - spent[0] >= 100.0
    with pytest.raises(wt.errors.UsageError, match="budget is too small"):
        wt.plan(wt.Subject(model), many, audits=["function-noise"], budget="100f")


def test_an_embedding_that_rewrites_its_rows_is_refused() -> None:
    model = nn.Sequential(nn.Embedding(5, 4, max_norm=1.0), nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(ModelError, match="rewrites weights in its forward pass"):
        wt.Subject(model)


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
    assert any("No copy of this model could be made: KeyError" in control.because for control in report.controls)


def test_a_perfect_regression_of_one_example_has_nothing_to_lose() -> None:
    model = nn.Sequential(nn.Linear(4, 1)).eval()
    given = torch.ones(1, 4)
    task = wt.Task(given, model(given).detach())
    report = wt.audit(wt.Subject(model, name="net"), task, audits=["score", "relative-noise"], effort=QUICK)
    assert report["WT101"][0].status == "not_applicable" and "nothing to lose" in report["WT101"][0].because
