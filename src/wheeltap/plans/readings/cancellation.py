"""The spec of the reading of pairs of hidden units that cancel."""

from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class CancellationSettings(Settings, frozen=True, kw_only=True):
    """How much is looked at.

    Attributes:
        pairs: Pairs that are ablated, over all layers; and as many random ones.
        to: What an ablated unit is set to.
        duplicate: Correlation, in size, from which two units count as copies of each other.
        permutations: Of the outgoing weights among the units of a layer.
        shuffles: Of each unit's values over the rows.
    """

    pairs: Annotated[int, msgspec.Meta(ge=1)] = 8
    to: Literal["mean", "zero"] = "mean"
    duplicate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.95
    permutations: Annotated[int, msgspec.Meta(ge=1)] = 199
    shuffles: Annotated[int, msgspec.Meta(ge=1)] = 9


CANCELLATION: Final = ReadingSpec(
    name="cancellation",
    title="Hidden units that cancel each other",
    settings_type=CancellationSettings,
    # Sets: the opposing pairs, then random ones of the same layers. Ways: without the first unit, the second, both.
    arrays={
        "rows": Array("half", "which examples were measured", "count"),
        "moved": Array("set pair way half", "squared change of the scores, as a share of their variance"),
        "lost": Array("set pair way half", "score lost, in the measure's unit, positive where worse"),
        "nll": Array("set pair way half", "rise of the negative log-likelihood, nats", optional=True),
        "layer": Array("pair", "hidden layer of the pair, from 0", "count"),
        "units": Array("set pair 2", "the model's own numbers of the two units", "count"),
        "opposing": Array("set pair", "share of the energy that its layer writes which the pair cancels"),
        "ratio": Array("layer", "sizes of all contributions, summed, over the size of their sum"),
        "ratio_null": Array("layer permutation", "the same with outgoing weights permuted"),
        "duplicates": Array("layer", "units that have a copy"),
        "duplicates_null": Array("layer shuffle", "the same with each unit's values shuffled"),
        "living": Array("layer", "units that move at all", "count"),
        "beside": Array("part", "weights of each layer of the model that neither writes nor reads these units"),
    },
    version=3,  # since 3 it says which examples were measured, and divides no groups
)
