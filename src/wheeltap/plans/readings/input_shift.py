"""The spec of the reading of scores under declared disturbances of the inputs."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.errors import UnknownName
from wheeltap.core.settings import Settings, comma_separated
from wheeltap.plans.readings.base import Array, ReadingSpec

LADDERS: Final[dict[str, tuple[float, ...]]] = {
    "feature noise": (0.25, 0.5, 1.0, 2.0),  # in standard deviations of each feature
    "feature dropout": (0.05, 0.1, 0.2, 0.4),  # share of the features that are set to their mean
    "noise": (0.25, 0.5, 1.0, 2.0),  # in standard deviations of all pixels
    "blur": (0.5, 1.0, 1.5, 2.0),  # standard deviation of a Gaussian, in pixels
    "occlusion": (0.05, 0.1, 0.2, 0.4),  # share of the image that a rectangle of its mean covers, to whole pixels
    "contrast": (0.25, 0.5, 0.75, 0.9),  # share of the contrast about the image's mean that is lost
    "swapped tokens": (0.05, 0.1, 0.2, 0.4),  # share of the tokens that change places with a neighbor
    "dropped tokens": (0.05, 0.1, 0.2, 0.4),  # share of tokens left out
    "replaced tokens": (0.05, 0.1, 0.2, 0.4),  # share of tokens replaced by those of other items
}
"""Every disturbance with its doses, mildest first."""

SHIFTS: Final = tuple(LADDERS)

FITTING: Final[dict[str, tuple[str, ...]]] = {
    "table": SHIFTS[:2],
    "image": SHIFTS[2:6],
    "tokens": SHIFTS[6:],
}
"""Which of them are defined on which kind of input."""


class InputShiftSettings(Settings, frozen=True, kw_only=True):
    """What is disturbed, and how often.

    Attributes:
        shifts: Names of the disturbances, separated by commas; all that fit the inputs where empty.
        image: ``8x8`` where each example is an image of that size, given as one row of numbers. Without it, inputs of
            four axes are images ``[example, channel, row, column]`` (or channels last), all others are tables.
        shift_draws: Draws of each disturbance and dose.
    """

    shifts: str = ""
    image: Annotated[str, msgspec.Meta(pattern=r"^$|^[1-9]\d{0,4}x[1-9]\d{0,4}$")] = ""
    shift_draws: Annotated[int, msgspec.Meta(ge=2)] = 4

    def __post_init__(self) -> None:
        for name in self.named:
            if name not in SHIFTS:
                raise UnknownName("disturbance of inputs", name, SHIFTS)

    @property
    def named(self) -> tuple[str, ...]:
        """Names of the disturbances asked for, each once."""
        return comma_separated(self.shifts)


INPUT_SHIFT: Final = ReadingSpec(
    name="input-shift",
    title="Scores under declared disturbances of the inputs",
    settings_type=InputShiftSettings,
    arrays={
        "score": Array("candidate example", "score under each disturbance, in the measure's unit"),
        "shift": Array("candidate", "which disturbance it is", "count", of=SHIFTS),
        "level": Array("candidate", "place of its dose, mildest first, from 0", "count"),
        "draw": Array("candidate", "which draw it is, from 0", "count"),
    },
)
