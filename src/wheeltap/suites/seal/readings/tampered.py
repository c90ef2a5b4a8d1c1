"""Which checks see that a copy of a model was changed: a seal, and what is used in its place."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import WheeltapError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.inputs import Inputs, count
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.seal import conversions
from wheeltap.suites.seal.fingerprints import answers, fingerprints
from wheeltap.suites.seal.looked import beside, departs, looking_of
from wheeltap.suites.seal.making import MARGIN, Asked, inputs_of, make
from wheeltap.suites.seal.record import Seal
from wheeltap.suites.seal.sketch import look
from wheeltap.suites.seal.specs import DETECTORS, TAMPERING, TamperingSettings
from wheeltap.suites.seal.tampers import TAMPERS, Changed, Ground
from wheeltap.suites.seal.values import stored
from wheeltap.suites.seal.verifying import Verification, block_of, verify

FEW: Final = 5
"""Inputs of the checks that have few."""

_FARTHEST: Final = 1e9
"""Largest distance that is kept: one that is larger is given as this."""


@final
class Tampering(Reading):
    """Changes copies of the model in one way, and asks every check.

    A check that cannot run on a copy (its outputs are not finite, say) has seen that it changed. All checks are set so
    that casts to 16 bits give no alarm, by measuring these.
    """

    spec = TAMPERING
    settings: TamperingSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If the change is not possible on this model.
        """
        own = weights_digest(subject.model)  # nets of one shape are changed in places of their own
        checks = _checks(subject, task, (own, task.digest, seeds.derive(root, "tampering", seed)))
        tamper, found = TAMPERS[self.settings.kind], list[Answer]()
        for draw in range(self.settings.draws):
            rng = seeds.generator(root, "tampering", self.settings.kind, own, seed, draw)
            found.append(checks.asked(tamper(Ground(subject, task), rng)))
        values: dict[str, NDArray[Any]] = {
            "detected": np.array([[one.alarms[name] for name in DETECTORS] for one in found]),
            "finite": np.array([one.distance is not None for one in found]),
            "distance": np.array([one.distance or 0.0 for one in found]),
        }
        values |= _rights("block_right", [one.block for one in found])
        values |= _rights("kind_right", [one.kind for one in found])
        asked = 3 * count(checks.inputs) + FEW
        return Readings(values, forwards=self.settings.draws * asked / len(task.targets))


def _rights(name: str, rights: list[bool | None]) -> dict[str, NDArray[Any]]:
    """What was named right, where there is something to name."""
    return {} if None in rights else {name: np.array(rights, dtype=np.bool_)}


@final
@dataclass(frozen=True)
class Answer:
    """What the checks say of one copy.

    Attributes:
        alarms: By check, whether something changed.
        distance: Of the outputs, in tolerances; ``None`` where they could not be compared.
        block: Whether the first changed block is named; ``None`` where none is expected.
        kind: The same of the kind of change.
    """

    alarms: dict[str, bool]
    distance: float | None
    block: bool | None
    kind: bool | None


