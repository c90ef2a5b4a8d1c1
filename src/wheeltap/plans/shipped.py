"""Files as they are shipped: what a plan knows of each, and what a look at their tensors gives, as arrays."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

Question = Literal["answers", "weights"]
"""What is asked of a file: its answers to the task, or its tensors beside those of the original."""


class ShippedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A model that was made from the reference to be shipped.

    Attributes:
        spec: As it was asked for: ``gguf:FILE``, say.
        fingerprint: Digest of its bytes; of a model that code gives, of the model.
        differs: What of its tokenizer and template is not the reference's, each in a sentence.
    """

    spec: str
    fingerprint: str
    differs: tuple[str, ...] = ()


Fault = Literal[
    "sound", "missing", "unread", "shape", "not finite", "constant", "scale", "offset", "steps", "other tensor",
    "transposed", "permuted", "other values", "blocks", "unknown", "uncompared", "rows", "groups", "not positive",
    "twice",
]  # fmt: skip
"""What may be wrong with a tensor. ``unknown``: no rule says what its format should give; ``uncompared``: a weight of
the original that is held in a way that cannot be read, or cannot be distinguished from others."""

UNJUDGED: Final[frozenset[Fault]] = frozenset({"sound", "unknown", "uncompared"})
"""Those that are no fault."""

UNKNOWN: Final = -1.0
"""In place of a number that is not known."""


class TensorRow(msgspec.Struct, frozen=True, kw_only=True):
    """One tensor of a file beside the original's.

    Attributes:
        name: In the file; in the original, where the file lacks it or is not read.
        format: As which it is stored.
        fault: What is wrong with it.
        beside: The tensor whose values it holds, where it is another one's.
        cosine: Of the two, as vectors.
        error: ||file - original|| / ||original||.
        expected: The same of our own rounding of the original to this format; ``UNKNOWN`` where there is none.
        amount: The factor, the offset, the share of the blocks or the number of rows, where such is the fault.
        rows: How many it has; 0 where it has no counterpart of its shape.
    """

    name: str
    format: str
    fault: Fault = "sound"
    beside: str = ""
    cosine: float = UNKNOWN
    error: float = UNKNOWN
    expected: float = UNKNOWN
    amount: float = UNKNOWN
    rows: int = 0


def packed(rows: Sequence[TensorRow]) -> dict[str, NDArray[Any]]:
    """Rows as the arrays of an outcome: JSON, byte by byte."""
    return {"rows": np.frombuffer(msgspec.json.encode(rows), np.uint8).astype(np.int32)}


def rows_of(values: Mapping[str, NDArray[Any]]) -> list[TensorRow]:
    """Rows from the arrays of an outcome."""
    return msgspec.json.decode(values["rows"].astype(np.uint8).tobytes(), type=list[TensorRow])
