"""Two subjects under noise, from which rounds are drawn: simulated by a stated model, or the tables of real nets."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from wheeltap.stats.curve import area_weights

Array = NDArray[np.float64]
DOSES = 0.25 * np.array([1, 2, 4, 2**2.5, 8, 16])
"""The ladder of the digits net: its bracket's centre is rung 6 from .125, the rungs are -4, -2, 0, 1, 2, 4."""


class World(Protocol):
    """Two subjects, A and B, on one task.

    Attributes:
        name: In words.
        examples: In the task: what makes passes of one example a forward.
        gap: True area of A minus that of B.
    """

    name: str
    examples: int
    gap: float

    def cells(self, rng: np.random.Generator, dose: NDArray[np.intp]) -> Array:
        """A's score minus B's of one random example at each dose, a fresh draw each."""
        ...

    def rounds(self, rng: np.random.Generator, shape: tuple[int, ...], *, chunk: int, ladder: bool) -> Array:
        """Mean differences of rounds: one draw, ``chunk`` examples; the area over the ladder, or a dose by weight."""
        ...

    def areas(self) -> Array:
        """True areas of A and B."""
        ...

    def arm_variances(self) -> tuple[Array, Array]:
        """Of each arm's area ``[A, B]``: between draws (of the mean over all examples), and of a single cell."""
        ...


def weights() -> Array:
    """Of the doses in the area."""
    return area_weights(DOSES)


@dataclass
class Probit:
    """Scores of 0 and 1 from a latent normal model, set so that curve and variances resemble the digits net's.

    An example is right under a draw where ``easiness - steep x log2(dose / half) + draw + cell > 0``: a normal
    easiness of the example (sd ``ease``), a normal ``draw`` that is common to both subjects (sd ``severity``), and a
    cell noise of sd 1 with correlation ``alike`` between the subjects. B's curve is A's moved to smaller doses until
    the area gap is ``gap``. Easiness, draw and cell noise are the same at all doses, as one direction of noise is.
    """

    name: str
    alike: float
    gap: float = 0.10
    ease: float = 0.6
    severity: float = 0.25
    steep: float = 1.1
    half: float = 1.4
    examples: int = 599

    def __post_init__(self) -> None:
        self._spread = float(np.sqrt(1.0 + self.ease**2 + self.severity**2))
        self._centre = -self.steep * np.log2(DOSES / self.half)
        self._shift = 0.0
        if self.gap:
            clean = self._area(0.0)
            self._shift = float(optimize.brentq(lambda shift: clean - self._area(shift) - self.gap, 0.0, 10.0))

    def _area(self, shift: float) -> float:
        return float(weights() @ stats.norm.cdf((self._centre - shift) / self._spread))

    def cells(self, rng: np.random.Generator, dose: NDArray[np.intp]) -> Array:
        a, b = self._scores(rng, dose[..., None], 1)
        return (a - b)[..., 0, 0]

    def rounds(self, rng: np.random.Generator, shape: tuple[int, ...], *, chunk: int, ladder: bool) -> Array:
        if ladder:
            a, b = self._scores(rng, np.broadcast_to(np.arange(len(DOSES)), (*shape, len(DOSES))), chunk)
            return (a - b).mean(axis=-1) @ weights()
        a, b = self._scores(rng, rng.choice(len(DOSES), size=(*shape, 1), p=weights()), chunk)
        return (a - b).mean(axis=(-1, -2))

    def areas(self) -> Array:
        return np.array([self._area(0.0), self._area(self._shift)])

    def arm_variances(self) -> tuple[Array, Array]:
        draws = 200_000  # two examples of each: their covariance is the variance between draws
        arms = self._scores(np.random.default_rng(3), np.broadcast_to(np.arange(len(DOSES)), (draws, len(DOSES))), 2)
        areas = [np.swapaxes(arm, 1, 2) @ weights() for arm in arms]
        draw = np.array([np.cov(area.T)[0, 1] for area in areas])
        return draw, np.array([area.var() for area in areas]) - draw

    def _scores(self, rng: np.random.Generator, dose: NDArray[np.intp], chunk: int) -> tuple[Array, Array]:
        """Both subjects' ``[..., dose, example]`` of one draw at the doses ``[..., dose]``."""
        lead = dose.shape[:-1]
        common = self.ease * rng.normal(size=(*lead, 1, chunk)) + self.severity * rng.normal(size=(*lead, 1, 1))
        common = common + np.sqrt(self.alike) * rng.normal(size=(*lead, 1, chunk))
        own = np.sqrt(1.0 - self.alike) * rng.normal(size=(2, *lead, 1, chunk))
        level = self._centre[dose][..., None] + common
        return ((level + own[0]) > 0.0) * 1.0, ((level - self._shift + own[1]) > 0.0) * 1.0


@dataclass
class Tables:
    """Recorded scores of two nets, ``[dose, draw, example]`` each; rounds take a draw and examples at random.

    Draws are paired by number: two nets of equal shapes recorded from one root met the same noise.
    """

    name: str
    a: NDArray[np.uint8]
    b: NDArray[np.uint8]

    def __post_init__(self) -> None:
        self._difference = self.a.astype(np.int8) - self.b.astype(np.int8)
        self._areas = np.tensordot(weights(), self._difference.astype(np.float32), axes=1)
        self.examples = self.a.shape[2]
        self.gap = float(self._areas.mean(dtype=np.float64))

    def cells(self, rng: np.random.Generator, dose: NDArray[np.intp]) -> Array:
        _, draws, examples = self.a.shape
        return (
            self._difference[dose, rng.integers(draws, size=dose.shape), rng.integers(examples, size=dose.shape)] * 1.0
        )

    def rounds(self, rng: np.random.Generator, shape: tuple[int, ...], *, chunk: int, ladder: bool) -> Array:
        _, draws, examples = self.a.shape
        draw = rng.integers(draws, size=(*shape, 1))
        picked = rng.integers(examples, size=(*shape, chunk))
        if ladder:
            return self._areas[draw, picked].mean(axis=-1, dtype=np.float64)
        dose = rng.choice(len(DOSES), size=(*shape, 1), p=weights())
        return self._difference[dose, draw, picked].mean(axis=-1, dtype=np.float64)

    def areas(self) -> Array:
        return weights() @ np.array([arm.mean(axis=(1, 2)) for arm in (self.a, self.b)]).T

    def arm_variances(self) -> tuple[Array, Array]:
        areas = [np.tensordot(weights(), arm.astype(np.float32), axes=1) for arm in (self.a, self.b)]
        draw = np.array([area.mean(axis=1, dtype=np.float64).var(ddof=1) for area in areas])
        return draw, np.array([float(area.var(dtype=np.float64)) for area in areas]) - draw
