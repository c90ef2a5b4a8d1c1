"""The spec of the reading of attention heads."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class HeadEffectsSettings(Settings, frozen=True, kw_only=True):
    """How many heads are ablated: every one, where there are no more than ``top + sample``.

    Attributes:
        top: Those that a screen ranks highest; 0 for every head, without a screen.
        sample: With a screen: how many of the others, drawn at random, say what it missed.
    """

    top: Annotated[int, msgspec.Meta(ge=0)] = 0
    sample: Annotated[int, msgspec.Meta(ge=0)] = 20


HEAD_EFFECTS: Final = ReadingSpec(
    name="head-effects",
    version=2,
    title="Effect of every attention head",
    settings_type=HeadEffectsSettings,
    arrays={
        "rise": Array("measured example", "rise of the loss without the head: nats (squared error, for regression)"),
        "measured": Array("measured", "number of each head in order of computation; the screen's first", "count"),
        "layer": Array("head", "which attention layer each head belongs to, from 0", "count"),
        "head": Array("head", "which of its layer's heads it is, from 0", "count"),
        "projection": Array("head", "its output projection, among the subject's layers; -1 for none", "count"),
        "predicted": Array("head example", "rise to first order, where heads are screened", optional=True),
        "top": Array("", "how many of ``measured`` are the screen's", "count", optional=True),
        "missed": Array("", "how many of the others outdo one of these", "count", optional=True),
    },
)
