"""Does one thing stand out from others like it that were drawn at random?"""

from dataclasses import replace

import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import binomial_share, t_share
from wheeltap.stats.crossed import Values, checked, crossed, within

LEVEL = 0.95
"""Of the interval."""


def beyond_all(one: float, draws: Values) -> float:
    """P-value of "``one`` is itself such a draw", against its being lower: by ranks, or beyond all draws by how far.

    Ranks alone give no p-value below 1 / (1 + draws), too large to stand beside many tests. Where ``one`` is lower than
    every draw it is that of a further draw from a normal distribution, if that is less.

    Args:
        one: The number.
        draws: ``[draw]``, of things like it drawn at random; two or more.

    Source: Phipson & Smyth (2010) for ranks; Crawford & Howell (1998) for one against few.
    """
    x = checked(draws, ("draw",), what="values drawn")
    by_rank = float(1 + (x <= one).sum()) / (1 + len(x))
    spread = float(x.std(ddof=1)) * float(np.sqrt(1.0 + 1.0 / len(x))) if len(x) > 1 else 0.0
    if by_rank > 1.0 / (1 + len(x)) or spread <= 0.0:
        return by_rank
    return min(by_rank, 2.0 * t_share((one - float(x.mean())) / spread, len(x) - 1))


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
    gaps = x - y
    spread = crossed(within(gaps, -1.0, 1.0, what="differences") if bounded else gaps, pseudo=1.0 if bounded else 0.0)
    # Of a mean over the draws, the spread among them is known as its nth part; ``one`` adds a whole.
    times = len(y) + 1
    if y.shape[1] == 1:  # only the draws are a sample: they are counted as the examples of a single draw
        spread = replace(spread, example=spread.example * times)
    else:
        spread = replace(spread, draw=spread.draw * times, residual=spread.residual * times)
    centre, half = float(spread.centre), float(spread.half_width(1.0 - LEVEL))
    method = f"one against {len(y)} random draws, crossed t, {len(x)} examples"
    return Estimate(name=name, value=float(gaps.mean()), low=centre - half, high=centre + half, level=LEVEL, n=len(x),
                    unit=unit, method=method, p=spread.p_value(margin))  # fmt: skip
