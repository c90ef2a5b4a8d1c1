"""The specs of the readings of factors: which a layer holds, and what single units do to each."""

from typing import Annotated, Final, Literal

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

KINDS: Final = ("layers", "blocks", "named")
"""What the places are that are looked at."""

STATUSES: Final = ("measured", "one class", "too few examples", "too many classes")
"""How measuring a factor ended."""

On = Literal["images", "pictures"]
"""What a net reads: small images, or places in a picture that it paints."""

Count = Annotated[int, msgspec.Meta(ge=1)]


class DecodableSettings(Settings, frozen=True, kw_only=True):
    """What is looked at.

    Attributes:
        factors: Names of factors, separated by commas; all that the task knows where empty.
        layers: Module paths whose outputs are looked at, separated by commas; chosen by the model where empty.
        most: Layers at most, evenly spaced.
        draws: Random subspaces of each layer and rank, for each factor that is measured.
        matched: How many of them are tried once more, at the size of the factor's change.
        held: Further random subspaces for each factor and layer, each ablated as if it were the factor's.
        controls: Random labellings.
        per_class: Fewest examples of each class in either half.
        options: Options (outputs) at most whose slopes say what the outputs depend on; more are drawn from.
        group: Number of the task's group whose examples alone are looked at; all of them where not given.
    """

    factors: str = ""
    layers: str = ""
    most: Count = 12
    draws: Annotated[int, msgspec.Meta(ge=8)] = 32
    matched: Count = 8
    held: Count = 4
    controls: Annotated[int, msgspec.Meta(ge=2)] = 16
    per_class: Annotated[int, msgspec.Meta(ge=2)] = 5
    options: Count = 16
    group: int | None = None


DECODABLE: Final = ReadingSpec(
    name="decodable",
    version=2,
    title="Factors that can be read off a layer, and the outputs without them",
    settings_type=DecodableSettings,
    each="factor",
    # How far outputs move: KL in nats, or the squared change as a share of the outputs' variance.
    arrays={
        "kind": Array("", "what the places are that are looked at", "count", of=KINDS),
        "layers": Array("layer", "their numbers among these", "count", optional=True),
        "copies": Array("", "examples left out because another one has their input", "count", optional=True),
        "status": Array("", "how measuring the factor ended", "count", of=STATUSES, optional=True),
        "classes": Array("", "classes of the factor", "count", optional=True),
        "labels": Array("half", "class of each example, from 0", "count", optional=True),
        "targets": Array("2 half", "squared distance of targets from their mean, from their class's", optional=True),
        "correct": Array("layer half", "whether the probe is right", optional=True),
        "majority": Array("half", "whether the most frequent class is right", optional=True),
        "control": Array("layer labelling half", "whether probes for random labels are right", optional=True),
        "left": Array("layer quarter", "whether a new probe is right once the subspace is ablated", optional=True),
        "rank": Array("layer", "of what was ablated: 0 nothing, below 0 too few directions", "count", optional=True),
        "erased": Array("layer half", "how far the outputs move without the factor's subspace", optional=True),
        "projected": Array("layer half", "the same without the probe's directions", optional=True),
        "steepest": Array("layer half", "the same without what the outputs depend on most", optional=True),
        "held": Array("layer subspace half", "the same with random subspaces as the factor's", optional=True),
        "random": Array("layer draw half", "the same without random subspaces", optional=True),
        "matched": Array("layer match half", "the same, their change at the size of the factor's", optional=True),
        "moved": Array("layer mean", "means over examples of ``erased``, ``held`` and all random ones", optional=True),
        "expected": Array("layer", "what random ones move to first order, as a share of the steepest", optional=True),
        "lost": Array("layer half", "score lost without the factor's subspace", optional=True),
        "lost_random": Array("layer half", "score lost without random subspaces", optional=True),
        "sizes": Array("layer 4", "root mean square change of the vectors in the first four cases", optional=True),
        "angles": Array("layer 2", "degrees from the steepest subspace: the factor's, random ones'", optional=True),
    },
)


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
