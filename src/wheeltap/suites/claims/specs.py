"""The specs of the suite's readings."""

from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

HIDDEN_VECTORS: Final = ReadingSpec(
    name="hidden-vectors",
    title="What layers read",
    each="layer",
    arrays={"units": Array("row unit", "values that the layer reads, on some of the examples", optional=True)},
)

WEIGHT_TAILS: Final = ReadingSpec(
    name="weight-tails",
    title="Tails of the weights",
    arrays={"kurtosis": Array("", "excess kurtosis of a matrix's weights, mean over matrices; 0 of normal ones")},
)


class RoundedNoiseSettings(Settings, frozen=True, kw_only=True):
    """What is done to the weights.

    Attributes:
        dose: Of noise, in standard deviations of each tensor.
        draws: Of noise.
    """

    dose: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 0.1
    draws: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8


ROUNDED_NOISE: Final = ReadingSpec(
    name="rounded-noise",
    title="Score by class after noise in the weights, and after rounding what noise left",
    settings_type=RoundedNoiseSettings,
    arrays={
        "noisy": Array("draw class", "share of the images of each class that are answered right after noise"),
        "rounded": Array("draw class", "the same, once these weights are rounded too"),
    },
)  # fmt: skip

SHARES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # of the second digit in blends of two
PAIRS, SIDE = 100, 14  # pairs of digits that are blended; pixels of a side of a drawn image
FORGOTTEN: Final = 3  # the digit that nets are made to forget; that rounding sets a wrong answer to
DIGITS: Final = 9
"""Decimals of members' numbers: what is below comes from rounding alone, and says nothing of their spread."""

On = Literal["digits", "strokes", "text"]
"""Sets of examples that nets with a property are trained on: handwritten digits, digits drawn here, characters."""
