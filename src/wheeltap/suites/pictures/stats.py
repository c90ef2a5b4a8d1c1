"""What the maps of a net's hidden units look like, and whether its wiring falls into modules.

A map is what one unit gives at every pixel. Maps are centred and divided by their standard deviation first, and units
that give the same everywhere are left out: a gaussian unit that nothing reaches is the constant 1, not a feature.
"""

from collections.abc import Sequence
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from scipy import fft  # type: ignore[import-untyped]

from wheeltap.core.errors import DataError, UsageError
from wheeltap.stats.crossed import FloatArray, Values
from wheeltap.stats.modularity import Modularity, rewired

LIVE: Final = 1e-4
"""Standard deviation over the pixels above which a unit counts as live."""

CUT: Final = 1e-4
"""Directions of a layer with a smaller share of its variance than this are left out: they are rounding."""

_AT_ONCE: Final = 64
"""Maps that are transformed at once, to bound memory."""

Group = NDArray[np.integer[Any]]
"""A finite group acting on the pixels: ``[element, pixel]``, element g turns f into f[group[g]]; the identity first."""


def live(maps: Values) -> NDArray[np.bool_]:
    """Which units ``[unit]`` are not constant: standard deviation over pixels above ``LIVE``.

    Args:
        maps: ``[pixel, unit]``.
    """
    return np.asarray(maps, dtype=np.float64).std(0) > LIVE


def z_scored(maps: Values) -> FloatArray:
    """The live maps ``[pixel, live unit]``, with mean 0 and standard deviation 1 over pixels."""
    x = np.asarray(maps, dtype=np.float64)
    x = x[:, live(x)]
    x = x - x.mean(0)
    return x / x.std(0)


def purities(maps: Values, group: Group) -> FloatArray:
    """Parity purity of each live map, ``[live unit]``: |2 E_j - 1|, 1 if even or odd and nothing between (M2)."""
    scored = z_scored(maps)
    share = np.square(projected(scored, group)).sum(0) / len(scored)
    return np.abs(2.0 * share - 1.0)


def projected(maps: FloatArray, group: Group) -> FloatArray:
    """The part of ``maps`` ``[pixel, unit]`` that every element of the group leaves as it is."""
    total = maps.copy()
    for element in group[1:]:
        total += maps[element]
    return total / len(group)


def directions(maps: Values, group: Group) -> FloatArray:
    """How the span of a layer's live maps splits, whatever linear mixture of them the units are (M3).

    The directions v solve C_e v = mu C v, with C = F'F of the z-scored maps and C_e of their invariant parts, on
    the eigen-directions of C with more than ``CUT`` of its trace. For a mirror the shares mu are those of even energy;
    their mean of ``|2 mu - 1|`` is 1 if and only if the span is a sum of even and odd functions.

    Args:
        maps: ``[pixel, unit]`` of one layer.
        group: ``[element, pixel]``.

    Returns:
        Invariant share of the energy of each direction, ``[direction]``, ascending.
    """
    scored = z_scored(maps)
    if not scored.shape[1]:
        return np.zeros(0)
    energy, basis = np.linalg.eigh(scored.T @ scored)
    kept = energy > CUT * energy.sum()
    even = projected(scored, group) @ (basis[:, kept] / np.sqrt(energy[kept]))
    shares = np.asarray(np.linalg.eigvalsh(even.T @ even), dtype=np.float64)
    return np.clip(shares, 0.0, 1.0)


def distinct(maps: Values, *, threshold: float) -> int:
    """Live maps that are accepted one by one: those that correlate less than ``threshold`` with all before (M4).

    Args:
        maps: ``[pixel, unit]``, in order of layers.
        threshold: Of the absolute correlation.
    """
    x = z_scored(maps)
    close = np.abs(x.T @ x / len(x)) >= threshold
    barred, accepted = np.zeros(len(close), dtype=np.bool_), 0
    for unit, others in enumerate(close):
        if not barred[unit]:
            accepted += 1
            barred |= others
    return accepted


def effective_rank(maps: Values) -> float:
    """exp(entropy) of the eigenvalues of the live maps' correlation matrix: from 1 to the number of live maps.

    Source: Roy & Vetterli (2007), "The effective rank: a measure of effective dimensionality".
    """
    x = z_scored(maps)
    spectrum = np.maximum(np.linalg.eigvalsh(x.T @ x / len(x)), 0.0)
    share = spectrum[spectrum > 0.0] / spectrum.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


def roughness(maps: Values, *, size: int) -> FloatArray:
    """Spectral centroid of each live map, ``[live unit]``, in cycles per image (M5).

    Mean of the frequency sqrt(u^2 + v^2) weighted by the power of the two-dimensional Fourier transform, without the
    mean. Zero-centred frequencies; the picture is taken as it is, without a window.

    Args:
        maps: ``[pixel, unit]``, pixels row by row.
        size: Side of the picture, in pixels.

    Raises:
        DataError: If there are not ``size`` x ``size`` pixels.
    """
    scored = z_scored(maps)
    if len(scored) != size * size:
        raise DataError("The maps are no square picture.", expected=f"{size} x {size} pixels", got=str(len(scored)))
    frequency = np.fft.fftfreq(size, 1.0 / size)
    radius = np.hypot(frequency[:, None], frequency[None, : size // 2 + 1])
    # A real picture's spectrum is symmetric: the columns left out count through their mirror images.
    twice = np.full(size // 2 + 1, 2.0)
    twice[0] = 1.0
    if size % 2 == 0:
        twice[-1] = 1.0
    parts: list[FloatArray] = [np.zeros(0)]
    for start in range(0, scored.shape[1], _AT_ONCE):
        pictures = scored[:, start : start + _AT_ONCE].T.reshape(-1, size, size)
        power = np.square(np.abs(cast("NDArray[np.complex128]", fft.rfft2(pictures)))) * twice  # pyright: ignore[reportUnknownMemberType]
        power[:, 0, 0] = 0.0
        parts.append((power * radius).sum((1, 2)) / power.sum((1, 2)))
    return np.concatenate(parts)


_STARTS: Final = 5
"""Orders in which the search for modules goes through the units; the best end counts."""

Links = list[NDArray[np.bool_]]
"""Which links are there, ``[in, out]`` of each kernel."""


def net_modularity(kernels: Sequence[Values], *, links: int, rewirings: int, rng: np.random.Generator) -> Modularity:
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
    return Modularity(float(q[0]), q[1:])


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