@final
class Checks:
    """All checks of one model, each with what it keeps of it.

    Args:
        subject: The model; it comes back as it was.
        task: Its examples.
        seed: Of seals and fingerprints.
    """

    def __init__(self, subject: Subject, task: BaseTask, *, seed: int) -> None:
        self.seals = {
            "": make(subject, task, Asked(seed=seed)).seal,
            "random": make(subject, task, Asked(seed=seed, at_random=True)).seal,
        }
        exact = conversions.in_single_precision(subject.model)
        own = subject if exact is subject.model else Subject(exact, name=subject.name)
        self.inputs = inputs_of(self.seals[""])
        self._asked: dict[str, Inputs] = {
            "accuracy": self.inputs, "fingerprints5": fingerprints(own, task, seed=seed),
        }  # fmt: skip
        self._hash, self._statistics = storage_hash(subject.model), statistics(exact)
        self._answers = {name: answers(exact, inputs) for name, inputs in self._asked.items()}
        self._off = dict.fromkeys(self._asked, 0)
        self._loose = torch.zeros_like(self._statistics)
        for name in conversions.NAMES[1:]:
            with conversions.converted(exact, name) as changes:
                if not changes:
                    continue
                self._loose = torch.maximum(self._loose, (statistics(exact) - self._statistics).abs())
                self._off = {which: max(most, self._others(exact, which)) for which, most in self._off.items()}

    def asked(self, changed: Changed) -> Answer:
        """What every check says of a changed copy."""
        model, seal = changed.model, self.seals[""]
        said = _or_none(lambda: verify(model, seal))
        exact = conversions.in_single_precision(model)
        alarms = {
            "seal": said is None or not said.passed,
            "hash": storage_hash(model) != self._hash,
            "statistics": not self._alike(exact),
        }
        distance: float | None = None
        for name, sealed in self.seals.items():
            of_all, of_few, off = self._by_outputs(exact, sealed)
            alarms |= {"random16": of_all, "random5": of_few} if name else {"outputs": of_all, "five": of_few}
            distance = off if not name else distance
        for name in self._asked:
            others = _or_none(lambda name=name: self._others(exact, name))
            alarms[name] = others is None or others > self._off[name]
        return Answer(alarms, distance, _block(said, changed, seal), _kind(said, changed))

    def _by_outputs(self, model: nn.Module, seal: Seal) -> tuple[bool, bool, float | None]:
        """Whether outputs and blocks alone show a change, on all inputs and on few; and how far outputs are off."""
        seen = _or_none(lambda: look(model, inputs_of(seal), looking_of(seal)))
        if seen is None:
            return True, True, None
        whole = beside(seal, seen)
        some = beside(seal, seen.first(FEW))
        of_all, of_few = (one.distance > 1.0 or bool(departs(seal, one)) for one in (whole, some))
        return of_all, of_few, min(whole.distance, _FARTHEST)

    def _others(self, model: nn.Module, name: str) -> int:
        """To how many inputs the top answer is another one."""
        return int((answers(model, self._asked[name]).cpu() != self._answers[name].cpu()).sum())

    def _alike(self, model: nn.Module) -> bool:
        """Whether means and spreads of all tensors are off by no more than casts make."""
        found = statistics(model)
        least = torch.finfo(torch.float32).eps * self._statistics[:, 1:].expand_as(self._statistics)
        return found.shape == self._statistics.shape and bool(
            ((found - self._statistics).abs() <= MARGIN * torch.maximum(self._loose, least)).all()
        )


def storage_hash(model: nn.Module) -> str:
    """SHA-256 of all weights as they are stored, in order."""
    total = hashlib.sha256()
    for _, part in stored(model):
        total.update(str(part.dtype).encode())
        total.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def statistics(model: nn.Module) -> Tensor:
    """Mean and root mean square of each parameter, ``[parameter, 2]``."""
    rows = [part.detach().double() for part in model.parameters()]
    return torch.stack([torch.stack((row.mean(), row.square().mean().sqrt())) for row in rows]).cpu()


def _block(said: Verification | None, changed: Changed, seal: Seal) -> bool | None:
    return None if not changed.at else said is not None and said.block == block_of(changed.at, seal)


def _kind(said: Verification | None, changed: Changed) -> bool | None:
    return None if not changed.kind else said is not None and said.kind == changed.kind


_Said = TypeVar("_Said")


def _or_none(ask: Callable[[], _Said]) -> _Said | None:
    """What a check says; ``None`` where it cannot run."""
    try:
        return ask()
    except WheeltapError:
        return None


_LAST: dict[tuple[str, str, int], Checks] = {}
"""Of the model that was asked last: all changes of one model come one after another, and a seal takes a while."""


def _checks(subject: Subject, task: BaseTask, key: tuple[str, str, int]) -> Checks:
    if key not in _LAST:
        _LAST.clear()
        _LAST[key] = Checks(subject, task, seed=key[-1])
    return _LAST[key]
