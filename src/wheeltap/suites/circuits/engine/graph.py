"""A circuit of edges as a graph."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.subject import Subject
from wheeltap.suites.circuits.engine.ablation import EdgePairs, both_sides, require_parts, wired
from wheeltap.suites.circuits.engine.attribution import attribute
from wheeltap.suites.circuits.engine.units import Kept
from wheeltap.suites.circuits.pairs import Pairs


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
    rows = [both_sides(batch).part(slice(row, row + 1)) for batch in pairs.batches() for row in range(2 * len(batch))]
    # Clean sides first, 0 for edges outside the circuit, [row, edge].
    scores = np.stack([attribute(known, [row])[0] * kept for row in rows])
    numbers = np.flatnonzero(graph.touched(kept))
    place = np.full(len(graph.nodes), -1)
    place[numbers] = np.arange(len(numbers))
    worth = scores.mean(0)
    first = np.argsort(-np.abs(worth), kind="stable")[: min(most, int(kept.sum()))]
    # Of each component the edges that leave it, of the logits those that arrive, [row, node].
    held = np.stack([graph.leaving(row) for row in scores])
    held[:, -1] = [row[graph.ends[:, 1] == len(graph.nodes) - 1].sum() for row in scores]
    # A row of the drawing for each: the embedding, the heads and the MLP of each layer, the logits.
    layers = [f"{kind} {layer}" for layer in range(graph.layers) for kind in ("attention", "MLP")[: 1 + graph.mlps]]
    each = [1, *([graph.heads, 1] if graph.mlps else [graph.heads]) * graph.layers, 1]
    return {
        "names": np.array(list("\n".join(["embedding", *layers, "logits"]).encode())),
        "site": np.repeat(np.arange(len(each)), each)[numbers],
        "unit": np.concatenate([np.arange(count) for count in each])[numbers],
        "mean": np.zeros(len(numbers)), "spread": np.ones(len(numbers)),
        "held": held[:, numbers].reshape(2, len(pairs), len(numbers)),
        "source": place[graph.ends[first, 0]], "target": place[graph.ends[first, 1]], "weight": worth[first],
        "edges": np.array(kept.sum()), "gap": EdgePairs(pairs, known).gaps(None).cpu().numpy(),
    }  # fmt: skip
