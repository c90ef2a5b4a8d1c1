"""What a circuit does alone, and what the rest of the net does without it: on pairs on which it was not searched."""

import copy
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core import seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.circuits.engine.ablated import Ablated
from wheeltap.suites.circuits.engine.asking import Asked, alone, halves, of_group, other_prompts, pairs_of, reference
from wheeltap.suites.circuits.engine.disturbed import Inside
from wheeltap.suites.circuits.engine.edge_asking import edges_asked, require_parts
from wheeltap.suites.circuits.engine.units import Kept, UnitNet
from wheeltap.suites.circuits.pairs import Pairs
from wheeltap.suites.circuits.specs import (
    CIRCUIT_EFFECTS,
    DEFINITIONS,
    KINDS,
    RESAMPLES,
    CircuitEffectsSettings,
)
from wheeltap.suites.circuits.unit_circuit import unpacked


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
            searched, held, counts = (edges_asked if how.parts == "edges" else units_asked)(subject, task, kept)
            root = seeds.derive(root, self.name, seed)
            ablated = Ablated(searched, held, kept, root, how.ablation)
            prompts = [other_prompts(held.pairs, root=root, draw=draw) for draw in range(RESAMPLES)]
            masks = (ablated.mask, 1.0 - ablated.mask)
            found: dict[str, NDArray[Any]] = {
                "gap": np.stack([to_array(ablated.gaps(name)) for name in DEFINITIONS]),
                "resampled": np.stack([[to_array(held.patched(mask, one)) for one in prompts] for mask in masks]),
                "alone": alone(prompts[0]),
                "searched": to_array(ablated.fitted()),
                "subset": np.stack([to_array(ablated.subset(draw)) for draw in range(how.subsets)]),
                "random": np.array([ablated.random(draw, remove=False) for draw in range(how.random)]),
                "random_removed": np.array([ablated.random(draw, remove=True) for draw in range(how.random)]),
            }  # fmt: skip
        found |= {key: np.array(count) for key, count in counts.items()}
        if isinstance(held, Asked):
            found["disturbed"] = self._disturbed(held, kept, root)
        drawn = 2.0 * RESAMPLES + how.subsets + 2.0 * how.random + 2.0 * len(KINDS) * how.weight_draws
        passes = len(DEFINITIONS) + drawn + 12.0
        return Readings(found, forwards=passes)

    def _disturbed(self, held: Asked, kept: Kept, root: int) -> NDArray[Any]:
        """Loss with weights disturbed, ``[kind, place, draw]``: of a copy."""
        how = self.settings
        net = UnitNet(copy.deepcopy(held.net.model), next(iter(held.pairs.batches())).clean)
        inside, asked = Inside(net, kept), Asked(net, held.pairs, {}, inverted=held.inverted)
        found = np.zeros((len(KINDS), 2, how.weight_draws))
        with torch.no_grad():
            for kind, name in enumerate(KINDS):
                for place in range(2):
                    for draw in range(how.weight_draws):
                        flags = inside.others(root=root, draw=draw) if place else inside.own
                        rng = seeds.generator(root, "weights", name, place, draw)
                        with inside.disturbed(name, flags, noise=how.noise, rng=rng):
                            found[kind, place, draw] = float(asked.loss(None))
        return found


def units_asked(subject: Subject, task: BaseTask, kept: Kept) -> tuple[Asked, Asked, dict[str, int]]:
    """Pairs that are searched on and pairs that are held out, asked of the units; how large circuit and net are."""
    searched, held = halves(pairs_of(task))
    net = fitting(subject, kept, searched)
    values, every = net.means(reference(task)), np.ones(net.units, dtype=np.bool_)
    counts = {"units": int(kept.sum()), "edges": net.edges(kept), "all_units": net.units, "all_edges": net.edges(every)}
    return Asked(net, searched, values), Asked(net, held, values), counts


def fitting(subject: Subject, kept: Kept, pairs: Pairs) -> UnitNet:
    """The units of the model, made sure that a circuit is of as many.

    Raises:
        ModelError: If it is of others.
    """
    net = UnitNet(subject.model, next(iter(pairs.batches())).clean)
    require_parts(subject, kept, net.units, "units")
    return net
