"""Readings of circuits: what a circuit does alone, what the rest does without it, and its graph."""

import copy
from collections.abc import Sequence
from typing import Any, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.circuits import specs
from wheeltap.suites.circuits.circuit import unpacked
from wheeltap.suites.circuits.engine import ablation
from wheeltap.suites.circuits.engine.attribution import attribute
from wheeltap.suites.circuits.engine.units import CircuitWeights, Kept, UnitNet
from wheeltap.suites.circuits.pairs import Pairs


@final
class CircuitEffects(Reading):
    """Ablates what is outside a circuit, and the circuit, by every definition; disturbs the weights between units."""

    spec = specs.CIRCUIT_EFFECTS
    settings: specs.CircuitEffectsSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the task has no pairs, or the circuit is of another model.
            DataError: If the task has no such group.
        """
        how = self.settings
        kept, task = unpacked(how.circuit), ablation.of_group(task, how.group, rephrased=how.rephrased, most=how.pairs)
        with torch.no_grad():
            pairs_of = ablation.edge_pairs if how.parts == "edges" else ablation.unit_pairs
            searched, held, counts = pairs_of(subject, task, kept)
            root = seeds.derive(root, self.name, seed)
            ablated = ablation.CircuitOnPairs(searched, held, kept, root, how.ablation)
            prompts = [ablation.other_prompts(held.pairs, root=root, draw=draw) for draw in range(specs.RESAMPLES)]
            masks = (ablated.mask, 1.0 - ablated.mask)
            found: dict[str, NDArray[Any]] = {
                "gap": np.stack([to_array(ablated.gaps(name)) for name in specs.DEFINITIONS]),
                "resampled": np.stack([[to_array(held.gaps(mask, one)) for one in prompts] for mask in masks]),
                "alone": ablation.alone(prompts[0]),
                "searched": to_array(ablated.fitted()),
                "subset": np.stack([to_array(ablated.subset(draw)) for draw in range(how.subsets)]),
                "random": np.array([ablated.random(draw, remove=False) for draw in range(how.random)]),
                "random_removed": np.array([ablated.random(draw, remove=True) for draw in range(how.random)]),
            }  # fmt: skip
        found |= {key: np.array(count) for key, count in counts.items()}
        if isinstance(held, ablation.UnitPairs):
            found["disturbed"] = self._disturbed(held, kept, root)
        drawn = 2.0 * specs.RESAMPLES + how.subsets + 2.0 * how.random + 2.0 * len(specs.KINDS) * how.weight_draws
        passes = len(specs.DEFINITIONS) + drawn + 12.0
        return Readings(found, forwards=passes)

    def _disturbed(self, held: ablation.UnitPairs, kept: Kept, root: int) -> NDArray[Any]:
        """Loss with weights disturbed, ``[kind, place, draw]``: of a copy."""
        how = self.settings
        net = UnitNet(copy.deepcopy(held.net.model), next(held.pairs.batches()).clean)
        inside, copied = CircuitWeights(net, kept), ablation.UnitPairs(held.pairs, net, inverted=held.inverted)
        found = np.zeros((len(specs.KINDS), 2, how.weight_draws))
        with torch.no_grad():
            for kind, name in enumerate(specs.KINDS):
                for place in range(2):
                    for draw in range(how.weight_draws):
                        flags = inside.others(root=root, draw=draw) if place else inside.own
                        rng = seeds.generator(root, "weights", name, place, draw)
                        with inside.disturbed(name, flags, rng=rng):
                            found[kind, place, draw] = float(copied.loss(None))
        return found


Floats = NDArray[np.float64]


@final
class CircuitGraph(Reading):
    """Units that are kept, weights between them, and what the units hold: nothing is ablated."""

    spec = specs.CIRCUIT_GRAPH
    settings: specs.CircuitGraphSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the task has no pairs, or the circuit is of another model.
            DataError: If the task has no such group.
        """
        how = self.settings
        kept, task = unpacked(how.circuit), ablation.of_group(task, how.group)
        _, held = ablation.halves(ablation.pairs_of(task))
        # The first few pairs that are as long as most are.
        lengths = [len(one) for one in held.clean]
        usual = max(sorted(set(lengths)), key=lengths.count)
        some = held.part([at for at, length in enumerate(lengths) if length == usual][: how.pairs])
        shown: dict[str, NDArray[Any]] = {
            "tokens": np.array([some.clean, some.corrupted]), "answer": np.array([some.answer, some.wrong]),
        }  # fmt: skip
        if some.texts:
            clean, corrupted = ([(one[at], one[2 + at]) for one in some.texts] for at in range(2))
            shown["text"] = np.array(list(msgspec.json.encode([*clean, *corrupted])))
        if how.parts == "edges":
            return Readings(shown | _edge_graph(subject, some, kept, most=how.edges), forwards=12.0)
        with torch.no_grad():
            net = UnitNet(subject.model, next(held.batches()).clean)
            ablation.require_parts(subject, kept, net.units, "units")
            numbers = np.flatnonzero(kept)
            mean, spread = _moments(net, numbers, ablation.reference(task))
            found = _weights(net, numbers, spread, most=how.edges)
            sizes = [site.units for site in net.sites]
            sites = np.repeat(np.arange(len(sizes)), sizes)
            within = np.concatenate([np.arange(size) for size in sizes])
            (batch,) = some.batches()
            # At the last places of both sides.
            last = _held(net, torch.cat([batch.clean, batch.corrupted]), numbers)[:, -1]
            found |= {
                "names": np.array(list("\n".join(site.name for site in net.sites).encode())),
                "site": sites[numbers], "unit": within[numbers], "mean": mean, "spread": spread,
                "held": last.reshape(2, len(some), len(numbers)), "gap": to_array(net.gaps(batch)), **shown,
            }  # fmt: skip
        return Readings(found, forwards=2.0)


