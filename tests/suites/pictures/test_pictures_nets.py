"""Genomes and pictures with known factors: the translation into dense nets, and what each factor moves."""

import math
from collections.abc import Hashable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.models.test_models_cppn import FUNCTIONS
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.models.cppn import INPUTS, OUTPUTS, colour, coordinates, grid
from wheeltap.suites.pictures.nets.genome import MOST_NODES, Genome, GenomeLink, GenomeNode
from wheeltap.suites.pictures.nets.pictures import PICTURES, KnownPicture, picture

IN = [GenomeNode(("1", str(at)), kind="in", label=label) for at, label in enumerate(INPUTS)]
OUT = [GenomeNode(("2", str(at)), "sin", "out", label) for at, label in enumerate(OUTPUTS)]
X, Y, D, BIAS = (node.key for node in IN)
HUE, SATURATION, BRIGHTNESS = (node.key for node in OUT)
FED = [GenomeLink(X, node.key, 1.0) for node in OUT]
names = st.sampled_from(sorted(set(FUNCTIONS) - {"cache"}))
weights = st.integers(-64, 64).map(lambda value: value / 64)  # exact in single precision
points = st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1)), min_size=1, max_size=3)


@st.composite
def genomes(draw: st.DrawFn) -> Genome:
    """Any graph without cycles: nodes in any file order, several links between two, dead ends, chains, equal ids.

    Hidden nodes have keys of two branches with the same ids. Outputs may be read by other nodes.
    """
    hidden = [GenomeNode((str(at % 2 + 3), str(at // 2)), draw(names)) for at in range(draw(st.integers(0, 12)))]
    outputs = [
        GenomeNode(key, draw(names), "out", label)
        for key, label in zip((HUE, SATURATION, BRIGHTNESS), OUTPUTS, strict=True)
    ]
    row = [*IN, *draw(st.permutations([*hidden, *outputs]))]
    links = list[GenomeLink]()
    for at in range(len(IN), len(row)):
        chain = [at - 1] if draw(st.booleans()) else []
        sources = chain + draw(st.lists(st.integers(0, at - 1), max_size=3))
        links += [GenomeLink(row[source].key, row[at].key, draw(weights)) for source in sources]
    return Genome(draw(st.permutations(row)), draw(st.permutations(links)))


def slow(
    nodes: Sequence[GenomeNode], links: Sequence[GenomeLink], point: tuple[float, float]
) -> tuple[list[float], float]:
    """Hue, saturation and brightness by recursion from the outputs, and the largest number on the way."""
    inputs = dict(zip(INPUTS, (*point, 1.4 * math.hypot(*point), 1.0), strict=True))
    known: dict[Hashable, float] = {}
    largest = [1.0]

    def value(node: GenomeNode) -> float:
        if node.kind == "in":
            return inputs[node.label]
        if node.key not in known:
            by_key = {other.key: other for other in nodes}
            total = math.fsum(k.weight * value(by_key[k.source]) for k in links if k.target == node.key)
            known[node.key] = FUNCTIONS[node.activation](total)
            largest.append(abs(total))
        return known[node.key]

    found = [value(next(node for node in nodes if node.kind == "out" and node.label == label)) for label in OUTPUTS]
    return found, max(largest)


@given(genomes(), points)
def test_the_graph_and_the_dense_net_are_the_same_function(genome: Genome, places: list[tuple[float, float]]) -> None:
    inputs = coordinates(torch.tensor(places, dtype=torch.float64))
    expected, largest = zip(*(slow(genome.nodes, genome.links, place) for place in places), strict=True)
    net = genome.layerize()
    with torch.no_grad():
        dense = net.double().hsv(inputs)
    for found in (genome.evaluate(inputs), dense):
        assert float((found - torch.tensor(expected, dtype=torch.float64)).abs().max()) < 1e-8 * max(largest)
    assert net.layout.layers <= len(genome.nodes)


@settings(max_examples=40)
@given(genomes())
def test_every_link_has_a_place_and_only_links_and_copies_do(genome: Genome) -> None:
    net = genome.layerize()
    pairs = {(k.source, k.target): 0.0 for k in genome.links if k.target in genome.order}
    for link in genome.links:
        if (link.source, link.target) in pairs:
            pairs[link.source, link.target] += link.weight
    there = sum(np.float32(weight) != 0 for weight in pairs.values())
    assert len(net.links()) == there
    copies = np.concatenate([kernel[:, net.layout.carried].ravel() for kernel in net.kernels()[:-1]])
    assert set(copies.tolist()) <= {0.0, 1.0}


@settings(max_examples=40)
@given(genomes())
def test_the_ids_of_named_links_lead_to_their_weights(genome: Genome) -> None:
    seen = [k for k in genome.links if k.target in genome.order and k.weight]
    alone = [k for k in seen if [(o.source, o.target) for o in genome.links].count((k.source, k.target)) == 1]
    named = {k: GenomeLink(k.source, k.target, k.weight, f"factor {at}") for at, k in enumerate(alone)}
    known = Genome(genome.nodes, [named.get(k, k) for k in genome.links])
    flat = known.layerize().flat_parameters()
    assert {name: flat[number] for number, name in known.factors().items()} == {
        k.name: np.float32(k.weight) for k in named.values()
    }


def test_links_add_up_dead_ends_are_left_out_and_what_nothing_leads_into_is_constant() -> None:
    twice = Genome([*IN, *OUT], [*FED, GenomeLink(Y, HUE, 0.25), GenomeLink(Y, HUE, 0.5)])
    once = Genome([*IN, *OUT], [*FED, GenomeLink(Y, HUE, 0.75)])
    assert torch.equal(twice.evaluate(grid(8)), once.evaluate(grid(8)))
    assert np.array_equal(twice.layerize().flat_parameters(), once.layerize().flat_parameters())
    dead = [GenomeNode("dead", "tanh"), GenomeNode("end", "cos")]
    links = [GenomeLink(X, "dead", 2.0), GenomeLink("dead", "end", 1.0), GenomeLink(HUE, "end", 1.0)]
    genome = Genome([*IN, *dead, *OUT], [*FED, *links])
    assert genome.layerize().arch == Genome([*IN, *OUT], FED).layerize().arch == "1;cache:4,sin:3"
    genome = Genome([*IN, *OUT, GenomeNode("alone", "gaussian")], [*FED, GenomeLink("alone", HUE, 0.5)])
    expected = (grid(4)[:, 0].double() + 0.5).sin()
    assert torch.allclose(genome.evaluate(grid(4))[:, 0], expected)
    assert torch.allclose(genome.layerize().double().hsv(grid(4).double())[:, 0], expected)


def chain(length: int, *, read: bool) -> Genome:
    nodes = [GenomeNode(at, "sin") for at in range(length)]
    links = [GenomeLink(X, 0, 1.0), *(GenomeLink(at, at + 1, 1.0) for at in range(length - 1))]
    links += [GenomeLink(length - 1, HUE, 1.0), *(GenomeLink(at, HUE, 1.0) for at in range(length if read else 0))]
    return Genome([*IN, *nodes, *OUT], [*FED, *links])


def test_a_long_chain_is_laid_out_and_one_too_long_or_too_wide_is_refused_at_once() -> None:
    genome = chain(300, read=False)
    net = genome.layerize()
    assert net.layout.layers == 301
    with torch.no_grad():
        assert torch.allclose(net.double().hsv(grid(4).double()), genome.evaluate(grid(4)), atol=1e-6)
    for read in (False, True):
        genome = chain(4000, read=read)
        assert genome.evaluate(grid(2)).shape == (4, 3)
        with pytest.raises(UsageError):
            genome.layerize()
    with pytest.raises(UsageError):
        chain(500, read=True).layerize()


UNSOUND: list[tuple[list[GenomeNode], list[GenomeLink]]] = [
    ([*IN, *OUT, OUT[0]], FED), ([*IN[1:], *OUT], FED), ([*IN, *OUT[:2]], FED[:2]),
    ([*IN, *OUT, GenomeNode("more", "sin", "out", "hue")], FED),
    ([*IN, *OUT, GenomeNode("more", "sin", "out", "alpha")], FED),
    ([*IN, *OUT, GenomeNode("more", kind="in", label="z")], FED),
    ([*IN, *OUT], [*FED, GenomeLink(X, "nowhere", 1.0)]), ([*IN, *OUT], [*FED, GenomeLink("nowhere", HUE, 1.0)]),
    ([*IN, *OUT], [*FED, GenomeLink(HUE, X, 1.0)]), ([*IN, *OUT], [*FED, GenomeLink(Y, HUE, math.nan)]),
    ([*IN, *OUT], [*FED, GenomeLink(Y, HUE, -math.inf)]), ([*IN, *OUT], [*FED, GenomeLink(HUE, HUE, 1.0)]),
    ([*IN, *OUT], [*FED, GenomeLink(HUE, SATURATION, 1.0), GenomeLink(SATURATION, HUE, 1.0)]),
    ([*IN, *OUT, GenomeNode("a"), GenomeNode("b")], [*FED, GenomeLink("a", "b", 1.0), GenomeLink("b", "a", 1.0)]),
    ([*IN, *OUT, *map(GenomeNode, range(MOST_NODES))], FED),
]  # fmt: skip


def test_unsound_graphs_are_refused() -> None:
    for nodes, links in UNSOUND:
        with pytest.raises(DataError) as caught:
            Genome(nodes, links, name="my genome")
        assert caught.value.where == "my genome"
    with pytest.raises(UnknownName, match="gaussian"):
        Genome([*IN, *OUT, GenomeNode("dead", "gausian")], FED)
    with pytest.raises(UnknownName, match="face"):
        picture("fase")


SIZE = 64


def swept(genome: Genome, factor: str, change: float) -> Genome:
    links = [GenomeLink(k.source, k.target, k.weight + change, k.name) if k.name == factor else k for k in genome.links]
    return Genome(genome.nodes, links)


def factors(of: KnownPicture) -> list[str]:
    return [link.name for link in of.genome.links if link.name]


def change(of: KnownPicture, factor: str, by: float) -> NDArray[np.float64]:
    """Squared change of colour at each pixel."""
    after = swept(of.genome, factor, by).render(SIZE)
    return ((after - of.genome.render(SIZE)).astype(np.float64) ** 2).sum(2).ravel()


def test_pictures_are_drawn_by_small_nets_with_weights_that_each_do_something() -> None:
    for of in (picture(name) for name in PICTURES):
        net, inputs = of.genome.layerize(), grid(SIZE).double()
        with torch.no_grad():
            assert float((net.double().hsv(inputs) - of.genome.evaluate(inputs)).abs().max()) < 1e-4
        assert 7 <= net.layout.layers <= 14 and 12 <= net.layout.width <= 30
        weights = np.abs([link.weight for link in of.genome.links])  # most are in the range of the site
        assert np.mean(weights <= 3.0) > 0.85 and weights.max() <= 12.0
        assert sorted(of.genome.factors().values()) == sorted(factors(of))
        assert len(set(factors(of))) == len(factors(of)) >= 6
        for factor in factors(of):
            assert change(of, factor, 0.25).sum() > 0.05, factor


def test_the_picture_has_its_symmetry_exactly_whatever_named_factor_is_changed() -> None:
    for of, order in ((picture("face"), 2), (picture("flower"), 12)):
        assert of.symmetric is not None
        points, symmetry = of.symmetric(SIZE)
        assert symmetry.order == order and len(points) == pytest.approx(SIZE * SIZE, rel=0.1)
        inputs = coordinates(points.double())
        assert float(colour(of.genome.evaluate(inputs)).std(0).min()) > 0.05
        for factor in ("", *factors(of)):
            hsv = swept(of.genome, factor, 0.5 if factor else 0.0).evaluate(inputs)
            assert float((hsv - symmetry.project(hsv)).abs().max()) < 1e-5, factor
