"""Means over random draws of which a few may hit hard: what no draw has shown may still carry the mean.

A bit that flips in an exponent ruins a network, and most draws have none of those. A handful of harmless draws varies
little, so an interval from their spread is narrow, and wrong. What was not seen in k draws has, with confidence
1 - alpha, a probability of 1 - alpha^(1/k) at most, and costs no more than the whole score.

Source: Clopper & Pearson (1934), the case of no success; Hahn & Meeker (1991), "Statistical Intervals", sec. 5.3.1.
"""

from collections.abc import Callable

import numpy as np
from msgspec.structs import replace

from wheeltap.core.records import Estimate, Power
from wheeltap.stats.crossed import FloatArray, Values, checked, unseen
from wheeltap.stats.effect import mean_effect

Ends = tuple[float | None, float | None]
"""The least and the most that a draw's mean can be; ``None`` where there is no such bound."""

_STEPS = 40
"""Halvings of the p-value's logarithm."""


def inner(level: float) -> float:
    """Level at which an interval is made that ``allowing`` widens to one of ``level``."""
    return 1.0 - (1.0 - level) / 2.0


def allowing(estimate: Estimate, means: Values, ends: Ends, *, level: float = 0.95) -> Estimate:
    """The estimate with an interval that allows for draws harder, or milder, than any that were made.

    Half of the error that ``level`` leaves goes to the given interval, a quarter to what is unseen at either end: the
    mean is that of draws clipped to the range seen, which the interval tells, and of what lies beyond, whose
    probability ``unseen`` bounds and whose size ``ends`` do.

    Args:
        estimate: Its interval made at ``inner(level)``.
        means: ``[draw]``, what each draw gave, in the estimate's unit.
        ends: Of such a number.
        level: Of the wider interval.
    """
    x = checked(means, ("draw",), what="means of draws")
    share, (least, most) = unseen(len(x), (1.0 - level) / 4.0), ends
    low, high = estimate.low, estimate.high
    low = None if low is None or least is None else low - share * max(float(x.min()) - least, 0.0)
    high = None if high is None or most is None else high + share * max(most - float(x.max()), 0.0)
    method = f"{estimate.method}; up to {share:.2g} of draws unseen"
    return replace(estimate, low=low, high=high, level=level, method=method)


def allowing_band(band: tuple[FloatArray, FloatArray], means: Values, ends: Ends) -> tuple[FloatArray, FloatArray]:
    """Ends of a band that allow for draws harder, or milder, than any that were made; see ``allowing``.

    Args:
        band: Its ends, each ``[dose]``, made at ``inner(.95)``.
        means: ``[dose, draw]``, what each draw gave, in the band's unit.
        ends: Of such a number; where one is ``None``, that end of the band is infinite.
    """
    x = checked(means, ("dose", "draw"), what="means of draws")
    (low, high), (least, most), share = band, ends, unseen(x.shape[1], 0.05 / 4.0)
    return (
        np.full(len(low), -np.inf) if least is None else low - share * np.maximum(x.min(1) - least, 0.0),
        np.full(len(high), np.inf) if most is None else high + share * np.maximum(most - x.max(1), 0.0),
    )


def where_it_falls(doses: Values, band: tuple[FloatArray, FloatArray], target: float) -> Ends:
    """First and last dose at which a falling score may pass ``target``, given its band; between doses on a log axis.

    Args:
        doses: ``[dose]``, positive, ascending.
        band: Ends of the score, each ``[dose]``.
        target: The score to pass.

    Returns:
        ``None`` for an end that lies beyond the doses.
    """
    x, (low, high) = np.log(checked(doses, ("dose",), what="doses")), band

    def between(before: int, ends: FloatArray) -> float:
        share = (ends[before] - target) / (ends[before] - ends[before + 1])
        return float(np.exp(x[before] + share * (x[before + 1] - x[before])))

    under, over = np.flatnonzero(low <= target), np.flatnonzero(high >= target)
    first = float(np.exp(x[-1])) if not len(under) else None if under[0] == 0 else between(int(under[0]) - 1, low)
    last = float(np.exp(x[0])) if not len(over) else None if over[-1] == len(x) - 1 else between(int(over[-1]), high)
    return first, last


