"""How often a whole study of few nets says what is false.

Every rule's true effect is exactly its margin (or there is none, at a margin of 0), so whatever is found or excluded is
false. Holm corrects each side over all rules of a study.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import WRONG, Row
from wheeltap.core.study import Direction
from wheeltap.stats import members
from wheeltap.stats.members import MemberTest, NumberScale, Single
from wheeltap.stats.members.ranks import RankCorrelation
from wheeltap.stats.members.student import LocationLaw

Array = NDArray[np.float64]
Rng = np.random.Generator

NETS: Final = (3, 4, 5, 6, 7, 8)
RULES: Final = (1, 10, 50)
ALPHA: Final = 0.05
_DEALT: Final = 10
"""Rules of a study that are drawn; what a study of more says follows, since rules are independent."""
_MANY: Final = 500_000
"""Samples of what is judged by its distance in standard errors alone: as many as ten thousand studies of fifty rules."""
_PLAIN: Final = NumberScale("u")
_RATIOS: Final = NumberScale("u", log=True)


def _lognormal(rng: Rng, n: int, deviation: float = 1.0) -> Array:
    """Of mean 1."""
    return np.exp(deviation * rng.standard_normal(n) - deviation**2 / 2.0)


LAWS: Final[dict[str, Callable[[Rng, int], Array]]] = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "lognormal 1": _lognormal,
    "lognormal .5": lambda rng, n: _lognormal(rng, n, 0.5),
    "t3": lambda rng, n: rng.standard_t(3.0, n),
}
"""How members vary."""


@dataclass(frozen=True)
class World:
    """Rules whose true effect is ``margin``."""

    name: str
    make: Callable[[Rng, int], MemberTest]
    margin: float
    direction: Direction = "more"


def worlds() -> Iterator[World]:
    """Of each statistic."""
    for name, law in LAWS.items():
        mean = 1.0 if name.startswith("lognormal") else 0.0
        for sign, way in ((1.0, ""), (-1.0, ", mirrored")):
            if sign < 0.0 and not mean:
                continue  # symmetric

            def apart(rng: Rng, n: int, law: Callable[[Rng, int], Array] = law, sign: float = sign,
                      mean: float = mean) -> MemberTest:  # fmt: skip
                other = 0.05 * rng.standard_normal(n)
                return members.difference(sign * (law(rng, n) - mean) + 0.5, other, scale=_PLAIN)

            yield World(f"difference, {name} against one that hardly varies{way}", apart, 0.5)

    yield World("difference, normal, deviations 1 and 4", lambda r, n: members.difference(
        0.5 + r.standard_normal(n), 4.0 * r.standard_normal(n), scale=_PLAIN), 0.5)  # fmt: skip
    for deviation in (0.5, 1.0):
        yield World(f"ratio, lognormal {deviation:g}", lambda r, n, d=deviation: members.difference(
            1.2 * _lognormal(r, n, d), _lognormal(r, n, d), scale=_RATIOS), 0.2)  # fmt: skip
    yield World("auc, normal, margin .3", lambda r, n: members.auc(
        1.1902 + r.standard_normal(n), r.standard_normal(n)), 0.3)  # fmt: skip
    yield World("association, none", lambda r, n: members.association(
        r.standard_normal(n), r.standard_normal(n)), 0.0, "either")  # fmt: skip


def _false(ps: Array, rules: int) -> float:
    """Share of studies of so many independent rules in which one is false: where all are, Holm is Bonferroni."""
    return 1.0 - (1.0 - float((ps <= ALPHA / rules).mean())) ** rules


def rows_of(world: World, n: int, *, reps: int, rules: Sequence[int], rng: Rng) -> Iterator[Row]:
    """One world at one number of nets."""
    sides: tuple[list[float], list[float]] = ([], [])
    for _ in range(reps * min(max(rules), _DEALT)):
        test = world.make(rng, n)
        found = test.above(world.margin, world.direction)
        excluded = test.below(world.margin, world.direction) if world.margin else None
        for side, p in zip(sides, (found, excluded), strict=True):
            side.append(1.0 if p is None else p)
    for side, name in zip(sides, ("false found", "false excluded"), strict=True):
        if name == "false found" or world.margin:
            for many in rules:
                yield Row(
                    claim="study of few nets", design=f"{world.name}, {n} nets, {many} rules", figure=name,
                    rate=_false(np.array(side), many), high=WRONG, families=reps,
                )  # fmt: skip


def distances(name: str, n: int, *, rules: Sequence[int], rng: Rng) -> Iterator[Row]:
    """Of a mean of pairs and of one net among others, which are judged by their distance in standard errors.

    How far that must be is asked of the tests themselves.
    """
    x = LAWS[name](rng, _MANY * (n + 1)).reshape(_MANY, n + 1)
    one, others = x[:, 0], x[:, 1:]
    off = others.mean(1) - (1.0 if name.startswith("lognormal") else 0.0)
    error = others.std(1, ddof=1)
    pair = members.paired(others[0], np.zeros(n), scale=_PLAIN)
    single = members.one_of(Single(float(one[0])), others[0], scale=_PLAIN)
    far, apart = off / error * math.sqrt(n), (one - others.mean(1)) / error / math.sqrt(1.0 + 1.0 / n)
    for many in rules:
        reach, among = (_reach(test, ALPHA / many) for test in (pair, single))
        ways = {
            f"paired, {name} gaps": (("false found", far > reach), ("false excluded", far < -reach)),
            f"paired, {name} gaps, mirrored": (("false found", far < -reach), ("false excluded", far > reach)),
            f"one_of, {name}": (("false found", np.abs(apart) > among),),
        }
        for design, sides in ways.items():
            for figure, false in sides if "lognormal" in name or "mirrored" not in design else ():
                yield Row(
                    claim="study of few nets", design=f"{design}, {n} nets, {many} rules", figure=figure,
                    rate=1.0 - (1.0 - float(false.mean())) ** many, high=WRONG, families=_MANY // max(rules),
                )  # fmt: skip


def _reach(test: MemberTest, alpha: float) -> float:
    """Standard errors from the estimate to the end of its interval."""
    assert isinstance(test.law, LocationLaw) and test.value is not None
    return (test.law.interval(alpha)[1] - test.value) / test.law.spread.error


def ranked(n: int, rules: Sequence[int]) -> Iterator[Row]:
    """Exactly, over all orders of so many nets."""
    places = np.arange(n) - (n - 1) / 2.0
    orders = np.array(list(permutations(places)))
    correlations, counts = np.unique(np.round(orders @ places / (places @ places), 12), return_counts=True)
    for many in rules:
        p = np.array(
            [2.0 * min(RankCorrelation(r, n).at_most(0.0), RankCorrelation(r, n).at_least(0.0)) for r in correlations]
        )
        share = float(counts[p <= ALPHA / many].sum()) / len(orders)
        yield Row(
            claim="rank correlation, exactly", design=f"{n} nets, {many} rules", figure="false found",
            rate=1.0 - (1.0 - share) ** many, high=WRONG, families=len(orders),
        )  # fmt: skip


def price(n: int, *, reps: int, rng: Rng) -> Row:
    """How much wider than Student's an interval is on normal numbers, and what is found of an effect of 2 deviations."""
    wider = found = plain = 0.0
    for _ in range(reps):
        x = 2.0 + rng.standard_normal(n)
        tests = [members.paired(x, np.zeros(n), scale=NumberScale("u", normal=sure)) for sure in (False, True)]
        ends = [(0.0, math.inf) if test.law is None else test.law.interval(ALPHA) for test in tests]
        wider += (ends[0][1] - ends[0][0]) / (ends[1][1] - ends[1][0]) / reps
        hits = [(test.above(0.0) or 0.0) <= ALPHA for test in tests]
        found, plain = found + hits[0] / reps, plain + hits[1] / reps
    return Row(
        claim="price on normal numbers", design=f"paired, {n} nets, effect 2 deviations", figure="found", rate=found,
        families=reps, also=(("by Student's t", plain), ("interval times as wide", wider)),
    )  # fmt: skip


def run(reps: int, *, nets: Sequence[int] = NETS, rules: Sequence[int] = RULES) -> list[Row]:
    """All worlds; ``reps`` studies each."""
    rng, rows = np.random.default_rng(28), list[Row]()
    for n in nets:
        for world in worlds():
            if n > 3 or not world.name.startswith("association"):  # of three nets there is no test
                rows += rows_of(world, n, reps=reps, rules=rules, rng=rng)
        for name in LAWS:
            rows += distances(name, n, rules=rules, rng=rng)
        if n > 3:
            rows += ranked(n, rules)
        rows.append(price(n, reps=reps, rng=rng))
    return rows
