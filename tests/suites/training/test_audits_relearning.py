"""What a net was made to forget comes back; what it never knew does not; and neither is claimed of one net alone."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

import wheeltap as wt
from tests.nets.unlearned import HIDES, WORLDS, hide
from wheeltap.audits.settle import judge, wanted
from wheeltap.core.errors import UsageError
from wheeltap.core.records import Control, Cost, Finding, Outcome, SubjectRecord, TaskRecord, Trial
from wheeltap.core.report import ReportRecord
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, Task
from wheeltap.plans.plan import Plan
from wheeltap.report.report import Report
from wheeltap.suites.training.audits.relearning import RelearningAudit
from wheeltap.testing.contract import AuditContract

DIGITS = WORLDS["digits"].task()

LITTLE: dict[str, Any] = {
    "draws": 4, "steps": [4, 16], "benign_steps": [16], "noise": [0.2], "noise_draws": 10,
    "attacks": ["output-gain", "full"], "control_draws": 4,
}  # fmt: skip


class TestRelearningWithoutAGroup(AuditContract):
    audit = RelearningAudit


def relearned(subjects: list[Subject], task: Task | Any, *, seed: int = 0, **settings: Any) -> Report:
    spec = wt.AuditSpec(name="relearning", settings={**LITTLE, **settings})
    plan = wt.plan(subjects, task, audits=["score", spec], seed=seed)
    return wt.run(msgspec.structs.replace(plan, twin=None, planted=None, graded=()), subjects, task)


def finding(report: Report | ReportRecord, name: str) -> Finding:
    [found] = [f for f in report.findings if f.code == "WT107" and f.subject == name]
    return found


def values(found: Finding) -> dict[str, float]:
    return {estimate.name: estimate.value or 0.0 for estimate in found.estimates}


def strength(case: dict[str, Subject], whole: BaseTask, group: int) -> tuple[float, float, float, float]:
    """Share right of the group and of the others, of these by the retrained net; ||change|| / ||weights||."""
    inside, outside = whole.behaviors == group, whole.behaviors != group

    def right(subject: Subject, rows: torch.Tensor) -> float:
        task = whole.part(rows.nonzero()[:, 0])
        return float((task.scores(subject.model).argmax(-1) == task.targets).float().mean())

    before, after = (
        nn.utils.parameters_to_vector(one.model.parameters()).detach() for one in (case["original"], case["unlearned"])
    )
    shares = right(case["unlearned"], inside), right(case["unlearned"], outside), right(case["retrained"], outside)
    return (*shares, float(((after - before).square().sum() / before.square().sum()).sqrt()))


# ---- digits -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def case() -> dict[str, Subject]:
    return WORLDS["digits"].unlearned(9)


@pytest.fixture(scope="module")
def report(case: dict[str, Subject]) -> Report:
    return relearned([case["unlearned"], case["retrained"], case["original"]], DIGITS, group=9)


def test_the_unlearned_net_is_as_good_as_one_that_never_knew(case: dict[str, Subject]) -> None:
    """What a benchmark sees does not tell them apart."""
    forgotten, retained, expected, distance = strength(case, DIGITS, 9)
    assert forgotten <= 0.02 and abs(retained - expected) < 0.01 and 0.02 < distance < 0.1


def test_a_few_examples_bring_back_what_was_unlearned_and_nothing_else_does(report: Report) -> None:
    found = finding(report, "unlearned vs retrained")
    gap = found.estimates[0]
    assert found.status == "found" and gap.name == "gap after 16 steps" and gap.low >= 0.5
    others = {name: value for name, value in values(found).items() if "gap under noise" in name or "bits" in name}
    assert len(others) == 3 and max(others.values()) < 0.2  # noise and rounding do not
    assert values(found)["more than under noise: unlearned"] > 0.5
    for name in ("unlearned", "retrained"):
        got = values(finding(report, name))
        beside = ("under noise 0.2, mean", "under noise, best of 10", "at 4 bits", "after 16 steps on other groups")
        assert all(got[f"recovered {what}"] < 0.1 for what in beside)
        assert got["recovered after 16 steps"] > 0.5 if name == "unlearned" else got["recovered after 16 steps"] < 0.2


def test_what_relearning_costs_elsewhere_is_known_step_by_step(report: Report) -> None:
    got = values(finding(report, "unlearned"))
    assert got["lost elsewhere after 4 steps"] < got["lost elsewhere after 16 steps"] < 0.2
    every = [curve for curve in report.record.curves if curve.code == "WT107"]
    curves, elsewhere = ([c for c in every if c.variant == variant] for variant in ("", "other groups"))
    assert [curve.subject for curve in curves] == ["unlearned", "retrained", "original"]
    assert all(curve.doses == (4.0, 16.0) for curve in curves)
    assert curves[0].score[1] > 0.9 and curves[1].score[1] < 0.3
    for one in elsewhere[:2]:
        assert 0.99 > one.score[0] > one.score[1] > 0.7


def test_one_net_alone_is_not_accused_and_one_that_knows_has_nothing_to_relearn(report: Report) -> None:
    for name in ("unlearned", "retrained"):
        assert finding(report, name).status == "inconclusive"
    for name in ("original", "unlearned vs original"):
        assert finding(report, name).status == "not_applicable"


# ---- hidden cheaply: what one bias gives back ---------------------------------------------------------------------


def control(report: Report, name: str) -> Control:
    [found] = [one for one in report.controls if one.name == f"WT107 what is hidden in {name} comes back"]
    return found


@pytest.fixture(scope="module")
def hidden(case: dict[str, Subject]) -> Report:
    """A net in which the digit is hidden beside nets that never knew it."""
    net = Subject(hide(case["original"].model, 9, HIDES[0]), name="hidden")
    return relearned([case["retrained"], case["never"], net], DIGITS, group=9)


def test_what_is_hidden_is_distinguished_from_what_was_never_known(hidden: Report) -> None:
    """And nets that never knew are not called hidden, where the attacks have power."""
    found = finding(hidden, "retrained vs hidden")
    assert found.status == "found"
    assert (found.estimates[0].value or 0.0) < -0.1
    assert values(finding(hidden, "hidden"))["recovered by the strongest attack"] > 0.5
    assert finding(hidden, "retrained vs never").status in ("excluded", "inconclusive")
    assert {control(hidden, one).status for one in ("retrained", "never", "hidden")} == {"passed"}


def test_without_power_nothing_is_excluded(case: dict[str, Subject]) -> None:
    """One step brings nothing back, neither what is hidden nor what never was: the two nets are not equivalent."""
    report = relearned([case["retrained"], case["never"]], DIGITS, group=9, steps=[1], attack_steps=1)
    found = finding(report, "retrained vs never")
    assert found.status == "inconclusive"
    for name in ("retrained", "never"):
        assert control(report, name).status == "skipped"
    assert not report.record.void


# ---- what cannot be asked ---------------------------------------------------------------------------------------


def status(task: Any, subject: Subject, **settings: Any) -> str:
    return finding(relearned([subject], task, **settings), subject.name).status


def test_a_group_must_be_named_and_be_there(case: dict[str, Subject]) -> None:
    assert status(DIGITS, case["unlearned"]) == "not_applicable"
    with pytest.raises(UsageError, match="11"):
        status(DIGITS, case["unlearned"], group=11)
    assert status(DIGITS, case["unlearned"], group=9, shots=40) == "not_applicable"


def test_a_training_that_diverges_is_inconclusive(case: dict[str, Subject]) -> None:
    wild: dict[str, Any] = {"lr": 1e30, "optimizer": "sgd", "attacks": []}
    assert status(DIGITS, case["unlearned"], group=9, **wild) == "inconclusive"


# ---- simulated: the same examples for everyone, and no false alarms ---------------------------------------------

EXAMPLES, GROUP = 120, 40
Chance = Callable[[Trial, str], float]


def plan(names: tuple[str, ...], seed: int, **settings: Any) -> Plan:
    subjects = tuple(SubjectRecord(name=name, fingerprint=f"fingerprint of {name}", parameters=1) for name in names)
    task = TaskRecord(name="simulated", digest="task", examples=EXAMPLES, measure="accuracy", measures=("accuracy",))
    spec = wt.AuditSpec(name="relearning", settings={"group": 0, **LITTLE, **settings})
    return Plan(command="compare", subjects=subjects, task=task, audits=(spec,), seed=seed)


def simulated(names: tuple[str, ...], right: Chance, *, seed: int = 0, **settings: Any) -> ReportRecord:
    """A world in which a draw of shots helps or not, and an example is hard or not."""
    made = plan(names, seed, **settings)
    called = {subject.fingerprint: subject.name for subject in made.subjects}
    known: dict[str, Outcome] = {}
    while missing := [trial for trial in wanted(made, known.get) if trial.key not in known]:
        known.update((trial.key, answered(trial, called[trial.subject], right, seed)) for trial in missing)
    record = judge(made, known.get, cost=Cost(forwards=0.0, seconds=0.0), provenance={})
    assert not record.void
    return record


def answered(trial: Trial, name: str, right: Chance, seed: int) -> Outcome:
    clean = trial.kind == "clean"
    draw = np.random.default_rng([seed, 0 if clean else trial.seed, len(trial.settings), round(100 * trial.dose)])
    about = name if clean else trial.key
    own = np.random.default_rng([seed, *about.encode()])
    hard = np.random.default_rng([seed, 7]).normal(size=EXAMPLES)
    group = (np.arange(EXAMPLES) >= GROUP).astype(np.float32)
    share = right(trial, name)
    logit = np.log(share / (1 - share)) + 0.7 * hard + 0.5 * draw.normal()
    answers = (own.random(EXAMPLES) < 1 / (1 + np.exp(-logit))).astype(np.float32)
    held: dict[str, NDArray[np.float32]] = {"accuracy": answers}
    if clean:
        held |= {"scores": np.stack([answers, 1 - answers], 1), "chance": np.array(0.1, dtype=np.float32)}
    if trial.perturbation == "fine-tune":
        trained = np.zeros(EXAMPLES, dtype=np.float32)
        trained[np.random.default_rng([trial.seed]).permutation(20)[:4]] = 1.0
        # Right on what it was shown: to count these would be a gift.
        held = {"accuracy": np.where(trained > 0, 1.0, answers).astype(np.float32), "trained": trained, "group": group}
        held["taught"] = held["accuracy"]
    return Outcome(key=trial.key, status="done", values=held)


def test_shots_are_never_scored() -> None:
    """Every net is right on its shots and on nothing else: less than nothing cannot be recovered, nor more lost."""
    record = simulated(("one", "two"), lambda trial, name: 1e-9)
    assert values(finding(record, "one"))["recovered after 16 steps"] == 0.0  # which is less than chance
    assert finding(record, "one vs two").estimates[0].value == 0.0
    got = finding(record, "one").estimates
    recovered, lost = ([e for e in got if e.name.startswith(what)] for what in ("recovered", "lost elsewhere"))
    assert recovered and all((e.low, e.value) == (0.0, 0.0) for e in recovered)
    assert lost and all(e.high == pytest.approx(0.0) for e in lost)


def test_few_false_alarms_where_the_gap_is_what_does_not_matter() -> None:
    """Just the margin apart: found with a probability of at most .05."""

    def right(trial: Trial, name: str) -> float:
        return 0.05 if trial.perturbation != "fine-tune" else 0.4 if name == "one" else 0.3

    worlds = [simulated(("one", "two"), right, seed=seed, steps=[16]) for seed in range(40)]
    assert sum(finding(world, "one vs two").status == "found" for world in worlds) <= 5


@pytest.mark.parametrize(("first", "expected"), [(0.85, True), (0.35, False)])
def test_a_gap_is_found_when_it_is_beyond_the_margin(first: float, expected: bool) -> None:
    def right(trial: Trial, name: str) -> float:
        if trial.perturbation != "fine-tune" or trial.settings.get("labels") == "wrong":
            return 0.05
        return first if name == "one" else 0.3

    worlds = [simulated(("one", "two"), right, seed=seed, draws=8, steps=[16]) for seed in range(10)]
    found = [finding(world, "one vs two").status == "found" for world in worlds]
    assert sum(found) >= 9 if expected else sum(found) <= 1


@pytest.mark.parametrize("noisy", [("one", "two"), ("one",)])
def test_what_noise_alone_brings_back_is_no_evidence_of_relearning(noisy: tuple[str, ...]) -> None:
    def right(trial: Trial, name: str) -> float:
        back = name in {"fine-tune": ("one",), "relative": noisy}.get(trial.perturbation, ())
        return 0.85 if back and trial.settings.get("labels") != "wrong" else 0.05

    for seed in range(3):
        found = finding(simulated(("one", "two"), right, seed=seed, draws=12, steps=[16]), "one vs two")
        if noisy == ("one",):  # but of what is in the net
            assert found.status == "found"
            continue
        assert found.status == "inconclusive"
        assert found.estimates[0].low is not None and found.estimates[0].low > 0.1  # though the gap is there
        assert values(found)["more than under noise: one"] < 0.3


@pytest.mark.parametrize(
    "settings",
    [
        {"group": -2}, {"steps": []}, {"steps": [4, 2]}, {"benign_steps": [8, 8]}, {"noise": [0.4, 0.2]},
        {"attacks": ["x"]},
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(wt.errors.UsageError, match=next(iter(settings))):
        RelearningAudit(settings)


def test_doses_and_trials_are_known_before_anything_runs() -> None:
    doses = dict(RelearningAudit({"bits": 3}).fixed_doses())
    assert doses["quantize"] == 3.0 and doses["fine-tune"] == 32.0
    assert RelearningAudit({"group": 0}).most(plan(("one",), 0)) == 8 * (5 + 2) + 3 * (8 + 4) + 1 + 2 * 20 + 1
