"""The metric of a model with only the top edges of a circuit kept, for circuits of many sizes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core.typed import to_tensor
from wheeltap.suites.circuits.edge_circuit import Circuit
from wheeltap.suites.circuits.engine.edge_run import EdgeRun
from wheeltap.suites.circuits.pairs import PairBatch
from wheeltap.suites.circuits.stats import SHARES


@final
@dataclass(frozen=True, eq=False)
class Curve:
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
) -> Curve:
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
    return Curve(
        np.array(shares),
        np.array([int(kept.sum()) for kept in connected]),
        np.array([int(graph.touched(kept).sum()) for kept in connected]),
        np.array(values),
        empty,
        full,
    )
