"""Where a circuit comes from: of which model, for which task, found how. Part of every file of a circuit."""

import math

import msgspec

from wheeltap.core.canon import Scalar
from wheeltap.core.errors import FileFormatError, ModelError


class Origin(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a circuit was found in, for what, and how.

    Attributes:
        model: Fingerprint of the model.
        name: Of the model.
        task: Name of the task.
        examples: Digest of the task without the circuit.
        group: Of the task; -1 for all of it.
        found: How: method, penalty, target, steps, ablation, seed.
        undecided: Why it is only the best of what was tried; empty where a search reached its target.

    Raises:
        FileFormatError: If a number of ``found`` is not finite.
    """

    model: str
    name: str = ""
    task: str = ""
    examples: str = ""
    group: int = -1
    found: dict[str, Scalar] = {}
    undecided: str = ""

    def __post_init__(self) -> None:
        for name, value in self.found.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise FileFormatError("A setting of a circuit is not finite.", where=name, expected="a number",
                                      got=str(value), do="Find the circuit again.")  # fmt: skip

    def require_model(self, fingerprint: str, *, name: str) -> None:
        """Raises ``ModelError`` if it is a circuit of another model."""
        if self.model != fingerprint:
            raise ModelError(
                "The circuit is of another model.", where=name, expected=f"{self.name} ({self.model[:12]})".strip(),
                got=fingerprint[:12], do="Find one of this model first: wheeltap circuits find MODEL --task TASK.",
            )  # fmt: skip
