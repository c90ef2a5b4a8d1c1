"""Many races at once over recorded observations: for checking what they cost and how often they err."""

from typing import NamedTuple

import numpy as np

from wheeltap.stats.crossed import FloatArray, Values, checked
from wheeltap.stats.sequential import Rules, tests_at
from wheeltap.stats.waudbysmith2023 import Capital


class Replay(NamedTuple):
    """When many races would have stopped, and how.

    Attributes:
        rounds: ``[replicate]``: rounds until the verdict; all of them where there was none.
        verdict: ``[replicate]``: +1 first, -1 second, 0 even, 2 undecided.
    """

    rounds: FloatArray
    verdict: FloatArray


def replay(x: Values, rules: Rules | None = None) -> Replay:
    """Races over recorded observations, all at once: for planning and for checking error rates.

    Args:
        x: ``[replicate, round]``.
        rules: Of every race.

    Raises:
        DataError: If the observations are not finite or outside the bounds.
        UsageError: If the rules cannot be used.
    """
    seen, rules = checked(x, ("replicate", "round"), what="observations"), rules or Rules()
    rules.require()
    capital = Capital(rules.nulls, bounds=rules.bounds, bets=rules.bets, shape=(len(seen),))
    rounds, verdict = np.full(len(seen), float(seen.shape[1])), np.full(len(seen), 2.0)
    for index in range(seen.shape[1]):
        capital.feed(seen[:, index])
        tests = tests_at(capital, range(4))
        now = np.select([p <= rules.alpha for p in tests], [1.0, -1.0, 0.0], 2.0)
        new = (verdict == 2.0) & (now != 2.0)
        rounds[new], verdict[new] = index + 1.0, now[new]
        if not bool((verdict == 2.0).any()):
            break
    return Replay(rounds, verdict)
