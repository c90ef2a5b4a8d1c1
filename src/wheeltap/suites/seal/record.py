"""The seal: what a small file keeps of a model, as canonical bytes that any change breaks."""

import base64
import binascii
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core import canon
from wheeltap.core.bounded import contents
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import FileFormatError
from wheeltap.core.files import write_whole
from wheeltap.suites.seal.contents import SealedContents

VERSION: Final = 2
"""Of the format: another one is refused. Version 1 kept no structure and no digest of all tensors at once."""

LARGEST: Final = 64 * 1024
"""Bytes of a seal, at most."""

LOOSEST: Final = 2.0
"""Largest tolerance that a seal may have, as a share of what it is of."""

_ENDS: Final = ("<f4", "<f8", "<i4", "<i8", "|u1", "|b1")
"""Kinds of numbers that a seal may hold."""

_INT32: Final = 2**31 - 1

Floats = NDArray[np.float64]


class Packed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An array in a seal.

    Attributes:
        kind: Numpy's name of its numbers.
        shape: Of the array.
        data: Its bytes, in base64.
    """

    kind: str
    shape: tuple[int, ...]
    data: str

    @classmethod
    def of(cls, array: NDArray[Any]) -> "Packed":
        """Packs an array of floats, whole numbers or truth values."""
        floats = "<f8" if array.dtype == np.float64 else "<f4"
        whole = "|u1" if array.dtype == np.uint8 else "<i4"
        if whole == "<i4" and array.dtype.kind in "iu" and np.abs(array).max(initial=0) > _INT32:
            whole = "<i8"
        small = {"f": floats, "i": whole, "u": whole, "b": "|b1"}[array.dtype.kind]
        held = np.ascontiguousarray(array.astype(small))
        return cls(small, tuple(held.shape), base64.b64encode(held.tobytes()).decode())

    def array(self) -> NDArray[Any]:
        """The array.

        Raises:
            FileFormatError: If the bytes are not an array of this shape.
        """
        try:
            if self.kind not in _ENDS or min(self.shape, default=0) < 0:
                raise ValueError(f"{self.kind} {list(self.shape)}")
            held = np.frombuffer(base64.b64decode(self.data, validate=True), dtype=self.kind)
            if math.prod(self.shape) != len(held):
                raise ValueError(f"{len(held)} numbers for {list(self.shape)}")
        except (ValueError, binascii.Error) as error:
            raise FileFormatError("An array of the seal cannot be read.", got=str(error)[:80]) from error
        return held.reshape(self.shape)

    def floats(self) -> Floats:
        """The array in double precision; all of it must be finite.

        Raises:
            FileFormatError: If it is no such array.
        """
        held = self.array().astype(np.float64)
        if not np.isfinite(held).all():
            raise FileFormatError(
                "An array of the seal is not finite.", expected="finite numbers", got="NaN or infinity"
            )
        return held


class Parts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model gives for the sealed inputs.

    Attributes:
        output: Random projections of the output, ``[input, direction]``.
        blocks: The same of each block's output, ``[block, input, direction]``; of the first inputs alone where there
            are many blocks.
    """

    output: Packed
    blocks: Packed


