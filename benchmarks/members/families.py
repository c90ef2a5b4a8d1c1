"""Families of rules whose effect is exactly the margin: whatever is found or excluded in them is false."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.members import worlds as of
from benchmarks.members.worlds import ACCURACY, ALPHA, GAMMA, LOGNORMAL, NEAR, NORMAL, RATIOS, SCALE, Law, Rng
from wheeltap.core.study import Direction
from wheeltap.stats import members
from wheeltap.stats.family import holm
from wheeltap.stats.members import MemberTest, Single

RULES: Final = 6
_SKEWED_GAP: Final = 0.5 * math.exp(0.125)


@dataclass(frozen=True)
class Family:
    """Rules of one statistic in one world, all alike.

    Attributes:
        make: One rule's test.
        margin: Its true effect.
    """

    statistic: str
    world: str
    make: Callable[[Rng], MemberTest]
    margin: float


def families(n: int) -> Iterator[Family]:
    """Of each statistic, on normal numbers and on skewed ones; ``n`` members of a cohort."""

    def single(law: Law) -> Callable[[Rng], MemberTest]:
        def make(rng: Rng) -> MemberTest:
            x = law.draw(rng, n + 1)
            return members.one_of(Single(x[0] + 0.5), x[1:], scale=SCALE)

        return make

    def apart(law: Law) -> Callable[[Rng], MemberTest]:
        return lambda rng: members.difference(law.draw(rng, n) + 0.5, law.draw(rng, n), scale=SCALE)

    def times(law: Law) -> Callable[[Rng], MemberTest]:
        return lambda rng: members.difference(1.5 * law.draw(rng, n), law.draw(rng, n), scale=RATIOS)

    def pairs(rng: Rng) -> MemberTest:
        return members.paired(NORMAL.draw(rng, n) + 0.5, NORMAL.draw(rng, n), scale=SCALE)

    def ratio_of_one(law: Law) -> Callable[[Rng], MemberTest]:
        def make(rng: Rng) -> MemberTest:
            x = law.draw(rng, n + 1)
            return members.one_of(Single(1.5 * x[0]), x[1:], scale=RATIOS)

        return make

    for law in (NORMAL, GAMMA, ACCURACY, LOGNORMAL):
        yield Family("one_of", law.name, single(law), 0.5)
    for law in (LOGNORMAL, GAMMA):
        yield Family("one_of", f"{law.name}, by ratio", ratio_of_one(law), 0.5)
    yield Family("paired", "normal", pairs, 0.5)
    of_mean = lambda r: members.mean([Single(x) for x in of.gain(r, n)], scale=SCALE)  # noqa: E731
    yield Family("mean", "gain", of_mean, of.GAIN)
    yield Family("paired", "lognormal .5", lambda r: members.paired(*of.lognormal_pair(r, n), scale=SCALE), _SKEWED_GAP)
    by_ratio = lambda r: members.paired(*of.lognormal_pair(r, n), scale=RATIOS)  # noqa: E731
    yield Family("paired", "lognormal .5, by ratio", by_ratio, 0.5)
    for law in (NORMAL, LOGNORMAL):
        yield Family("difference", law.name, apart(law), 0.5)
    for law in (NEAR, LOGNORMAL):
        yield Family("difference", f"{law.name}, by ratio", times(law), 0.5)
    for name, draw in (("normal", of.gaussian), ("shared gamma", of.shared_gamma)):
        make = lambda r, draw=draw: members.association(*draw(r, n, 0.5))  # noqa: E731
        yield Family("association", name, make, of.spearman(draw, 0.5))
    for world in (of.normal_auc(0.7), of.exponential_auc(0.7)):
        yield Family("auc", world.name, lambda r, world=world: world.make(r, n), 0.2)
    yield Family("exact", "share .7 against .5", lambda r: members.exact(int(r.binomial(n, 0.7)), n), 0.2)


def wrong(family: Family, *, tables: int, seed: int = 5) -> dict[Direction, tuple[float, float]]:
    """Share of tables with a false ``found``, and with a false ``excluded``, of rules of either and of one direction."""
    rng = np.random.default_rng(seed)
    counts: dict[Direction, list[int]] = {"either": [0, 0], "more": [0, 0]}
    for _ in range(tables):
        tests = [family.make(rng) for _ in range(RULES)]
        for direction, seen in counts.items():
            sides = (
                holm([test.above(family.margin, direction) for test in tests]),
                holm([test.below(family.margin, direction) for test in tests]),
            )
            for side, adjusted in enumerate(sides):
                seen[side] += any(p is not None and p <= ALPHA for p in adjusted)
    return {direction: (found / tables, excluded / tables) for direction, (found, excluded) in counts.items()}
