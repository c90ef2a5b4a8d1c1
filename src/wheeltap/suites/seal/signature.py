"""Whom a seal rests on, and when it holds: Ed25519 signatures, by the package ``cryptography`` (extra ``seal``)."""

import datetime
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from wheeltap.core import canon
from wheeltap.core.bounded import contents
from wheeltap.core.errors import FileFormatError, MissingExtra, UsageError
from wheeltap.suites.seal.record import Body, Seal, Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_LARGEST = 2**16
"""Bytes of a file with a key."""

_PREFIX: Final = b"wheeltap-seal 2 "

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
        return datetime.date.fromisoformat(text)
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
    private = _private(key)
    public = private.public_key().public_bytes_raw().hex()
    return msgspec.structs.replace(seal, signature=Signature(public, private.sign(_message(seal.body)).hex()))


def _message(body: Body) -> bytes:
    """What is signed: not a digest of the body, so that a signature is as strong as Ed25519."""
    return _PREFIX + canon.canonical(body)


def require_valid(seal: Seal, *, key: Path | None = None, name: str = "", day: datetime.date | None = None) -> None:
    """Raises an error if a seal does not hold on a day, is of another model, or is not signed as it says or must be.

    Args:
        seal: Read by ``record.load``, so that its digest is that of its body.
        key: A PEM file with the Ed25519 public key by which it must be signed. An embedded signature is checked in any
            case, by the embedded key.
        name: Of the model that it must be of; empty for any.
        day: Today by default, in UTC.

    Raises:
        UsageError: If it has expired, is dated in the future, is of another model, is unsigned or signed by another
            key where one is required, or its signature is wrong.
        MissingExtra: If there is a signature, and ``cryptography`` is not installed.
        MissingFile: If there is no such key.
        FileFormatError: If the file holds no such key, or a date of the seal is none.
    """
    body, now = seal.body, day or today()
    if name and name != body.name:
        raise UsageError("The seal is of a model with another name.", where="--expect-name", expected=name,
                         got=body.name, do="Take the seal of this model.")  # fmt: skip
    if (made := _day(body.sealed, "date")) > now + _AHEAD:
        raise UsageError("The seal is dated in the future.", where=body.name, expected=f"a day up to {now}",
                         got=str(made), do="Check the clock of this machine, or take another seal.")  # fmt: skip
    if body.expires and now > (last := _day(body.expires, "last day")):
        raise UsageError("The seal has expired.", where=body.name, expected=f"a day up to {last}", got=str(now),
                         do="Audit the model again, and seal it.")  # fmt: skip
    if key is not None:
        _require_key(seal, _public(key).public_bytes_raw().hex())
    if seal.signature is not None:
        _require_sound(seal, seal.signature)


def _require_key(seal: Seal, wanted: str) -> None:
    known = seal.signature
    if known is None or known.key != wanted:
        raise UsageError("The seal is not signed by this key.", where=seal.body.name, expected=f"key {wanted[:16]}",
                         got="no signature" if known is None else f"key {known.key[:16]}")  # fmt: skip


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


def _private(path: Path) -> "Ed25519PrivateKey":
    serialization, ed25519 = _cryptography()
    data = contents(path, "key", limit=_LARGEST)
    _require_private(path)
    try:
        held: Any = serialization.load_pem_private_key(data, password=None)
    except (ValueError, TypeError) as error:
        raise _no_key(path, "private") from error
    if not isinstance(held, ed25519.Ed25519PrivateKey):
        raise _no_key(path, "private")
    return held


def _public(path: Path) -> "Ed25519PublicKey":
    serialization, ed25519 = _cryptography()
    try:
        held: Any = serialization.load_pem_public_key(contents(path, "key", limit=_LARGEST))
    except ValueError as error:
        raise _no_key(path, "public") from error
    if not isinstance(held, ed25519.Ed25519PublicKey):
        raise _no_key(path, "public")
    return held


def _no_key(path: Path, kind: str) -> FileFormatError:
    return FileFormatError(f"The file holds no {kind} key.", where=str(path),
                           expected=f"an Ed25519 {kind} key in PEM form, without a password", got="something else",
                           do="Make a pair: openssl genpkey -algorithm ed25519 -out key.pem; "
                           "openssl pkey -in key.pem -pubout -out public.pem")  # fmt: skip


def _require_private(path: Path) -> None:
    """Raises ``UsageError`` if others than the owner may read a private key; where there are such rights."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError("Others can read the private key.", where=str(path), expected="a file for its owner alone",
                         got=f"mode {mode:04o}", do=f"chmod 600 {path}; if others had it, make a new pair.",
                         )  # fmt: skip


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtra("cryptography", "seal", needed_for="signing seals") from error
    return serialization, ed25519
