"""A generated corpus of short lines that look like Python, with the idioms of eight tasks in equal shares.

A line is plain (``x = f ( y )``) or one of eight idioms (``models/python_idioms.py``), whose end follows from a token
before it. A sequence starts with a line and is cut where it is full.
"""

from typing import Final

import numpy as np
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.typed import to_tensor
from wheeltap.suites.circuits.nets.python_idioms import IDIOMS, Draw, simple
from wheeltap.suites.circuits.nets.python_words import NUMBERS, TOKENS, decode, encode

__all__ = ["PLACES", "TOKENS", "corpus", "decode", "encode"]

PLACES: Final = 48
"""Of a sequence."""

SIMPLE: Final = 1 / 3
"""Share of plain lines; the others are idioms, each as often."""


def corpus(*, seed: int, sequences: int, places: int = PLACES) -> Tensor:
    """Sequences of tokens, int64 ``[sequence, place]``; equal seeds give equal ones, on every machine.

    Args:
        seed: Of what is drawn.
        sequences: How many.
        places: Tokens of each.
    """
    draw = Draw(seeds.generator(seed, "python corpus"))
    held = np.empty((sequences, places), dtype=np.int64)
    for row in held:
        tokens: list[str] = []
        while len(tokens) < places:
            tokens += line(draw)
        row[:] = [NUMBERS[token] for token in tokens[:places]]
    return to_tensor(held)


def line(draw: Draw) -> list[str]:
    """A plain line or an idiom, either way that it can end."""
    if draw.chance(SIMPLE):
        return simple(draw)
    return draw.pick(tuple(IDIOMS.values()))(draw).line(draw.below(2))
