"""What the layers of a net read, by which two nets with other weights are compared; how heavy weights' tails are."""

from functools import partial
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.claims.specs import HIDDEN_VECTORS, WEIGHT_TAILS, HiddenVectorsSettings


@final
class HiddenVectors(Reading):
    """The input of every layer but the first, one row for each example."""

    spec = HIDDEN_VECTORS
    settings: HiddenVectorsSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass over some examples.

        Raises:
            ModelError: If a layer does not read one vector per example.
        """
        count = min(self.settings.examples, len(task.targets))
        some = task.part(torch.linspace(0, len(task.targets) - 1, count).round().long())
        held: dict[str, list[Tensor]] = {layer.module: [] for layer in subject.layers[1:]}

        def keep(name: str, module: nn.Module, given: tuple[Any, ...]) -> None:
            held[name].append(given[0].detach().cpu())

        handles = [subject.model.get_submodule(name).register_forward_pre_hook(partial(keep, name)) for name in held]
        try:
            some.scores(subject.model)
        finally:
            for handle in handles:
                handle.remove()
        for name, parts in held.items():
            if any(one.ndim != 2 for one in parts) or sum(map(len, parts)) != count:
                raise ModelError(
                    "A layer does not read one vector per example.", where=name, expected=f"[{count}, unit]",
                    got=", ".join(str(list(one.shape)) for one in parts) or "no call",
                )  # fmt: skip
        values = {f"{name}|units": to_array(torch.cat(parts)) for name, parts in held.items()}
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
