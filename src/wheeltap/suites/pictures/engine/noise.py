"""Noise in all weights of a picture's net at once, at the dose that changes the picture by a given amount."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import Task
from wheeltap.engine.apply import Disturbance, unharmed
from wheeltap.engine.needs.gather import gather
from wheeltap.perturb import create

TOLERANCE: Final = 0.01
"""Relative error of the effect that is close enough, as for single weights."""

STEPS: Final = 30
"""Bound on the evaluations after the dose has been bracketed; it takes about five."""

WIDEST: Final = 8.0
"""Largest dose tried; noise as large as eight times the signal changes any picture that noise can change."""


@dataclass(frozen=True)
class NoiseResponses:
    """What draws of noise did to a picture, each at the dose at which it changes it by the wanted amount.

    Attributes:
        dose: ``[draw]``, in the perturbation's unit; NaN where no dose was enough.
        symmetry: ``[draw]``, symmetric share of the change; NaN likewise, and where no symmetry is asked for.
    """

    dose: NDArray[np.float64]
    symmetry: NDArray[np.float64]

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Which draws changed the picture as much as wanted."""
        return np.isfinite(self.dose)


def respond(subject: Subject, task: Task, perturbation: str, *, effect: float, draws: int, root: int) -> NoiseResponses:
    """Finds for each draw the dose whose change of the outputs has the root mean square ``effect``.

    Args:
        subject: The net; it comes back bit-identical.
        task: Its inputs; with a symmetry, the share of the change that has it is told too.
        perturbation: Name of a kind of noise.
        effect: In units of the outputs.
        draws: Of noise.
        root: Root seed.

    Raises:
        ModelError: If the noise is not defined on this net.
    """
    noise = create(perturbation)
    known = gather(noise.needs, subject, task) if noise.needs else None
    clean = task.scores(subject.model)
    symmetry, found = task.annotations.symmetry, list[tuple[float, float]]()
    with unharmed(subject), Disturbance(subject, noise, WHOLE, known) as disturbance:

        def change(dose: float, seed: int) -> Tensor:
            disturbance.apply(dose, root=root, seed=seed)
            return task.scores(subject.model) - clean

        for seed in range(draws):
            found.append(_at_effect(lambda dose, seed=seed: change(dose, seed), effect, symmetry))
    dose, share = np.array(found).T
    return NoiseResponses(dose, share)


def _at_effect(change: Callable[[float], Tensor], effect: float, symmetry: Symmetry | None) -> tuple[float, float]:
    """Dose and symmetric share where the change first has the wanted size: bracketed, then halved in ratios."""
    low, high, moved = 0.0, 1e-3, change(1e-3)
    while _size(moved) < effect:
        if high >= WIDEST:
            return float("nan"), float("nan")
        low, high = high, min(2.0 * high, WIDEST)
        moved = change(high)
    dose = high
    for _ in range(STEPS):
        if abs(_size(moved) / effect - 1.0) <= TOLERANCE:
            break
        dose = float(np.sqrt(low * high)) if low else high / 2.0
        moved = change(dose)
        low, high = (dose, high) if _size(moved) < effect else (low, dose)
    if abs(_size(moved) / effect - 1.0) > TOLERANCE:  # the change jumps over the wanted one
        return float("nan"), float("nan")
    return dose, float("nan") if symmetry is None else float(symmetry.share(moved.double()))


def _size(change: Tensor) -> float:
    size = float(change.double().square().mean().sqrt())
    return size if np.isfinite(size) else float("inf")
