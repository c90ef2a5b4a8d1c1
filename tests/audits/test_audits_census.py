"""WT002: a corrupt weight is named in any audit; modules whose weights are computed from parts are named too."""

import copy
import math

import msgspec
import pytest
import torch
from reports import finding
from torch import Tensor, nn
from torch.nn.utils import parametrize

import wheeltap as wt
from wheeltap.audits.settle import judge, wanted
from wheeltap.core import coverage
from wheeltap.core.errors import ModelError
from wheeltap.core.records import Cost, Finding, Outcome
from wheeltap.core.report import ReportRecord
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.trial_runner import TrialRunner
from wheeltap.engine.trials import run_trials
from wheeltap.plans.plan import Plan
from wheeltap.report import gate
from wheeltap.report.report import Report
from wheeltap.runs import planning
from wheeltap.runs.budget import most_passes
from wheeltap.sources import digits

LARGE = 2.0**100 * 1.2345
NAMED = "2.weight[3, 5] = 1.6e+30"


@pytest.fixture(scope="module")
def task() -> Task:
    return digits.task()


def changed(name: str, **numbers: float) -> Subject:
    """A sound net with numbers written into ``2.weight``, by row and column: ``_3_5=2.0``."""
    model = copy.deepcopy(digits.train(0))
    with torch.no_grad():
        for place, value in numbers.items():
            row, column = map(int, place.split("_")[1:])
            model.get_parameter("2.weight")[row, column] = value
    return Subject(model, name=name)


def corrupt() -> Subject:
    """One huge weight, of a unit that is always off, so that no answer changes."""
    made = changed("corrupt", _3_5=LARGE)
    with torch.no_grad():
        made.model.get_parameter("0.weight")[5] = 0.0
        made.model.get_parameter("0.bias")[5] = -1.0
    return Subject(made.model, name="corrupt")


def sound() -> Subject:
    return changed("sound")


def of(report: Report, name: str) -> Finding:
    return finding(report, "WT002", name)


@pytest.mark.parametrize("audits", [["score"], ["pruning", "census"]])
def test_any_audit_names_the_weight_first_and_fails(audits: list[str | wt.AuditSpec], task: Task) -> None:
    one = corrupt()
    report = wt.audit(one, task, audits=audits, effort=wt.Effort(draws=4, control_draws=4, block_draws=0))
    following = float(one.parameter("2.weight").detach().abs().flatten().sort().values[-2])
    beyond = f"2^{math.log2(LARGE / following):.0f} times the next largest of its tensor"
    found = of(report, "corrupt")
    assert (found.status, found.verdict, found.alarm) == ("found", "outlier weight", True)
    assert f"corrupt: {NAMED}, {beyond}" in found.because
    assert report.headline.startswith(f"OUTLIER WEIGHT in corrupt: {NAMED}, {beyond}")
    assert gate.exit_code(report.record, "costs") == gate.FAILED
    assert gate.exit_code(report.record, "never") == gate.PASSED


def test_a_comparison_says_of_which_model_it_is(task: Task) -> None:
    for pair in ([sound(), corrupt()], [corrupt(), sound()]):
        report = wt.compare(*pair, task, audits=["score"])
        assert [of(report, name).status for name in ("corrupt", "sound")] == ["found", "measured"]
        assert report.headline.splitlines()[0].startswith(f"OUTLIER WEIGHT in corrupt: {NAMED}")
        assert gate.exit_code(report.record, "costs") == gate.FAILED
    other = Subject(copy.deepcopy(corrupt().model), name="again")
    report = wt.compare(corrupt(), other, task, audits=["score"])
    assert [of(report, name).status for name in ("corrupt", "again")] == ["found", "found"]


def test_a_control_that_failed_takes_nothing_from_what_was_read(task: Task) -> None:
    one = corrupt()
    plan = planning.plan(one, task, audits=["score"])
    record = judged(plan, [one], task, broken=True)
    assert record.void and gate.exit_code(record, "costs") == gate.VOID
    assert {finding.code: finding.status for finding in record.findings} == {"WT001": "void", "WT002": "found"}
    assert record.headline.splitlines()[0].startswith("VOID")
    assert record.headline.splitlines()[1].startswith(f"OUTLIER WEIGHT in corrupt: {NAMED}")


def test_where_nothing_stands_out_nothing_changes(task: Task) -> None:
    report = wt.audit(sound(), task, audits=["score"])
    found = of(report, "sound")
    assert (found.status, found.verdict) == ("measured", "measured")
    count, seen = found.estimates
    assert (count.value, seen.value, seen.n) == (0.0, 1.0, 1000)
    without = tuple(finding for finding in report.findings if finding.code != "WT002")
    bare = msgspec.structs.replace(report.record, findings=without)
    assert gate.exit_code(report.record, "cannot-tell") == gate.exit_code(bare, "cannot-tell")


def test_it_is_no_test_so_no_other_verdict_depends_on_it(task: Task) -> None:
    pair = [corrupt(), sound()]
    plan = planning.plan(pair, task, audits=["score", "pruning"], effort=wt.Effort(draws=4, control_draws=4))
    without = msgspec.structs.replace(plan, audits=tuple(spec for spec in plan.audits if spec.name != "census"))
    whole, part = judged(plan, pair, task), judged(without, pair, task)
    assert [finding for finding in whole.findings if finding.code != "WT002"] == list(part.findings)
    assert whole.controls == part.controls


