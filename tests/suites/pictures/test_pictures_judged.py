"""Planted numbers are judged as they were planted; controls of a picture study pass and fail as they should."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from wheeltap.audits.case import Case
from wheeltap.audits.settle import settle
from wheeltap.core.records import Finding, Outcome, SubjectRecord, TaskRecord, Trial
from wheeltap.core.study import Cohort
from wheeltap.models.cppn import INPUTS, OUTPUTS, Cppn, grid
from wheeltap.plans.plan import Plan
from wheeltap.stats.members import Single
from wheeltap.studies import rules
from wheeltap.studies.table import MemberTable
from wheeltap.suites.pictures.nets.genome import Genome, GenomeLink, GenomeNode
from wheeltap.suites.pictures.nets.pictures import picture
from wheeltap.suites.pictures.sources.drawn import gaps
from wheeltap.suites.pictures.studies.pictures import METRICS, SAME, PictureStudy, recoded, same_function
from wheeltap.suites.pictures.studies.report import StudyWords

RUNS = 100
Net = dict[str, float]


def nets(rng: np.random.Generator, count: int, *, symmetry: float, maps: float, error: float = 4e-4) -> list[Net]:
    return [
        {
            "error": error,
            "response_symmetry": float(rng.normal(symmetry, 0.02)),
            "feature_symmetry": float(rng.normal(symmetry, 0.03)),
            "distinct_maps": float(rng.normal(maps, 8.0)),
            "noise_symmetry": float(rng.normal(symmetry, 0.03)),
            "noise_dose": float(rng.normal(0.02, 0.002)),
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
    "noise_symmetry": 0.9,
    "noise_dose": 0.004,
}


def findings(made: MemberTable) -> list[Finding]:
    planned = PictureStudy().rules()
    return settle([rules.draft(rule, made, among=len(planned), alpha=0.05) for rule in planned], alpha=0.05)


def judged(made: MemberTable) -> tuple[dict[str, str], str, tuple[str, ...]]:
    found = findings(made)
    words = StudyWords(made, found, "face")
    return {finding.title: finding.status for finding in found}, words.headline(), words.fooled()


def test_a_unified_net_is_distinguished_from_five_trained_ones() -> None:
    status, headline, _ = judged(planted(0, own=UNIFIED))
    assert status.pop("Parts of the picture one weight moves") == "not_applicable"
    assert set(status.values()) == {"found"}
    start = (
        "Pictures matched to 34.0 dB (PSNR), different wiring: beside 5 nets trained to draw it, face is more unified"
    )
    assert headline.startswith(f"{start} by symmetry of response, ") and "4 of 4 tests" in headline
    _, headline, _ = judged(planted(0, own={**UNIFIED, "distinct_maps": 900.0}))
    assert "(3 of 4 tests); less unified by distinct feature maps." in headline
    made = planted(0, own=UNIFIED, error=0.02)
    _, headline, _ = judged(made)
    assert headline.startswith("Pictures matched to 17.0 dB (PSNR) (that is far apart: train longer), different wiring")
    assert StudyWords(made, (), "face").distance().startswith("The trained nets draw the picture to 16.990 [")


def test_what_does_not_matter_is_excluded_and_what_few_nets_leave_open_said_to_be() -> None:
    own = {"response_symmetry": 0.58, "feature_symmetry": 0.58, "distinct_maps": 220.0, "noise_symmetry": 0.58}
    status, headline, _ = judged(planted(3, own=own, trained=12))
    assert set(status.values()) == {"excluded", "not_applicable"}
    assert "no difference in wiring of a size that matters" in headline
    own = {"response_symmetry": 0.72, "feature_symmetry": 0.6, "distinct_maps": 190.0, "noise_symmetry": 0.6}
    status, headline, _ = judged(planted(0, own=own))
    assert status["Symmetry of response"] == "inconclusive"
    assert "not enough to decide whether the wiring differs" in headline
    status, headline, _ = judged(planted(0, own=UNIFIED, trained=1))
    assert set(status.values()) == {"inconclusive", "not_applicable"} and "not enough to decide" in headline


def test_what_the_picture_does_not_allow_is_said() -> None:
    made = planted(0, own={key: value for key, value in UNIFIED.items() if "symmetry" not in key})
    status, headline, _ = judged(made)
    assert status["Symmetry of response"] == "not_applicable" and "(1 of 1 tests)" in headline
    lacking = [line.split(". ")[0] for line in StudyWords(made, (), "face").lacking()]
    regions = "Parts of the picture one weight moves"
    without = ("Symmetry of response", "Symmetry of features", regions, "Symmetry under function-space noise")
    assert lacking == [f"Without a number: {title}" for title in without]


@pytest.mark.full
def test_one_more_net_of_the_recipe_is_seldom_called_apart() -> None:
    false = 0
    for seed in range(RUNS):
        (own,) = nets(np.random.default_rng(10_000 + seed), 1, symmetry=0.58, maps=220)
        status, headline, _ = judged(planted(seed, own=own))
        alarm = "found" in status.values()
        assert ("different wiring" in headline) == alarm
        false += alarm
    assert false <= 0.05 * RUNS + 3 * np.sqrt(0.05 * 0.95 * RUNS)


def of_maps(values: list[float], *, own: float = 17.0) -> MemberTable:
    """A study of one count alone."""
    return table({"distinct_maps": own}, sgd=[{"error": 4e-4, "distinct_maps": value} for value in values])


def left_out(made: MemberTable) -> tuple[str, str]:
    control = rules.left_out(made, PictureStudy().rules())[0]
    return control.status, control.because


def test_nets_left_out_in_turn_are_not_called_apart_unless_one_is_foreign() -> None:
    made = planted(0, own=UNIFIED, trained=14)
    assert left_out(made)[0] == "passed"
    foreign = {**made.numbers["sgd 1"], "feature_symmetry": Single(0.97)}
    assert left_out(replace(made, numbers={**made.numbers, "sgd 1": foreign}))[0] == "failed"
    assert left_out(planted(0, own=UNIFIED, trained=3))[0] == "skipped"
    wide = left_out(of_maps([20.0, 80.0, 45.0, 60.0, 35.0]))
    assert wide[0] == "skipped" and "No power" in wide[1]
    # Near the largest count that there can be, all others have it: the test rejects, and it means nothing.
    assert left_out(of_maps([84.0] * 6 + [83.0, 76.0]))[0] == "passed"
    assert left_out(of_maps([84.0] * 6 + [83.0, 17.0]))[0] == "failed"
    for own, decided in ((17.0, "found"), (84.0, "excluded")):  # of nets with one and the same count
        status, _, _ = judged(of_maps([84.0, 84.0, 84.0], own=own))
        assert status["Distinct feature maps"] == decided


def test_controls_are_said_to_fool_what_they_fool() -> None:
    _, _, lines = judged(planted(0, own={**UNIFIED, "noise_symmetry": 0.72}))
    assert [line.split(":")[0] for line in lines] == ["untrained", "abs-x"]
    untrained, folded = lines
    assert folded.startswith("abs-x: Look unified by")
    passes, apart = folded.split("Shown to differ by")
    assert "symmetry of response (" in passes and ", against 0.85)" in passes
    assert "distinct feature maps" in apart
    assert untrained.startswith("untrained: Shown to differ by symmetry of response")
    assert "Look unified" not in untrained


def test_the_question_about_noise_is_answered_by_the_numbers() -> None:
    for own, words in {
        0.9: "Yes. Both do.",
        0.6: "Weight sweeps do; for function-space noise it is not shown.",
        0.2: "Both do, in opposite directions",
    }.items():
        made = planted(0, own={**UNIFIED, "noise_symmetry": own})
        ((_, answer),) = StudyWords(made, findings(made), "face").noise_answer()
        assert answer.startswith(words)
        assert "Symmetry of response 0.85 against" in answer and "changes the picture as much: 0.004 against" in answer


def genome(links: list[GenomeLink], *, hidden: int, activation: str = "identity") -> Genome:
    """Hidden nodes 0, 1, ..., inputs and outputs by their labels."""
    nodes = [GenomeNode(label, kind="in", label=label) for label in INPUTS]
    nodes += [GenomeNode(at, activation) for at in range(hidden)]
    return Genome([*nodes, *(GenomeNode(label, kind="out", label=label) for label in OUTPUTS)], links)


def chain(*, weight: float = 2.9, nodes: int = 8) -> Genome:
    """x times a power of the weight: sound, and not to be computed to 1e-4 in single precision."""
    links = [GenomeLink(at - 1 if at else "x", at, weight) for at in range(nodes)]
    return genome([*links, GenomeLink(nodes - 1, "brightness", 1.0), GenomeLink("y", "hue", 0.3)], hidden=nodes)


def changed(net: Cppn, layer: int, by: float) -> Cppn:
    """The net with its largest weight of a layer changed by a share."""
    kernels = net.kernels()
    kernels[layer].flat[np.abs(kernels[layer]).argmax()] *= 1.0 + by
    return Cppn.of(net.layout, kernels)


def test_a_sound_net_of_a_deep_genome_passes_and_a_wrong_one_fails() -> None:
    deep = chain()
    net = deep.layerize()
    with torch.no_grad():
        single = float((net.hsv(grid(64)).double() - deep.evaluate(grid(64))).abs().max())
    assert single > 1e-3  # what an absolute limit in single precision would have judged
    assert gaps(deep, net, size=64)[0] < 1e-12
    assert gaps(deep, changed(net, 3, 1e-6), size=64)[0] > SAME
    assert gaps(deep, chain(weight=2.9001).layerize(), size=64)[0] > SAME


@pytest.mark.parametrize("name", ["face", "flower", "scene"])
def test_one_wrong_weight_of_a_layered_net_is_found(name: str) -> None:
    drawn = picture(name).genome
    net = drawn.layerize()
    assert gaps(drawn, net, size=64)[0] <= SAME
    assert gaps(drawn, changed(net, 0, 1e-6), size=64)[0] > SAME
    kernels = net.kernels()
    kernels[-1][kernels[-1] != 0] = 0.999
    assert gaps(drawn, Cppn.of(net.layout, kernels), size=64)[0] > SAME


def test_links_between_the_same_nodes_are_rounded_together() -> None:
    third = 1.0 / 3.0
    links = [
        GenomeLink("x", 0, third),
        GenomeLink("x", 0, 1e6),
        GenomeLink("x", 0, -1e6 + 0.1),
        GenomeLink(0, "brightness", 0.7),
    ]
    drawn = genome(links, hidden=1, activation="sin")
    assert gaps(drawn, drawn.layerize(), size=64)[0] <= SAME
    most = genome([*[GenomeLink("x", 0, 1e6)] * 3, GenomeLink(0, "brightness", 1e-6)], hidden=1)
    assert gaps(most, most.layerize(), size=64)[0] <= SAME


def test_a_net_that_overflows_is_not_close_to_its_graph() -> None:
    deep = chain(weight=1e6, nodes=60)
    assert not gaps(deep, deep.layerize(), size=64)[0] <= SAME
    steep = chain(weight=1e6, nodes=10)  # finite in double precision alone
    gap, rmse = gaps(steep, steep.layerize(), size=64)
    assert gap <= SAME
    assert not math.isfinite(rmse)


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
    assert "double precision" in control.because
    assert same_function(*case({"gap": 2e-9, "rmse": 1e-9})).status == "failed"
    steep = same_function(*case({"gap": 1e-15}))
    assert (steep.status, len(steep.estimates)) == ("passed", 1)
    assert "not finite" in steep.because
    none = same_function(*case({}))
    assert (none.status, none.estimates) == ("failed", ())


NUMBERS = {"feature_symmetry": Single(0.9), "effective_rank": Single(5.0), "response_symmetry": Single(0.7)}


@pytest.mark.parametrize(
    ("twin", "status"),
    [
        ({}, "passed"),
        ({"effective_rank": Single(5.04), "response_symmetry": Single(0.1)}, "passed"),
        ({"feature_symmetry": Single(0.89)}, "failed"),
        ({"effective_rank": Single(math.nan)}, "failed"),
        ({"roughness": Single(0.2)}, "failed"),
    ],
)
def test_a_twin_must_have_the_same_numbers(twin: dict[str, Single], status: str) -> None:
    for one, other in ((NUMBERS, NUMBERS | twin), (NUMBERS | twin, NUMBERS)):
        control = recoded(one, other)
        assert control.status == status
        assert all(math.isfinite(estimate.value) for estimate in control.estimates)
        assert "feature_symmetry" in control.because


def test_where_nothing_is_compared_nothing_is_passed() -> None:
    responses = {"response_symmetry": Single(0.7), "direction_symmetry": Single(0.4)}
    for own in ({}, responses):
        control = recoded(own, own)
        assert control.status == "skipped"
        assert control.estimates == ()
    assert recoded(NUMBERS, responses).status == "failed"


def test_a_number_next_to_zero_is_not_compared_as_a_share() -> None:
    assert recoded({"unit_parity": Single(1e-16)}, {"unit_parity": Single(3e-16)}).status == "passed"
    assert recoded({"unit_parity": Single(0.0)}, {"unit_parity": Single(1e-3)}).status == "failed"
