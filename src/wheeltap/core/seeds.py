"""One root seed, many independent streams: a stream is named, never numbered by visiting order.

So a trial's draw does not depend on which trials ran before it, and two subjects of equal shape get the same
draw (common random numbers) because the names are equal.

Standard normal numbers, read off a table: cheap, and the same bits on every machine.

A number's sixteen random bits name one of 65,536 equally likely steps of the normal distribution, and its middle is
the number. Steps are .0024 wide at most (at 2.9); beyond, where they would be wider, sixteen more bits name a step of
the tail, up to 5.54. Of the moments up to the sixth the largest error is a 100,000th part. Vectorised Box-Muller
transforms take twice as long, and their last bits depend on the processor's instructions.

The bits are PCG64DXSM's: any word follows from its place by integer arithmetic, so a device computes many at once and
gets the same ones (``wheeltap.core.device_draws``). Philox, the usual choice for that, takes twice as long in numpy.
"""

from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.canon import canonical, digest

SEED_VERSION = 2
"""Of what a seed draws: a new version of keys need not change any draw."""


def derive(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called ``names`` below the root ``seed``."""
    return int(digest("seed", canonical([seed, *names]), version=SEED_VERSION)[:16], 16) >> 1


def words(seed: int, *names: str | int) -> np.random.PCG64DXSM:
    """The random 64-bit words of that stream: what the noise of a trial is drawn from."""
    return np.random.PCG64DXSM(derive(seed, *names))


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A numpy generator (SFC64) for the stream called ``names`` below the root ``seed``."""
    return np.random.Generator(np.random.SFC64(derive(seed, *names)))


_STEPS: Final = 2**16
TAIL: Final = 2**7
"""Steps at either end that a second number refines."""

BLOCK: Final = 2**16
"""Numbers drawn together: few enough to stay in the processor's cache. Part of what a seed means."""


def words_of(count: int) -> tuple[int, int]:
    """Words that a block of so many numbers takes: for their steps, and behind them for those in the tails.

    The latter are eight standard deviations more than are needed on average; if ever they do not do, they are read
    again from the first.
    """
    tail = count * 2 * TAIL / _STEPS
    return (count + 3) // 4, int(tail + 8 * tail**0.5 + 8) // 4


def fill_normal(words: np.random.PCG64DXSM, out: NDArray[np.float32]) -> None:
    """Writes independent standard normal numbers to ``out`` (flat, contiguous), from the stream's next bits."""
    steps, tail = tables()
    for start in range(0, len(out), BLOCK):
        part = out[start : start + BLOCK]
        first, second = words_of(len(part))
        bits = words.random_raw(first + second).astype("<u8", copy=False).view("<u2")
        step = bits[: len(part)]
        steps.take(step, out=part, mode="clip")  # no step is out of range; said so, it is not checked
        far = np.flatnonzero(step < np.uint16(2 * TAIL))
        finer = bits[4 * first :].take(np.arange(len(far)), mode="wrap")
        part[far] = np.copysign(tail[finer], part[far])


@cache
def tables() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The middle of each step, the last ``TAIL`` of them before the others; and of each step of the lower tail."""
    quantile = NormalDist().inv_cdf
    lower = np.array([quantile((step + 0.5) / _STEPS) for step in range(_STEPS // 2)])
    tail = np.array([quantile((step + 0.5) / _STEPS * TAIL / _STEPS) for step in range(_STEPS)])
    return np.roll(np.concatenate([lower, -lower[::-1]]), TAIL).astype(np.float32), tail.astype(np.float32)
