"""How often a study is wrong when one net in ten fails, when numbers are skewed, and when it has ten rules.

Every rule's true effect is exactly its margin, so whatever is found or excluded is false. The nets of a cohort are 5, 7,
10 or 20. Failing nets lose .5, 10 times the margin (or twice as often, or rarer and more).
"""

import math
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.levels import WRONG, Row
from wheeltap.stats import members
from wheeltap.stats.family import holm
from wheeltap.stats.members import MemberTest, NumberScale, Single

Array = NDArray[np.float64]
Rng = np.random.Generator

NETS: Final = (5, 7, 10, 20)
ALPHA: Final = 0.05
RULES: Final = 10
_SHARE: Final = NumberScale("share", bounded=True)
_OPEN: Final = NumberScale("u")
_NOISE: Final = 0.01

Draw = Callable[[Rng, int], list[tuple[MemberTest, float]]]
"""The tests of a study of so many nets in a cohort, each with its margin."""


def _failing(statistic: str, share: float, loss: float, *, margin: float, mirrored: bool) -> Draw:
    """One rule: an effect that a share of nets makes, or unmakes, by failing."""
    sign = -1.0 if mirrored else 1.0
    effect = margin - sign * share * loss  # of nets that do not fail: the mean is the margin

    def make(rng: Rng, count: int) -> list[tuple[MemberTest, float]]:
        fails, noise = sign * loss * (rng.random(count) < share), _NOISE * rng.normal(size=(2, count))
        one, two = effect + fails + noise[0], noise[1]
        match statistic:
            case "one_of":  # the others fail, the other way
                test = members.one_of(Single(effect), (two - fails).tolist(), scale=_SHARE)
            case "mean":
                test = members.mean([Single(value) for value in one], scale=_SHARE)
            case "paired":
                test = members.paired(one.tolist(), two.tolist(), scale=_SHARE)
            case _:
                test = members.difference(one.tolist(), two.tolist(), scale=_SHARE)
        return [(test, margin)]

    return make


def _skewed(statistic: str, deviation: float, scale: NumberScale) -> Draw:
    """Ten rules on lognormal numbers."""

    def make(rng: Rng, count: int) -> list[tuple[MemberTest, float]]:
        tests: list[tuple[MemberTest, float]] = []
        for _ in range(RULES):
            x = np.exp(deviation * rng.normal(size=(2, count + 1)))
            off, still = x[0, 1:] - math.exp(deviation**2 / 2.0), [0.0] * count
            match statistic:
                case "one_of":
                    test = members.one_of(Single(float(x[0, 0]) + 0.5), x[0, 1:].tolist(), scale=scale)
                case "paired":
                    test = members.paired((off + 0.5).tolist(), still, scale=scale)
                case "paired, mirrored":
                    test = members.paired((0.5 - off).tolist(), still, scale=scale)
                case _:
                    test = members.difference((x[0, 1:] + 0.5).tolist(), x[1, 1:].tolist(), scale=scale)
            tests.append((test, 0.5))
        return tests

    return make


_FAILING: Final[dict[str, Draw]] = {
    f"{statistic}, {share:g} of nets fail by {loss:g}, margin {margin:g}{', mirrored' if mirrored else ''}": _failing(
        statistic, share, loss, margin=margin, mirrored=mirrored
    )
    for statistic in ("difference", "paired", "mean", "one_of")
    for share, loss, margin in ((0.1, 0.5, 0.05), (0.2, 0.25, 0.05), (0.05, 1.0, 0.05), (0.1, 0.5, 0.01))
    for mirrored in (False, True)
    if not (mirrored and statistic == "one_of")  # is found where it is none of them, which rests on no mean
}
RULES_OF_A_STUDY: Final[dict[str, Draw]] = {
    f"{RULES} rules of {statistic}, lognormal {deviation:g}, {'two ends' if scale.bounded else 'no ends'}": _skewed(
        statistic, deviation, scale
    )
    for statistic in ("one_of", "paired", "paired, mirrored", "difference")
    for deviation in (0.5, 1.0)
    for scale in (_SHARE, _OPEN)
}
DESIGNS: Final[dict[str, Draw]] = {**_FAILING, **RULES_OF_A_STUDY}


def wrong(draw: Draw, count: int, *, runs: int, rng: Rng) -> tuple[float, float]:
    """Share of studies with a false ``found``, and with a false ``excluded``."""
    false = np.zeros(2)
    for _ in range(runs):
        tests = draw(rng, count)
        sides = (
            [test.above(margin, "more") for test, margin in tests],
            [test.below(margin, "more") for test, margin in tests],
        )
        false += [any(p is not None and p <= ALPHA for p in holm(side)) for side in sides]
    return float(false[0] / runs), float(false[1] / runs)


def run(reps: int) -> list[Row]:
    """All designs; ``reps`` studies each."""
    rng, rows = np.random.default_rng(51), list[Row]()
    for name, draw in DESIGNS.items():
        for count in NETS:
            rates = wrong(draw, count, runs=reps, rng=rng)
            for figure, rate in zip(("false found", "false excluded"), rates, strict=True):
                rows.append(Row(
                    claim="study with failing or skewed nets", design=f"{name}, {count} nets", figure=figure, rate=rate,
                    high=WRONG, families=reps,
                ))  # fmt: skip
    return rows
