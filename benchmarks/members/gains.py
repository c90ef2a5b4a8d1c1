"""Members with several normal scores, whose expected gain in AUC from the last one is known for fits to any number."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from scipy import stats

from benchmarks.members.families import Family
from benchmarks.members.worlds import Array, Rng, World
from wheeltap.stats import members
from wheeltap.stats.members import MemberTest
from wheeltap.stats.ridge_logistic import log_odds

GAIN_SIZES: Final = (3, 5, 10, 20, 30)
FITS: Final = 20_000


@dataclass(frozen=True)
class Scores:
    """Normal scores of unit variance.

    Attributes:
        shifts: How much more of each a member of the first cohort has; the last is the score in question.
        alike: Correlation of any two within a cohort.
        within: Whether members are compared with their partner alone; partners share a part of their own.
    """

    name: str
    shifts: tuple[float, ...]
    alike: float = 0.0
    within: bool = True

    def draw(self, rng: Rng, n: int) -> tuple[Array, Array]:
        """``[member, score]`` of both cohorts."""
        covariance = (1.0 - self.alike) * np.eye(len(self.shifts)) + self.alike
        one, two = rng.multivariate_normal(np.zeros(len(self.shifts)), covariance, (2, n))
        shared = 5.0 * rng.normal(size=(n, len(self.shifts))) if self.within else 0.0
        return one + shared + np.array(self.shifts), two + shared

    def make(self, rng: Rng, n: int) -> MemberTest:
        """A test of ``n`` members of each cohort."""
        return members.added(*self.draw(rng, n), within=self.within)

    def truth(self, n: int) -> float:
        """Expected gain of fits to half of ``n`` members: over many fits, each one's AUC by its closed form."""
        return _expected(self, n // 2)


@cache
def _expected(scores: Scores, fitted: int) -> float:
    rng, wide = np.random.default_rng(fitted), len(scores.shifts)
    drawn = [side.reshape(FITS, fitted, wide) for side in scores.draw(rng, FITS * fitted)]
    aucs: list[float] = []
    for used in (wide, wide - 1):
        one, two = (side[:, :, :used] for side in drawn)
        items = one - two if scores.within else np.concatenate([one, two], axis=1)
        labels = np.ones(fitted) if scores.within else np.repeat([1.0, 0.0], fitted)
        # Log-odds of unseen points are read off for the weight of each score.
        points = np.broadcast_to(np.vstack([np.zeros(used), np.eye(used)]), (FITS, used + 1, used))
        seen = np.repeat([True, False], [len(labels), used + 1])
        odds = log_odds(
            np.concatenate([items, points], axis=1), np.append(labels, np.zeros(used + 1)),
            seen=np.broadcast_to(seen, (FITS, len(seen))), intercept=not scores.within,
        )[:, len(labels) :]  # fmt: skip
        weights = odds[:, 1:] - odds[:, :1]
        variance = (1.0 - scores.alike) * np.square(weights).sum(1) + scores.alike * weights.sum(1) ** 2
        shift = weights @ np.array(scores.shifts[:used])
        aucs.append(float(stats.norm.cdf(shift / np.sqrt(2.0 * np.maximum(variance, 1e-300))).mean()))
    return aucs[0] - aucs[1]


def scored() -> Iterator[Scores]:
    """Of pairs and of cohorts: scores that add nothing, to cheap ones that show nothing, little or all; that add."""
    for within in (True, False):
        yield Scores("nothing to nothing", (0.0, 0.0, 0.0), within=within)
        yield Scores("nothing", (1.0, 0.7, 0.0), within=within)
        yield Scores("nothing to all", (2.0, 2.0, 0.0), within=within)
        yield Scores("nothing of its own, correlated", (1.0, 0.7, 0.64), 0.6, within=within)
        yield Scores("some", (0.5, 0.5, 1.0), within=within)
        yield Scores("much to nothing", (0.0, 0.0, 2.5), within=within)
        yield Scores("all to little", (0.3, 0.3, 5.0), within=within)
        yield Scores("some, correlated", (1.0, 1.0, 2.0), 0.6, within=within)


def gain_worlds() -> Iterator[World]:
    """Coverage of the gain."""
    for one in scored():
        name = f"{one.name}{', within pairs' if one.within else ''}"
        yield World("added", name, one.make, one.truth, GAIN_SIZES)


def gain_families(n: int) -> Iterator[Family]:
    """Rules whose gain is exactly the margin, and rules without any gain at a margin of .02."""
    for one in scored():
        world = f"{one.name}{', within pairs' if one.within else ''}"
        if one.shifts[-1] == 0.0:
            yield Family("added", f"{world}, margin .02", lambda rng, one=one: one.make(rng, n), 0.02)
        elif one.truth(n) > 0.0:
            yield Family("added", world, lambda rng, one=one: one.make(rng, n), one.truth(n))
