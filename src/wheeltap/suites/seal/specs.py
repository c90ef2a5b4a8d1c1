"""Specs of readings of seals: responses to challenges, and verdicts on changed copies."""

from typing import Annotated, Final

import msgspec

from wheeltap.core.errors import UnknownName
from wheeltap.core.settings import Settings
from wheeltap.plans.readings.base import Array, ReadingSpec

CHALLENGES: Final = (
    ("relative", 0.1), ("relative", 0.4), ("function", 0.05), ("function", 0.2), ("std", 0.1), ("std", 0.4),
)  # fmt: skip
"""Perturbations and doses, the same for every net: a small one, and one at which answers begin to change."""


class SealResponsesSettings(Settings, frozen=True, kw_only=True):
    """How much is measured.

    Attributes:
        inputs: Inputs at random, drawn as a seal draws them.
        draws: Of each perturbation, the same for every net.
    """

    inputs: Annotated[int, msgspec.Meta(ge=2, le=256)] = 16
    draws: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


SEAL_RESPONSES: Final = ReadingSpec(
    name="seal-responses",
    title="Responses to the challenges of a seal",
    version=2,  # since 2 inputs are drawn at random
    settings_type=SealResponsesSettings,
    arrays={
        "responses": Array(
            f"{len(CHALLENGES)} draw",
            "root mean square change of the sketched outputs, as a share of it and their spread over the inputs",
        ),
    },
)

CHANGES: Final = (
    "noise-0.002", "sign", "mantissa", "zeroed", "scale", "step", "8-bit", "pruned", "twin", "cancel",
)  # fmt: skip
"""Changes that must not pass: see ``wheeltap.suites.seal.tampers``."""

BENIGN: Final = ("bfloat16", "float16", "matrices-float16", "resharded", "wrapped")
"""Changes that must pass."""

FIXED: Final = ("8-bit", "pruned", *BENIGN)
"""Changes in which nothing is drawn: one draw is enough."""


class TamperingSettings(Settings, frozen=True, kw_only=True):
    """Which change.

    Attributes:
        kind: One of ``CHANGES`` or ``BENIGN``.
        draws: Of it.
    """

    kind: str = "sign"
    draws: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8

    def __post_init__(self) -> None:
        if self.kind not in (*CHANGES, *BENIGN):
            raise UnknownName("change", self.kind, [*CHANGES, *BENIGN])


TAMPERING: Final = ReadingSpec(
    name="tampering",
    title="Whether a seal passes changed copies",
    version=2,  # since 2 the seal alone is asked
    settings_type=TamperingSettings,
    arrays={"detected": Array("draw", "whether the seal calls the copy changed", "flag")},
)
