"""A check for a test suite, or for a server's start: this model is the one that was sealed."""

import os

from torch import nn

from wheeltap.core.subject import Subject
from wheeltap.suites.seal.record import Seal
from wheeltap.suites.seal.verifying import SAME, verify


def assert_sealed(
    model: nn.Module | Subject, seal: Seal | str | os.PathLike[str], *, outputs_only: bool = False,
    key: str | os.PathLike[str] | None = None, name: str | None = None,
) -> None:  # fmt: skip
    """Fails unless the model is the sealed one, converted harmlessly at most.

    Args:
        model: In eval mode.
        seal: Or the path of its file.
        outputs_only: Accept what its outputs on the sealed inputs alone show, which is 0 bits against someone who
            means harm: a runtime whose weights cannot be read, or other weights that answer alike. They agree to
            within what casts to 16 bits make, so that a small change of the weights passes.
        key: PEM file of the Ed25519 public key by which the seal must be signed.
        name: Of the model that the seal must be of.

    Raises:
        AssertionError: If it is another one; the message says where it departs, and the likely kind of change.
    """
    found = verify(model, seal, key=key, name=name)
    facts = [
        found.verdict,
        *(f"{name} {value}" for name, value in (("block", found.block), ("kind", found.kind)) if value),
    ]
    passed = found.passed or (outputs_only and found.verdict == SAME)
    assert passed, f"The model is not the sealed one: {', '.join(facts)}. {found.detail} {' '.join(found.files)}"
