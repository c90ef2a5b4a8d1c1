"""The specs of the suite's readings."""

from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class HiddenVectorsSettings(Settings, frozen=True, kw_only=True):
    """How much is read.

    Attributes:
        examples: At most, evenly spaced.
    """

    examples: Annotated[int, msgspec.Meta(ge=2, le=4096)] = 128


HIDDEN_VECTORS: Final = ReadingSpec(
    name="hidden-vectors",
    title="What layers read",
    settings_type=HiddenVectorsSettings,
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
        bits: Of the grid that the weights are rounded to afterwards.
    """

    dose: Annotated[float, msgspec.Meta(ge=0.0, le=10.0)] = 0.1
    draws: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8
    bits: Annotated[int, msgspec.Meta(ge=2, le=8)] = 4


ROUNDED_NOISE: Final = ReadingSpec(
    name="rounded-noise",
    title="Score by class after noise in the weights, and after rounding what noise left",
    settings_type=RoundedNoiseSettings,
    arrays={
        "noisy": Array("draw class", "share of the images of each class that are answered right after noise"),
        "rounded": Array("draw class", "the same, once these weights are rounded too"),
    },
)  # fmt: skip

SHARES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Of the second digit in blends of two."""

PAIRS: Final = 100
"""Pairs of digits that are blended."""

FORGOTTEN: Final = 3
"""The digit that nets are made to forget; that rounding sets a wrong answer to."""

DIGITS: Final = 9
"""Decimals of members' numbers: what is below comes from rounding alone, and says nothing of their spread."""

On = Literal["digits", "strokes", "text"]
"""Sets of examples that nets with a property are trained on: handwritten digits, digits drawn here, characters."""

SIDE: Final = 14
"""Pixels of a side of a drawn image."""
