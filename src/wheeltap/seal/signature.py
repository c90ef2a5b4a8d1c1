"""Signatures: Ed25519 over a seal's digest, by the package ``cryptography`` (extra ``seal``)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from wheeltap.core.errors import FileFormatError, MissingExtra, MissingFile, UsageError
from wheeltap.seal.record import Seal, Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

_PREFIX = b"wheeltap-seal 2 "


def signed(seal: Seal, key: Path) -> Seal:
    """The seal with a signature.

    Args:
        seal: What is signed: the digest of its body, which covers all of it.
        key: A PEM file with an Ed25519 private key, without a password (``openssl genpkey -algorithm ed25519``).

    Raises:
        MissingExtra: If ``cryptography`` is not installed.
        MissingFile: If there is no such file.
        FileFormatError: If it holds no such key.
    """
    private = _private(key)
    public = private.public_key().public_bytes_raw().hex()
    made = Signature(public, private.sign(_PREFIX + seal.digest.encode()).hex())
    return msgspec.structs.replace(seal, signature=made)


def require_signed(seal: Seal, key: Path) -> None:
    """Raises an error unless the seal carries a valid signature by the holder of a key.

    Args:
        seal: Read by ``record.load``, so that its digest is that of its body.
        key: A PEM file with the Ed25519 public key.

    Raises:
        UsageError: If the seal is unsigned, signed by another key, or the signature is wrong.
        MissingExtra: If ``cryptography`` is not installed.
        MissingFile: If there is no such file.
        FileFormatError: If it holds no such key.
    """
    public, known = _public(key), seal.signature
    wanted = public.public_bytes_raw().hex()
    if known is None or known.key != wanted:
        raise UsageError("The seal is not signed by this key.", where=seal.body.name, expected=f"key {wanted[:16]}",
                         got="no signature" if known is None else f"key {known.key[:16]}")  # fmt: skip
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(bytes.fromhex(known.signature), _PREFIX + seal.digest.encode())
    except (InvalidSignature, ValueError) as error:
        raise UsageError("The signature of the seal is wrong.", where=seal.body.name,
                         expected="a signature of its digest", got="one of something else") from error  # fmt: skip


def _private(path: Path) -> "Ed25519PrivateKey":
    serialization, ed25519 = _cryptography()
    try:
        held: Any = serialization.load_pem_private_key(_bytes(path), password=None)
    except (ValueError, TypeError) as error:
        raise _no_key(path, "private") from error
    if not isinstance(held, ed25519.Ed25519PrivateKey):
        raise _no_key(path, "private")
    return held


def _public(path: Path) -> "Ed25519PublicKey":
    serialization, ed25519 = _cryptography()
    try:
        held: Any = serialization.load_pem_public_key(_bytes(path))
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


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise MissingFile("The key cannot be read.", where=str(path), expected="a file", got=str(error)) from error


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtra("cryptography", "seal", needed_for="signing seals") from error
    return serialization, ed25519
