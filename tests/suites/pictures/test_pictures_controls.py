"""Controls of a picture study: sound nets pass, wrong ones fail, and what compares nothing does not pass."""

import math

import numpy as np
import pytest
import torch

from wheeltap.audits.case import Case
from wheeltap.core.records import Outcome, SubjectRecord, TaskRecord, Trial
from wheeltap.models.cppn import INPUTS, OUTPUTS, Cppn, grid
from wheeltap.plans.plan import Plan
from wheeltap.stats.members import Single
from wheeltap.suites.pictures.nets.genome import Genome, GenomeLink, GenomeNode
from wheeltap.suites.pictures.nets.pictures import picture
from wheeltap.suites.pictures.sources.drawn import gaps
from wheeltap.suites.pictures.studies.pictures import SAME, recoded, same_function


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
