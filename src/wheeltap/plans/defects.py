"""Defects that can be planted in a copy of a net without changing what it computes, and their strengths."""

from typing import Final, final

import msgspec

from wheeltap.core.errors import UnknownName
from wheeltap.core.settings import comma_separated


@final
class Defect(msgspec.Struct, frozen=True, kw_only=True):
    """A defect that leaves the function as it is.

    Attributes:
        title: In plain words.
        unit: Of its strength.
        strengths: Tried, rising.
    """

    title: str
    unit: str
    strengths: tuple[float, ...]

    @property
    def middle(self) -> float:
        """The strength in the middle of those tried."""
        return self.strengths[len(self.strengths) // 2]


SOUND: Final = "none"
"""The name of no defect: of the copies that a defect is compared with."""

DEFECTS: Final[dict[str, Defect]] = {
    "cancel": Defect(
        title="cancelling units", unit="pairs in each hidden layer, at scale 4", strengths=(1, 2, 4, 8, 16)
    ),
    "entangle": Defect(
        title="units split and entangled with others",
        unit="times the outgoing weights, a quarter of the units",
        strengths=(0.25, 0.5, 1, 2, 4),
    ),
    "brittle-block": Defect(
        title="cancelling units in one hidden layer only",
        unit="times the outgoing weights, half as many pairs as units",
        strengths=(0.25, 0.5, 1, 2, 4),
    ),
    "super-weight": Defect(title="one weight that holds everything", unit="logit scales", strengths=(0.5, 1, 2, 5, 20)),
    "cancel-layer": Defect(
        title="a few cancelling units in one hidden layer",
        unit="pairs as a share of the layer's units, at scale 4",
        strengths=(1 / 16, 1 / 8, 1 / 4, 1 / 2),
    ),
    SOUND: Defect(
        title="nothing: a permuted, rescaled copy with dead units, on which every finding is a false alarm",
        unit="dead units, as a share of each layer",
        strengths=(0.25,),
    ),
}
"""Every defect by name, and last the null."""

USUAL: Final = ("cancel", "entangle", "brittle-block", "super-weight")
"""Those that are planted where none are named."""


def names_of(listed: str) -> tuple[str, ...]:
    """Names of defects with commas between them, each once.

    Raises:
        UnknownName: If there is none of a name.
    """
    names = comma_separated(listed)
    for name in names:
        if name not in DEFECTS:
            raise UnknownName("defect", name, DEFECTS)
    return names
