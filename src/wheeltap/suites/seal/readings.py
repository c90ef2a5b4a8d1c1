"""Readings of seals: responses to challenges, and verdicts on changed copies of a model."""

from typing import Final, final

import numpy as np

from wheeltap import perturb
from wheeltap.core import seeds
from wheeltap.core.errors import WheeltapError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.inputs import count
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.gather import gather
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.seal.inputs import draw
from wheeltap.suites.seal.making import SealOptions, make, size
from wheeltap.suites.seal.record import Seal
from wheeltap.suites.seal.sketch import PassOutputs, look
from wheeltap.suites.seal.specs import (
    CHALLENGES,
    SEAL_RESPONSES,
    TAMPERING,
    SealResponsesSettings,
    TamperingSettings,
)
from wheeltap.suites.seal.tampers import TAMPERS
from wheeltap.suites.seal.values import in_single_precision
from wheeltap.suites.seal.verifying import verify


@final
class SealResponses(Reading):
    """Changes of the outputs on the sealed inputs under each challenge."""

    spec = SEAL_RESPONSES
    settings: SealResponsesSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task's inputs cannot be kept in a seal.
        """
        draws, exact = self.settings.draws, in_single_precision(subject.model)
        own = subject if exact is subject.model else Subject(exact, name=subject.name)
        inputs, _ = draw(own, task, total=self.settings.inputs, seed=root)
        looking = PassOutputs(root)
        clean = look(exact, inputs, looking).output
        spread, moments = size(clean - clean.mean(0)), gather("moments", own, task)
        responses = np.zeros((len(CHALLENGES), draws))
        for row, (name, dose) in zip(responses, CHALLENGES, strict=True):
            perturbation = perturb.create(name)
            with Disturbance(own, perturbation, WHOLE, moments if perturbation.needs else None) as under_way:
                for index in range(draws):
                    under_way.apply(dose, root=root, seed=seed * draws + index)
                    moved = size(look(exact, inputs, looking).output - clean)
                    # A share of both, because noise that a nearly silent unit lets through has no upper bound.
                    row[index] = moved / float(np.hypot(moved, spread))
        asked = count(inputs) * (responses.size + 1)
        return Readings({"responses": responses}, forwards=moments.forwards + asked / len(task.targets))


@final
class TamperingReading(Reading):
    """Changes copies of the model in one way, and verifies each against the model's seal.

    A copy that cannot be verified, e.g. because its outputs are not finite, counts as detected.
    """

    spec = TAMPERING
    settings: TamperingSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the change is not possible on this model.
        """
        own = weights_digest(subject.model)  # nets of one shape are changed in places of their own
        seal = _seal(subject, task, (own, task.digest, seeds.derive(root, "tampering", seed)))
        detected = list[bool]()
        for index in range(self.settings.draws):
            rng = seeds.generator(root, "tampering", self.settings.kind, own, seed, index)
            copy = TAMPERS[self.settings.kind](subject, task, rng)
            try:
                detected.append(not verify(copy, seal).passed)
            except WheeltapError:
                detected.append(True)
        asked = self.settings.draws * seal.body.stored[0].seen.output.shape[0]
        return Readings({"detected": np.array(detected)}, forwards=asked / len(task.targets))


_LAST: Final[dict[tuple[str, str, int], Seal]] = {}
"""Seal of the last model: all changes of one model come one after another, and a seal takes a while."""


def _seal(subject: Subject, task: BaseTask, key: tuple[str, str, int]) -> Seal:
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = make(subject, task, SealOptions(seed=key[-1])).seal
    return _LAST[key]
