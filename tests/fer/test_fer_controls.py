"""Controls of a picture study: sound nets pass, wrong ones fail, and what compares nothing does not pass."""

import math

import numpy as np
import pytest
import torch

from wheeltap.fer.controls import recoded, same_function
from wheeltap.models.cppn import INPUTS, OUTPUTS, Cppn, grid
from wheeltap.models.genome import Genome, Link, Node
from wheeltap.models.pictures import picture
from wheeltap.stats.cohorts import Single


def genome(links: list[Link], *, hidden: int, activation: str = "identity") -> Genome:
    """Hidden nodes 0, 1, ..., inputs and outputs by their labels."""
    nodes = [Node(label, kind="in", label=label) for label in INPUTS]
    nodes += [Node(at, activation) for at in range(hidden)]
    return Genome([*nodes, *(Node(label, kind="out", label=label) for label in OUTPUTS)], links)


def chain(*, weight: float = 2.9, nodes: int = 8) -> Genome:
    """x times a power of the weight: sound, and not to be computed to 1e-4 in single precision."""
    links = [Link(at - 1 if at else "x", at, weight) for at in range(nodes)]
    return genome([*links, Link(nodes - 1, "brightness", 1.0), Link("y", "hue", 0.3)], hidden=nodes)


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
    passed = same_function(deep, net)
    assert (passed.status, passed.estimates[0].value < 1e-12) == ("passed", True)
    assert "double precision" in passed.because
    assert same_function(deep, changed(net, 3, 1e-6)).status == "failed"
    assert same_function(deep, chain(weight=2.9001).layerize()).status == "failed"


@pytest.mark.parametrize("name", ["face", "flower", "scene"])
def test_one_wrong_weight_of_a_layered_net_is_found(name: str) -> None:
    drawn = picture(name).genome
    net = drawn.layerize()
    assert same_function(drawn, net).status == "passed"
    assert same_function(drawn, changed(net, 0, 1e-6)).status == "failed"
    kernels = net.kernels()
    kernels[-1][kernels[-1] != 0] = 0.999
    assert same_function(drawn, Cppn.of(net.layout, kernels)).status == "failed"


def test_links_between_the_same_nodes_are_rounded_together() -> None:
    third = 1.0 / 3.0
    links = [Link("x", 0, third), Link("x", 0, 1e6), Link("x", 0, -1e6 + 0.1), Link(0, "brightness", 0.7)]
    drawn = genome(links, hidden=1, activation="sin")
    assert same_function(drawn, drawn.layerize()).status == "passed"
    most = genome([*[Link("x", 0, 1e6)] * 3, Link(0, "brightness", 1e-6)], hidden=1)
    assert same_function(most, most.layerize()).status == "passed"


def test_a_net_that_overflows_fails_and_stores_no_number_that_is_none() -> None:
    deep = chain(weight=1e6, nodes=60)
    control = same_function(deep, deep.layerize())
    assert control.status == "failed"
    assert all(math.isfinite(estimate.value) for estimate in control.estimates)
    steep = chain(weight=1e6, nodes=10)  # finite in double precision alone
    control = same_function(steep, steep.layerize())
    assert control.status == "passed"
    assert "not finite" in control.because
    assert len(control.estimates) == 1


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
