"""Specs of readings of seals: answers to challenges, and tampered copies."""

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


CHANGES: Final = {
    "noise-0.0001": "Relative noise .0001",
    "noise-0.002": "Relative noise .002",
    "noise-0.01": "Relative noise .01",
    "noise-0.1": "Relative noise .1",
    "sign": "Sign of one weight",
    "exponent-high": "One of the top three exponent bits of one weight",
    "exponent-low": "Another exponent bit of one weight",
    "mantissa": "A mantissa bit of one weight",
    "swapped": "Two matrices in each other's place",
    "zeroed": "One matrix of zeros",
    "scale": "Wrong scale of one matrix",
    "gain": "Gain of one norm off by one",
    "truncated": "End of the file missing",
    "step": "One step of gradient descent",
    "low-rank": "Low-rank update merged, 1 % of each matrix",
    "8-bit": "8 bits",
    "6-bit": "6 bits",
    "4-bit": "4 bits",
    "pruned": "A tenth of the weights pruned",
    "layers": "Two layers in each other's place",
    "twin": "Reparametrized copy",
    "cancel": "Canceling units added",
}
"""Changes that must not pass, with their titles."""

BENIGN: Final = {
    "bfloat16": "Stored in bfloat16",
    "float16": "Stored in float16",
    "float64": "Stored in float64",
    "matrices-float16": "Matrices alone in float16",
    "resharded": "Through two safetensors files",
    "wrapped": "Inside a wrapper",
}
"""Changes that must pass."""

FIXED: Final = (
    "8-bit", "6-bit", "4-bit", "pruned", "bfloat16", "float16", "float64", "matrices-float16", "resharded",
    "wrapped",
)  # fmt: skip
"""Changes in which nothing is drawn: one draw is enough."""

DETECTORS: Final = (
    "seal", "outputs", "five", "random16", "random5", "accuracy", "hash", "statistics", "fingerprints5",
)  # fmt: skip
"""Who is asked, in the order in which answers are kept."""


class TamperingSettings(Settings, frozen=True, kw_only=True):
    """Which change.

    Attributes:
        kind: One of ``CHANGES`` or ``BENIGN``.
        draws: Of it.
    """

    kind: str = "sign"
    draws: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 8

    def __post_init__(self) -> None:
        if self.kind not in CHANGES | BENIGN:
            raise UnknownName("change", self.kind, [*CHANGES, *BENIGN])


TAMPERING: Final = ReadingSpec(
    name="tampering",
    title="Which checks see that a copy was changed",
    settings_type=TamperingSettings,
    # Detectors are in the order of DETECTORS.
    arrays={
        "detected": Array(f"draw {len(DETECTORS)}", "whether each check says that something changed", "flag"),
        "finite": Array("draw", "whether outputs could be compared", "flag"),
        "distance": Array("draw", "of outputs on the seal's inputs, in tolerances; 0 where not compared"),
        "block_right": Array("draw", "whether the first changed block is named", "flag", optional=True),
        "kind_right": Array("draw", "whether the kind of change is named", "flag", optional=True),
    },
)
