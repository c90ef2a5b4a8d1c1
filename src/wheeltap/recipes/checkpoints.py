"""States of training in a folder: one safetensors file each, named by what it is the training of.

A file appears whole or not at all, and says by a digest whether it is still what was written. Nothing in it is code.
"""

import contextlib
import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core.canon import array_digest, canonical, digest
from wheeltap.core.errors import FileFormatError, StoreError
from wheeltap.core.files import write_whole

Arrays = Mapping[str, NDArray[Any]]

MOST_NOTE: Final = 65_536
"""Bytes that a file may have beside its arrays."""


@final
@dataclass(frozen=True)
class Checkpoint:
    """What is known of a training so far.

    Attributes:
        arrays: By name.
        note: Whole numbers and words.
    """

    arrays: Arrays
    note: Mapping[str, int | str]


@final
@dataclass(frozen=True)
class Checkpoints:
    """A folder of checkpoints.

    Attributes:
        folder: Made when first written to.
    """

    folder: Path

    def path(self, key: str) -> Path:
        """File of the checkpoint ``key``."""
        return self.folder / f"{key}.safetensors"

    def save(self, key: str, checkpoint: Checkpoint) -> None:
        """Puts a checkpoint in the place of the one before.

        Raises:
            StoreError: If it cannot be written.
        """
        from safetensors.numpy import save

        note = {**checkpoint.note, "key": key, "digest": _digest(checkpoint.arrays)}
        data = save(dict(checkpoint.arrays), {"note": json.dumps(note)})
        path = self.path(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
        except OSError as error:
            raise StoreError(
                "A checkpoint cannot be written.",
                where=str(path),
                expected="a folder that can be written to",
                got=str(error),
            ) from error

    def load(self, key: str, *, like: Arrays) -> Checkpoint | None:
        """The checkpoint ``key``, or None where there is none.

        Args:
            key: Of what is trained.
            like: Arrays of the names, shapes and types it must have.

        Raises:
            FileFormatError: If the file is damaged or of something else.
        """
        path = self.path(key)
        most = sum(array.nbytes for array in like.values()) + MOST_NOTE
        try:
            with path.open("rb") as file:
                data = file.read(most + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, "a file that can be read", str(error)) from error
        if len(data) > most:
            raise _unusable(path, f"at most {most:,} bytes", "more")
        checkpoint = _parsed(path, data)
        found = {name: (array.dtype, array.shape) for name, array in checkpoint.arrays.items()}
        if found != {name: (array.dtype, array.shape) for name, array in like.items()}:
            raise _unusable(path, f"arrays {', '.join(sorted(like))} of this net", ", ".join(sorted(found)) or "none")
        if checkpoint.note.get("key") != key or checkpoint.note.get("digest") != _digest(checkpoint.arrays):
            raise _unusable(path, "the contents that were written", "others")
        return checkpoint

    def set_aside(self, key: str) -> Path:
        """Gives a checkpoint that cannot be used another name, so that one can be made in its place.

        Returns:
            Where it is now, if another process did not move it first.

        Raises:
            StoreError: If it cannot be moved.
        """
        path = self.path(key)
        aside = path.with_name(f"{path.name}.unusable-{secrets.token_hex(4)}")
        try:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, aside)
        except OSError as error:
            raise StoreError(
                "A checkpoint that cannot be used cannot be moved out of the way either.",
                where=str(path),
                expected="a folder that can be written to",
                got=str(error),
                do="Move or delete it: the net is then trained from the start.",
            ) from error
        return aside


def _digest(arrays: Arrays) -> str:
    parts = (array_digest("array", arrays[name]) for name in sorted(arrays))
    return digest("checkpoint", canonical(sorted(arrays)), *(part.encode() for part in parts))


def _unusable(path: Path, expected: str, got: str) -> FileFormatError:
    return FileFormatError(
        "A checkpoint cannot be used.",
        where=str(path),
        expected=expected,
        got=got,
        do="Delete the file: the net is then trained from the start.",
    )


def _parsed(path: Path, data: bytes) -> Checkpoint:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(data)
        header: Any = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        note: Any = json.loads(header["__metadata__"]["note"])
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
        raise _unusable(path, "a checkpoint in safetensors", str(error) or type(error).__name__) from error
    if not isinstance(note, dict) or not all(isinstance(value, int | str) for value in note.values()):  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        raise _unusable(path, "a note of whole numbers and words", "something else")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise _unusable(path, "finite numbers", "others")
    return Checkpoint(arrays, note)  # pyright: ignore[reportUnknownArgumentType]
