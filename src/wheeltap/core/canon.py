"""Canonical bytes and digests: what makes a key the same today, tomorrow and on another machine.

A change of anything here changes every key: raise ``KEY_VERSION`` and renew the golden file
(``tests/golden/keys.json``) together.
"""

import hashlib
from typing import Any

import msgspec
import numpy as np

KEY_VERSION = 3

Scalar = str | int | float | bool
"""What a setting may be."""

_encoder = msgspec.json.Encoder(order="deterministic")


def canonical(value: Any) -> bytes:
    """JSON bytes of ``value`` with sorted keys, no spaces and shortest round-trip floats."""
    return _encoder.encode(value)


def digest(kind: str, *parts: bytes | memoryview, version: int = KEY_VERSION) -> str:
    """Hex digest (128 bits) of ``parts``, each framed by its length, under a namespace ``kind`` and a ``version``."""
    state = hashlib.blake2b(digest_size=16, person=f"wheeltap{version}".encode())
    for part in (kind.encode(), *parts):
        state.update(len(part).to_bytes(8, "little"))
        state.update(part)
    return state.hexdigest()


def key(kind: str, value: Any) -> str:
    """Content key of a record: the digest of its canonical bytes."""
    return digest(kind, canonical(value))


def array_digest(kind: str, array: np.ndarray[Any, Any]) -> str:
    """Digest of an array: its dtype, shape and little-endian bytes."""
    flat = np.ascontiguousarray(array)
    if flat.dtype.byteorder == ">":
        flat = flat.astype(flat.dtype.newbyteorder("<"))
    return digest(kind, canonical([str(flat.dtype), list(flat.shape)]), flat.tobytes())


class ArtifactSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a recipe is asked to make.

    Attributes:
        recipe: Registered name of the recipe.
        settings: Of the recipe, defaults included.
        seed: Root of every draw.
        version: Of the recipe's code: another version makes something else.
        of: Keys of the artifacts, or fingerprints of the subjects, that it is made from.
        data: Digest of the examples it is made with; empty where it needs none, or makes its own.
    """

    recipe: str
    settings: dict[str, Scalar] = {}
    seed: int = 0
    version: int = 1
    of: tuple[str, ...] = ()
    data: str = ""

    @property
    def key(self) -> str:
        """Content key, 32 hex characters: the fingerprint of what is made."""
        return key("artifact", self)
