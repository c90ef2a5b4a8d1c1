"""The study ``example-detection``: nets in which weights tell more than anything else, and labels that say nothing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import wheeltap as wt
from benchmarks.nets import fragile as fragile_nets
from wheeltap.audits.case import Case
from wheeltap.core.errors import WheeltapError
from wheeltap.core.records import Finding
from wheeltap.core.report import ReportRecord
from wheeltap.plans.store import Outcomes, Store
from wheeltap.runs.request import StudyRequest
from wheeltap.runs.studying import planned
from wheeltap.sources import digits
from wheeltap.stats import members
from wheeltap.stats.members import NumberScale
from wheeltap.suites.training.studies import example_detection as own
from wheeltap.suites.training.studies.example_detection import ExampleDetection, gain_of
from wheeltap.testing.study_contract import StudyContract

NETS = [f"benchmarks.nets.fragile:seed{at}" for at in range(5)]
EFFORT = wt.Effort(draws=16, control_draws=4, block_draws=0)


def asked(label: str = "fragile", nets: list[str] = NETS) -> ExampleDetection:
    return ExampleDetection({"models": ",".join(nets), "label": label})


class TestContract(StudyContract):
    study = ExampleDetection
    settings: ClassVar[dict[str, Any]] = {"models": ",".join(NETS), "label": "fragile"}
    effort = EFFORT

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, store: Path) -> Path:
        """That of the tests below, which look at the same study."""
        return store.parent


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all labels: noise does not depend on them."""
    return tmp_path_factory.mktemp("detection") / "study.wheeltap"


@pytest.fixture(scope="module")
def fragile(store: Path) -> ReportRecord:
    return wt.study(asked(), store=store, effort=EFFORT).record


@pytest.fixture(scope="module")
def case(store: Path, fragile: ReportRecord) -> Iterator[Case]:
    with Store(store) as kept:
        yield Case(planned(asked(), StudyRequest(effort=EFFORT)).plan, Outcomes(kept, retry=False))


def findings(record: ReportRecord) -> dict[str, Finding]:
    return {finding.code: finding for finding in record.findings}


def values(record: ReportRecord) -> dict[str, tuple[float, ...]]:
    assert record.study is not None
    return {row.metric.key: row.cohorts[0].values for row in record.study.rows}


def test_what_weights_alone_show_is_found_and_by_relative_noise_alone(fragile: ReportRecord) -> None:
    """Units that cancel move no output under input noise, and function-space noise is silent on them."""
    found = findings(fragile)
    said = {"inconclusive": "No evidence of added value", "excluded": "adds nothing"}
    assert found["WT101"].status == "found" and said[found["WT102"].status] in fragile.headline
    numbers = values(fragile)
    assert max(numbers[own.CHEAP]) < 0.6 and min(numbers[own.RELATIVE]) > 0.65
    assert min(numbers[gain_of(own.RELATIVE)]) > 0.15 > 0.04 > max(numbers[gain_of(own.FUNCTION)])
    assert {control.status for control in fragile.controls} <= {"passed", "skipped"}


def test_labels_dealt_at_random_are_found_in_no_run(store: Path, fragile: ReportRecord) -> None:
    """Whole runs, of which only the reading of the label is new."""
    for at in range(2):
        run = wt.study(asked(f"random{at}"), store=store, effort=EFFORT).record
        assert run.cost.trials == len(NETS)
        assert {finding.status for finding in run.findings} <= {"inconclusive", "excluded"}, at


def test_labels_dealt_at_random_are_found_no_more_often_than_alpha(case: Case, fragile: ReportRecord) -> None:
    """The same statistics, over many deals."""
    held = [asked().scores(case.on(member), member) for member in case.plan.subjects[:2]]
    rng, alarms = np.random.default_rng(0), 0
    for _ in range(20):
        dealt = rng.permutation(held[0].labels)
        gains = [one.combined(dealt) for one in held]
        tests = [
            members.mean([gain[gain_of(key)] for gain in gains], name=key, scale=NumberScale("AUC"))
            for key in own.WEIGHTS
        ]
        least = min(test.above(own.WORTH, "more") or 0.0 for test in tests)
        alarms += least < 0.05 / len(tests)
    assert alarms <= 3  # more with a probability of .016, if each is one of .05


