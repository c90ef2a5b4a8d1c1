"""The spec of the reading of the probability that a subject gives to each label."""

from typing import Final

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class LabelProbabilitiesSettings(Settings, frozen=True, kw_only=True):
    """Nothing is asked."""


LABEL_PROBABILITIES: Final = ReadingSpec(
    name="label-probabilities",
    title="Probability of each label",
    settings_type=LabelProbabilitiesSettings,
    arrays={"probability": Array("example label", "probability of the label; they sum to 1 over labels")},
)
"""What a subject believes of each item: of a live classifier, its softmax."""
