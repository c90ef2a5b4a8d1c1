"""Whether the wiring of a layered net falls into modules, at a given number of links (M7)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import UsageError
from wheeltap.stats.crossed import FloatArray, Values
from wheeltap.stats.modularity import Modularity, rewired

_STARTS: Final = 5
"""Orders in which the search for modules goes through the units; the best end counts."""

Links = list[NDArray[np.bool_]]
"""Which links are there, ``[in, out]`` of each kernel."""


@dataclass(frozen=True)
class NetModularity:
    """Modularity of a net's strongest links, beside rewired ones.

    Attributes:
        found: Q, and that of each rewired graph.
        links: Links in the graph.
        units: Units that have one; inputs and outputs count.
    """

    found: Modularity
    links: int
    units: int


def net_modularity(kernels: Sequence[Values], *, links: int, rewirings: int, rng: np.random.Generator) -> NetModularity:
    """Newman's Q of the graph of a net's strongest links, and of graphs with the same degrees.

    Q of raw weights tells sparse nets from dense ones and no more, so nets are compared at an equal number of links,
    the largest in absolute value. A rewired graph has as many links in each kernel, and every unit keeps its number of
    links to the layer before and to the layer behind.

    Args:
        kernels: Weights ``[in, out]``, from the inputs to the outputs.
        links: How many are kept.
        rewirings: Rewired graphs.
        rng: Of the rewiring and the search.

    Raises:
        UsageError: If there are fewer weights other than 0 than ``links``, or fewer than one is asked for.

    Source: Newman & Girvan (2004), "Finding and evaluating community structure in networks", eq. 5; Blondel et al.
    (2008), "Fast unfolding of communities in large networks", the search; Strona et al. (2014), the rewiring, kernel
    by kernel.
    """
    there = strongest_links(kernels, links=links)
    graphs = [there, *([rewired(kernel, rng) for kernel in there] for _ in range(rewirings))]
    q = np.array([largest_q(joined(graph), rng=rng) for graph in graphs])
    units = int(joined(there).any(1).sum())
    return NetModularity(Modularity(float(q[0]), q[1:]), links, units)


def strongest_links(kernels: Sequence[Values], *, links: int) -> Links:
    """The ``links`` largest weights in absolute value; the earlier ones of equal size.

    Raises:
        UsageError: If so many are not there.
    """
    sizes = np.concatenate([np.abs(kernel).ravel() for kernel in kernels])
    if not 1 <= links <= int((sizes > 0.0).sum()):
        raise UsageError(
            "The net does not have so many links.",
            expected=f"1 to {int((sizes > 0.0).sum()):,}",
            got=str(links),
            do="Compare the nets at the number of links of the sparsest one.",
        )
    kept = np.zeros(len(sizes), dtype=np.bool_)
    kept[np.argsort(-sizes, kind="stable")[:links]] = True
    ends = np.cumsum([kernel.size for kernel in kernels])[:-1]
    return [part.reshape(kernel.shape) for part, kernel in zip(np.split(kept, ends), kernels, strict=True)]


def joined(graph: Links) -> NDArray[np.bool_]:
    """The links between all units, ``[unit, unit]`` and symmetric; the inputs come first, the outputs last."""
    starts = np.cumsum([0, graph[0].shape[0], *(kernel.shape[1] for kernel in graph)])
    whole = np.zeros((starts[-1], starts[-1]), dtype=np.bool_)
    for layer, kernel in enumerate(graph):
        whole[starts[layer] : starts[layer + 1], starts[layer + 1] : starts[layer + 2]] = kernel
    return whole | whole.T


def largest_q(graph: NDArray[np.bool_], *, rng: np.random.Generator) -> float:
    """The largest Newman Q that the search finds, from several starts; units without a link do not matter.

    Args:
        graph: ``[unit, unit]``, symmetric, with at least one link.
        rng: Of the orders in which units are moved.
    """
    used = graph.any(1)
    edges: FloatArray = graph[used][:, used].astype(np.float64)
    return max(_unfolded(edges, rng) for _ in range(_STARTS))


def _unfolded(edges: FloatArray, rng: np.random.Generator) -> float:
    """Units join the neighbouring module that raises Q most; then modules do, until nothing moves."""
    while True:
        labels = np.unique(_settled(edges, rng), return_inverse=True)[1]
        member = np.eye(labels.max() + 1)[labels]
        if member.shape[1] == len(edges):
            whole = edges.sum()
            return float(np.trace(edges) / whole - np.square(edges.sum(1) / whole).sum())
        edges = member.T @ edges @ member


def _settled(edges: FloatArray, rng: np.random.Generator) -> NDArray[np.int64]:
    """The module of each unit once no single unit can raise Q by leaving its own."""
    degrees, labels = edges.sum(1), np.arange(len(edges))
    whole, totals, moving = degrees.sum(), degrees.copy(), True
    while moving:
        moving = False
        for unit in rng.permutation(len(edges)):
            own = labels[unit]
            totals[own] -= degrees[unit]
            near = np.bincount(labels, edges[unit], minlength=len(edges))
            near[own] -= edges[unit, unit]
            gains = near - degrees[unit] * totals / whole
            best = int(gains.argmax())
            if gains[best] > gains[own] + 1e-12:
                labels[unit], moving = best, True
            totals[labels[unit]] += degrees[unit]
    return labels
