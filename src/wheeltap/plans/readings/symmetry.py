"""The spec of the reading of how symmetrically the outputs answer."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

TRIES: Final = 5
"""Bound on the passes that one change takes, on average over all of them: 3 to 4.1 on the nets we tried. A net that
would take more has few changes left whose effect is far from even; they count as not reached."""


class ResponseSettings(Settings, frozen=True, kw_only=True):
    """What is disturbed, and how far.

    Attributes:
        weights: Single weights, drawn from the layers in turn, among those that are not 0.
        directions: Random directions: a layer, one of its inputs, and a unit vector over that input's weights.
        effect: Root mean square change of the outputs that each is given, as a share of the outputs' spread.
        reach: Largest change tried, in root mean squares of the layer's weights (of an input's weights taken together,
            for a direction).
    """

    weights: Annotated[int, msgspec.Meta(ge=1)] = 48
    directions: Annotated[int, msgspec.Meta(ge=0)] = 24
    effect: Annotated[float, msgspec.Meta(gt=0.0, le=10.0)] = 0.1
    reach: Annotated[float, msgspec.Meta(gt=0.0)] = 16.0


class SymmetryResponseSettings(ResponseSettings, frozen=True, kw_only=True):
    """The same, and in which copy.

    Attributes:
        copy: 0 for the subject itself; n for a copy with its weights shuffled within each layer, the n-th one.
    """

    copy: Annotated[int, msgspec.Meta(ge=0)] = 0


SYMMETRY_RESPONSE: Final = ReadingSpec(
    name="symmetry-response",
    version=3,  # since 3 the number of passes is bounded
    title="Symmetry of the outputs' answers to changes of single weights",
    settings_type=SymmetryResponseSettings,
    # Everything but ``known`` is missing where the task knows no symmetry. Signs: upwards, downwards.
    arrays={
        "known": Array("", "whether the task knows a symmetry", "flag"),
        "layer": Array("place", "layer, among the subject's", "count", optional=True),
        "unit": Array("place", "row of the layer's matrix; -1 for a direction", "count", optional=True),
        "source": Array("place", "column of the layer's matrix", "count", optional=True),
        "delta": Array("place sign", "the change: of the weight, or along the unit vector", optional=True),
        "rms": Array("place sign", "root mean square change of the outputs, share of their spread", optional=True),
        "symmetry": Array("place sign", "S there; 0 where nothing moved", optional=True),
        "reached": Array("place sign", "whether ``rms`` is the effect wanted, within 1 %", "flag", optional=True),
        "floor": Array("", "S of a change that knows nothing of the symmetry", optional=True),
        "own": Array("", "symmetric share of the outputs' energy about their mean", optional=True),
        "spread": Array("", "root mean square distance of the outputs from their mean", optional=True),
        "broken": Array("", "share of the examples whose targets do not have the symmetry", optional=True),
    },
)
