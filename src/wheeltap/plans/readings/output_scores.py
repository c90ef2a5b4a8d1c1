"""The spec of the reading of what a plain pass says of each example, and of labels to hold it against."""

from typing import Final

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

FEWEST: Final = 20
"""Examples of either label that it takes: two in each of ten folds."""


class OutputScoresSettings(Settings, frozen=True, kw_only=True):
    """Which labels are read beside the scores.

    Attributes:
        label: Name of a factor of the examples that is 0 or 1; none where empty.
    """

    label: str = ""


OUTPUT_SCORES: Final = ReadingSpec(
    name="output-scores",
    title="Margin, entropy and loss of every example",
    settings_type=OutputScoresSettings,
    arrays={
        "margin": Array("example", "score of the right option less that of the best other one, in units of the scores"),
        "entropy": Array("example", "of the distribution over the options, nats"),
        "loss": Array("example", "negative log-likelihood of the right option, nats"),
        "label": Array("example", "the label asked for, 0 or 1", "count", optional=True),
    },
)
