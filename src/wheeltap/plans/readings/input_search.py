"""The spec of the reading of what moving the inputs gains."""

import sys
from typing import Annotated, Final

import msgspec
import numpy as np

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

KINDS: Final = ("offset", "noise")
"""How inputs are moved."""

ENTRANCES: Final = ("none", "input", "embedding")
"""Where."""

Positive = Annotated[float, msgspec.Meta(gt=0.0, le=sys.float_info.max)]


class InputSearchSettings(Settings, frozen=True, kw_only=True):
    """How much is tried.

    Attributes:
        passes: Passes over the task to spend, at least: as many as the search it is compared with.
        doses: Doses of each kind, in equal ratios.
        lowest: Smallest dose, in units of the inputs' spread about their mean.
        highest: Largest.
    """

    passes: Annotated[int, msgspec.Meta(ge=1)] = 320
    doses: Annotated[int, msgspec.Meta(ge=1)] = 8
    lowest: Positive = 0.125
    highest: Positive = 4.0

    def __post_init__(self) -> None:
        if self.lowest > self.highest:
            raise ValueError(f"`lowest` is {self.lowest:g}, above `highest`, {self.highest:g}")

    def ladder(self) -> list[float]:
        """The doses, ascending."""
        return [float(dose) for dose in np.geomspace(self.lowest, self.highest, self.doses)]


INPUT_SEARCH: Final = ReadingSpec(
    name="input-search",
    title="What moving the inputs gains",
    settings_type=InputSearchSettings,
    # Where nothing can be moved, only ``targets`` and ``entrance`` are there.
    arrays={
        "targets": Array("example", "right option", "count"),
        "entrance": Array("", "where the inputs are moved", "count", of=ENTRANCES),
        "right": Array("candidate example", "the task's measure under each candidate", optional=True),
        "kind": Array("candidate", "how they are moved", "count", of=KINDS, optional=True),
        "dose": Array("candidate", "how far, in units of the inputs' spread", optional=True),
        "spread": Array("", "standard deviation of the inputs, in their unit", optional=True),
    },
)
