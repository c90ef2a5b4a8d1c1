"""Readings of the suite: what layers read, how heavy weights' tails are, what is left after noise and rounding."""

from typing import final

import numpy as np
import torch

from wheeltap import perturb
from wheeltap.core.errors import ModelError
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine import places
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.places import Place, Places
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.claims.specs import HIDDEN_VECTORS, ROUNDED_NOISE, WEIGHT_TAILS, RoundedNoiseSettings

_READ, _BITS = 128, 4  # examples whose vectors are read, evenly spaced; bits of the grid that weights are rounded to


@final
class HiddenVectors(Reading):
    """The input of every layer but the first, one row for each example."""

    spec = HIDDEN_VECTORS

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass over some examples.

        Raises:
            ModelError: If a layer does not read one vector per example.
        """
        count = min(_READ, len(task.targets))
        some = task.part(torch.linspace(0, len(task.targets) - 1, count).round().long())
        modules = tuple(dict.fromkeys(layer.module for layer in subject.layers[1:]))
        where = Places(
            "layers", tuple(Place(name, name, incoming=True) for name in modules), tuple(range(len(modules)))
        )
        found, _ = places.read(subject, some, where)
        for place in where.without([*found]).all:
            raise ModelError("A layer does not read one vector per example.", where=place.name,
                             expected=f"finite numbers [{count}, unit]", got="another shape, or no call")  # fmt: skip
        values = {f"{place.name}|units": to_array(vectors.float()) for place, vectors in found.items()}
        return Readings(values, forwards=count / len(task.targets))


@final
class WeightTails(Reading):
    """Excess kurtosis of the weights, matrix by matrix: no pass is needed."""

    spec = WEIGHT_TAILS

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            ModelError: If no matrix has weights that differ.
        """
        found: list[float] = []
        for parameter in subject.model.parameters():
            weights = parameter.detach().double().flatten()
            spread = weights - weights.mean()
            variance = float(spread.square().mean())
            if parameter.ndim >= 2 and variance > 0.0:
                found.append(float(spread.pow(4).mean()) / variance**2 - 3.0)
        if not found:
            raise ModelError("There are no weights to describe.", where=subject.name, expected="a matrix", got="none")
        return Readings({"kurtosis": np.array(np.mean(found))}, forwards=0.0)


@final
class RoundedNoise(Reading):
    """The score of each class after noise in all weights, and after rounding what that left."""

    spec = ROUNDED_NOISE
    settings: RoundedNoiseSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; two passes a draw."""
        how = self.settings
        classes = [task.targets == one for one in sorted(set(map(int, task.targets)))]
        found: dict[str, list[list[float]]] = {"noisy": [], "rounded": []}

        def score(kind: str) -> None:
            right = task.scores(subject.model).argmax(-1) == task.targets
            found[kind].append([float(right[one].double().mean()) for one in classes])

        for draw in range(how.draws):
            with Disturbance(subject, perturb.create("std"), WHOLE) as noise:
                noise.apply(how.dose, root=root, seed=seed * how.draws + draw)
                score("noisy")
                with Disturbance(subject, perturb.create("quantize"), WHOLE) as rounding:
                    rounding.apply(_BITS, root=root, seed=0)
                    score("rounded")
        return Readings({kind: np.array(rows) for kind, rows in found.items()}, forwards=2.0 * how.draws)
