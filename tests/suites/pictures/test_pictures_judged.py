"""Planted numbers are judged as they were planted; controls of a picture study pass and fail as they should."""

import math
from dataclasses import replace

import numpy as np
import pytest

from wheeltap.audits.case import Case
from wheeltap.audits.settle import settle
from wheeltap.core.records import Finding, Outcome, SubjectRecord, TaskRecord, Trial
from wheeltap.core.study import Cohort
from wheeltap.models.cppn import Cppn
from wheeltap.plans.plan import Plan
from wheeltap.stats.members import Single
from wheeltap.studies import rules
from wheeltap.studies.table import MemberTable
from wheeltap.suites.pictures.nets.pictures import picture
from wheeltap.suites.pictures.sources.drawn import gaps
from wheeltap.suites.pictures.studies.pictures import METRICS, SAME, PictureStudy, recoded, same_function
from wheeltap.suites.pictures.studies.report import StudyWords

RUNS = 40
Net = dict[str, float]


def nets(rng: np.random.Generator, count: int, *, symmetry: float, maps: float, error: float = 4e-4) -> list[Net]:
    return [
        {
            "error": error,
            "response_symmetry": float(rng.normal(symmetry, 0.02)),
            "feature_symmetry": float(rng.normal(symmetry, 0.03)),
            "distinct_maps": float(rng.normal(maps, 8.0)),
        }
        for _ in range(count)
    ]


def table(own: Net, **cohorts: list[Net]) -> MemberTable:
    numbers = {"face": {key: Single(value) for key, value in {"error": 0.0, **own}.items()}}
    made = [Cohort(name="face", members=("face",))]
    for kind, several in cohorts.items():
        name = kind.replace("_", "-")
        members = tuple(f"{name} {at + 1}" for at in range(len(several)))
        made.append(Cohort(name=name, members=members))
        for member, net in zip(members, several, strict=True):
            numbers[member] = {key: Single(value) for key, value in net.items()}
    return MemberTable(cohorts=tuple(made), metrics=METRICS, numbers=numbers, lost={})


def planted(seed: int, *, own: Net, trained: int = 5, error: float = 4e-4) -> MemberTable:
    rng = np.random.default_rng(seed)
    return table(
        own,
        sgd=nets(rng, trained, symmetry=0.58, maps=220, error=error),
        untrained=nets(rng, 5, symmetry=0.54, maps=140),
        abs_x=nets(rng, 3, symmetry=0.99, maps=190),
    )


UNIFIED = {
    "response_symmetry": 0.85,
    "feature_symmetry": 0.99,
    "distinct_maps": 16.0,
}


def findings(made: MemberTable) -> list[Finding]:
    planned = PictureStudy().rules()
    return settle([rules.draft(rule, made, among=len(planned), alpha=0.05) for rule in planned], alpha=0.05)


def statuses(made: MemberTable) -> dict[str, str]:
    return {finding.title: finding.status for finding in findings(made)}


def test_a_unified_net_is_distinguished_from_five_trained_ones() -> None:
    assert set(statuses(planted(0, own=UNIFIED)).values()) == {"found"}


def test_what_does_not_matter_is_excluded_and_what_few_nets_leave_open_is_inconclusive() -> None:
    same = {"response_symmetry": 0.58, "feature_symmetry": 0.58, "distinct_maps": 220.0}
    assert set(statuses(planted(3, own=same, trained=60)).values()) == {"excluded"}
    assert set(statuses(planted(3, own=same, trained=12)).values()) == {"inconclusive"}
    near = {"response_symmetry": 0.72, "feature_symmetry": 0.6, "distinct_maps": 190.0}
    assert statuses(planted(0, own=near))["Symmetry of response"] == "inconclusive"
    assert set(statuses(planted(0, own=UNIFIED, trained=1)).values()) == {"inconclusive"}


def test_what_the_picture_does_not_allow_is_not_applicable() -> None:
    made = planted(0, own={"distinct_maps": 16.0})
    assert statuses(made) == {
        "Symmetry of response": "not_applicable", "Symmetry of features": "not_applicable",
        "Distinct feature maps": "found",
    }  # fmt: skip
    assert len(StudyWords(made, (), "face").lacking()) == 2


def test_one_more_net_of_the_recipe_is_seldom_called_apart() -> None:
    false = 0
    for seed in range(RUNS):
        (own,) = nets(np.random.default_rng(10_000 + seed), 1, symmetry=0.58, maps=220)
        false += "found" in statuses(planted(seed, own=own)).values()
    assert false <= 0.05 * RUNS + 3 * np.sqrt(0.05 * 0.95 * RUNS)


