"""The spec of the reading of what people said of each item."""

from typing import Final

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class VotesSettings(Settings, frozen=True, kw_only=True):
    """Nothing is asked: votes are known of the items, whatever the subject."""


VOTES: Final = ReadingSpec(
    name="votes",
    title="Votes of people on each item",
    settings_type=VotesSettings,
    arrays={
        "votes": Array("example label", "how many people chose it", "count"),
        "ordinal": Array("", "whether the labels are in an order, with equal steps between them", "flag"),
        "ballots": Array("ballot 3", "item, person and label of each vote, where it is known who voted", "count",
                         optional=True),
        "group": Array("example", "what items share, where nobody answered them and the clean pass cannot say it",
                       "count", optional=True),
    },
)  # fmt: skip
"""Votes: a distribution over labels for each item, and not one right answer."""
