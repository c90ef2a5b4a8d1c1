"""Readings of seals: answers to challenges, and which checks see that a copy of a model was changed."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap import perturb
from wheeltap.core import seeds
from wheeltap.core.errors import WheeltapError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.inputs import Inputs, chosen, count
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.apply import Disturbance, differentiable
from wheeltap.engine.needs.gather import gather
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.engine.readings.output_scores import require_options
from wheeltap.suites.seal.inputs import candidates, choose
from wheeltap.suites.seal.making import LEAST, MARGIN, SealOptions, inputs_of, make, size
from wheeltap.suites.seal.record import Seal
from wheeltap.suites.seal.sketch import Floats, PassOutputs, look, scores
from wheeltap.suites.seal.specs import (
    CHALLENGES,
    DETECTORS,
    SEAL_RESPONSES,
    TAMPERING,
    SealResponsesSettings,
    TamperingSettings,
)
from wheeltap.suites.seal.tampers import TAMPERS, ChangedCopy, Ground
from wheeltap.suites.seal.values import NAMES, converted, in_single_precision, stored
from wheeltap.suites.seal.verifying import Verification, beside, block_of, departs, looking_of, verify

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


FIVE: Final = 5
"""Fingerprints of a model."""

CANDIDATES: Final = 64

_STEPS: Final = 24
"""Steps toward the boundary, each of which halves the margin to first order."""


def answers(model: nn.Module, inputs: Inputs) -> Tensor:
    """The top answer to each input, at its last place, ``[input]``."""
    with torch.no_grad():
        return _last(scores(model, inputs)).argmax(-1)


def _last(found: Tensor) -> Tensor:
    return found if found.ndim == 2 else found.flatten(1, -2)[:, -1]


def margins(model: nn.Module, inputs: Inputs) -> Tensor:
    """Score of the top answer less that of the second, ``[input]``."""
    top = _last(scores(model, inputs)).topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


SMALLEST_MARGIN: Final = 1e-5
"""Smallest margin of a fingerprint, as a share of the scores' size: rounding alone must not change an answer."""


def fingerprints(subject: Subject, task: BaseTask, *, seed: int) -> Inputs:
    """The inputs, nearest to a boundary first."""
    model = subject.model
    pool = candidates(subject, task, most=CANDIDATES, seed=seed).inputs
    with torch.no_grad():
        stable, order = _stable(model, pool), margins(model, pool).argsort()
    near = chosen(pool, order[stable[order]][:FIVE])
    return _moved(model, near) if isinstance(near, Tensor) and near.is_floating_point() else near


def _stable(model: nn.Module, inputs: Inputs) -> Tensor:
    """Whether an input has the same top answer after every harmless cast, and not by rounding alone, ``[input]``."""
    expected = answers(model, inputs)
    with torch.no_grad():
        least = SMALLEST_MARGIN * _last(scores(model, inputs)).square().mean().sqrt()
        same = (margins(model, inputs) > least).cpu()
    for name in NAMES[1:]:
        with converted(model, name) as changes:
            same &= (answers(model, inputs) == expected).cpu() if changes else True
    return same


def _moved(model: nn.Module, start: Tensor) -> Tensor:
    """Inputs moved toward the boundary, down the gradient of the margin, as far as casts allow."""
    kept, moving = start.clone(), start.clone()
    expected, going = answers(model, start), torch.ones(len(start), dtype=torch.bool)
    for _ in range(_STEPS):
        with differentiable(model), torch.enable_grad():
            moving = moving.detach().requires_grad_(True)
            margin = margins(model, moving)
            slope = torch.autograd.grad(margin.sum(), moving)[0].flatten(1)
        length = slope.square().sum(1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
        moving = (moving.detach() - (0.5 * margin.detach()[:, None] * slope / length).reshape(moving.shape)).detach()
        going &= _stable(model, moving) & (answers(model, moving) == expected).cpu()
        kept[going] = moving[going]
    return kept


FEW: Final = 5
"""Inputs of the checks that have few."""

_FARTHEST: Final = 1e9
"""Largest distance that is kept: one that is larger is given as this."""


@final
class TamperingReading(Reading):
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
        tamper, found = TAMPERS[self.settings.kind], list[CheckAnswers]()
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
class CheckAnswers:
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
            "": make(subject, task, SealOptions(seed=seed)).seal,
            "random": make(subject, task, SealOptions(seed=seed, at_random=True)).seal,
        }
        exact = in_single_precision(subject.model)
        own = subject if exact is subject.model else Subject(exact, name=subject.name)
        self.inputs = inputs_of(self.seals[""])
        self._asked: dict[str, Inputs] = {
            "accuracy": self.inputs, "fingerprints5": fingerprints(own, task, seed=seed),
        }  # fmt: skip
        self._hash, self._statistics = storage_hash(subject.model), statistics(exact)
        self._answers = {name: answers(exact, inputs) for name, inputs in self._asked.items()}
        self._off = dict.fromkeys(self._asked, 0)
        self._loose = torch.zeros_like(self._statistics)
        for name in NAMES[1:]:
            with converted(exact, name) as changes:
                if not changes:
                    continue
                self._loose = torch.maximum(self._loose, (statistics(exact) - self._statistics).abs())
                self._off = {which: max(most, self._others(exact, which)) for which, most in self._off.items()}

    def asked(self, changed: ChangedCopy) -> CheckAnswers:
        """What every check says of a changed copy."""
        model, seal = changed.model, self.seals[""]
        said = _or_none(lambda: verify(model, seal))
        exact = in_single_precision(model)
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
        return CheckAnswers(alarms, distance, _block(said, changed, seal), _kind(said, changed))

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


def _block(said: Verification | None, changed: ChangedCopy, seal: Seal) -> bool | None:
    return None if not changed.at else said is not None and said.block == block_of(changed.at, seal)


def _kind(said: Verification | None, changed: ChangedCopy) -> bool | None:
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
