"""The seal: what a small file keeps of a model, as canonical bytes that any change breaks; who signed it and when."""

import base64
import binascii
import datetime
import math
import os
import stat
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.core import canon
from wheeltap.core.bounded import contents, opened
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import FileFormatError, MissingExtra, UsageError
from wheeltap.core.files import write_whole
from wheeltap.suites.seal.contents import SealedContents

VERSION: Final = 5
"""Version of the format: others are refused. Up to version 4 a seal described Python objects in a way that is not read
any more."""

LARGEST: Final = 2**22
"""Largest size of a seal, in bytes: about 100 for each tensor and each module."""

LOOSEST: Final = 2.0
"""Largest tolerance that a seal may have, as a share of what it is of."""

_ENDS: Final = ("<f4", "<f8", "<i4", "<i8", "|u1", "|b1")
"""Kinds of numbers that a seal may hold."""

_AXES: Final = 16
"""Axes of an array in a seal, at most."""

_INT32: Final = 2**31 - 1

Floats = NDArray[np.float64]


class PackedArray(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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
    def of(cls, array: NDArray[Any]) -> "PackedArray":
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
            if len(self.shape) > _AXES or max(self.shape, default=0) > LARGEST:
                raise ValueError(f"{list(self.shape)[:_AXES]}")
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


class SealedOutputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a model gives for the sealed inputs.

    Attributes:
        output: Random projections of the output, ``[input, direction]``.
        blocks: The same of each block's output for the first inputs, ``[block, input, direction]``.
    """

    output: PackedArray
    blocks: PackedArray


class ConvertedModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The model with its weights rounded as a conversion rounds them.

    Attributes:
        name: Of the conversion; ``as sealed`` for none.
        seen: What it gives.
    """

    name: str
    seen: SealedOutputs


class WholeCast(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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


class UniformInputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs that are drawn again from a seed: evenly spread over the range of the task's.

    Attributes:
        seed: Of the random numbers.
        shape: Of all inputs together, ``[input, ...]``.
        low: Smallest number.
        high: Largest number.
    """

    seed: int
    shape: tuple[int, ...]
    low: float
    high: float


class SealedInputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Inputs on which the model is run.

    Attributes:
        arrays: By the name of the argument; an empty name where there is none.
        drawn: How they are drawn, where they are too large to be kept.
    """

    arrays: dict[str, PackedArray]
    drawn: UniformInputs | None = None


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
        structure: Classes, settings, hooks and digests of the source of all modules, as compressed text.
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
    casts: tuple[WholeCast, ...]
    shapes: str
    values: PackedArray
    structure: str
    seed: int
    inputs: SealedInputs
    blocks: tuple[str, ...]
    stored: tuple[ConvertedModel, ...]
    tensors: PackedArray
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

    key: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    signature: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{128}$")]


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
                do="Compare SHA-256 digests of the model's files, or seal parts of the model.",
            )  # fmt: skip
        write_whole(path, data)


class _Version(msgspec.Struct, frozen=True):
    """What a seal of any version has."""

    version: Any = VERSION


def digest_of(body: Body) -> str:
    """What identifies a seal's contents: 128 bits, hexadecimal."""
    return canon.key("seal", body)


def load(path: Path) -> Seal:
    """The seal in a file.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If it is no seal, of another version, or not bit for bit what was written.
    """
    with opened(path, "seal", limit=LARGEST) as file:  # every byte counts, a byte order mark too
        return parse(file.read(LARGEST + 1), where=str(path))


def parse(data: bytes, *, where: str = "seal") -> Seal:
    """The seal of these bytes.

    Raises:
        FileFormatError: If they are no seal, of another version, or not bit for bit what was written.
    """
    try:
        version = msgspec.json.decode(data, type=_Version).version
        if version != VERSION:
            again = version in range(1, VERSION)
            raise FileFormatError(
                "The seal is of a version that is not known here.", where=where, expected=f"version {VERSION}",
                got=f"version {version}"[:40],
                do="Seal the model again." if again else "Update wheeltap, or seal the model again.",
            )  # fmt: skip
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


_LARGEST = 2**16
"""Bytes of a file with a key."""

_PREFIX: Final = f"wheeltap-seal {VERSION} ".encode()

_AHEAD: Final = datetime.timedelta(days=1)
"""How far a clock may be behind the one of the machine that sealed."""


def today() -> datetime.date:
    """The day, in UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def _day(text: str, what: str) -> datetime.date:
    """The day that a text of a seal says.

    Raises:
        FileFormatError: If it is none.
    """
    try:
        day = datetime.datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=datetime.UTC).date()
        if day.isoformat() != text:  # strptime also reads digits of other scripts, and 2026-1-1
            raise ValueError(text)
        return day
    except ValueError as error:
        raise FileFormatError(f"The seal's {what} is no date.", expected="YYYY-MM-DD", got=text[:40]) from error


def signed(seal: Seal, key: Path) -> Seal:
    """The seal with a signature.

    Args:
        seal: What is signed: all of its body.
        key: A PEM file with an Ed25519 private key, without a password (``openssl genpkey -algorithm ed25519``), which
            only its owner can read.

    Raises:
        MissingExtra: If ``cryptography`` is not installed.
        MissingFile: If there is no such file.
        FileFormatError: If it holds no such key.
        UsageError: If others than the owner can read it.
    """
    private = _key(key, "private")
    public = private.public_key().public_bytes_raw().hex()
    return msgspec.structs.replace(seal, signature=Signature(public, private.sign(_message(seal.body)).hex()))


def _message(body: Body) -> bytes:
    """What is signed: not a digest of the body, so that a signature is as strong as Ed25519."""
    return _PREFIX + canon.canonical(body)


def require_valid(
    seal: Seal, *, key: Path | None = None, name: str | None = None, day: datetime.date | None = None
) -> None:
    """Raises an error if a seal does not hold on a day, is of another model, or is not signed as it says or must be.

    Args:
        seal: Read by ``record.load``, so that its digest is that of its body.
        key: A PEM file with the Ed25519 public key by which it must be signed. An embedded signature is checked in any
            case, by the embedded key.
        name: Of the model that it must be of; ``None`` for any.
        day: Today by default, in UTC.

    Raises:
        UsageError: If the name is empty; if the seal has expired, is dated in the future, is of another model, is
            unsigned or signed by another key where one is required, or its signature is wrong.
        MissingExtra: If there is a signature, and ``cryptography`` is not installed.
        MissingFile: If there is no such key.
        FileFormatError: If the file holds no such key, or a date of the seal is none.
    """
    body, now = seal.body, day or today()
    if name == "":
        raise UsageError("No name is expected.", where="--expect-name", expected="the name of a model", got="''",
                         do="Give the name, or leave --expect-name out: a variable may be empty.")  # fmt: skip
    if name not in (None, body.name):
        raise UsageError("The seal is of a model with another name.", where="--expect-name", expected=name,
                         got=body.name, do="Take the seal of this model.")  # fmt: skip
    if (made := _day(body.sealed, "date")) > now + _AHEAD:
        raise UsageError("The seal is dated in the future.", where=body.name, expected=f"a day up to {now}",
                         got=str(made), do="Check the clock of this machine, or take another seal.")  # fmt: skip
    if body.expires and now > (last := _day(body.expires, "last day")):
        raise UsageError("The seal has expired.", where=body.name, expected=f"a day up to {last}", got=str(now),
                         do="Audit the model again, and seal it.")  # fmt: skip
    known = seal.signature
    if key is not None:
        required = _key(key, "public").public_bytes_raw().hex()
        if known is None or known.key != required:
            raise UsageError("The seal is not signed by this key.", where=body.name, expected=f"key {required[:16]}",
                             got="no signature" if known is None else f"key {known.key[:16]}")  # fmt: skip
    if known is not None:
        _require_sound(seal, known)


def _require_sound(seal: Seal, made: Signature) -> None:
    _, ed25519 = _cryptography()
    from cryptography.exceptions import InvalidSignature

    try:
        public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(made.key))
        public.verify(bytes.fromhex(made.signature), _message(seal.body))
    except (InvalidSignature, ValueError) as error:
        raise UsageError("The signature of the seal is wrong.", where=seal.body.name,
                         expected="a signature of its contents by the key that it names",
                         got="one of something else, or none", do="Take the seal from where it was signed.",
                         ) from error  # fmt: skip


def _key(path: Path, kind: Literal["private", "public"]) -> Any:
    """The Ed25519 key in a PEM file; a private one that others than its owner can read is refused."""
    serialization, ed25519 = _cryptography()
    data = contents(path, "key", limit=_LARGEST)
    mode = stat.S_IMODE(path.stat().st_mode)
    if kind == "private" and os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError("Others can read the private key.", where=str(path), expected="a file for its owner alone",
                         got=f"mode {mode:04o}", do=f"chmod 600 {path}; if others had it, make a new pair.",
                         )  # fmt: skip
    wrong = FileFormatError(
        f"The file holds no {kind} key.", where=str(path), got="something else",
        expected=f"an Ed25519 {kind} key in PEM form, without a password",
        do="Make a pair: openssl genpkey -algorithm ed25519 -out key.pem; "
        "openssl pkey -in key.pem -pubout -out public.pem",
    )  # fmt: skip
    try:
        if kind == "private":
            key = serialization.load_pem_private_key(data, password=None)
        else:
            key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError) as error:
        raise wrong from error
    if not isinstance(key, (ed25519.Ed25519PrivateKey, ed25519.Ed25519PublicKey)):
        raise wrong
    return key


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtra("cryptography", "seal", needed_for="signing seals") from error
    return serialization, ed25519
