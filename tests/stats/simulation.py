"""What is asked of simulated intervals: where they end, whether they hold the truth, and by how much a rate may err."""

import math

from wheeltap.core.records import Estimate


def ends(estimate: Estimate) -> tuple[float, float]:
    assert estimate.low is not None and estimate.high is not None
    return estimate.low, estimate.high


def covers(estimate: Estimate, truth: float) -> bool:
    """An open end holds everything on its side."""
    low = -math.inf if estimate.low is None else estimate.low
    high = math.inf if estimate.high is None else estimate.high
    return low <= truth <= high


def slack(rate: float, runs: int, *, errors: float = 3.1) -> float:
    """Monte Carlo errors of a rate; by 3.1 of them one sound rate in a thousand is off on either side."""
    return errors * math.sqrt(rate * (1.0 - rate) / runs)