def _held(net: UnitNet, tokens: Tensor, numbers: NDArray[np.int64]) -> NDArray[Any]:
    """What some units hold in a clean pass, ``[example, place, unit]``."""
    recorded = net.recorded(tokens.to(net.device))
    return to_array(torch.cat([recorded[site.name] for site in net.sites], -1))[..., numbers]


def _moments(net: UnitNet, numbers: NDArray[np.int64], sequences: Sequence[Tensor]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of some units over all places of some sequences, ``[unit]`` each."""
    sums, squares, count = np.zeros(len(numbers)), np.zeros(len(numbers)), 0
    for tokens in sequences:
        held = _held(net, tokens, numbers).reshape(-1, len(numbers)).astype(np.float64)
        sums, squares, count = sums + held.sum(0), squares + (held**2).sum(0), count + len(held)
    mean = sums / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))


def _weights(net: UnitNet, numbers: NDArray[np.int64], spread: Floats, *, most: int) -> dict[str, NDArray[Any]]:
    """The weights between some units that carry most, in falling order of how much."""
    place = np.full(net.units, -1)
    place[numbers] = np.arange(len(numbers))
    parts: list[Floats] = []
    for wire in net.wires:
        rows, columns = (place[side.numpy()] for side in (wire.rows, wire.columns))
        inside = to_array(wire.weight(net.model)).astype(np.float64)[np.ix_(rows >= 0, columns >= 0)]
        target, source = np.nonzero(inside)
        ends = columns[columns >= 0][source], rows[rows >= 0][target]
        parts.append(np.stack([*ends, inside[target, source]]))
    source, target, weight = np.concatenate(parts, 1)
    carried = np.abs(weight) * spread[source.astype(int)]
    first = np.argsort(-carried, kind="stable")[:most]
    return {
        "source": source[first], "target": target[first], "weight": weight[first], "edges": np.array(len(weight)),
    }  # fmt: skip


def _edge_graph(subject: Subject, pairs: Pairs, kept: Kept, *, most: int) -> dict[str, NDArray[Any]]:
    """Arrays of the reading that are of a circuit of edges; scores are those of EAP-IG, in logits.

    Edges are scored on one pair and one side of it at a time.

    Raises:
        ModelError: If its edges are not known, or the circuit is of another model.
    """
    known = ablation.wired(subject, pairs)
    graph = known.graph
    ablation.require_parts(subject, kept, len(graph.edges), "edges")
    rows = [batch.both_sides().part(slice(row, row + 1)) for batch in pairs.batches() for row in range(2 * len(batch))]
    # Clean sides first, 0 for edges outside the circuit, [row, edge].
    scores = np.stack([attribute(known, [row]) * kept for row in rows])
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
        "edges": np.array(kept.sum()), "gap": ablation.EdgePairs(pairs, known).gaps(None).cpu().numpy(),
    }  # fmt: skip