def test_scores_are_those_of_a_plain_pass_and_of_the_trials(case: Case, fragile: ReportRecord) -> None:
    member, task = case.plan.subjects[0], fragile_nets.task()
    held = asked().scores(case.on(member), member)
    logits = fragile_nets.net(0)(digits.split().test_inputs).double()
    likely = logits.softmax(1)
    right = likely[range(len(likely)), task.targets]
    others = logits.scatter(1, task.targets[:, None], -np.inf).amax(1)
    margin = logits[range(len(likely)), task.targets] - others
    assert held.outputs[own.MARGIN] == pytest.approx(-margin.detach().numpy(), abs=1e-4)
    assert np.exp(held.outputs[own.LOSS]) == pytest.approx(-right.log().detach().numpy(), rel=1e-3, abs=1e-6)
    entropy = -(likely * likely.log()).sum(1).detach().numpy()
    assert np.exp(held.outputs[own.ENTROPY]) == pytest.approx(entropy, rel=1e-3, abs=1e-6)
    assert np.array_equal(held.labels, (fragile_nets.height() > 0).double().numpy())
    numbers = values(fragile)
    lost = held.weights[own.RELATIVE]
    gaps = lost[held.labels == 1.0][:, None] - lost[held.labels == 0.0]
    assert numbers[own.RELATIVE][0] == pytest.approx(float((gaps > 0).mean() + (gaps == 0).mean() / 2), abs=1e-9)
    # Mean over doses of about half of the score: neither nothing nor all is lost.
    assert 0.2 < held.weights[own.RELATIVE].mean() < 0.7


def test_inputs_get_as_many_passes_as_weights(case: Case, fragile: ReportRecord) -> None:
    study = asked()
    for member in case.plan.subjects:
        alone = case.on(member)
        trials = {trial.key: trial for trial in study.ask_of(alone, member) if trial.kind != "read"}
        outcomes = [case.outcome(trial) for trial in trials.values()]
        weights = sum(outcome.forwards for outcome in outcomes if outcome is not None)
        inputs = case.outcome(study.readings(alone.plan, member)[1])
        assert inputs is not None and inputs.forwards >= weights >= 2 * 6 * EFFORT.draws


def test_a_net_and_a_file_of_ones_own(tmp_path: Path) -> None:
    """One net: its own error alone, and no word on others."""
    data, label = digits.split(), (fragile_nets.height() > 0).long().numpy()
    file = tmp_path / "items.npz"
    np.savez(file, inputs=data.test_inputs.numpy(), targets=data.test_targets.numpy(), factor_contaminated=label)
    settings = {"models": "benchmarks.nets.fragile:seed0", "data": str(file), "label": "contaminated"}
    record = wt.study("example-detection", settings=settings, store=tmp_path / "own.wheeltap", effort=EFFORT).record
    found = findings(record)["WT101"]
    assert found.status == "found" and found.estimates[0].n == 1
    assert "one member" in found.estimates[0].method


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("constant", "Too few examples have one of the labels"),
        ("rare", "19 with 1"),
        ("three", "The label is not one of 0 and 1"),
        ("fragil", "Did you mean 'fragile'"),
    ],
)
def test_labels_that_cannot_be_used_are_refused_before_anything_is_made(label: str, said: str) -> None:
    with pytest.raises(WheeltapError, match=said):
        planned(asked(label), StudyRequest(effort=EFFORT))


def test_examples_without_labels_or_right_options_are_refused(tmp_path: Path) -> None:
    data = digits.split()
    inputs, targets = data.test_inputs.numpy(), data.test_targets.numpy()
    for name, arrays, said in (
        ("bare", {"targets": targets}, "The examples have no labels"),
        ("wanted", {"targets": inputs[:, :10], "factor_wrong": targets % 2}, "no margin"),
    ):
        np.savez(tmp_path / f"{name}.npz", allow_pickle=False, inputs=inputs, **arrays)
        own_data = {"models": NETS[0], "data": str(tmp_path / f"{name}.npz")}
        with pytest.raises(WheeltapError, match=said):
            planned(ExampleDetection(own_data), StudyRequest(effort=EFFORT))


def test_nets_of_its_own_get_examples_with_wrong_labels() -> None:
    made, true = digits.mislabeled(), digits.split().train_targets
    wrong = made.annotations.factors["wrong"].bool()
    assert bool(((made.targets != true) == wrong).all()) and int(wrong.sum()) == round(digits.WRONG * len(true))
    asked = ExampleDetection(ExampleDetection.sized("small"))
    plan = planned(asked, StudyRequest(effort=EFFORT)).plan
    assert plan.task.digest == made.digest and len(plan.subjects) == asked.settings.seeds
    assert {subject.artifact.data for subject in plan.subjects if subject.artifact is not None} == {made.digest}
