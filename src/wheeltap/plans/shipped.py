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
    "transposed", "permuted", "other values", "blocks", "unknown", "uncompared", "rows",
]  # fmt: skip

FAULTS: Final[tuple[Fault, ...]] = (
    "sound", "missing", "unread", "shape", "not finite", "constant", "scale", "offset", "steps", "other tensor",
    "transposed", "permuted", "other values", "blocks", "unknown", "uncompared", "rows",
)  # fmt: skip
"""What may be wrong with a tensor, by number. ``unknown``: no rule says what its format should give; ``uncompared``:
a weight of the original that is held in a way that cannot be read, or cannot be distinguished from others."""

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
    """

    name: str
    format: str
    fault: Fault = "sound"
    beside: str = ""
    cosine: float = UNKNOWN
    error: float = UNKNOWN
    expected: float = UNKNOWN
    amount: float = UNKNOWN


def packed(rows: Sequence[TensorRow]) -> dict[str, NDArray[Any]]:
    """Rows as the arrays of an outcome."""
    numbers = [(one.cosine, one.error, one.expected, one.amount) for one in rows]
    bounded = np.clip(np.array(numbers, dtype=np.float64).reshape(-1, 4), -_LARGEST, _LARGEST)
    return {
        "faults": np.array([FAULTS.index(one.fault) for one in rows], dtype=np.int32),
        "numbers": bounded.astype(np.float32),
        **{field: _letters([getattr(one, field) for one in rows]) for field in _TEXTS},
    }


def rows_of(values: Mapping[str, NDArray[Any]]) -> list[TensorRow]:
    """Rows from the arrays of an outcome."""
    texts = [["".join(chr(int(one)) for one in line if one) for line in values[field]] for field in _TEXTS]
    numbers = values["numbers"].astype(np.float64).tolist()
    return [
        TensorRow(
            name=name, format=form, beside=beside, fault=FAULTS[int(fault)], cosine=cosine, error=error,
            expected=expected, amount=amount,
        )
        for name, form, beside, fault, (cosine, error, expected, amount) in zip(
            *texts, values["faults"], numbers, strict=True
        )
    ]  # fmt: skip


_TEXTS: Final = ("name", "format", "beside")
_LARGEST: Final = 1e30


def _letters(texts: Sequence[str]) -> NDArray[np.int32]:
    width = max((len(text) for text in texts), default=0) or 1
    return np.array([[ord(one) for one in text.ljust(width, "\0")] for text in texts], np.int32).reshape(-1, width)
