"""One root seed, many independent streams: a stream is named, never numbered by visiting order.

So a trial's draw does not depend on which trials ran before it, and two subjects of equal shape get the same
draw (common random numbers) because the names are equal.
"""

import numpy as np

from wheeltap.core.canon import canonical, digest

SEED_VERSION = 2
"""Of what a seed draws: a new version of keys need not change any draw."""


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called ``names`` below the root ``seed``."""
    return int(digest("seed", canonical([seed, *names]), version=SEED_VERSION)[:16], 16) >> 1


def words(seed: int, *names: str | int) -> np.random.SFC64:
    """The random 64-bit words of that stream: what ``generator`` draws from."""
    return np.random.SFC64(derive(seed, *names))


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator (SFC64) for the stream called ``names`` below the root ``seed``."""
    return np.random.Generator(words(seed, *names))
