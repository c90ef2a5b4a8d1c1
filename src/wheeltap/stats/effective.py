"""How many of several things a unit serves: the effective number."""

import numpy as np

from wheeltap.stats.crossed import FloatArray, Values


def effective_number(effects: Values) -> float:
    """Effective number of columns per row: 1 where each row has one, as many as there are where it has all alike.

    Columns are first put on one scale, each by its sum; rows count by their size. No row and no column that is all 0
    counts. Not changed by permuting rows, nor by rows that do nothing.

    Args:
        effects: ``[unit, kind]``, not negative.

    Returns:
        exp(entropy of a row), weighted mean over rows; not a number where all effects are 0.

    Source: Hill (1973), "Diversity and evenness", order 1.
    """
    given: FloatArray = np.asarray(effects, dtype=np.float64)
    alive = given[:, given.sum(0) > 0.0]
    scaled = alive / alive.sum(0)
    sizes = scaled.sum(1)
    shares = scaled[sizes > 0.0] / sizes[sizes > 0.0, None]
    entropy = -(shares * np.log(np.where(shares > 0.0, shares, 1.0))).sum(1)
    return float(np.average(np.exp(entropy), weights=sizes[sizes > 0.0])) if len(shares) else float("nan")
