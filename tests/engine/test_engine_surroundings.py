"""What surrounds an audit and changes no number: defaults of torch, autocast, inputs that a model writes into."""

import pytest
import torch
from engine_nets import numbers, seeded, taught
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.errors import ModelError
from wheeltap.models.mlp import mlp

LITTLE = wt.Effort(draws=4, control_draws=4, block_draws=0)
AUDITS = ["score", "relative-noise", "function-noise", "low-rank-noise", "pruning"]


def rows(count: int = 120) -> Tensor:
    return numbers(count, 8, seed=1)


def net() -> nn.Module:
    return seeded(lambda: mlp((8, 16, 3)), scale=1.0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_default_dtype_changes_no_number(dtype: torch.dtype) -> None:
    model = net()
    plain = wt.audit(wt.Subject(model, name="net"), taught(model, rows()), audits=AUDITS, effort=LITTLE)
    torch.set_default_dtype(dtype)
    try:
        other = wt.audit(wt.Subject(model, name="net"), taught(model, rows()), audits=AUDITS, effort=LITTLE)
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


class Clipping(nn.Module):
    """Writes into what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.body = net()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.body(inputs.mul_(0.9).clamp_(-0.5, 0.5))


def test_a_model_that_writes_into_its_inputs_leaves_the_examples_alone() -> None:
    body, given = net(), rows()
    task = taught(body, given, more=rows(60))
    how = {"audits": ["score", "function-noise"], "effort": LITTLE}
    alone = wt.audit(wt.Subject(body, name="plain"), task, **how)
    both = wt.compare(wt.Subject(Clipping().eval(), name="clips"), wt.Subject(body, name="plain"), task, **how)
    assert torch.equal(given, rows()) and task.more is not None and torch.equal(task.more, rows(60))
    (score,) = [f for f in both["WT001"] if f.subject == "plain"]
    assert score.estimates == alone["WT001"][0].estimates


def test_further_inputs_for_moments_are_counted_in_passes() -> None:
    model = net()
    few, many = taught(model, rows()), taught(model, rows(), more=rows(12_000))
    spent = [
        wt.audit(wt.Subject(model), task, audits=["function-noise"], effort=LITTLE).cost.forwards
        for task in (few, many)
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
        wt.Subject(model, name="net"), taught(model, rows()), audits=["score", "relative-noise"], effort=LITTLE
    )
    assert report["WT101"][0].estimates
    assert any("No copy of this model could be made: KeyError" in control.because for control in report.controls)


def test_a_perfect_regression_of_one_example_has_nothing_to_lose() -> None:
    model = nn.Sequential(nn.Linear(4, 1)).eval()
    given = torch.ones(1, 4)
    task = wt.Task(given, model(given).detach())
    report = wt.audit(wt.Subject(model, name="net"), task, audits=["score", "relative-noise"], effort=LITTLE)
    assert report["WT101"][0].status == "not_applicable" and "nothing to lose" in report["WT101"][0].because
