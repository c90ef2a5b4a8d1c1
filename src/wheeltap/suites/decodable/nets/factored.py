"""Examples with known, independent factors, some pairs of whose values are held out of training, and nets for them.

A net is asked all factors at once: each combination of values is one option, whose score is the sum of its values'
scores.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor

TRAINED: Final = 0
"""Group of the examples whose combination of values is one of training."""

SHIFTED: Final = 1
"""Group of those with a held-out pair."""

Labels = NDArray[np.int64]
"""Values of factors, ``[example, factor]``."""

Pair = tuple[str, int, str, int]
"""A factor and one of its values, another factor and one of its."""


@final
@dataclass(frozen=True, kw_only=True)
class World:
    """Where examples come from, and which nets answer them.

    Attributes:
        name: Of its task and its random numbers.
        factors: How many values each has.
        held: Pairs of values that never go together in training; each value alone is in every net's lesson.
        examples: Of each group, that nets are measured on.
        drawn: Inputs ``[example, ...]`` with given values; what is no factor is drawn.
        net: An untrained net of so many units for each factor. In its linear layers after the first, an equal number
            of units in a row belongs to each factor; the last one gives the scores of all factors' values. Initialized
            from torch's global generator, so seed that first.
    """

    name: str
    factors: Mapping[str, int]
    held: tuple[Pair, ...]
    examples: int
    drawn: Callable[[Labels, np.random.Generator], Tensor]
    net: Callable[[int], nn.Module]

    def combinations(self) -> Labels:
        """Every combination of values, ``[option, factor]``, in the order of a net's options."""
        return combinations(self.factors)

    def held_out(self, labels: Labels) -> NDArray[np.bool_]:
        """Which rows of values have a pair that never goes together in training, ``[example]``."""
        names, found = list(self.factors), np.zeros(len(labels), dtype=np.bool_)
        for one, first, two, second in self.held:
            found |= (labels[:, names.index(one)] == first) & (labels[:, names.index(two)] == second)
        return found

    def options(self, labels: Labels) -> Tensor:
        """The option that is right for each row of values, ``[example]``."""
        found = np.zeros(len(labels), dtype=np.int64)
        for column, count in zip(labels.T, self.factors.values(), strict=True):
            found = found * count + column
        return to_tensor(found)

    def lesson(self, count: int, *, seed: int) -> tuple[Tensor, Tensor]:
        """Inputs to train a net with, ``[example, ...]``, and their options; none has a held-out pair."""
        rng, every = seeds.generator(seed, self.name, "lesson"), self.combinations()
        seen = every[~self.held_out(every)]
        labels = seen[rng.integers(len(seen), size=count)]
        return self.drawn(labels, rng), self.options(labels)

    def task(self) -> Task:
        """What nets are measured on: as many examples with combinations of training as with held-out pairs.

        Groups are ``TRAINED`` and ``SHIFTED``; the factors are known.
        """
        rng, every = seeds.generator(0, self.name, "task"), self.combinations()
        apart = self.held_out(every)
        labels = np.concatenate([part[np.arange(self.examples) % len(part)] for part in (every[~apart], every[apart])])
        made = Task(self.drawn(labels, rng), self.options(labels), name=self.name)
        made = made.with_behaviors(np.repeat([TRAINED, SHIFTED], self.examples))
        return made.with_factors({name: labels[:, at] for at, name in enumerate(self.factors)})


def combinations(factors: Mapping[str, int]) -> Labels:
    """Every combination of values, ``[option, factor]``, in the order of a net's options."""
    return np.array(list(product(*(range(count) for count in factors.values()))), dtype=np.int64)


@final
class Joint(nn.Module):
    """From the scores of all factors' values, ``[example, value]``, to those of every combination: their sums."""

    table: Tensor

    def __init__(self, factors: Mapping[str, int]) -> None:
        super().__init__()
        columns = zip(factors.values(), combinations(factors).T, strict=True)
        parts = [torch.eye(count)[to_tensor(column)] for count, column in columns]
        self.register_buffer("table", torch.cat(parts, 1).T.contiguous(), persistent=False)

    def forward(self, scores: Tensor) -> Any:
        """Sums of the scores of the values that each option stands for, ``[example, option]``."""
        return scores @ self.table
