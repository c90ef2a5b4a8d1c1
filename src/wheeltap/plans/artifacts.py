"""What recipes make, in a folder: finished artifacts and states of training, one safetensors file each.

A file is named by the key of how its contents are made. It appears whole or not at all, says by a digest whether it
still is what was written, and bears the mark of its writer's key: where that is another's, it is made again, unless its
digest is known. Nothing in it is code.
"""

import contextlib
import errno
import json
import os
import secrets
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.core import canon
from wheeltap.core.bounded import parsing
from wheeltap.core.canon import ArtifactSpec
from wheeltap.core.errors import FileError, FileFormatError, StoreError
from wheeltap.core.files import mark, own_key, write_whole

Arrays = Mapping[str, NDArray[Any]]
Note = Mapping[str, int | str]

MOST_BESIDE: Final = 4 * 2**20
"""Bytes that a file may have beside the arrays that were asked for: its header, its note and its report."""

REPORT: Final = "report:"
"""What the names of a report's arrays begin with in a file."""


def digest(arrays: Arrays) -> str:
    """Of named arrays, whatever their order: 32 hex characters. Of weights, it is what identifies an artifact."""
    parts = (canon.array_digest("array", arrays[name]) for name in sorted(arrays))
    return canon.digest("arrays", canon.canonical(sorted(arrays)), *(part.encode() for part in parts))


@final
@dataclass(frozen=True)
class ArtifactFile:
    """What a file holds.

    Attributes:
        arrays: Weights by name; of a training in progress, all that its next step depends on.
        note: Whole numbers and words, such as the steps taken.
        report: Small arrays that were recorded while it was made.
    """

    arrays: Arrays
    note: Note = field(default_factory=dict[str, int | str])
    report: Arrays = field(default_factory=dict[str, NDArray[Any]])

    @property
    def digest(self) -> str:
        """Of ``arrays`` alone."""
        return digest(self.arrays)

    @property
    def finite(self) -> bool:
        """Whether all its numbers are: nothing else may be kept."""
        return all(bool(np.isfinite(array).all()) for array in (*self.arrays.values(), *self.report.values()))

    @property
    def whole(self) -> str:
        """Digest of everything."""
        note = canon.canonical(dict(self.note)).decode()
        return canon.key("kept", [self.digest, digest(self.report), note])


