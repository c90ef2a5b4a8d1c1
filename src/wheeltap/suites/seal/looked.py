"""What a model gives for sealed inputs, beside what the seal says: how far off, and from which block on."""

import dataclasses
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from torch import nn

from wheeltap.core.inputs import Inputs, chosen, count
from wheeltap.suites.seal.making import size
from wheeltap.suites.seal.record import Seal, Stored
from wheeltap.suites.seal.sketch import Floats, Looking, Seen, look

_FIRST: Final = 4
"""Inputs after which a verification stops, if it is sure by then that something changed."""

_SURE: Final = 10.0
"""Distance in tolerances from which it is."""


@final
@dataclass(frozen=True)
class Looked:
    """What a model gives, beside what was sealed.

    Attributes:
        seen: What it gives.
        stored: The conversion whose numbers are nearest.
        distance: Largest difference from these, in tolerances: 1 and less is none.
        share: Size of the difference, as a share of the outputs' spread over inputs.
    """

    seen: Seen
    stored: Stored
    distance: float
    share: float

    @property
    def conversion(self) -> str:
        """The conversion whose numbers it gives; empty where none fits."""
        return self.stored.name if self.distance <= 1.0 else ""

    @property
    def inputs(self) -> int:
        """How many were asked."""
        return len(self.seen.output)

    @property
    def forwards(self) -> float:
        """Passes over all sealed inputs that this took."""
        return self.inputs / self.stored.seen.output.shape[0]


def ask(model: nn.Module, seal: Seal, inputs: Inputs, *, every: bool = False) -> Looked:
    """Asks the inputs, a few first; stops where it is sure that something changed, unless every one is to be asked.

    Raises:
        ModelError: If the model does not answer them.
    """
    total = count(inputs)
    looking = looking_of(seal)
    seen = look(model, chosen(inputs, slice(_FIRST)), looking)
    found = beside(seal, seen)
    if (found.distance > _SURE and not every) or total <= _FIRST:
        return found
    few = max(looking.few - _FIRST, 0)
    return beside(seal, _joined(seen, look(model, chosen(inputs, slice(_FIRST, total)),
                                           dataclasses.replace(looking, few=few))))  # fmt: skip


def looking_of(seal: Seal) -> Looking:
    """What a pass looks at, by the seal."""
    return Looking(seal.body.seed, seal.body.blocks, seal.body.stored[0].seen.blocks.array().shape[1])


def beside(seal: Seal, seen: Seen) -> Looked:
    """What was seen of the first inputs, beside what was sealed of them."""
    nearest, distance = _nearest(seen.output, seal)
    expected = nearest.seen.output.floats()
    spread = size(expected - expected.mean(0))
    return Looked(seen, nearest, distance, size(seen.output - expected[: len(seen.output)]) / spread)


def _joined(one: Seen, two: Seen) -> Seen:
    """Two passes over different inputs as one."""
    output = np.concatenate([one.output, two.output])
    if two.order != one.order:
        return dataclasses.replace(one, output=output)
    return Seen(output, np.concatenate([one.blocks, two.blocks], 1), one.order)


def _nearest(output: Floats, seal: Seal) -> tuple[Stored, float]:
    """The conversion whose numbers are nearest, and the largest difference from them, in tolerances."""
    found = list[tuple[float, int]]()
    for at, one in enumerate(seal.body.stored):
        expected = one.seen.output.floats()
        unit = seal.body.tolerances.output * size(expected)
        found.append((float(np.abs(output - expected[: len(output)]).max()) / unit, at))
    distance, at = min(found)
    return seal.body.stored[at], distance


def departs(seal: Seal, looked: Looked) -> str:
    """The first block whose output departs; empty if none does.

    Where no conversion's outputs fit, each is asked, and the latest block is taken: blocks before it are as sealed.
    """
    several = [looked.stored] if looked.conversion else seal.body.stored
    first = max(_first(seal, one, looked.seen) for one in several)
    return seal.body.blocks[first] if first < len(seal.body.blocks) else ""


def _first(seal: Seal, stored: Stored, seen: Seen) -> int:
    """Number of the first block whose output is not that of a conversion; the number of blocks if each is."""
    expected, tolerances = stored.seen.blocks.floats(), seal.body.tolerances.blocks
    for at, (name, loose) in enumerate(zip(seal.body.blocks, tolerances, strict=True)):
        if name not in seen.order:
            continue  # not called in this model, or not as a module: compiled, say
        own = seen.blocks[seen.order.index(name)]
        if not np.abs(own - expected[at, : len(own)]).max(initial=0.0) <= loose * size(expected[at]):
            return at
    return len(seal.body.blocks)
