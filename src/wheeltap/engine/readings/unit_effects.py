"""What each hidden unit is for: how the answers change without it, example by example."""

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import measure, seeds
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.engine.units import HiddenUnits, Session, centred, contributions, hidden_units, means, to_value
from wheeltap.plans.readings.unit_effects import UNIT_EFFECTS


@final
class UnitEffects(Reading):
    """Sets one hidden unit after another to its mean and compares the scores with the clean ones."""

    spec = UNIT_EFFECTS

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``."""
        hiddens = hidden_units(subject, task)
        rng = seeds.generator(root, "unit-effects", "units", seed)
        chosen = _chosen(subject, task, hiddens, rng, limit=self.settings.limit)
        value, session = means(subject, task, hiddens), Session(subject, task)
        rows: list[dict[str, Tensor]] = []
        for hidden, units in chosen.items():
            for unit in units:
                index = torch.tensor([unit], device=subject.device)
                scores = session.without({hidden: to_value(index, value[hidden][index])})
                change, targets = centred(scores - session.clean), task.targets
                row = {"all": change.square().sum(1), "lost": session.lost(scores)}
                if not targets.is_floating_point():
                    row["right"] = change.gather(1, targets.cpu()[:, None])[:, 0].square()
                    row["nll"] = session.rise(measure.nll, scores)
                rows.append(row)
        values: dict[str, NDArray[Any]] = {name: to_array(torch.stack([row[name] for row in rows])) for name in rows[0]}
        values["layer"] = np.repeat(np.arange(len(hiddens)), [len(units) for units in chosen.values()]).astype(float)
        values["unit"] = np.array([unit for units in chosen.values() for unit in units], dtype=float)
        values["groups"] = np.unique(task.behaviors.cpu().numpy(), return_inverse=True)[1].astype(float)
        total = sum(hidden.units for hidden in hiddens)
        values["total"] = np.array(float(total))
        return Readings(values, forwards=1.0 + session.passes + (len(rows) < total))


def _chosen(
    subject: Subject, task: BaseTask, hiddens: tuple[HiddenUnits, ...], rng: np.random.Generator, *, limit: int
) -> dict[HiddenUnits, list[int]]:
    """The units of each layer to look at: all, or a draw that is the same on a re-coded copy."""
    if sum(hidden.units for hidden in hiddens) <= limit:
        return {hidden: list(range(hidden.units)) for hidden in hiddens}
    with torch.no_grad():
        held = contributions(subject, task, hiddens)
    chosen: dict[HiddenUnits, list[int]] = {}
    for hidden, count in zip(hiddens, _shares([hidden.units for hidden in hiddens], limit), strict=True):
        places = to_tensor(np.sort(rng.choice(hidden.units, size=count, replace=False)))
        chosen[hidden] = [int(unit) for unit in held[hidden].order.cpu()[places]]
    return chosen


def _shares(sizes: list[int], limit: int) -> list[int]:
    """How many of each layer: as equal as their sizes allow, ``limit`` in all."""
    shares, left = [0] * len(sizes), limit
    for rank, at in enumerate(sorted(range(len(sizes)), key=lambda at: sizes[at])):
        shares[at] = min(sizes[at], left // (len(sizes) - rank))
        left -= shares[at]
    return shares
