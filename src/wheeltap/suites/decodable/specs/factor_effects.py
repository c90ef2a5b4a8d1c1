"""The spec of the reading of what single hidden units do to each factor that a net answers."""

from typing import Final

from wheeltap.plans.readings.base import Array, ReadingSpec

FACTOR_EFFECTS: Final = ReadingSpec(
    name="factor-effects",
    title="Effect of every hidden unit on each factor of the answers",
    arrays={
        "effect": Array("group unit factor", "mean KL from the factor's answer to that without the unit, nats"),
        "groups": Array("group", "number of the examples' group, in rising order", "count"),
        "belongs": Array("example", "place of the example's group among these", "count"),
        "layer": Array("unit", "hidden layer, from 0", "count"),
        "unit": Array("unit", "the model's own number", "count"),
    },
)
"""Of a task whose options are combinations of its factors' values. An answer to a factor is the distribution over its
values, summed over the options; a unit is ablated by its mean over the task. Factors are in the task's order."""
