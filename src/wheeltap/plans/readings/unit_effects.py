"""The spec of the reading of single hidden units."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class UnitEffectsSettings(Settings, frozen=True, kw_only=True):
    """How much is looked at.

    Attributes:
        limit: Units at most; where there are more, as many of each layer as its size allows, drawn at random.
    """

    limit: Annotated[int, msgspec.Meta(ge=1)] = 512


UNIT_EFFECTS: Final = ReadingSpec(
    name="unit-effects",
    title="Effect of every hidden unit",
    settings_type=UnitEffectsSettings,
    arrays={
        "right": Array("unit example", "squared change of the right option's score about the mean", optional=True),
        "all": Array("unit example", "squared changes of all options, summed"),
        "lost": Array("unit example", "score lost, in the measure's unit"),
        "nll": Array("unit example", "rise of the negative log-likelihood, nats", optional=True),
        "layer": Array("unit", "hidden layer, from 0", "count"),
        "unit": Array("unit", "the model's own number", "count"),
        "groups": Array("example", "group of the example, from 0", "count"),
        "total": Array("", "hidden units there are", "count"),
    },
)