def rare_effect(
    d: Values, ends: Ends, *, margin: float = 0.0, bounded: bool = False, name: str = "effect", unit: str
) -> Estimate:
    """``mean_effect`` at level .95 that allows for rare draws; its p-value is that of this interval.

    Args:
        d: ``[draw, example]``, disturbed minus clean (or one subject minus another).
        ends: Of a draw's mean.
        margin: The p-value tests |mean| <= ``margin``.
        bounded: As for ``mean_effect``.
        name: Name of the estimate.
        unit: Unit of the values.
    """

    def beyond(level: float) -> bool:
        found = _at(d, ends, level, bounded=bounded, name=name, unit=unit)
        return (found.low is not None and found.low > margin) or (found.high is not None and found.high < -margin)

    # The alpha at which the interval's near end would touch the margin.
    shown = _at(d, ends, 0.95, bounded=bounded, name=name, unit=unit)
    return replace(shown, p=_smallest_alpha(beyond))


def p_below(d: Values, ends: Ends, *, margin: float, bounded: bool, one_sided: bool) -> float:
    """P-value of "the mean is at least the margin": the alpha at which the interval's far end would touch it.

    Args:
        d: ``[draw, example]``.
        ends: Of a draw's mean.
        margin: In the unit of the values, above 0.
        bounded: As for ``mean_effect``.
        one_sided: Whether only a mean above the margin counts, not one below minus it.
    """

    def within(level: float) -> bool:
        found = _at(d, ends, level, bounded=bounded, name="effect", unit="")
        below = found.high is not None and found.high < margin
        return below and (one_sided or (found.low is not None and found.low > -margin))

    return _smallest_alpha(within)


def power_of(d: Values, ends: Ends, *, margin: float, bounded: bool, alpha: float) -> Power:
    """How many draws would exclude a mean as large as the margin, if further draws were like those that were made.

    What no draw has shown decides: the probability that it may have must be so small that it cannot carry the mean to
    the margin.

    Args:
        d: ``[draw, example]``.
        ends: Of a draw's mean.
        margin: In the unit of the values.
        bounded: As for ``mean_effect``.
        alpha: Of the test, after correction.

    Source: as ``unseen``, solved for the number of draws.
    """
    plain = mean_effect(d, level=inner(1.0 - alpha), bounded=bounded, unit="")
    most, highest = ends[1], float(np.asarray(d, dtype=np.float64).mean(1).max())
    left = None if plain.high is None else margin - plain.high
    if most is None or left is None or left <= 0.0:
        return Power(found=None, excluded=None)
    share = left / max(most - highest, left)
    draws = 1 if share >= 1.0 else int(np.ceil(np.log(alpha / 4.0) / np.log1p(-share)))
    return Power(found=None, excluded=None, draws=max(draws, len(d)))


def _at(d: Values, ends: Ends, level: float, *, bounded: bool, name: str, unit: str) -> Estimate:
    plain = mean_effect(d, level=inner(level), bounded=bounded, name=name, unit=unit)
    return allowing(plain, np.asarray(d, dtype=np.float64).mean(1), ends, level=level)


def _smallest_alpha(decided: Callable[[float], bool]) -> float:
    """The smallest alpha at whose level an interval decides; 1 where none does."""
    least, most = np.log(1e-12), np.log(0.999)
    if not decided(1.0 - float(np.exp(most))):
        return 1.0
    for _ in range(_STEPS):
        middle = (least + most) / 2.0
        least, most = (least, middle) if decided(1.0 - float(np.exp(middle))) else (middle, most)
    return float(np.exp(most))
