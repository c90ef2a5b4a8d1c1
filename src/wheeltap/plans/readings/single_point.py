"""The spec of the reading of single weights."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec


class SinglePointSettings(Settings, frozen=True, kw_only=True):
    """How many weights are named.

    Attributes:
        confirm: Candidates, those that the screens rank highest.
        nulls: Weights drawn at random to compare them with.
        within: A random weight's size differs from its candidate's by at most this factor, doubled until there are
            enough such weights.
    """

    confirm: Annotated[int, msgspec.Meta(ge=1)] = 3
    nulls: Annotated[int, msgspec.Meta(ge=0)] = 20
    within: Annotated[float, msgspec.Meta(gt=1.0)] = 2.0


SINGLE_POINT: Final = ReadingSpec(
    name="single-point",
    version=3,  # since 2 it tells the places in the parameter as stored; since 3 ties are the same on every device
    title="Weights whose loss may ruin the network",
    settings_type=SinglePointSettings,
    # A place: which of the first two indices is the input, then the indices in the parameter as stored, -1 filling up.
    arrays={
        "candidates": Array("candidate 3", "index among the subject's layers, row, column", "count"),
        "candidate_places": Array("candidate place", "where it is stored", "count"),
        "candidate_values": Array("candidate", "its value"),
        "scores": Array("candidate 2", "what the screens give: first order (log-odds), spike (share of an output)"),
        "nulls": Array("null 3", "the same of weights drawn at random", "count"),
        "null_places": Array("null place-of-null", "where it is stored", "count"),
        "null_values": Array("null", "its value"),
        "screened": Array("", "share of the weights that the screens could read"),
    },
)
