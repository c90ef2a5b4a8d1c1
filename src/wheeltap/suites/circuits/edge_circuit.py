"""Circuits as edges between the components of a decoder: their names, their scores, and the file that others read.

Components are the embedding ``input``, every head ``a{layer}.h{head}``, every MLP ``m{layer}`` and ``logits``. An edge
``src->dst`` is what ``dst`` reads of ``src`` in the residual stream; a head reads three times, for its queries, keys
and values: ``src->a1.h3<q>``, ``<k>``, ``<v>``.

Source: Hanna, Pezzelle and Belinkov 2024, "Have faith in faithfulness" (the graph); Mueller et al. 2025, "MIB" (the
file).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import DataError, ModelError, UsageError
from wheeltap.suites.circuits.origin import Origin

CHANNELS: Final = ("q", "k", "v")
"""What a head reads for: queries, keys, values."""


@final
@dataclass(frozen=True)
class Stage:
    """Readers that see the same writers: the heads of a layer, an MLP (both, where they work side by side), the end.

    Attributes:
        layer: Of the readers; ``layers`` for the logits.
        writers: How many writers come before: the first ones of the graph.
        readers: ``a0.h0<q>``, ``m0``, ``logits``.
    """

    layer: int
    writers: int
    readers: tuple[str, ...]


@final
@dataclass(frozen=True)
class Graph:
    """The components of a decoder, and every edge between them, in the order of the file.

    Edges go stage by stage; within one they are a matrix ``[writer, reader]``, row after row.

    Attributes:
        layers: Blocks.
        heads: Of each.
        groups: Heads of keys and values. Heads that share one read it together: the edge ``<k>`` or ``<v>`` goes to
            the first head of the group and is of all of them.
        width: Of the residual stream, where it is known.
        parallel: Whether the MLP of a block reads what its heads read, and not what they write.
        mlps: Whether there are any.

    Raises:
        UsageError: If heads do not divide into groups, or there is no layer or head.
    """

    layers: int
    heads: int
    groups: int
    width: int | None = None
    parallel: bool = False
    mlps: bool = True

    NUMBERS: ClassVar[tuple[str, ...]] = ("layers", "heads", "groups", "width", "parallel", "mlps")
    """What ``numbers`` holds."""

    def __post_init__(self) -> None:
        if min(self.layers, self.heads, self.groups) < 1 or self.heads % self.groups:
            raise UsageError(
                "No decoder has such a graph.",
                expected="at least one layer, and heads in groups of equal size",
                got=f"{self.layers} layers of {self.heads} heads in {self.groups} groups",
            )

    @property
    def numbers(self) -> NDArray[np.int64]:
        """All that it is made of, in the order of ``NUMBERS``; 0 for a width that is not known."""
        return np.array([int(getattr(self, name) or 0) for name in self.NUMBERS], dtype=np.int64)

    @classmethod
    def of_numbers(cls, numbers: NDArray[np.int64]) -> "Graph":
        """The inverse of ``numbers``."""
        layers, heads, groups, width, parallel, mlps = map(int, numbers)
        return cls(layers, heads, groups, width or None, parallel=bool(parallel), mlps=bool(mlps))

    @cached_property
    def writers(self) -> tuple[str, ...]:
        """What writes to the residual stream, in order."""
        mlps = ([f"m{layer}"] if self.mlps else [] for layer in range(self.layers))
        return ("input", *(name for layer, mlp in enumerate(mlps) for name in [*self._heads(layer), *mlp]))

    @property
    def nodes(self) -> tuple[str, ...]:
        """The writers, and ``logits``."""
        return (*self.writers, "logits")

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """In order of computation."""
        stages: list[Stage] = []
        before = 1
        for layer in range(self.layers):
            heads, mlp = self._readers(layer), ((f"m{layer}",) if self.mlps else ())
            stages.append(Stage(layer, before, (*heads, *mlp) if self.parallel else heads))
            if mlp and not self.parallel:
                stages.append(Stage(layer, before + self.heads, mlp))
            before += self.heads + len(mlp)
        return (*stages, Stage(self.layers, before, ("logits",)))

    @cached_property
    def edges(self) -> tuple[str, ...]:
        """Names, in order."""
        names = self.writers
        return tuple(
            f"{writer}->{reader}"
            for stage in self.stages
            for writer in names[: stage.writers]
            for reader in stage.readers
        )

    @cached_property
    def ends(self) -> NDArray[np.int64]:
        """Numbers among ``nodes`` of source and target, ``[edge, 2]``."""
        number = {name: at for at, name in enumerate(self.nodes)}
        pairs = [
            (writer, number[reader.partition("<")[0]])
            for stage in self.stages
            for writer in range(stage.writers)
            for reader in stage.readers
        ]
        return np.array(pairs, dtype=np.int64)

    def connected(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Those of the edges ``kept [edge]`` that lie on a path of kept edges from ``input`` to ``logits``."""
        ends, fed, heard = self.ends, np.zeros(len(self.nodes), bool), np.zeros(len(self.nodes), bool)
        fed[0] = heard[-1] = True
        chosen = np.flatnonzero(kept)
        # Edges are in order of computation: one sweep each way reaches everything.
        for source, target in ends[chosen]:
            fed[target] |= fed[source]
        for source, target in ends[chosen[::-1]]:
            heard[source] |= heard[target]
        return kept & fed[ends[:, 0]] & heard[ends[:, 1]]

    def touched(self, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which nodes are an end of an edge in ``kept [edge]``, ``[node]``."""
        nodes = np.zeros(len(self.nodes), bool)
        nodes[self.ends[kept].ravel()] = True
        return nodes

    def _heads(self, layer: int) -> list[str]:
        return [f"a{layer}.h{head}" for head in range(self.heads)]

    def _readers(self, layer: int) -> tuple[str, ...]:
        share = self.heads // self.groups
        return tuple(
            f"{name}<{channel}>"
            for head, name in enumerate(self._heads(layer))
            for channel in (CHANNELS if head % share == 0 else CHANNELS[:1])
        )


@final
@dataclass(frozen=True, eq=False)
class Circuit:
    """What was found of a model on a task: a score for each edge, and which of them are the circuit.

    Attributes:
        graph: Of the model.
        scores: ``[edge]``, in units of the metric: how much it is expected to fall where the edge is patched.
        kept: Whether an edge is in the circuit, ``[edge]``.
        nodes: Whether a component is, ``[node]``.
        scored: Whether an edge has a score at all, ``[edge]``; its score is 0 where it has none.
        node_scores: ``[node]``; ``None`` where there are none.
        origin: Where it comes from; ``None`` where that is not known, as in files of others.

    Raises:
        DataError: If lengths do not fit the graph, or a score is not finite.
    """

    graph: Graph
    scores: NDArray[np.float64]
    kept: NDArray[np.bool_]
    nodes: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    node_scores: NDArray[np.float64] | None = None
    origin: Origin | None = None

    def __post_init__(self) -> None:
        edges, nodes = len(self.graph.edges), len(self.graph.nodes)
        held = [len(self.scores), len(self.kept), len(self.scored), len(self.nodes)]
        if held != [edges, edges, edges, nodes] or len(self._node_scores) not in (0, nodes):
            raise _unfit(f"{edges:,} edges and {nodes:,} nodes", f"values for {held}")
        strange = int((~np.isfinite(self.scores)).sum() + (~np.isfinite(self._node_scores)).sum())
        if strange:
            raise _unfit("finite scores", f"{strange:,} that are NaN or infinite")

    @property
    def _node_scores(self) -> NDArray[np.float64]:
        return np.zeros(0) if self.node_scores is None else self.node_scores

    @property
    def excluded(self) -> int:
        """Edges without a score."""
        return int((~self.scored).sum())

    def ranked(self, *, signed: bool = False) -> NDArray[np.int64]:
        """Numbers of the scored edges, those with the largest score first, by size or ``signed``; of equals the first.

        MIB ranks by size where a circuit should behave as the model does (CMD), signed where it should do the task
        best (CPR).
        """
        values = self.scores if signed else np.abs(self.scores)
        order = np.argsort(-values, kind="stable")
        return order[self.scored[order]]

    def top(self, edges: int, *, signed: bool = False) -> "Circuit":
        """The circuit of so many edges with the largest scores; see ``ranked``."""
        kept = np.zeros(len(self.scores), bool)
        kept[self.ranked(signed=signed)[:edges]] = True
        return self.keeping(kept)

    def keeping(self, kept: NDArray[np.bool_]) -> "Circuit":
        """The circuit of the edges ``kept [edge]``, and of the components at their ends."""
        return replace(self, kept=kept, nodes=self.graph.touched(kept))

    def named(self) -> Sequence[str]:
        """Names of the edges in the circuit."""
        return [self.graph.edges[at] for at in np.flatnonzero(self.kept)]

    def require_of(self, fingerprint: str, graph: Graph, *, name: str) -> None:
        """Raises ``ModelError`` if this is a circuit of another model than ``name``, or could not be one of it."""
        own, other = (
            f"{one.layers} layers, {one.heads} heads in {one.groups} groups, {len(one.edges):,} edges"
            for one in (self.graph, graph)
        )
        if self.graph.edges != graph.edges:
            raise ModelError(
                "The circuit is of another model.", where=name, expected=other, got=own,
                do="Find one of this model first: wheeltap circuits find MODEL --task TASK.",
            )  # fmt: skip
        if self.origin is not None:
            self.origin.require_model(fingerprint, name=name)


def _unfit(expected: str, got: str) -> DataError:
    return DataError("A circuit does not fit its graph.", where="circuit", expected=expected, got=got)
