"""One among many random draws, and one mean as a share of another."""

import numpy as np
from msgspec.structs import replace

from wheeltap.core.errors import DataError
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import root, t_quantile
from wheeltap.stats.crossed import FloatArray, Values, checked, checked_alpha, crossed

_ROUNDING = 1e-12
_LOG_LEAST = -300.0  # a p-value below 1e-130 is called 0

_LEAST = 1e-300
"""What an effect of nothing at all is taken as on a logarithmic scale."""


def above_draws(one: Values, draws: Values) -> float:
    """P-value of "no larger than random draws", where each was measured in several places.

    Exact: if ``one`` is itself such a draw, it is at most alpha with a probability of at most alpha, however the places
    depend on each other. Effects are compared on a logarithmic scale, each place in units of its own spread, and the
    largest of the places counts, for the one as for each draw: so no correction for their number is needed.

    Args:
        one: [place], positive.
        draws: [place, draw], positive; the same draw in every place.

    Returns:
        At least ``1 / (1 + draws)``.

    Raises:
        DataError: If the shapes do not fit.

    Source: Westfall & Young (1993), sec. 2.3 (the maximum over tests); Phipson & Smyth (2010) for counting the one.
    """
    x, y = checked(one, ("place",), what="values"), checked(draws, ("place", "draw"), what="values drawn")
    if len(x) != len(y):
        raise DataError("Random draws cannot serve as a comparison.", expected=f"{len(x)} places", got=str(len(y)))
    both = np.log(np.maximum(np.column_stack([x, y]), _LEAST))
    spread = both.std(axis=1, keepdims=True)
    steps = (both - both.mean(axis=1, keepdims=True)) / np.where(spread > 0.0, spread, 1.0)
    largest = steps.max(axis=0)
    # A rounding's breadth below counts as equal: what is the same in every draw is never larger.
    return float((largest >= largest[0] - 1e-12).mean())


def share_of(
    part: Values, whole: Values, *, below: float = 0.0, level: float = 0.95, name: str = "share", unit: str = "share"
) -> Estimate:
    """Mean of ``part`` as a share of that of ``whole``, with the p-value of "at least ``below``".

    The interval is that of the mean of ``part - share * whole`` over the mean of ``whole``; the test is of the mean of
    ``part - below * whole``, which needs no division (Fieller).

    Args:
        part: [example].
        whole: [example], the same examples; of positive mean.
        below: The test is whether the share is less than this.
        level: Confidence level.
        name: Name of the estimate.
        unit: Unit of the share.

    Returns:
        Without a value, and with a p-value of 1, where the mean of ``whole`` is not positive.

    Raises:
        DataError: If the shapes do not fit or values are not finite.

    Source: Fieller (1954), "Some problems in interval estimation"; the delta method for the interval; Hall (1992), "On
    the removal of skewness by transformation", eq. 2.3, for the test.
    """
    x, y = checked(part, ("example",), what="parts"), checked(whole, ("example",), what="wholes")
    if x.shape != y.shape:
        raise DataError("A share needs the same examples.", expected=str(len(y)), got=str(len(x)))
    mean = float(y.mean())
    method = f"delta method, t over {len(x)} examples; p by Fieller's test with Hall's transformation"
    empty = Estimate(name=name, value=None, low=None, high=None, level=level, n=len(x), unit=unit, method=method, p=1.0)
    if mean <= 0.0:
        return empty
    share = float(x.mean()) / mean
    half = float(crossed((x - share * y)[None]).half_width(checked_alpha(level))) / mean
    found = replace(empty, value=share, p=_less(x - below * y))
    return replace(found, low=share - half, high=share + half) if np.isfinite(half) else found


def _less(values: FloatArray) -> float:
    """P-value of "a mean of at least 0", two-sided so that skewed values do not reject too often.

    A few examples that move far are easily missing from a sample, and then the plain t test is sure too early (11 %
    instead of 5 %, with 112 log-normal examples). So the larger p-value of it and of Hall's, which allows for
    skewness, is taken, and doubled.
    """
    spread, count = float(values.std()), len(values)
    if spread <= _ROUNDING * float(np.abs(values).max()):
        return 1.0  # nothing varies: no test
    mean = float(values.mean())
    skewness = float(((values - mean) ** 3).mean()) / spread**3
    step = mean / spread
    hall = step + skewness * step**2 / 3 + skewness**2 * step**3 / 27 + skewness / (6 * count)
    largest = max(step * np.sqrt(count - 1), hall * np.sqrt(count))
    return _two_sided(-largest, count - 1) if largest < 0.0 else 1.0


def _two_sided(size: float, df: int) -> float:
    """Probability that |t| exceeds ``size``."""
    if t_quantile(float(np.exp(_LOG_LEAST)), df) <= size:
        return 0.0
    return float(np.exp(root(lambda log: t_quantile(float(np.exp(log)), df) - size, _LOG_LEAST, 0.0)))
