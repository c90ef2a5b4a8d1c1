"""What each single weight of a layer does: every one changed in turn, exactly, at a small share of a pass each.

A change delta of weight (i, j) moves output i of its layer by delta x_j and nothing else. Three routes lead from there
to the scores, and the cheapest that fits the model is taken:

- ``rank-1``: behind the layer stands an activation that acts unit by unit, and behind that a Linear V. Then V's output
  moves by (phi(z_i + delta x_j) - phi(z_i)) V_i, and only rows where that is not zero go further.
- ``column patch, traced tail``: the changed outputs go through the rest of a forward that ``torch.fx`` can trace (where
  a norm or a softmax over units follows, say).
- ``column patch, folded``: variants share passes of the whole model as copies in its batch (transformers).

Weights are not written to, but for a few that are also changed, evaluated and put back by the slow path: if those
differ by more than rounding, the sweep is refused.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.layer import Layer
from wheeltap.core.measure import Measure
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import named_modules
from wheeltap.engine.fast.folded import require_same, require_single_precision
from wheeltap.engine.fast.weight_routes import refused, route

_BESIDE = 3
"""Weights that are changed together, each in rows of its own, where one of them is checked."""


@final
@dataclass(frozen=True)
class Effects:
    """What changing each weight of a layer does to a measure.

    Attributes:
        path: Name of the numerical path.
        mean: Mean rise over the examples, ``[unit, fan_in]``.
        error: Its standard error over the examples, ``[unit, fan_in]``.
        checked: How many weights the slow path confirmed.
    """

    path: str
    mean: Tensor
    error: Tensor
    checked: int


@final
class WeightSweep:
    """Every single weight of one layer, changed one at a time.

    Args:
        subject: Undisturbed.
        task: The examples.
        layer: Module path of a Linear, Conv1D, Embedding or convolution that the model calls once in a forward.
        checks: Weights, drawn at random in each sweep, that the slow path confirms.

    Attributes:
        path: Name of the numerical path.
        clean: Undisturbed scores ``[example, option]``.

    Raises:
        ModelError: If the layer is not of these kinds, shares its weight, or the model's rows are not its own.
    """

    def __init__(self, subject: Subject, task: BaseTask, layer: str, *, checks: int = 8) -> None:
        self.subject, self.task, self.checks = subject, task, checks
        self.layer = _layer(subject, layer)
        with torch.no_grad():
            self.clean = task.scores(subject.model)
            self.route = route(subject, task, self.layer)
        self.path = self.route.path
        require_single_precision(subject, path=self.path)

    @property
    def weight(self) -> Tensor:
        """The weights, ``[unit, fan_in]``."""
        return self.layer.matrix(self.subject.parameter(self.layer.weight)).detach()

    @torch.no_grad()
    def effects(self, deltas: Tensor, of: Measure, *, units: Sequence[int] | None = None) -> Effects:
        """The rise of ``of`` when each weight is changed by its own delta.

        Args:
            deltas: ``[unit, fan_in]``; minus the weight itself sets it to zero.
            of: What is measured of each example.
            units: Rows to look at; the others are left at zero. All by default.

        Raises:
            ModelError: If the slow path does not confirm what was found.
        """
        rows = range(self.layer.units) if units is None else units
        self._require_right(deltas, rows)
        sums = torch.zeros(2, *deltas.shape, dtype=torch.float64)
        targets = self.task.targets.cpu()
        before = of(self.clean, targets, self.clean)
        columns = torch.arange(self.layer.fan_in, device=deltas.device)
        for unit in rows:
            for first in range(0, len(columns), self.route.variants):
                some = columns[first : first + self.route.variants]
                found = self.route.changed(unit, some, deltas[unit, some])
                at, scores = found.example.cpu(), found.scores.float().cpu()
                rise = (of(scores, targets[at], self.clean[at]) - before[at]).double()
                into, variant = sums[:, unit, first : first + len(some)], found.variant.cpu()
                into[0].index_add_(0, variant, rise)
                into[1].index_add_(0, variant, rise.square())
        count = len(self.clean)
        mean = sums[0] / count
        spread = (sums[1] / count - mean.square()).clamp_min(0.0) * (count / max(count - 1, 1))
        return Effects(self.path, mean.float(), (spread / count).sqrt().float(), self._checked(rows))

    def _checked(self, rows: Sequence[int]) -> int:
        return min(self.checks, len(rows) * self.layer.fan_in)

    def _require_right(self, deltas: Tensor, rows: Sequence[int]) -> None:
        rng = seeds.generator(0, "weight sweep", self.layer.name)
        places = rng.choice(len(rows) * self.layer.fan_in, size=self._checked(rows), replace=False)
        for place in places:
            unit, column = rows[int(place) // self.layer.fan_in], int(place) % self.layer.fan_in
            # With other weights beside it: variants that saw each other would show.
            some = [(column + step) % self.layer.fan_in for step in range(min(_BESIDE, self.layer.fan_in))]
            columns = torch.tensor(some, device=deltas.device)
            found = self.route.changed(unit, columns, deltas[unit, columns])
            own = found.variant == 0
            fast = self.clean.clone()
            fast[found.example[own].cpu()] = found.scores[own].float().cpu()
            slow = self.slowly(unit, column, float(deltas[unit, column]))
            require_same(fast, slow, path=self.path, where=f"{self.layer.name}[{unit},{column}]")

    @torch.no_grad()
    def slowly(self, unit: int, column: int, delta: float) -> Tensor:
        """Scores with one weight changed, by writing it, one whole pass, and putting the old number back."""
        held = self.subject.parameter(self.layer.weight).data
        inner = torch.unravel_index(torch.tensor(column), held.shape[1:])
        at = (column, unit) if self.layer.kind in ("transposed", "embedding") else (unit, *inner)
        old = held[at].clone()
        try:
            held[at] = old + delta
            return self.task.scores(self.subject.model)
        finally:
            held[at] = old


def _layer(subject: Subject, name: str) -> Layer:
    """The layer to sweep, with its weight its own."""
    found = next((layer for layer in subject.layers if layer.name == name), None)
    if found is None:
        raise refused(subject, name, f"one of: {', '.join(layer.name for layer in subject.layers)}")
    module = subject.model.get_submodule(name)
    users = [
        path
        for path, held in named_modules(subject.model)
        if any(p is subject.parameter(found.weight) for p in held.parameters(recurse=False))
    ]
    if found.kind == "attention":
        raise refused(subject, name, "packed attention weights, used inside torch's own function")
    if len(users) != 1:
        raise refused(subject, name, f"a weight shared by {' and '.join(users)}")
    if getattr(module, "groups", 1) != 1:
        raise refused(subject, name, "a grouped convolution")
    if getattr(module, "max_norm", None) is not None:
        raise refused(subject, name, "an embedding that rescales its weights as it is called")
    return found
