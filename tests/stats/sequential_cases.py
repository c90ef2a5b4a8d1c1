"""What the tests of races and of their bounds share."""

import math

import numpy as np

ALPHA = 0.05
WEIGHTS = np.array([0.2, 0.5, 0.3])
"""Of three doses, in an area."""


def slack(runs: int, rate: float = ALPHA) -> float:
    """3.1 Monte-Carlo errors of a rate: one sound test in a thousand fails."""
    return 3.1 * math.sqrt(rate * (1 - rate) / runs)
