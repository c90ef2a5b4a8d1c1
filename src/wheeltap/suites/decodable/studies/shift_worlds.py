"""What nets of the study ``decodable-shift`` read, as the study knows it: without loading any of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, final

from wheeltap.core.canon import Scalar

On = Literal["images", "pictures", "agreement"]
"""What a net reads: as of the recipe ``organized``."""


@final
@dataclass(frozen=True, kw_only=True)
class World:
    """What nets read.

    Attributes:
        about: In a sentence.
        factors: Their names.
        task: What nets are measured on, by its spec.
        hidden: Modules whose outputs are the hidden layers.
        disturbed: How inputs are disturbed: settings of the reading ``input-shift``.
        lesson: Examples of a lesson.
        rewritten: Gauges that write a net in another way: those that its activations let through.
        doses: Of function-space and of relative noise in the weights. Chosen on ordinary nets of other seeds: between
            them they lose little and nearly all.
    """

    about: str
    factors: tuple[str, ...]
    task: str
    hidden: str
    disturbed: Mapping[str, Scalar]
    lesson: int
    rewritten: str = "permute,rescale"
    doses: tuple[tuple[float, ...], tuple[float, ...]] = ((0.125, 0.25, 0.5), (0.25, 0.5, 1.0))


WORLDS: Final[Mapping[On, World]] = {
    "images": World(
        about="Images with four independent factors; ReLU nets of two hidden layers.",
        factors=("shape", "place", "ground", "slope"),
        task="wheeltap.suites.decodable.nets.shapes:task",
        hidden="1,3",
        disturbed={"shifts": "noise", "image": "12x12"},
        lesson=8192,
    ),
    "pictures": World(
        about="Points of a picture with four independent factors; nets of sines and Gaussians (CPPNs) that paint it.",
        factors=("column", "row", "stripe", "ring"),
        task="wheeltap.suites.decodable.nets.points:task",
        hidden="1,3",
        disturbed={"shifts": "feature noise"},
        lesson=16384,
        rewritten="permute",
        doses=((0.03, 0.06, 0.125), (0.125, 0.25, 0.5)),
    ),
    "agreement": World(
        about="Starts of sentences with four independent factors; transformers of two blocks that say how the verb "
        "agrees.",
        factors=("subject", "attractor", "time", "link"),
        task="wheeltap.suites.decodable.nets.sentences:task",
        hidden="first,second",
        disturbed={"shifts": "feature dropout"},
        lesson=4096,
    ),
}
