"""Members whose true numbers are known: laws, and one statistic on each."""

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from wheeltap.stats import members
from wheeltap.stats.members import MemberTest, NumberScale, Single

Array = NDArray[np.float64]
Rng = np.random.Generator
Draw = Callable[[Rng, int], Array]

SIZES: Final = (3, 5, 10, 30)
ASSOCIATED: Final = (4, 5, 10, 30)
SCALE: Final = NumberScale("u", normal=True)
"""Student's t by itself: ``benchmarks.levels.members`` is about what allows for skewed numbers and failing seeds."""
RATIOS: Final = NumberScale("u", log=True, normal=True)
ALPHA: Final = 0.05


@dataclass(frozen=True)
class Law:
    """How numbers of members are distributed: ``mean`` and mean logarithm are known."""

    name: str
    draw: Draw
    mean: float
    log: float = math.nan

    def times(self, factor: float) -> "Law":
        return Law(
            f"{factor:g} x {self.name}",
            lambda rng, n: factor * self.draw(rng, n),
            factor * self.mean,
            self.log + math.log(factor),
        )


NORMAL = Law("normal", lambda rng, n: rng.normal(size=n), 0.0)
NEAR = Law("normal, cv .2", lambda rng, n: np.abs(1.0 + 0.2 * rng.normal(size=n)), 1.0, -0.0213)
LOGNORMAL = Law("lognormal .5", lambda rng, n: np.exp(0.5 * rng.normal(size=n)), math.exp(0.125), 0.0)
HEAVY = Law("lognormal 1", lambda rng, n: np.exp(rng.normal(size=n)), math.exp(0.5), 0.0)
GAMMA = Law("gamma 4", lambda rng, n: rng.gamma(4.0, 0.25, n), 1.0, float(special.digamma(4.0)) + math.log(0.25))
ACCURACY = Law("accuracy, beta(20, 2)", lambda rng, n: rng.beta(20.0, 2.0, n), 20.0 / 22.0)


GAIN: Final = 0.02


def gain(rng: Rng, n: int) -> Array:
    """Gains in AUC of nets, which are bounded and a little skewed."""
    return 0.5 * rng.beta(12.0, 10.0, n) - 0.5 * 12.0 / 22.0 + GAIN


@dataclass(frozen=True)
class World:
    """One statistic on members of known laws.

    Attributes:
        make: A test of ``n`` members (of each cohort).
        truth: The true number; of a gain it depends on how many members are fitted to.
        sizes: Numbers of members.
    """

    statistic: str
    name: str
    make: Callable[[Rng, int], MemberTest]
    truth: float | Callable[[int], float]
    sizes: tuple[int, ...] = SIZES


def one_of(law: Law, se: float = 0.0, *, scale: NumberScale = SCALE) -> World:
    def make(rng: Rng, n: int) -> MemberTest:
        x = law.draw(rng, n + 1)
        return members.one_of(Single(x[0] + se * rng.normal(), se), x[1:], scale=scale)

    name = law.name + (f", own error {se:g}" if se else "") + (", by ratio" if scale.log else "")
    return World("one_of", name, make, float(scale.log))


def paired(name: str, draw: Callable[[Rng, int], tuple[Array, Array]], truth: float) -> World:
    return World("paired", name, lambda rng, n: members.paired(*draw(rng, n), scale=SCALE), truth)


def mean(law: Law) -> World:
    def make(rng: Rng, n: int) -> MemberTest:
        return members.mean([Single(x) for x in law.draw(rng, n)], scale=SCALE)

    return World("mean", law.name, make, law.mean)


def two(statistic: str, a: Law, b: Law, *, others: int = 0) -> World:
    """Two independent cohorts; ``others`` members in the second one, or as many as in the first."""
    log = statistic == "difference, by ratio"
    truth = math.exp(a.log - b.log) if log else a.mean - b.mean

    def make(rng: Rng, n: int) -> MemberTest:
        return members.difference(a.draw(rng, n), b.draw(rng, others or n), scale=RATIOS if log else SCALE)

    name = f"{a.name} / {b.name}" + (f", n against {others}" if others else "")
    return World(statistic, name, make, truth)


def auc(name: str, a: Draw, b: Draw, truth: float, *, others: int = 0) -> World:
    def make(rng: Rng, n: int) -> MemberTest:
        return members.auc(a(rng, n), b(rng, others or n))

    return World("auc", f"{name}, {truth:g}" + (f", n against {others}" if others else ""), make, truth)


def normal_auc(truth: float, *, spread: float = 1.0, others: int = 0) -> World:
    shift = stats.norm.ppf(truth) * math.sqrt(1.0 + spread**2)
    name = "normal" if spread == 1.0 else f"normal, sd {spread:g} : 1"
    return auc(name, lambda r, n: r.normal(shift, spread, n), lambda r, n: r.normal(size=n), truth, others=others)


def exponential_auc(truth: float) -> World:
    rate = truth / (1.0 - truth)
    return auc("exponential", lambda r, n: r.exponential(rate, n), lambda r, n: r.exponential(1.0, n), truth)


def gaussian(rng: Rng, n: int, rho: float) -> tuple[Array, Array]:
    x = rng.normal(size=n)
    return x, rho * x + math.sqrt(1.0 - rho**2) * rng.normal(size=n)


def shared_gamma(rng: Rng, n: int, rho: float) -> tuple[Array, Array]:
    """Sums of a shared and an own part, each gamma: skewed, and not normal after any change of scale."""
    shared = rng.gamma(4.0 * rho, 1.0, n)
    return shared + rng.gamma(4.0 * (1.0 - rho), 1.0, n), shared + rng.gamma(4.0 * (1.0 - rho), 1.0, n)


