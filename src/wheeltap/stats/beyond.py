"""Does one thing stand out from others like it that were drawn at random?"""

from dataclasses import replace

import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import binomial_share
from wheeltap.stats.crossed import Crossed, FloatArray, Values, checked, crossed, within

LEVEL = 0.95
"""Of the interval."""


def more_often(count: int, of: int, *, share: float) -> float:
    """Two-sided exact p-value of "it happens in no more than this share": in ``count`` of ``of`` it did."""
    return min(1.0, 2.0 * (1.0 - binomial_share(count - 1, of, share))) if count else 1.0


def beyond_random(
    one: Values,
    others: Values,
    *,
    margin: float = 0.0,
    bounded: bool = False,
    name: str = "beyond_random",
    unit: str,
) -> Estimate:
    """How much more ``one`` gives than things like it drawn at random, per example and in ``unit``.

    The hypothesis is that ``one`` is itself such a draw. So the spread among draws counts once for it and once more
    for their mean, and the interval is that of a further draw, not of the mean: one of many like sets differs from
    their mean nearly always, and that proves nothing. Draws are taken to be near normal.

    Args:
        one: [example].
        others: [draw, example], on the same examples.
        margin: The p-value tests |mean| <= ``margin``.
        bounded: Whether each difference is one of two values in [0, 1]; two imaginary examples are then added, one
            lost and one gained, so that the interval never has zero width.
        name: Name of the estimate.
        unit: Unit of the values.

    Raises:
        DataError: If the shapes do not fit, or there are fewer than two draws.

    Source: Crawford & Howell (1998), "Comparing an individual's test score against norms derived from small samples",
    for one against few; ``Crossed`` for examples that are a sample too.
    """
    x, y = checked(one, ("example",), what="values"), checked(others, ("draw", "example"), what="values drawn")
    if x.shape[0] != y.shape[1] or len(y) < 2:
        raise DataError(
            "Random draws cannot serve as a comparison.",
            expected=f"at least 2 draws on the same {len(x)} examples",
            got=f"{y.shape[0]} draws on {y.shape[1]} examples",
        )
    gaps, spread = _spread(x, y, bounded=bounded)
    centre, half = float(spread.centre), float(spread.half_width(1.0 - LEVEL))
    method = f"one against {len(y)} random draws, crossed t, {len(x)} examples"
    return Estimate(name=name, value=float(gaps.mean()), low=centre - half, high=centre + half, level=LEVEL, n=len(x),
                    unit=unit, method=method, p=spread.p_value(margin))  # fmt: skip


def not_beyond(one: Values, others: Values, *, margin: float, bounded: bool = False) -> float:
    """Two-sided p-value of "it gives more than the random draws by at least ``margin``": see ``beyond_random``.

    Args:
        one: [example].
        others: [draw, example].
        margin: In the unit of the values.
        bounded: As for ``beyond_random``.
    """
    x, y = checked(one, ("example",), what="values"), checked(others, ("draw", "example"), what="values drawn")
    _, spread = _spread(x, y, bounded=bounded)
    short = margin - float(spread.centre)
    return 1.0 if short <= 0.0 else replace(spread, centre=np.asarray(short)).p_value()


def _spread(x: FloatArray, y: FloatArray, *, bounded: bool) -> tuple[FloatArray, Crossed]:
    """Gaps ``[draw, example]`` and the spread of a further one."""
    gaps = x - y
    spread = crossed(within(gaps, -1.0, 1.0, what="differences") if bounded else gaps, pseudo=1.0 if bounded else 0.0)
    # Of a mean over the draws, the spread among them is known as its nth part; ``one`` adds a whole.
    times = len(y) + 1
    if y.shape[1] == 1:  # only the draws are a sample: they are counted as the examples of a single draw
        return gaps, replace(spread, example=spread.example * times)
    return gaps, replace(spread, draw=spread.draw * times, residual=spread.residual * times)
