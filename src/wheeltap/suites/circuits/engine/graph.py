"""A circuit of edges as a graph, and the metric of a model with only its top edges kept, for circuits of many sizes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core.subject import Subject
from wheeltap.core.typed import to_tensor
from wheeltap.suites.circuits.circuit import Circuit, EdgeGraph
from wheeltap.suites.circuits.engine.asking import AskedEdges, both_sides, require_parts, wired
from wheeltap.suites.circuits.engine.attribution import EdgeScoringSettings, attribute
from wheeltap.suites.circuits.engine.edges import EdgeDecoder, EdgeRun
from wheeltap.suites.circuits.engine.units import Kept
from wheeltap.suites.circuits.pairs import PairBatch, Pairs
from wheeltap.suites.circuits.stats import SHARES

_HOW: Final = EdgeScoringSettings(method="eap-ig")


def edge_graph(subject: Subject, pairs: Pairs, kept: Kept, *, most: int) -> dict[str, NDArray[Any]]:
    """Arrays of the reading ``circuit-graph`` that are of the circuit; scores are those of EAP-IG, in logits.

    Args:
        subject: The model.
        pairs: What edges are scored on: one pair and one side of it at a time.
        kept: Edges of the circuit, ``[edge]``.
        most: Edges that are given.

    Raises:
        ModelError: If its edges are not known, or the circuit is of another model.
    """
    known = wired(subject, pairs)
    graph = known.graph
    require_parts(subject, kept, len(graph.edges), "edges")
    scores = _scores(known, pairs, kept)
    numbers = np.flatnonzero(graph.touched(kept))
    place = np.full(len(graph.nodes), -1)
    place[numbers] = np.arange(len(numbers))
    worth = scores.mean(0)
    first = np.argsort(-np.abs(worth), kind="stable")[: min(most, int(kept.sum()))]
    site, unit = sites(graph)
    return {
        "names": np.array(list("\n".join(site_names(graph)).encode())), "site": site[numbers], "unit": unit[numbers],
        "mean": np.zeros(len(numbers)), "spread": np.ones(len(numbers)),
        "held": _leaving(graph, scores)[:, numbers].reshape(2, len(pairs), len(numbers)),
        "source": place[graph.ends[first, 0]], "target": place[graph.ends[first, 1]], "weight": worth[first],
        "edges": np.array(kept.sum()), "gap": AskedEdges(known, pairs, None).gaps(None).cpu().numpy(),
    }  # fmt: skip


def site_names(graph: EdgeGraph) -> list[str]:
    """Rows of a drawing in order of computation: the embedding, heads and MLP of each layer, the logits."""
    mlps = [""] * graph.layers if not graph.mlps else [f"MLP {layer}" for layer in range(graph.layers)]
    layers = [name for layer, mlp in enumerate(mlps) for name in (f"attention {layer}", mlp) if name]
    return ["embedding", *layers, "logits"]


def sites(graph: EdgeGraph) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Row of each component, and its number within that, ``[node]`` each."""
    each = [1, *([graph.heads, 1] if graph.mlps else [graph.heads]) * graph.layers, 1]
    return np.repeat(np.arange(len(each)), each), np.concatenate([np.arange(count) for count in each])


def _scores(known: EdgeDecoder, pairs: Pairs, kept: Kept) -> NDArray[np.float64]:
    """Scores of the circuit's edges, clean sides first, 0 for edges outside it: ``[row, edge]``."""
    found: list[NDArray[np.float64]] = []
    sided = [_row(both_sides(batch), row) for batch in pairs.batches() for row in range(2 * len(batch))]
    for one in sided:
        found.append(attribute(known, [one], _HOW).scores * kept)
    return np.stack(found)


def _row(batch: PairBatch, row: int) -> PairBatch:
    held = (batch.clean, batch.corrupted, batch.answer, batch.wrong)
    return PairBatch(*(tensor[row : row + 1] for tensor in held))


def _leaving(graph: EdgeGraph, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of the scores of edges that leave each component, of those that arrive for the logits, ``[row, node]``."""
    sums = np.zeros((len(scores), len(graph.nodes)))
    for row, one in zip(sums, scores, strict=True):
        np.add.at(row, graph.ends[:, 0], one)
        row[-1] = one[graph.ends[:, 1] == len(graph.nodes) - 1].sum()
    return sums


@final
@dataclass(frozen=True, eq=False)
class FaithfulnessCurve:
    """Metric by size of the circuit.

    Attributes:
        shares: Of all edges, how many were kept, ``[size]``.
        edges: How many of these lie on a path from input to logits, ``[size]``: the others do nothing.
        nodes: How many components do, ``input`` and ``logits`` among them, ``[size]``.
        values: Logit of the answer less that of the wrong answer, ``[size, pair]``.
        empty: With no edge kept, ``[pair]``.
        full: Of the whole model, ``[pair]``.
    """

    shares: NDArray[np.float64]
    edges: NDArray[np.int64]
    nodes: NDArray[np.int64]
    values: NDArray[np.float64]
    empty: NDArray[np.float64]
    full: NDArray[np.float64]


def kept_values(run: EdgeRun, kept: NDArray[np.bool_], batches: Iterable[PairBatch]) -> NDArray[np.float64]:
    """Logit of the answer less that of the wrong answer with the edges ``kept [edge]``, of all pairs, ``[pair]``."""
    like = next(run.wired.model.parameters())
    keep = to_tensor(kept.astype(np.float64), like=like)
    return torch.cat([run.scores(batch, keep) for batch in batches]).double().cpu().numpy()


def curve(
    run: EdgeRun,
    circuit: Circuit,
    batches: Sequence[PairBatch],
    *,
    shares: Sequence[float] = SHARES,
    signed: bool = False,
) -> FaithfulnessCurve:
    """Keeps the top edges by score, so many at a time.

    Args:
        run: The model, and what is read over edges that are not kept.
        circuit: Scores of its edges.
        batches: Pairs.
        shares: Of all edges, how many are kept.
        signed: Whether edges are ranked by score rather than by its size; see ``Circuit.ranked``.

    Raises:
        ModelError: If the circuit is of another model.
    """
    graph = run.wired.graph
    circuit.require_of(run.wired.subject.record.fingerprint, graph, name=run.wired.subject.name)
    total = len(graph.edges)
    circuits = [circuit.top(int(share * total), signed=signed).kept for share in shares]
    connected = [graph.connected(kept) for kept in circuits]
    every = [np.zeros(total, bool), np.ones(total, bool), *circuits]
    empty, full, *values = (kept_values(run, kept, batches) for kept in every)
    return FaithfulnessCurve(
        np.array(shares),
        np.array([int(kept.sum()) for kept in connected]),
        np.array([int(graph.touched(kept).sum()) for kept in connected]),
        np.array(values),
        empty,
        full,
    )
