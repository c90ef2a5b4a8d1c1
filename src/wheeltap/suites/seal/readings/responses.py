"""How far fixed disturbances of the weights move the outputs at the inputs that a seal would keep."""

from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap import perturb
from wheeltap.core.inputs import Inputs, chosen, count
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.gather import gather
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.engine.readings.output_scores import require_options
from wheeltap.suites.seal.inputs import candidates, choose
from wheeltap.suites.seal.making import LEAST, MARGIN, size
from wheeltap.suites.seal.sketch import Floats, PassOutputs, look, scores
from wheeltap.suites.seal.specs import CHALLENGES, SEAL_RESPONSES, SealResponsesSettings
from wheeltap.suites.seal.values import in_single_precision

_BACKWARD: Final = 3.0
"""Passes that one with slopes takes."""


@final
class SealResponses(Reading):
    """Changes of the outputs under each challenge, at sensitive inputs and at examples; and what outputs alone say."""

    spec = SEAL_RESPONSES
    settings: SealResponsesSettings

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: outputs that are scores of options."""
        require_options(task)

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task has no right options, or its inputs cannot be kept in a seal.
        """
        self.require(subject, task)
        how, exact = self.settings, in_single_precision(subject.model)
        own = subject if exact is subject.model else Subject(exact, name=subject.name)
        looking = PassOutputs(root)
        pool = candidates(own, task, most=how.pool, seed=root)
        unit = MARGIN * LEAST * size(look(exact, pool.inputs, looking).output)
        inputs = {"sealed": choose(own, pool, keep=how.inputs, unit=unit, seed=root).inputs}
        if pool.own.any():
            inputs["plain"] = chosen(pool.inputs, torch.from_numpy(np.flatnonzero(pool.own)[: how.inputs]))  # pyright: ignore[reportUnknownMemberType]
        values, known = self._changes(own, task, inputs, looking, seed=seed)
        values |= _alone(scores(exact, inputs["sealed"]))
        asked = sum(map(count, inputs.values())) * (len(CHALLENGES) * how.draws + 1)
        inside = (_BACKWARD + 1.0) * count(pool.inputs) + asked
        return Readings(values, forwards=known + inside / len(task.targets))

    def _changes(
        self, subject: Subject, task: BaseTask, inputs: dict[str, Inputs], looking: PassOutputs, *, seed: int
    ) -> tuple[dict[str, NDArray[Any]], float]:
        """Of each set of inputs, ``[challenge, draw]``; and the passes that layer moments took."""
        clean = {name: look(subject.model, some, looking).output for name, some in inputs.items()}
        found: dict[str, list[list[float]]] = {name: [] for name in inputs}
        known = gather("moments", subject, task)
        for name, dose in CHALLENGES:
            for rows in found.values():
                rows.append([])
            disturbance = perturb.create(name)
            with Disturbance(subject, disturbance, WHOLE, known if disturbance.needs else None) as under_way:
                for draw in range(self.settings.draws):
                    under_way.apply(dose, root=looking.seed, seed=seed * self.settings.draws + draw)
                    for which, some in inputs.items():
                        moved = size(look(subject.model, some, looking).output - clean[which])
                        # Beyond the spread nothing is left of an answer, however far it goes: noise that a unit which
                        # was nearly always silent lets through can move it by any factor.
                        found[which][-1].append(moved / float(np.hypot(moved, _spread(clean[which]))))
        return {name: np.array(rows) for name, rows in found.items()}, known.forwards


def _spread(output: Floats) -> float:
    """Of sketches over inputs."""
    return size(output - output.mean(0))


def _alone(given: Tensor) -> dict[str, NDArray[Any]]:
    """What the undisturbed scores ``[input, ..., option]`` say; of several places of an input, their mean."""
    rows = given.double().reshape(len(given), -1, given.shape[-1])
    logs, best = rows.log_softmax(-1), rows.topk(2, dim=-1).values
    return {
        "lead": to_array((best[..., 0] - best[..., 1]).mean(1)),
        "entropy": to_array(-(logs.exp() * logs).sum(-1).mean(1)),
        "scale": to_array((rows - rows.mean(-1, keepdim=True)).square().mean().sqrt()),
    }
