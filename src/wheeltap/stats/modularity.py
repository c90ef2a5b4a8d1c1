"""The units x behaviours matrix: how many behaviours a unit serves, and whether the matrix falls into modules."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wheeltap.stats.crossed import FloatArray, Values

_STARTS = 8
"""Random divisions that the search for modules starts from, besides one module per behaviour."""

_STEPS = 50
"""Bound on the steps of one search; it ends by itself long before."""

_TRADES = 5
"""Trades per behaviour that make a rewired graph: as many as Strona et al. found to be enough."""


@dataclass(frozen=True)
class Breadth:
    """How many behaviours a unit serves: 1 if one only, as many as there are if all alike.

    Each unit counts by its effect. The last two tell what each example and each unit adds: their mean is ``value``,
    and the spread of the first divided by the root of their number is its standard error over examples.

    Attributes:
        value: Mean over units, in behaviours.
        examples: ``[example]``.
        units: ``[unit]``.
    """

    value: float
    examples: FloatArray
    units: FloatArray


def effect_matrix(effects: Values, groups: NDArray[np.int64]) -> FloatArray:
    """Mean effect of each unit on each group of examples, ``[unit, behaviour]``.

    Args:
        effects: ``[unit, example]``, not negative.
        groups: Group of each example, ``[example]``, numbered from 0 without gaps.
    """
    member = np.eye(groups.max() + 1)[groups]
    return np.asarray(effects, dtype=np.float64) @ (member / member.sum(0))


def breadth(effects: Values, groups: NDArray[np.int64]) -> Breadth:
    """Effective number of behaviours per unit: exp(entropy of its effects), weighted by its effect.

    Args:
        effects: ``[unit, example]``, not negative.
        groups: Group of each example, ``[example]``, numbered from 0 without gaps; two examples in each.

    Source: Hill (1973), "Diversity and evenness", order 1; Efron & Stein (1981), the jackknife, within groups.
    """
    x = np.asarray(effects, dtype=np.float64)
    matrix, sizes = effect_matrix(x, groups), np.bincount(groups)
    totals, terms = matrix.sum(1), _log_terms(matrix).sum(1)
    value = float(_weighted(totals, terms))
    examples = np.empty(x.shape[1])
    for group, size in enumerate(sizes):
        column, members = matrix[:, [group]], groups == group
        without = np.maximum((size * column - x[:, members]) / (size - 1), 0.0)
        left = _weighted(totals[:, None] - column + without, terms[:, None] - _log_terms(column) + _log_terms(without))
        examples[members] = value + len(groups) * np.sqrt((size - 1) / size) * (left.mean() - left)
    share = totals / max(float(totals.mean()), np.finfo(np.float64).tiny)
    return Breadth(value, examples, value + share * (_numbers(totals, terms) - value))


def effective_number(effects: Values) -> float:
    """Effective number of columns per row: 1 where each row has one, as many as there are where it has all alike.

    Columns are first put on one scale, each by its sum; rows count by their size. No row and no column that is all 0
    counts. Not changed by permuting rows, nor by rows that do nothing.

    Args:
        effects: ``[unit, kind]``, not negative.

    Returns:
        exp(entropy of a row), weighted mean over rows; not a number where all effects are 0.

    Source: Hill (1973), "Diversity and evenness", order 1.
    """
    given = np.asarray(effects, dtype=np.float64)
    alive = given[:, given.sum(0) > 0.0]
    scaled = alive / alive.sum(0)
    return float(_weighted(scaled.sum(1), _log_terms(scaled).sum(1))) if alive.size else float("nan")


def _log_terms(x: FloatArray) -> FloatArray:
    return x * np.log(np.where(x > 0.0, x, 1.0))


def _weighted(totals: FloatArray, terms: FloatArray) -> FloatArray:
    """Breadth from each unit's sum of effects and of effect x log(effect), ``[unit, ...]``."""
    whole = np.maximum(totals.sum(0), np.finfo(np.float64).tiny)
    return (totals * _numbers(totals, terms)).sum(0) / whole


def _numbers(totals: FloatArray, terms: FloatArray) -> FloatArray:
    """exp(entropy) of each unit's effects; 1 where there are none."""
    alive = np.where(totals > 0.0, totals, 1.0)
    return np.exp(np.where(totals > 0.0, np.log(alive) - terms / alive, 0.0))


