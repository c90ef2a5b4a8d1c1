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
from wheeltap.suites.circuits.circuit import unpacked
from wheeltap.suites.circuits.engine.ablation import (
    CircuitOnPairs,
    UnitPairs,
    alone,
    edge_pairs,
    halves,
    net_of,
    of_group,
    other_prompts,
    pairs_of,
    reference,
    unit_pairs,
)
from wheeltap.suites.circuits.engine.graph import edge_graph
from wheeltap.suites.circuits.engine.units import CircuitWeights, Kept, UnitNet
from wheeltap.suites.circuits.pairs import Pairs
from wheeltap.suites.circuits.specs import (
    CIRCUIT_EFFECTS,
    CIRCUIT_GRAPH,
    DEFINITIONS,
    KINDS,
    RESAMPLES,
    CircuitEffectsSettings,
    CircuitGraphSettings,
)


@final
class CircuitEffects(Reading):
    """Ablates what is outside a circuit, and the circuit, by every definition; disturbs the weights between units."""

    spec = CIRCUIT_EFFECTS
    settings: CircuitEffectsSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the task has no pairs, or the circuit is of another model.
            DataError: If the task has no such group.
        """
        how = self.settings
        kept, task = unpacked(how.circuit), of_group(task, how.group, rephrased=how.rephrased, most=how.pairs)
        with torch.no_grad():
            searched, held, counts = (edge_pairs if how.parts == "edges" else unit_pairs)(subject, task, kept)
            root = seeds.derive(root, self.name, seed)
            ablated = CircuitOnPairs(searched, held, kept, root, how.ablation)
            prompts = [other_prompts(held.pairs, root=root, draw=draw) for draw in range(RESAMPLES)]
            masks = (ablated.mask, 1.0 - ablated.mask)
            found: dict[str, NDArray[Any]] = {
                "gap": np.stack([to_array(ablated.gaps(name)) for name in DEFINITIONS]),
                "resampled": np.stack([[to_array(held.gaps(mask, one)) for one in prompts] for mask in masks]),
                "alone": alone(prompts[0]),
                "searched": to_array(ablated.fitted()),
                "subset": np.stack([to_array(ablated.subset(draw)) for draw in range(how.subsets)]),
                "random": np.array([ablated.random(draw, remove=False) for draw in range(how.random)]),
                "random_removed": np.array([ablated.random(draw, remove=True) for draw in range(how.random)]),
            }  # fmt: skip
        found |= {key: np.array(count) for key, count in counts.items()}
        if isinstance(held, UnitPairs):
            found["disturbed"] = self._disturbed(held, kept, root)
        drawn = 2.0 * RESAMPLES + how.subsets + 2.0 * how.random + 2.0 * len(KINDS) * how.weight_draws
        passes = len(DEFINITIONS) + drawn + 12.0
        return Readings(found, forwards=passes)

    def _disturbed(self, held: UnitPairs, kept: Kept, root: int) -> NDArray[Any]:
        """Loss with weights disturbed, ``[kind, place, draw]``: of a copy."""
        how = self.settings
        net = UnitNet(copy.deepcopy(held.net.model), next(held.pairs.batches()).clean)
        inside, copied = CircuitWeights(net, kept), UnitPairs(held.pairs, net, inverted=held.inverted)
        found = np.zeros((len(KINDS), 2, how.weight_draws))
        with torch.no_grad():
            for kind, name in enumerate(KINDS):
                for place in range(2):
                    for draw in range(how.weight_draws):
                        flags = inside.others(root=root, draw=draw) if place else inside.own
                        rng = seeds.generator(root, "weights", name, place, draw)
                        with inside.disturbed(name, flags, noise=how.noise, rng=rng):
                            found[kind, place, draw] = float(copied.loss(None))
        return found


Floats = NDArray[np.float64]


@final
class CircuitGraph(Reading):
    """Units that are kept, weights between them, and what the units hold: nothing is ablated."""

    spec = CIRCUIT_GRAPH
    settings: CircuitGraphSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the task has no pairs, or the circuit is of another model.
            DataError: If the task has no such group.
        """
        how = self.settings
        kept, task = unpacked(how.circuit), of_group(task, how.group)
        _, held = halves(pairs_of(task))
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
            return Readings(shown | edge_graph(subject, some, kept, most=how.edges), forwards=12.0)
        with torch.no_grad():
            net = net_of(subject, kept, held)
            numbers = np.flatnonzero(kept)
            mean, spread = _moments(net, numbers, reference(task))
            found = _weights(net, numbers, spread, most=how.edges)
            sizes = [site.units for site in net.sites]
            sites = np.repeat(np.arange(len(sizes)), sizes)
            within = np.concatenate([np.arange(size) for size in sizes])
            found |= {
                "names": np.array(list("\n".join(site.name for site in net.sites).encode())),
                "site": sites[numbers], "unit": within[numbers], "mean": mean, "spread": spread,
                **_shown(net, numbers, some), **shown,
            }  # fmt: skip
        return Readings(found, forwards=2.0)


def _all(recorded: dict[str, Tensor], net: UnitNet) -> Tensor:
    """What every unit holds, over all sites in order, ``[example, place, unit]``."""
    return torch.cat([recorded[site.name] for site in net.sites], -1)


def _moments(net: UnitNet, numbers: NDArray[np.int64], sequences: Sequence[Tensor]) -> tuple[Floats, Floats]:
    """Mean and standard deviation of some units over all places of some sequences, ``[unit]`` each."""
    sums, squares, count = np.zeros(len(numbers)), np.zeros(len(numbers)), 0
    for tokens in sequences:
        held = to_array(_all(net.recorded(tokens.to(net.device)), net).flatten(0, 1))[:, numbers].astype(np.float64)
        sums, squares, count = sums + held.sum(0), squares + (held**2).sum(0), count + len(held)
    mean = sums / count
    return mean, np.sqrt(np.maximum(squares / count - mean**2, 0.0))


def _shown(net: UnitNet, numbers: NDArray[np.int64], some: Pairs) -> dict[str, NDArray[Any]]:
    """What some units hold at the last places of both sides of some pairs, and how the net answers them."""
    (batch,) = some.batches()
    held = _all(net.recorded(torch.cat([batch.clean, batch.corrupted]).to(net.device)), net)[:, -1]
    held = to_array(held)[:, numbers].reshape(2, len(some), len(numbers))
    return {"held": held, "gap": to_array(net.gaps(batch))}


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