def skewed_cause(rng: Rng, n: int, rho: float) -> tuple[Array, Array]:
    """A normal number that depends on a skewed one."""
    x = (rng.gamma(4.0, 1.0, n) - 4.0) / 2.0
    return x, rho * x + math.sqrt(1.0 - rho**2) * rng.normal(size=n)


@cache
def spearman(draw: Callable[[Rng, int, float], tuple[Array, Array]], rho: float) -> float:
    """The true rank correlation, to .001."""
    return float(stats.spearmanr(*draw(np.random.default_rng(0), 1_000_000, rho))[0])


def associated(name: str, draw: Callable[[Rng, int, float], tuple[Array, Array]], rho: float) -> World:
    def make(rng: Rng, n: int) -> MemberTest:
        return members.association(*draw(rng, n, rho))

    return World("association", f"{name}, {rho:g}", make, spearman(draw, rho), ASSOCIATED)


def beyond(rho: float) -> World:
    """Two normal numbers that both depend on a third; ``rho`` beyond it. n is without the one fitted number."""

    def draw(rng: Rng, n: int) -> tuple[Array, Array, Array]:
        (x, y), z = gaussian(rng, n, rho), rng.normal(size=n)
        return x + z, y + z, z

    ranks = [stats.rankdata(v) for v in draw(np.random.default_rng(0), 1_000_000)]
    c = np.corrcoef(ranks)
    truth = (c[0, 1] - c[0, 2] * c[1, 2]) / math.sqrt((1.0 - c[0, 2] ** 2) * (1.0 - c[1, 2] ** 2))

    def make(rng: Rng, n: int) -> MemberTest:
        x, y, z = draw(rng, n + 1)
        return members.association(x, y, beyond=[z])

    return World("association", f"normal, {rho:g} beyond a third", make, float(truth), ASSOCIATED)


def within(rho: float) -> World:
    """Two cohorts far apart in both numbers, ``rho`` within each. n is without the one fitted mean."""

    def make(rng: Rng, n: int) -> MemberTest:
        x, y = gaussian(rng, n + 1, rho)
        cohort = np.arange(n + 1) % 2
        return members.association(x + 9.0 * cohort, y + 9.0 * cohort, groups=list(cohort))

    return World(
        "association", f"normal, {rho:g} within 2 cohorts", make, 6.0 / math.pi * math.asin(rho / 2.0), ASSOCIATED
    )


def lognormal_pair(rng: Rng, n: int) -> tuple[Array, Array]:
    x, y = gaussian(rng, n, 0.5)
    return 1.5 * np.exp(0.5 * x), np.exp(0.5 * y)


def accuracy_pair(rng: Rng, n: int) -> tuple[Array, Array]:
    ease = rng.beta(20.0, 2.0, n)
    return rng.beta(50.0 * ease, 50.0 * (1.0 - ease)), rng.beta(200.0 * ease, 200.0 * (1.0 - ease))


def worlds() -> Iterator[World]:
    """All of them; within a statistic the first is normal."""
    yield from (one_of(law) for law in (NORMAL, GAMMA, LOGNORMAL, ACCURACY))
    yield from (one_of(law, scale=RATIOS) for law in (LOGNORMAL, GAMMA))
    yield from (one_of(NORMAL, se) for se in (0.3, 1.0))
    yield paired("normal", lambda r, n: gaussian(r, n, 0.5), 0.0)
    yield paired("lognormal .5, one cohort 1.5 times", lognormal_pair, 0.5 * math.exp(0.125))
    yield paired("accuracy of the same data", accuracy_pair, 0.0)
    yield paired("gamma 4 / constant", lambda r, n: (r.gamma(4.0, 0.25, n), np.zeros(n)), 1.0)
    yield from (mean(law) for law in (NORMAL, GAMMA, ACCURACY, Law("gain", gain, GAIN)))
    yield from (two("difference", law, law) for law in (NORMAL, GAMMA, LOGNORMAL, ACCURACY))
    yield two("difference", Law("normal, sd 3", lambda r, n: 3.0 * r.normal(size=n), 0.0), NORMAL)
    yield two("difference", LOGNORMAL.times(1.5), LOGNORMAL)
    yield two("difference", NORMAL, NORMAL, others=10)
    yield from (two("difference, by ratio", law, law) for law in (LOGNORMAL, NEAR, GAMMA, HEAVY))
    yield from (two("difference, by ratio", law, NEAR) for law in (LOGNORMAL, GAMMA))
    yield two("difference, by ratio", LOGNORMAL, LOGNORMAL, others=10)
    yield from (associated("normal or lognormal", gaussian, rho) for rho in (0.0, 0.5, 0.9))
    yield associated("skewed cause", skewed_cause, 0.5)
    yield from (associated("shared gamma", shared_gamma, rho) for rho in (0.5, 0.9))
    yield from (beyond(0.5), within(0.5))
    yield from (normal_auc(truth) for truth in (0.5, 0.8, 0.95))
    yield from (exponential_auc(truth) for truth in (0.8, 0.95))
    yield from (normal_auc(0.8, spread=3.0), normal_auc(0.8, others=10), normal_auc(0.5, spread=3.0, others=30))


def coverage(world: World, n: int, *, runs: int) -> tuple[float, float, float]:
    """Share of intervals that cover, and of those that lie wholly above and below the true number."""
    rng = np.random.default_rng([n, zlib.crc32(world.name.encode())])
    truth = world.truth(n) if callable(world.truth) else world.truth
    above = below = tested = 0
    for _ in range(runs):
        law = world.make(rng, n).law
        if law is not None:
            tested += 1
            above += law.at_most(truth) <= ALPHA / 2.0
            below += law.at_least(truth) <= ALPHA / 2.0
    return 1.0 - (above + below) / tested, above / tested, below / tested