class Stored(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model with its weights rounded as a conversion rounds them.

    Attributes:
        name: Of the conversion; ``as sealed`` for none.
        seen: What it gives.
    """

    name: str
    seen: Parts


class Cast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A conversion of the whole model that a seal admits.

    Attributes:
        name: Of the conversion; ``as sealed`` for none.
        digest: Of all bits of all tensors after it, keyed: 256 bits, hexadecimal.
    """

    name: str
    digest: str


class Tolerances(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far harmless variation went, times a margin; shares of the sealed numbers' size.

    Attributes:
        output: Of output projections.
        blocks: Of each block's.
        device: Where this was measured.
        passes: How many harmless passes it rests on.
    """

    output: float
    blocks: tuple[float, ...]
    device: str
    passes: int


class Drawn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs that are drawn again: evenly spread between two numbers.

    Attributes:
        seed: Of each input.
        shape: Of one input.
        least: Of each: the least number.
        most: And the largest.
    """

    seed: tuple[int, ...]
    shape: tuple[int, ...]
    least: tuple[float, ...]
    most: tuple[float, ...]


class SealedInputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs, the most sensitive first.

    Attributes:
        arrays: By the name of the argument; an empty name where there is none.
        chosen: How many are examples of the task; the others were drawn.
        drawn: How they are drawn, where they are too large to be kept.
    """

    arrays: dict[str, Packed]
    chosen: int
    drawn: "Drawn | None" = None


class Lineage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The seal that the model was converted from.

    Attributes:
        digest: Of that seal.
        conversion: What was done, in words.
    """

    digest: str
    conversion: str


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that a seal says.

    Attributes:
        name: Of the model.
        casts: Digests of all tensors, as sealed and after each cast that passes: they decide.
        shapes: Names, kinds of numbers and shapes of all parameters and buffers, in order, as compressed text.
        values: Beginnings of the digest of each tensor, as sealed and after casts, ``[tensor, cast, byte]``: they
            locate a change.
        structure: Digest of all modules, code, hooks and settings: it decides.
        parts: What locates a change of these, as compressed text.
        seed: Of all projections and digests: whoever knows it can fit the projections.
        inputs: What the model is asked.
        blocks: Module paths, in order of computation.
        stored: The model as it is, and as conversions leave it.
        tensors: Of each parameter its root mean square, its mean and random projections, ``[parameter, number]``.
        tolerances: How far harmless variation goes.
        audit: Verdicts of the audit that the model passed or failed, a line each; and the digest of its report.
        provenance: Of the software and the machine.
        contents: What lies beside the weights; none where the model came from no folder or file.
        sealed: Day on which it was made, in UTC, ``YYYY-MM-DD``.
        expires: Last day on which it holds, ``YYYY-MM-DD``; empty for always.
        of: The seal that this model was converted from.
    """

    name: str
    casts: tuple[Cast, ...]
    shapes: str
    values: Packed
    structure: str
    parts: str
    seed: int
    inputs: SealedInputs
    blocks: tuple[str, ...]
    stored: tuple[Stored, ...]
    tensors: Packed
    tolerances: Tolerances
    audit: tuple[str, ...] = ()
    provenance: dict[str, Scalar] = {}
    contents: SealedContents | None = None
    sealed: str
    expires: str = ""
    of: Lineage | None = None


class Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who vouches for a seal: Ed25519 over all of its body.

    Attributes:
        key: Public key, hexadecimal.
        signature: Hexadecimal.
    """

    key: str
    signature: str


class Seal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A seal as its file holds it.

    Attributes:
        format: Always ``wheeltap-seal``.
        version: Of the format.
        digest: Of the body.
        body: What it says.
        signature: If it is signed.
    """

    format: Literal["wheeltap-seal"] = "wheeltap-seal"
    version: int = VERSION
    digest: str
    body: Body
    signature: Signature | None = None

    @classmethod
    def of(cls, body: Body) -> "Seal":
        """The seal with this body, unsigned."""
        return cls(digest=digest_of(body), body=body)

    def bytes(self) -> bytes:
        """The file's bytes: the same for the same seal everywhere."""
        return canon.canonical(self) + b"\n"

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all.

        Raises:
            FileFormatError: If the seal is larger than a seal may be.
            OSError: If it cannot be written.
        """
        data = self.bytes()
        if len(data) > LARGEST:
            raise FileFormatError(
                "The seal is too large.", where=str(path), expected=f"{LARGEST:,} bytes or less", got=f"{len(data):,}",
                do="Use fewer inputs: --inputs 8.",
            )  # fmt: skip
        write_whole(path, data)


def digest_of(body: Body) -> str:
    """What identifies a seal's contents: 128 bits, hexadecimal."""
    return canon.key("seal", body)


def load(path: Path) -> Seal:
    """The seal in a file.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If it is no seal, of another version, or not bit for bit what was written.
    """
    return parse(contents(path, "seal", limit=LARGEST), where=str(path))


def parse(data: bytes, *, where: str = "seal") -> Seal:
    """The seal of these bytes.

    Raises:
        FileFormatError: If they are no seal, of another version, or not bit for bit what was written.
    """
    _require_version(data, where=where)
    try:
        seal = msgspec.json.decode(data, type=Seal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FileFormatError("The file is no seal, or it is damaged.", where=where,
                              expected="what wheeltap seal wrote", got=str(error)[:120]) from error  # fmt: skip
    if digest_of(seal.body) == seal.digest and seal.bytes() != data:
        raise FileFormatError(
            "The seal is not in the form in which seals are written.", where=where, expected="canonical bytes",
            got="the same contents, laid out in another way", do="Copy the file as it is, without converting lines.",
        )  # fmt: skip
    if digest_of(seal.body) != seal.digest:
        raise FileFormatError(
            "The seal was changed after it was written.", where=where,
            expected=f"contents with digest {seal.digest[:12]}", got=digest_of(seal.body)[:12],
            do="Take it again from where the model was sealed.",
        )  # fmt: skip
    return seal


def _require_version(data: bytes, *, where: str) -> None:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    version: Any = cast("Mapping[str, Any]", found).get("version") if isinstance(found, dict) else VERSION
    if version != VERSION:
        raise FileFormatError(
            "The seal is of a version that is not known here.", where=where, expected=f"version {VERSION}",
            got=f"version {version}"[:40],
            do="Seal the model again: earlier seals keep too little to hold against someone who means harm."
            if version == 1 else "Update wheeltap, or seal the model again.",
        )  # fmt: skip
