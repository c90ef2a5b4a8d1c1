"""Worlds of known effect, and how often verdicts on values drawn from them are false."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from wheeltap.stats.crossed import crossed
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.three_sided import p_below

ALPHA, TESTS, FAMILIES = 0.05, 10, 5000
ONE = ALPHA / TESTS
Generator = np.random.Generator
Draw = Callable[[Generator, int, float], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class World:
    """How ``[sample, draw, example]`` values of a given true mean are made, and how they are tested."""

    margin: float
    draw: Draw
    bounded: bool = False
    one_sided: bool = True
    samples: int = 50_000

    def p(self, x: np.ndarray) -> tuple[float, float]:
        """P-values of "at most the margin", in the direction that counts, and of "at least the margin"."""
        estimate = mean_effect(x, margin=self.margin, bounded=self.bounded, unit="u")
        below = p_below(x, margin=self.margin, bound=1.0 if self.bounded else None, one_sided=self.one_sided)
        assert estimate.p is not None and estimate.value is not None and below is not None
        return estimate.p if estimate.value > 0.0 or not self.one_sided else 1.0, below


def answers(examples: int, gained: float) -> Draw:
    """0/1 answers to one draw, as counts: -1, 0 and 1 in order, since the order of examples says nothing."""

    def draw(rng: Generator, samples: int, mean: float) -> np.ndarray:
        lost, won = gained + max(mean, 0.0), gained - min(mean, 0.0)
        counts = rng.multinomial(examples, [won, 1.0 - lost - won, lost], size=samples)
        edges = np.cumsum(counts, axis=1)[:, :, None]
        return ((np.arange(examples) >= edges[:, 0]) * 1.0 + (np.arange(examples) >= edges[:, 1]) - 1.0)[:, None]

    return draw


def shifted(noise: Callable[[Generator, tuple[int, int]], np.ndarray], examples: int) -> Draw:
    return lambda rng, samples, mean: (noise(rng, (samples, examples)) + mean)[:, None]


def rare_large(examples: int, expected: float) -> Draw:
    """A few examples lose much, exponentially much, and the others hardly move."""

    def draw(rng: Generator, samples: int, mean: float) -> np.ndarray:
        shape, rate = (samples, 1, examples), expected / examples
        return rng.normal(0.0, 0.05, shape) + (rng.random(shape) < rate) * rng.exponential(1.0, shape) * mean / rate

    return draw


def areas(draws: int, examples: int, by_draw: float, *, skewed: bool = False) -> Draw:
    def draw(rng: Generator, samples: int, mean: float) -> np.ndarray:
        shape = (samples, draws, 1)
        each = by_draw * (rng.exponential(1.0, shape) - 1.0 if skewed else rng.normal(size=shape))
        x = mean + each + 0.1 * rng.normal(size=(samples, 1, examples))
        return np.clip(x + 0.2 * rng.normal(size=(samples, draws, examples)), -1.0, 1.0)

    return draw


WORLDS = {
    "rare losses, 300": World(margin=0.02, draw=answers(300, 0.0), bounded=True),
    "churn, 300": World(margin=0.05, draw=answers(300, 0.02), bounded=True),
    "churn, 2000, both sides": World(margin=0.02, draw=answers(2000, 0.02), bounded=True, one_sided=False),
    "lognormal, 300": World(
        margin=0.4, draw=shifted(lambda rng, s: rng.lognormal(0.0, 1.0, s) - math.exp(0.5), 300), samples=20_000
    ),
    "rare large, 1000": World(margin=0.05, draw=rare_large(1000, 20.0), samples=20_000),
    "heavy tails, 300, both sides": World(
        margin=0.4, draw=shifted(lambda rng, s: rng.standard_t(3, s), 300), one_sided=False, samples=20_000
    ),
    "areas, 3 draws": World(margin=0.1, draw=areas(3, 300, 0.01), samples=10_000),
    "areas, 32 draws": World(margin=0.05, draw=areas(32, 100, 0.03), samples=4000, one_sided=False),
    "areas, 32 skewed draws": World(margin=0.1, draw=areas(32, 100, 0.1, skewed=True), samples=10_000),
    "areas, 4 draws, bounded": World(margin=0.1, draw=areas(4, 100, 0.02), samples=10_000, bounded=True),
}


def p_values(world: World, mean: float, samples: int) -> np.ndarray:
    """``[sample, side]`` p-values; 1 where neither can be at most .05."""
    rng, found, known = np.random.default_rng([7, round(1000 * mean)]), np.ones((samples, 2)), dict[bytes, object]()
    # Without imaginary examples the interval is never wider, but for its centre: hence half of it.
    reach = 0.5 if world.bounded else 0.999
    for start in range(0, samples, 500):
        x = world.draw(rng, min(500, samples - start), mean)
        effect = x.mean(axis=(1, 2)) if world.one_sided else np.abs(x.mean(axis=(1, 2)))
        for at in np.flatnonzero(np.abs(effect - world.margin) > reach * crossed(x).half_width(ALPHA)):
            key = x[at].tobytes()
            if key not in known:
                known[key] = world.p(x[at])
            found[start + at] = known[key]
    return found


@cache
def pool(name: str) -> np.ndarray:
    """P-values at a true effect of the margin."""
    world = WORLDS[name]
    return p_values(world, world.margin, world.samples)


def falsely(families: np.ndarray) -> float:
    """Share of ``[family, test]`` p-values whose Holm correction decides: none does unless the smallest one does."""
    return float((families.min(axis=1) <= ONE).mean())


def slack(world: World) -> float:
    """Three Monte Carlo errors of a family's rate: of the single p-values, and of the families drawn from them."""
    return 3.0 * math.sqrt(TESTS**2 * ONE * (1.0 - ONE) / world.samples + ALPHA * (1.0 - ALPHA) / FAMILIES)
