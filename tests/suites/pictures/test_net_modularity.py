"""Modularity of layered nets: planted modules, exhaustive search on small graphs, equal numbers of links."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from wheeltap.core.errors import UsageError
from wheeltap.stats.modularity import rewired
from wheeltap.suites.pictures.stats.net_modularity import joined, largest_q, net_modularity, strongest_links

Floats = NDArray[np.float64]


def dense(*widths: int, seed: int = 0) -> list[Floats]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in itertools.pairwise(widths)]


def in_blocks(*widths: int, blocks: int, seed: int = 0) -> list[Floats]:
    """Dense nets side by side, with weak weights between them."""
    found: list[Floats] = []
    for kernel in dense(*widths, seed=seed):
        rows, columns = (np.arange(size) * blocks // size for size in kernel.shape)
        found.append(kernel * np.where(rows[:, None] == columns, 1.0, 1e-3) + 1e-6)
    return found


def partitions(count: int) -> Iterator[list[int]]:
    """Every way of labelling ``count`` units with modules, the first of each new label in order."""

    def extended(labels: list[int]) -> Iterator[list[int]]:
        if len(labels) == count:
            yield labels
            return
        for label in range(max(labels) + 2):
            yield from extended([*labels, label])

    return extended([0])


def q_of(graph: NDArray[np.bool_], labels: list[int]) -> float:
    degrees, twice = graph.sum(1), graph.sum()
    same = np.equal.outer(labels, labels)
    return float(((graph - np.outer(degrees, degrees) / twice) * same).sum() / twice)


@pytest.mark.parametrize("seed", range(12))
def test_the_search_finds_the_best_division_of_small_graphs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = np.triu(rng.random((7, 7)) < 0.4, 1)
    graph = graph | graph.T
    if not graph.any():
        graph[0, 1] = graph[1, 0] = True
    best = max(q_of(graph, labels) for labels in partitions(7))
    assert largest_q(graph, rng=rng) == pytest.approx(best, abs=1e-9)


def test_nets_side_by_side_are_modular_and_one_net_is_not() -> None:
    rng = np.random.default_rng(0)
    apart = net_modularity(in_blocks(6, 12, 12, 6, blocks=3), links=80, rewirings=19, rng=rng)
    whole = net_modularity(dense(6, 12, 12, 6), links=80, rewirings=19, rng=rng)
    assert apart.found.p == 0.05 and apart.found.z > 5
    assert whole.found.p > 0.05 or abs(whole.found.z) < 2.5
    assert apart.found.value > whole.found.value


def test_only_the_strongest_links_count_and_as_many_as_asked() -> None:
    kernels = dense(5, 8, 4)
    kept = strongest_links(kernels, links=20)
    assert sum(int(kernel.sum()) for kernel in kept) == 20
    weakest = min(np.abs(kernel[there]).min() for kernel, there in zip(kernels, kept, strict=True) if there.any())
    assert all((np.abs(kernel[~there]) <= weakest).all() for kernel, there in zip(kernels, kept, strict=True))
    ties = strongest_links([np.ones((3, 3))], links=4)[0]
    assert ties.ravel().tolist() == [True] * 4 + [False] * 5


def test_units_are_joined_layer_by_layer_and_rewiring_keeps_degrees() -> None:
    rng = np.random.default_rng(0)
    graph = strongest_links(dense(4, 6, 5), links=25)
    whole = joined(graph)
    assert whole.shape == (15, 15) and (whole == whole.T).all() and whole.sum() == 50
    assert not whole[:4, :4].any() and not whole[:4, 10:].any()
    other = joined([rewired(kernel, rng) for kernel in graph])
    assert (other.sum(1) == whole.sum(1)).all() and (other != whole).any()


def test_the_order_of_units_does_not_matter() -> None:
    first, second = in_blocks(6, 12, 6, blocks=2)
    order = np.random.default_rng(1).permutation(12)
    one = net_modularity([first, second], links=40, rewirings=5, rng=np.random.default_rng(0))
    two = net_modularity([first[:, order], second[order]], links=40, rewirings=5, rng=np.random.default_rng(0))
    assert one.found.value == pytest.approx(two.found.value)
    assert one.units == two.units


@pytest.mark.parametrize("links", [0, 33])
def test_links_that_are_not_there_are_refused(links: int) -> None:
    kernels = [np.ones((4, 4)), np.ones((4, 4))]
    with pytest.raises(UsageError, match="so many links"):
        net_modularity(kernels, links=links, rewirings=2, rng=np.random.default_rng(0))
