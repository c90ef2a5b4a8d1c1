"""Files as they are shipped: what a plan knows of each, and what a look at their tensors gives, as arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core.errors import FileFormatError

Question = Literal["answers", "weights"]
"""What is asked of a file: its answers to the task, or its tensors beside those of the original."""


class ShippedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was made from the reference to be shipped.

    Attributes:
        spec: As it was asked for: ``gguf:FILE``, say.
        fingerprint: Digest of its bytes; of a model that code gives, of the model.
        differs: Settings that are not the reference's, each in a sentence.
    """

    spec: str
    fingerprint: str
    differs: tuple[str, ...] = ()


Fault = Literal["sound", "missing", "unread", "shape", "not finite", "error", "unknown", "uncompared"]
"""What is wrong with a tensor. ``unread``: it belongs to no weight of the original; ``error``: a larger one than its
format makes; ``unknown``: no rule says what its format should give; ``uncompared``: a weight of the original that
cannot be read in the file, or cannot be distinguished from others."""

UNJUDGED: Final[frozenset[Fault]] = frozenset({"sound", "unknown", "uncompared"})
"""Those that are no fault."""

UNKNOWN: Final = -1.0
"""In place of a number that is not known."""


class TensorRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor of a file, compared with the original.

    Attributes:
        name: In the file; in the original, where the file lacks it or it is not read.
        format: As which it is stored.
        fault: What is wrong with it.
        error: ||file - original|| / ||original||.
        expected: The same of our own rounding of the original to this format; ``UNKNOWN`` where there is none.
        fraction: Of the original's numbers, where it is not compared.
    """

    name: str
    format: str
    fault: Fault = "sound"
    error: float = UNKNOWN
    expected: float = UNKNOWN
    fraction: float = UNKNOWN

    @property
    def excess(self) -> float:
        """The error, in that of the format where it is known."""
        return self.error / self.expected if self.expected > 0.0 else self.error


def packed(rows: Sequence[TensorRow]) -> dict[str, NDArray[Any]]:
    """Rows as the arrays of an outcome: JSON, byte by byte."""
    return {"rows": np.frombuffer(msgspec.json.encode(rows), np.uint8).astype(np.int32)}


def rows_of(values: Mapping[str, NDArray[Any]]) -> list[TensorRow]:
    """Return the rows of an outcome's arrays.

    Raises:
        FileFormatError: If another version of wheeltap wrote them.
    """
    try:
        return msgspec.json.decode(values["rows"].astype(np.uint8).tobytes(), type=list[TensorRow])
    except msgspec.DecodeError as error:
        raise FileFormatError(
            "The comparison of a file in the store was written by another version of wheeltap.",
            where="WT003", expected="tensors with name, format, fault, error, and expected", got=str(error),
            do="Run the audit again: the file is compared afresh.",
        ) from error  # fmt: skip
