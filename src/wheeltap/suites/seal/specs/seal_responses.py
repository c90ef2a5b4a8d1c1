"""The spec of the reading of what a seal sees of a net: answers to fixed disturbances at a few sensitive inputs."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

CHALLENGES: Final = (
    ("relative", 0.1), ("relative", 0.4), ("function", 0.05), ("function", 0.2), ("std", 0.1), ("std", 0.4),
)  # fmt: skip
"""Perturbations and doses, the same for every net: a small one, and one at which answers begin to change."""


class SealResponsesSettings(Settings, frozen=True, kw_only=True):
    """How much is looked at.

    Attributes:
        inputs: Sensitive inputs, chosen as a seal chooses them.
        pool: Examples that they are chosen from, beside as many drawn inputs.
        draws: Of each disturbance, the same for every net.
    """

    inputs: Annotated[int, msgspec.Meta(ge=2, le=256)] = 16
    pool: Annotated[int, msgspec.Meta(ge=2, le=4096)] = 64
    draws: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


_CHANGE: Final = "root mean square change of the sketched outputs, as a share of it and their spread over these inputs"

SEAL_RESPONSES: Final = ReadingSpec(
    name="seal-responses",
    title="Answers to the challenges of a seal",
    settings_type=SealResponsesSettings,
    arrays={
        "sealed": Array(f"{len(CHALLENGES)} draw", f"{_CHANGE}: sensitive ones"),
        "plain": Array(
            f"{len(CHALLENGES)} draw",
            f"{_CHANGE}: as many examples of the task, where they can be kept in a seal",
            optional=True,
        ),
        "lead": Array("input", "score of the best option less that of the second best, in units of the scores"),
        "entropy": Array("input", "of the distribution over the options, nats"),
        "scale": Array("", "root mean square of the scores about their mean over options"),
    },
)
