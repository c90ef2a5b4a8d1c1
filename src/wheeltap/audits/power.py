"""Detection power: how small a planted defect this plan would find, by copies with few to many of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.records import Control, Estimate, SubjectRecord
from wheeltap.stats._scipy import ascending, normal_quantile, normal_share, t_quantile
from wheeltap.stats.clusters import Groups, spread_over

WANTED = 0.8
"""Probability with which the smallest strength of a report is found."""

_LEVEL = 0.95


@final
@dataclass(frozen=True)
class Gap:
    """The effect of one graded copy, as a comparison with the reference would test it.

    Attributes:
        strength: Cancelling pairs in one hidden layer, as a share of its units.
        value: The effect.
        error: Standard error by which it differs from comparison to comparison, with other draws on the same examples.
        reach: Half width of its interval at a two-sided alpha.
    """

    strength: float
    value: float
    error: float
    reach: Callable[[float], float] = field(compare=False)

    @classmethod
    def of_cells(cls, copy: SubjectRecord, cells: NDArray[np.float64], groups: Groups | None) -> "Gap":
        """Of a mean over ``[draw, example]``, at least two of each; draws that nobody made may differ less."""
        spread = spread_over(-cells, groups)
        error = float(np.sqrt(spread.draw if len(cells) > 1 else spread.example))

        def reach(alpha: float) -> float:
            return float(spread.half_width(alpha, skewed=True))

        return cls(strength_of(copy), float(cells.mean()), error, reach)

    @classmethod
    def of(cls, copy: SubjectRecord, effect: Estimate) -> "Gap":
        """Of an effect of which the interval alone is known: a normal one."""
        if effect.value is None or effect.low is None or effect.high is None:
            return cls(strength_of(copy), effect.value or 0.0, math.inf, lambda _: math.inf)
        error = (effect.high - effect.low) / 2 / normal_quantile((1 + effect.level) / 2)
        return cls(strength_of(copy), effect.value, error, lambda alpha: error * normal_quantile(1 - alpha / 2))


@final
@dataclass(frozen=True)
class PowerData:
    """What an audit measured of graded copies; the power follows when all tests of the report are known.

    Attributes:
        code: Of the audit.
        margin: Of its test.
        gaps: Several copies of each strength.
    """

    code: str
    margin: float = 0.0
    gaps: Sequence[Gap] = field(default_factory=list[Gap])


def strength_of(subject: SubjectRecord) -> float:
    """Cancelling pairs of a graded copy, as a share of the units of the hidden layer they are in."""
    assert subject.made is not None, "a graded copy is made by a gauge"
    return float(subject.made.settings["pairs"])


def power_control(graded: PowerData, *, alpha: float) -> Control:
    """What an audit would find of cancelling pairs in a comparison with the reference.

    Args:
        graded: What was measured.
        alpha: Level of one test: the strictest that Holm's rule asks for in such a comparison.
    """
    name, gaps = f"{graded.code} detection power", graded.gaps
    if not gaps:
        return Control(name=name, kind="planted", status="skipped", because=NOT_MEASURED)
    powers = powers_of(gaps, alpha=alpha, margin=graded.margin)
    smallest = smallest_found([(strength, power) for strength, (power, _, _) in powers.items()])
    chances = ", ".join(f"{at:.0%}: {power:.2f} [{low:.2f}, {high:.2f}]" for at, (power, low, high) in powers.items())
    estimates = (
        Estimate(
            name=f"found with pairs for {strength:.0%} of a layer", value=power, low=low, high=high, level=_LEVEL,
            n=len(gaps), unit="probability",
            method="predicted from effects, their standard errors and their spread over planted copies",
        )
        for strength, (power, low, high) in powers.items()
    )  # fmt: skip
    least = (
        f"The smallest share found with probability {WANTED:g} is {smallest:.2g}."
        if smallest is not None
        else f"None of these is found with probability {WANTED:g}: with more draws or examples smaller effects are."
    )
    return Control(
        name=name,
        kind="planted",
        status="skipped" if smallest is None else "passed",
        estimates=tuple(estimates),
        because="Probability that a comparison like this one, with as many draws and examples, finds cancelling pairs "
        f"at 4 times the outgoing weights in one hidden layer drawn at random, by their number as a share of the "
        f"layer's units, with 95% intervals: {chances}. {least} Estimated from {len(gaps)} planted copies and these "
        "draws; wheeltap doctor --plant counts as many as you like.",
    )  # fmt: skip


def powers_of(gaps: Sequence[Gap], *, alpha: float, margin: float) -> dict[float, tuple[float, float, float]]:
    """Probability of being found by the plant's strength, rising: pairs in one layer, as a share of its units.

    Each with the mean effect as it was measured, and with that at the lower and upper end of its 95 % interval.

    The mean effect of a strength's copies, made non-decreasing in the strength, and what it takes to be found. How much
    copies differ by layer and plant is taken as one share of the effect, pooled over strengths, because a few copies
    say little of it. Half of the variance of draws is the planted copy's own, and half that of the reference, which is
    the same for all copies: it counts once for the mean and once for the repetition.

    Args:
        gaps: Several copies of each strength.
        alpha: Level of the test.
        margin: Of the test.
    """
    strengths = sorted({gap.strength for gap in gaps})
    copies = [[gap for gap in gaps if gap.strength == strength] for strength in strengths]
    values = [np.array([gap.value for gap in some]) for some in copies]
    means = ascending(np.array([some.mean() for some in values]))
    errors = np.array([np.mean([gap.error for gap in some]) for some in copies])
    freedom = len(gaps) - len(strengths)
    within = np.array([some.var(ddof=1) if len(some) > 1 else 0.0 for some in values])
    squares = float(np.square(means).sum())
    share = max(float((within - errors**2 / 2).sum()), 0.0) / squares if squares > 0.0 else 0.0
    several = [
        _power(some, float(mean), share, freedom, (alpha, margin)) for some, mean in zip(copies, means, strict=True)
    ]
    # A stronger plant is no harder to find, although its draws may differ more.
    rising = np.maximum.accumulate(np.array(several), axis=0)
    rows = rising.tolist()
    return {at: (power, low, high) for at, (power, low, high) in zip(strengths, rows, strict=True)}


def _power(
    copies: Sequence[Gap], mean: float, share: float, freedom: int, test: tuple[float, float]
) -> tuple[float, float, float]:
    alpha, margin = test
    reaches, error = np.array([c.reach(alpha) for c in copies]), float(np.mean([c.error for c in copies]))
    if not np.isfinite(reaches).all():
        return 0.0, 0.0, 1.0
    reach, varies = float(reaches.mean()), float(reaches.var(ddof=1)) if len(copies) > 1 else 0.0
    plants, df = share * mean**2 + varies, max(freedom, 1)
    known = math.sqrt((plants + error**2 / 2) / len(copies) + error**2 / 2)  # error of the mean effect
    again = math.sqrt(plants + error**2)  # of a repetition about it
    beyond = mean - margin - reach
    if again == 0.0:
        found = float(beyond > 0.0)
        return found, found, found
    off = t_quantile(1.0 - _LEVEL, df) * known
    low, high = (normal_share((beyond + away) / again) for away in (-off, off))
    return normal_share(beyond / again), low, high


NOT_MEASURED = (
    "No graded copies were made, so how small a defect this plan would find is not known. "
    "Measure it with: wheeltap doctor --plant MODEL"
)


def smallest_found(powers: Sequence[tuple[float, float]]) -> float | None:
    """The strength at which power first reaches ``WANTED``, between two strengths by straight line on a log axis.

    Args:
        powers: (strength, power), strengths rising.
    """
    for at, (strength, power) in enumerate(powers):
        if power >= WANTED:
            if at == 0:
                return strength
            before, low = powers[at - 1]
            share = (WANTED - low) / (power - low)
            return before * math.exp(share * math.log(strength / before))
    return None