def test_it_is_part_of_every_plan_once_and_takes_no_pass_and_no_copy(task: Task) -> None:
    for audits, names in ((None, None), (["score"], ["score", "census"]), (["census", "score"], ["census", "score"])):
        plan = planning.plan([sound(), corrupt()], task, audits=audits)
        asked = [spec.name for spec in plan.audits]
        assert asked.count("census") == 1 and names in (None, asked)
        without = msgspec.structs.replace(plan, audits=tuple(spec for spec in plan.audits if spec.name != "census"))
        assert most_passes(plan) == most_passes(without)
    own = planning.plan(sound(), task, audits=[wt.AuditSpec("census", {"matrix": 9.0}), "score"])
    assert [(spec.name, spec.settings) for spec in own.audits] == [("census", {"matrix": 9.0}), ("score", {})]
    assert own.controls == () and judged(own, [sound()], task).cost.forwards == 0.0


def test_its_settings_decide_and_what_is_no_number_is_named(task: Task) -> None:
    for settings, status in (({}, "found"), ({"matrix": 20.0}, "measured")):
        report = wt.audit(changed("net", _3_5=300.0), task, audits=wt.AuditSpec("census", settings))
        assert of(report, "net").status == status
        assert {one.code for one in report.findings} == {"WT002"}
    model = torch.nn.Sequential(copy.deepcopy(digits.train(0)), torch.nn.BatchNorm1d(10, affine=False)).eval()
    model[1].register_buffer("spare", torch.tensor([[1.0, math.nan], [0.0, 0.0]]))
    found = of(wt.audit(model, task, audits="census"), "Sequential")
    assert "1.spare[0, 1] = NaN" in found.because and found.status == "found"


def test_a_model_without_finite_answers_is_refused_with_the_weight_named(task: Task) -> None:
    model = copy.deepcopy(digits.train(0))
    with torch.no_grad():
        model.get_parameter("0.weight")[3].fill_(1e20)
        model.get_parameter("2.weight")[3, 3] = 1.5e38
        model.get_parameter("4.weight")[:, 3] = 1.0
    with pytest.raises(ModelError, match="not finite before") as caught:
        wt.audit(model, task, audits="score")
    assert "2.weight[3, 3] = 1.5e+38" in str(caught.value)


def judged(plan: Plan, subjects: list[Subject], task: Task, *, broken: bool = False) -> ReportRecord:
    """The report on a plan; where ``broken``, as if two clean passes of the reference had not agreed."""
    outcomes: dict[str, Outcome] = {}
    runner = TrialRunner(subjects, plan.controls, task)
    while asked := [trial for trial in wanted(plan, outcomes.get) if trial.key not in outcomes]:
        run_trials(asked, runner, lambda outcome: outcomes.update({outcome.key: outcome}))
    if broken:
        key = plan.clean(plan.reference, seed=1).key
        values = {**outcomes[key].values, "scores": outcomes[key].values["scores"][:, ::-1]}
        outcomes[key] = Outcome(key=key, status="done", values=values)
    return judge(plan, outcomes.get, cost=Cost(forwards=0.0, seconds=0.0), provenance={})


class Adapted(nn.Module):
    """``W x + B A x``, as people write it."""

    def __init__(self, base: nn.Linear, *, names: tuple[str, str], rank: int = 1) -> None:
        super().__init__()
        self.base, self.names = base, names
        self.register_parameter(names[0], nn.Parameter(torch.ones(rank, base.in_features)))
        self.register_parameter(names[1], nn.Parameter(torch.ones(base.out_features, rank)))

    def forward(self, inputs: Tensor) -> Tensor:
        first, second = (self.get_parameter(name) for name in self.names)
        return self.base(inputs) + inputs @ first.T @ second.T


class Added(nn.Module):
    """A parametrization: a constant beside the weight."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.ones(shape))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.more


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).eval()


def test_what_is_computed_from_parts_is_found_and_nothing_else() -> None:
    for names in (("lora_A", "lora_B"), ("lora_down", "lora_up"), ("A", "B")):
        model = net()
        model[2] = Adapted(nn.Linear(12, 4), names=names)
        assert coverage.composed(model) == ("2",)
    model = net()
    parametrize.register_parametrization(model[0], "weight", Added(model[0].weight.shape))
    assert coverage.composed(model) == ("0",)
    parametrize.remove_parametrizations(model[0], "weight")
    assert coverage.composed(model) is None
    whole = net()
    whole[2] = Adapted(nn.Linear(12, 4), names=("A", "B"), rank=4)  # of full rank
    other = nn.Sequential(Adapted(nn.Linear(12, 4), names=("first", "second")))
    lstm = nn.Sequential(nn.LSTM(4, 4), nn.MultiheadAttention(8, 2), nn.Bilinear(2, 3, 4), nn.Embedding(3, 4))
    assert [coverage.composed(one) for one in (net(), whole, other, lstm)] == [None] * 4
    merged = Adapted(nn.Linear(12, 4), names=("lora_A", "lora_B"))
    vars(merged)["merged"] = True  # as loralib and peft say that the sum is in the weight
    assert coverage.composed(merged) is None