def shuffled_breadth(effects: Values, groups: NDArray[np.int64], *, shuffles: int, rng: np.random.Generator) -> float:
    """Mean breadth where the groups are shuffled over the examples: that of units to which the groups mean nothing."""
    return float(np.mean([breadth(effects, rng.permutation(groups)).value for _ in range(shuffles)]))


@dataclass(frozen=True)
class Modularity:
    """How well a graph of units and behaviours falls into modules, beside rewired graphs.

    Attributes:
        value: Barber's Q of the best division found, in [0, 1).
        rewired: The same of each rewired graph, ``[rewiring]``.
    """

    value: float
    rewired: FloatArray

    @property
    def p(self) -> float:
        """Share of graphs at least as modular, this one counted: the p-value of "no more modular than by chance"."""
        return float((1 + (self.rewired >= self.value - 1e-12).sum()) / (1 + len(self.rewired)))

    @property
    def z(self) -> float:
        """Distance from the rewired graphs' mean in their standard deviations; 0 where they do not vary."""
        spread = float(self.rewired.std(ddof=1))
        return (self.value - float(self.rewired.mean())) / spread if spread > 0.0 else 0.0


_TIE = 1e-5
"""Edges this near, as a share of their strength, are equal: rounding must not choose between copies of a unit."""


def strongest(matrix: FloatArray, *, share: float) -> NDArray[np.bool_]:
    """The strongest edges of the graph of units and behaviours, as ``[unit, behaviour]``.

    An edge's strength is the share of the unit's effect that the behaviour gets, so that strong units do not take
    all edges. The number of edges depends on the matrix's shape alone, so graphs of equal shape are equally sparse.
    """
    part = matrix / np.maximum(matrix.sum(1, keepdims=True), np.finfo(np.float64).tiny)
    edges = max(1, round(share * matrix.size))
    least = np.partition(part, part.size - edges, axis=None)[part.size - edges]
    return part >= least * (1.0 - _TIE)


def modularity(graph: NDArray[np.bool_], *, rewirings: int, rng: np.random.Generator) -> Modularity:
    """Modularity of a graph ``[unit, behaviour]``, and of ``rewirings`` graphs with the same degrees.

    Source: Barber (2007), "Modularity and community detection in bipartite networks", eq. 12 and 17 to 20 (BRIM);
    Strona et al. (2014), "A fast and unbiased procedure to randomize ecological binary matrices" (curveball).
    """
    graph = graph[np.lexsort(graph.T)]  # so that the order of the units does not matter
    graphs = np.stack([graph, *(rewired(graph, rng) for _ in range(rewirings))])
    found = best_division(graphs, rng)
    return Modularity(float(found[0]), found[1:])


def rewired(graph: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """A random graph in which every unit and behaviour keeps its number of edges: behaviours trade units."""
    lists = graph.T.copy()
    if len(lists) < 2:
        return graph.copy()
    partners = rng.random((_TRADES * len(lists), len(lists))).argsort(1)[:, :2]
    for one, two in partners:
        apart = np.flatnonzero(lists[one] ^ lists[two])
        kept = rng.permutation(len(apart)) < int(lists[one, apart].sum())
        lists[one, apart], lists[two, apart] = kept, ~kept
    return lists.T


def best_division(graphs: NDArray[np.bool_], rng: np.random.Generator) -> FloatArray:
    """Largest Q that a search from several starts finds in each of ``graphs`` ``[graph, unit, behaviour]``."""
    edges = graphs.astype(np.float64)
    total = np.maximum(edges.sum((1, 2), keepdims=True), 1.0)
    excess = (edges - edges.sum(2, keepdims=True) * edges.sum(1, keepdims=True) / total) / total
    behaviours = graphs.shape[2]
    apart = np.eye(behaviours)
    starts = [apart, *(apart[rng.integers(behaviours, size=behaviours)] for _ in range(_STARTS))]
    return np.max([_climbed(excess, start) for start in starts], axis=0)


def _climbed(excess: FloatArray, start: FloatArray) -> FloatArray:
    """Q of each graph where units and behaviours take turns to join the module that suits them best."""
    modules = start.shape[1]
    of_behaviours = np.broadcast_to(start, (len(excess), *start.shape))
    best = np.full(len(excess), -np.inf)
    for _ in range(_STEPS):
        of_units = np.eye(modules)[(excess @ of_behaviours).argmax(2)]
        gains = excess.swapaxes(1, 2) @ of_units
        of_behaviours = np.eye(modules)[gains.argmax(2)]
        reached = gains.max(2).sum(1)
        if bool((reached <= best + 1e-12).all()):
            break
        best = np.maximum(best, reached)
    return best