@final
@dataclass(frozen=True)
class Artifacts:
    """A folder of artifacts, and of the states of those that are being made.

    Attributes:
        folder: Made when first written to.
    """

    folder: Path

    def path(self, spec: ArtifactSpec) -> Path:
        """File of a finished artifact."""
        return self.folder / f"{spec.key}.safetensors"

    def state_path(self, spec: ArtifactSpec) -> Path:
        """File of the state of one that is being made."""
        return self.folder / f"{spec.key}.state.safetensors"

    def keep(self, spec: ArtifactSpec, kept: ArtifactFile, *, expected: str = "") -> None:
        """Puts a finished artifact in its place.

        Args:
            spec: How it was made.
            kept: Weights, note and report.
            expected: Digest that its weights must have, where it was made before.

        Raises:
            StoreError: If it cannot be written, or has another digest.
        """
        require_digest(kept, expected, where=str(self.path(spec)), remedy=MADE_AGAIN)
        self._write(self.path(spec), spec, kept)

    def load(self, spec: ArtifactSpec, *, like: Arrays, expected: str = "") -> ArtifactFile | None:
        """The finished artifact, or ``None`` where there is none.

        Args:
            spec: How it is made.
            like: Arrays of the names, shapes and types it must have.
            expected: Digest that its weights must have, where it is known.

        Raises:
            FileFormatError: If the file is damaged, of something else, or does not bear the mark of the user's key
                while no digest is expected.
            StoreError: If it is sound but has another digest.
        """
        kept = self._read(self.path(spec), spec, like, known=bool(expected))
        if kept is not None:
            require_digest(kept, expected, where=str(self.path(spec)), remedy=_OTHER_FILE)
        return kept

    def keep_state(self, spec: ArtifactSpec, kept: ArtifactFile) -> None:
        """Puts the state of a training in the place of the one before.

        Raises:
            StoreError: If it cannot be written; the one before is then still there.
        """
        self._write(self.state_path(spec), spec, kept)

    def load_state(self, spec: ArtifactSpec, *, like: Arrays) -> ArtifactFile | None:
        """The state that a training was last kept in, or ``None`` where there is none.

        Raises:
            FileFormatError: If the file is damaged, of something else, or does not bear the mark of the user's key.
        """
        return self._read(self.state_path(spec), spec, like, known=False)

    def drop_state(self, spec: ArtifactSpec) -> None:
        """Removes the state of a training that is finished."""
        with contextlib.suppress(OSError):
            self.state_path(spec).unlink()

    @contextlib.contextmanager
    def lock(self, spec: ArtifactSpec) -> Generator[None]:
        """A block in which no other process or thread makes this artifact: they wait until it is left.

        Raises:
            StoreError: If the folder cannot be written to.
        """
        from filelock import FileLock  # torch brings it

        path = self.folder / "locks" / f"{spec.key}.lock"
        with contextlib.ExitStack() as held:
            with _written(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(path))
            yield

    def set_aside(self, path: Path) -> Path:
        """Gives a file that cannot be used another name, so that one can be made in its place.

        Returns:
            Where it is now, if another process did not move it first.

        Raises:
            StoreError: If it cannot be moved.
        """
        aside = path.with_name(f"{path.name}.unusable-{secrets.token_hex(4)}")
        try:
            with contextlib.suppress(FileNotFoundError):
                os.replace(path, aside)
        except OSError as error:
            raise StoreError(
                "An artifact that cannot be used cannot be moved out of the way either.",
                where=str(path),
                expected="a folder that can be written to",
                got=str(error),
                do="Move or delete it: it is then made again.",
            ) from error
        return aside

    def _write(self, path: Path, spec: ArtifactSpec, kept: ArtifactFile) -> None:
        from safetensors.numpy import save

        note = {"note": dict(kept.note), "key": spec.key, "digest": kept.whole, "mark": _marked(path, kept)}
        reports = {f"{REPORT}{name}": array for name, array in kept.report.items()}
        arrays = {name: np.asarray(array, order="C") for name, array in {**kept.arrays, **reports}.items()}
        data = save(arrays, {"note": json.dumps(note)})
        with _written(path):
            write_whole(path, data)

    def _read(self, path: Path, spec: ArtifactSpec, like: Arrays, *, known: bool) -> ArtifactFile | None:
        most = sum(array.nbytes for array in like.values()) + MOST_BESIDE
        try:
            with path.open("rb") as file:
                data = file.read(most + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unusable(path, "a file that can be read", str(error)) from error
        if len(data) > most:
            raise _unusable(path, f"at most {most:,} bytes", "more")
        kept, key, written, marked = _parsed(path, data)
        if key != spec.key:
            raise _unusable(path, f"the artifact {spec.key}", str(key)[:80])
        _require_like(path, kept.arrays, like)
        if not kept.finite:
            raise _unusable(path, "finite numbers", "others")
        if kept.whole != written:
            raise _unusable(path, "the contents that were written", "others")
        if not known and marked != _marked(path, kept):
            raise _unusable(path, "one that this user made", "the mark of another key, or none")
        return kept


def _marked(path: Path, kept: ArtifactFile) -> str:
    """The mark of the user's key on these contents under this name: of this recipe, whole or a state of training."""
    return mark(bytes.fromhex(canon.digest("made", path.name.encode(), kept.whole.encode())), own_key()).hex()


_UNUSABLE: Final = "An artifact cannot be used."
_AGAIN: Final = "Delete the file: it is then made again."

MADE_AGAIN: Final = (
    "It was made on another machine or with another torch, whose last bits differ. Put back the file that the store's "
    "outcomes were measured on, or start a new store."
)
_OTHER_FILE: Final = "Put back the file that the store's outcomes were measured on, or start a new store."


def require_digest(kept: ArtifactFile, expected: str, *, where: str, remedy: str) -> None:
    """Raises ``StoreError`` if what was kept, or made again, is not what was measured under its name before."""
    if expected and kept.digest != expected:
        raise StoreError(
            "An artifact is not the one that was measured.",
            where=where,
            expected=f"digest {expected}",
            got=f"digest {kept.digest}",
            do=remedy,
        )


def _require_like(path: Path, found: Arrays, like: Arrays) -> None:
    for name in sorted({*found, *like}):
        wanted, got = (_described(arrays, name) for arrays in (like, found))
        if wanted != got:
            raise _unusable(path, f"{name}: {wanted}", got)


def _described(arrays: Arrays, name: str) -> str:
    return f"{arrays[name].dtype} {list(arrays[name].shape)}" if name in arrays else "nothing"


@contextlib.contextmanager
def _written(path: Path) -> Generator[None]:
    """A block in which what cannot be written becomes an error that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        raise StoreError(
            "An artifact cannot be written.",
            where=str(path),
            expected="room for it" if full else "a folder that can be written to",
            got=(error.got if isinstance(error, FileError) else error.strerror) or str(error),
            do="Free some space and run the same command again: training goes on from the last state that was kept."
            if full
            else "Name a folder that can be written to.",
        ) from error


def _unusable(path: Path, expected: str, got: str) -> FileFormatError:
    return FileFormatError(_UNUSABLE, where=str(path), expected=expected, got=got, do=_AGAIN)


def _parsed(path: Path, data: bytes) -> tuple[ArtifactFile, Any, Any, Any]:
    """What a file holds, the key it says it has, the digest, and the mark."""
    from safetensors.numpy import load

    with parsing(path, _UNUSABLE, expected="an artifact in safetensors", do=_AGAIN):
        arrays = load(data)
        header: Any = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        said: Any = json.loads(header["__metadata__"]["note"])
        note, key, written = dict(said["note"]), said["key"], said["digest"]
    if not all(isinstance(value, int | str) for value in note.values()):
        raise _unusable(path, "a note of whole numbers and words", "something else")
    report = {name.removeprefix(REPORT): array for name, array in arrays.items() if name.startswith(REPORT)}
    weights = {name: array for name, array in arrays.items() if not name.startswith(REPORT)}
    return ArtifactFile(weights, note, report), key, written, said.get("mark")