def of_maps(values: list[float], *, own: float = 17.0) -> MemberTable:
    """A study of one count alone."""
    return table({"distinct_maps": own}, sgd=[{"error": 4e-4, "distinct_maps": value} for value in values])


def left_out(made: MemberTable) -> str:
    return rules.left_out(made, PictureStudy().rules())[0].status


def test_nets_left_out_in_turn_are_not_called_apart_unless_one_is_foreign() -> None:
    made = planted(0, own=UNIFIED, trained=14)
    assert left_out(made) == "skipped"  # with a long tail, none of 14 nets would stand out by twice the margin
    foreign = {**made.numbers["sgd 1"], "distinct_maps": Single(900.0)}
    assert left_out(replace(made, numbers={**made.numbers, "sgd 1": foreign})) == "failed"
    assert left_out(planted(0, own=UNIFIED, trained=3)) == "skipped"
    assert left_out(of_maps([20.0, 80.0, 45.0, 60.0, 35.0])) == "skipped"  # without power
    assert left_out(of_maps([84.0] * 6 + [83.0, 76.0])) == "passed"
    assert left_out(of_maps([84.0] * 6 + [83.0, 17.0])) == "failed"
    for own, decided in ((17.0, "found"), (84.0, "inconclusive")):  # of nets with one and the same count
        assert statuses(of_maps([84.0, 84.0, 84.0], own=own))["Distinct feature maps"] == decided


def test_controls_that_reach_the_net_under_study_pass_and_others_differ() -> None:
    words = StudyWords(planted(0, own=UNIFIED), (), "face")
    assert words.likeness("response_symmetry", "abs-x") == "passes"
    assert words.likeness("distinct_maps", "abs-x") == "apart"
    assert words.likeness("response_symmetry", "untrained") == "apart"
    assert words.likeness("response_symmetry", "sgd") == ""


def changed(net: Cppn, layer: int, by: float) -> Cppn:
    """The net with its largest weight of a layer changed by a share."""
    kernels = net.kernels()
    kernels[layer].flat[np.abs(kernels[layer]).argmax()] *= 1.0 + by
    return Cppn.of(net.layout, kernels)


@pytest.mark.parametrize("name", ["face", "flower", "scene"])
def test_one_wrong_weight_of_a_layered_net_is_found(name: str) -> None:
    drawn = picture(name).genome
    net = drawn.layerize()
    assert gaps(drawn, net, size=64)[0] <= SAME
    assert gaps(drawn, changed(net, 0, 1e-6), size=64)[0] > SAME
    kernels = net.kernels()
    kernels[-1][kernels[-1] != 0] = 0.999
    assert gaps(drawn, Cppn.of(net.layout, kernels), size=64)[0] > SAME


def case(values: dict[str, float]) -> tuple[Case, Trial]:
    """What a study sees of a reading of the graph."""
    arrays = {name: np.array(value, dtype=np.float32) for name, value in values.items()}
    subject = SubjectRecord(name="face", fingerprint="f", parameters=1)
    task = TaskRecord(name="t", digest="t", examples=4, measure="squared_error", measures=("squared_error",))
    plan = Plan(command="study pictures", subjects=(subject,), task=task, audits=())
    graph = plan.reading(subject, "picture-graph", {})
    return Case(plan, {graph.key: Outcome(key=graph.key, status="done", values=arrays)}.get), graph


def test_the_control_is_about_double_precision_and_stores_no_number_that_is_none() -> None:
    control = same_function(*case({"gap": 2e-15, "rmse": 1e-3}))
    assert (control.status, len(control.estimates)) == ("passed", 2)
    assert same_function(*case({"gap": 2e-9, "rmse": 1e-9})).status == "failed"
    steep = same_function(*case({"gap": 1e-15}))
    assert (steep.status, len(steep.estimates)) == ("passed", 1)
    none = same_function(*case({}))
    assert (none.status, none.estimates) == ("failed", ())


NUMBERS = {"feature_symmetry": Single(0.9), "response_symmetry": Single(0.7)}


@pytest.mark.parametrize(
    ("twin", "status"),
    [
        ({}, "passed"),
        ({"feature_symmetry": Single(0.9005), "response_symmetry": Single(0.1)}, "passed"),
        ({"feature_symmetry": Single(0.89)}, "failed"),
        ({"feature_symmetry": Single(math.nan)}, "failed"),
    ],
)
def test_a_twin_must_have_the_same_numbers(twin: dict[str, Single], status: str) -> None:
    for one, other in ((NUMBERS, NUMBERS | twin), (NUMBERS | twin, NUMBERS)):
        control = recoded(one, other)
        assert control.status == status
        assert all(math.isfinite(estimate.value) for estimate in control.estimates)
