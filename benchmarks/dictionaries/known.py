"""Dictionaries that are known: synthetic vectors of any size, and a net that computes with planted features."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.task import Task
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionarySettings

Law = Literal["constant", "uniform", "folded normal", "exponential"]
"""Of the magnitude of an active feature, with mean 1; ``uniform`` from a half to one and a half."""

Floats = NDArray[np.float32]

_ROWS: Final = 1024

_GROUP: Final = 16
"""Features of a group that are active together where they are correlated."""

_OFTEN: Final = 0.5
"""Largest chance that a feature is active."""


@final
@dataclass(frozen=True, kw_only=True)
class Truth:
    """A dictionary, and how its features are active.

    Attributes:
        width: Numbers of a vector.
        features: How many there are; their directions are random, of norm 1.
        active: Active ones of a vector, on average.
        skew: Chances fall as the rank to the power of minus this: 0 where all are active equally often.
        correlation: Between the normal numbers that decide which features of a group are active.
        law: Of magnitudes.
        noise: Of every number, as a share of the standard deviation of what the features give.
        seed: Of directions, groups and draws.
    """

    width: int = 64
    features: int = 256
    active: float = 4.0
    skew: float = 0.0
    correlation: float = 0.0
    law: Law = "uniform"
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        fits = min(self.width, self.features) >= 1 and 0.0 < self.active <= _OFTEN * self.features
        if not (fits and self.skew >= 0.0 and 0.0 <= self.correlation < 1.0 and self.noise >= 0.0):
            raise UsageError(
                "There is no such dictionary.",
                where="benchmarks.dictionaries",
                expected="a width and features of at least 1, at most half of the features active, a skew and noise of "
                "at least 0, a correlation from 0 to below 1",
                got=str(self),
            )

    def directions(self) -> Floats:
        """``[feature, width]``, of norm 1."""
        rows = seeds.generator(self.seed, "truth", "directions").standard_normal(
            (self.features, self.width), np.float32
        )
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def chances(self) -> NDArray[np.float64]:
        """That each feature is active, ``[feature]``; their sum is ``active``."""
        shares = np.arange(1, self.features + 1) ** -self.skew
        low, high = 0.0, 2.0 * self.features / float(shares[-1])
        for _ in range(100):  # how large shares must be so that those below the largest chance make up for it
            middle = (low + high) / 2
            low, high = (middle, high) if np.minimum(middle * shares, _OFTEN).sum() < self.active else (low, middle)
        return np.minimum(high * shares, _OFTEN)

    def codes(self, rows: int, *, part: str = "train") -> Iterator[Floats]:
        """Magnitudes ``[row, feature]``, 0 where a feature is not active: some rows at a time.

        Args:
            rows: How many in all.
            part: Another name gives other vectors of the same dictionary.
        """
        random = seeds.generator(self.seed, "truth", "codes", part)
        group = seeds.generator(self.seed, "truth", "groups").permutation(self.features) // _GROUP
        edge = special.ndtri(1.0 - self.chances()).astype(np.float32)
        own, shared = (1.0 - self.correlation) ** 0.5, self.correlation**0.5
        for start in range(0, rows, _ROWS):
            shape = (min(_ROWS, rows - start), self.features)
            drawn = random.standard_normal(shape, np.float32)
            if shared:
                both = random.standard_normal((shape[0], int(group.max()) + 1), np.float32)
                drawn = np.float32(own) * drawn + np.float32(shared) * both[:, group]
            active = drawn > edge
            codes = np.zeros(shape, np.float32)
            codes[active] = self._magnitudes(random, int(active.sum()))
            yield codes

    def _magnitudes(self, random: np.random.Generator, count: int) -> Floats:
        match self.law:
            case "constant":
                return np.ones(count, np.float32)
            case "uniform":
                return random.random(count, np.float32) + np.float32(0.5)
            case "folded normal":
                return np.abs(random.standard_normal(count, np.float32)) * np.float32((np.pi / 2) ** 0.5)
            case "exponential":
                return random.standard_exponential(count, np.float32)

    def vectors(self, rows: int, *, part: str = "train") -> Floats:
        """``[row, width]``: sums of the directions of active features, with noise; see ``codes``."""
        directions, random = self.directions(), seeds.generator(self.seed, "truth", "noise", part)
        found = np.concatenate([codes @ directions for codes in self.codes(rows, part=part)])
        if self.noise:
            spread = np.float32(self.noise * found.std())
            found += spread * random.standard_normal(found.shape, np.float32)
        return found


# ---- planted features ------------------------------------------------------------------------------------------------

ATTRIBUTES: Final = {"a": 5, "b": 4, "c": 3}
"""Values of each attribute of the examples of a planted net."""

NUISANCE: Final = 8
"""Further features that say nothing of the answer."""

_SITE: Final = 32
"""Numbers of the site's vectors."""


