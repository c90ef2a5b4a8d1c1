"""The spec of the reading of what a plain pass says of each example."""

from typing import Final

from wheeltap.plans.readings.base import Array, ReadingSpec

OUTPUT_SCORES: Final = ReadingSpec(
    name="output-scores",
    title="Margin, entropy and loss of every example",
    arrays={
        "margin": Array("example", "score of the right option less that of the best other one, in units of the scores"),
        "entropy": Array("example", "of the distribution over the options, nats"),
        "loss": Array("example", "negative log-likelihood of the right option, nats"),
    },
)
