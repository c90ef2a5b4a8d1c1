"""The spec of the reading of several sampled answers to each item."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class SamplesSettings(Settings, frozen=True, kw_only=True):
    """How a model is sampled. Nothing is asked of answers that were recorded.

    Attributes:
        draws: Answers to each item; 64 where not given.
        temperature: By which the log-probabilities of options are divided; 1 where not given.
    """

    draws: Annotated[int, msgspec.Meta(ge=1, le=65_536)] | None = None
    temperature: Annotated[float, msgspec.Meta(gt=0.0, le=1000.0)] | None = None


SAMPLES: Final = ReadingSpec(
    name="samples",
    title="Sampled answers to each item",
    settings_type=SamplesSettings,
    arrays={
        "right": Array("example", "how many of its answers are right", "count"),
        "samples": Array("example", "how many answers it has", "count"),
        "answers": Array(
            "example draw", "which of the item's distinct answers was given, from 0; -1 for none", "count",
            optional=True,
        ),
        "group": Array("example", "which part of the benchmark it is from, numbered in order of name", "count",
                       optional=True),
    },
)  # fmt: skip
"""Sampled answers: k of them are k draws of one subject at one dose of randomness."""