@final
class PlantedNet(nn.Module):
    """A net whose module ``site`` holds the sum of a known direction for each value and each nuisance feature.

    What follows reads the values back by the inverse and answers (a + b + c) modulo 5: one hidden unit for each
    combination of values.

    Args:
        seed: Of the directions.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        values = sum(ATTRIBUTES.values())
        rows = seeds.generator(seed, "planted", "directions").standard_normal((values + NUISANCE, _SITE))
        # No two lengths and no two answers weigh the same: where edits tie, rounding would decide between them.
        uneven = seeds.generator(seed, "planted", "uneven")
        rows *= uneven.uniform(1.0, 1.2, (len(rows), 1)) / np.linalg.norm(rows, axis=1, keepdims=True)
        combinations = np.indices(tuple(ATTRIBUTES.values())).reshape(len(ATTRIBUTES), -1).T
        starts = np.cumsum([0, *ATTRIBUTES.values()])[:-1]
        chosen = np.zeros((len(combinations), len(rows)))
        np.put_along_axis(chosen, combinations + starts, 1.0, axis=1)
        answers = np.eye(ATTRIBUTES["a"])[combinations.sum(1) % ATTRIBUTES["a"]]
        self.site = nn.Linear(len(rows), _SITE, bias=False)
        self.combine, self.unit = nn.Linear(_SITE, len(combinations)), nn.ReLU()
        self.answer = nn.Linear(len(combinations), ATTRIBUTES["a"], bias=False)
        solver: Any = np.linalg
        inverse: NDArray[np.float64] = solver.pinv(rows)
        state: dict[str, NDArray[np.float64]] = {
            "site.weight": rows.T,
            "combine.weight": chosen @ inverse.T,
            "combine.bias": np.full(len(combinations), 0.5 - len(ATTRIBUTES)),
            "answer.weight": uneven.uniform(10.0, 11.0, len(answers)) * answers.T,
        }
        self.load_state_dict({name: torch.tensor(array, dtype=torch.float32) for name, array in state.items()})

    def forward(self, inputs: Tensor) -> Any:
        """Scores of the answers, ``[example, 5]``, of inputs ``[example, value or nuisance]``."""
        return self.answer(self.unit(self.combine(self.site(inputs))))

    def dictionary(self) -> Dictionary:
        """The true one: its codes are the inputs."""
        rows = self.site.weight.detach().T
        how = DictionarySettings(architecture="jumprelu", width=_SITE, features=len(rows), center=False)
        features, inverse = len(rows), cast("Tensor", torch.linalg.pinv(rows))  # pyright: ignore[reportUnknownMemberType]
        state = {"W_enc": inverse, "b_enc": torch.zeros(features), "W_dec": rows,
                 "b_dec": torch.zeros(_SITE), "threshold": torch.full((features,), 0.5)}  # fmt: skip
        return Dictionary(how, state)


def planted(seed: int, *, each: int = 6) -> tuple[PlantedNet, Task, Dictionary]:
    """A planted net, a task with all combinations of values, and the true dictionary of its ``site``.

    Args:
        seed: Of directions and nuisance.
        each: Examples of each combination of values.
    """
    net = PlantedNet(seed).eval()
    sizes = tuple(ATTRIBUTES.values())
    labels = np.tile(np.indices(sizes).reshape(len(sizes), -1).T, (each, 1))
    beside = seeds.generator(seed, "planted", "nuisance").random((len(labels), NUISANCE)) < 0.25
    parts = [np.eye(size)[column] for size, column in zip(sizes, labels.T, strict=True)]
    inputs = torch.tensor(np.concatenate([*parts, beside], axis=1), dtype=torch.float32)
    task = Task(inputs, torch.tensor(labels.sum(1) % ATTRIBUTES["a"]), name="planted features")
    task = task.with_factors({name: labels[:, at] for at, name in enumerate(ATTRIBUTES)})
    return net, task, net.dictionary().eval()
