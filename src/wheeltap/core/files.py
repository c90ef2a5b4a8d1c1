"""Files written whole, the user's own key, and what lies beside a model's weights."""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wheeltap.core.errors import FileError, StoreError

if TYPE_CHECKING:
    from wheeltap.core.bounded import Tensor

Digests = dict[str, dict[str, str]]
"""By part and name. Parts are weights (files and tensors that the model does not load), tokenizer, template, config,
adapter, code and other."""


class Contents:
    """What lies beside the weights of a subject."""

    def digests(self) -> Digests:
        """A digest of each thing that the folder holds."""
        return {}

    def tensors(self) -> dict[str, tuple[Path, "Tensor"]]:
        """What safetensors files hold beside each other, by name: the file, and what its header says."""
        return {}


ODD_PATH: Final = (ValueError, RecursionError)
"""What Python fails with at a path with a NUL byte, and at thousands of folders."""


_UNNAMED: Final = int(getattr(os, "O_TMPFILE", 0))
_OPEN: Final = "/proc/self/fd"


def write_whole(target: Path, data: bytes) -> None:
    """Puts a file in its place in one step: a reader sees the old contents or the new ones, never half of them.

    A pipe or a device is written to: in its place would be a file.

    Raises:
        FileError: If it cannot be written; what was there stays as it was.
    """
    try:
        if os.path.exists(target) and not (os.path.isfile(target) or os.path.isdir(target)):
            target.write_bytes(data)
            return
        with beside(target) as (temporary, handle):
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
                give_name(file.fileno(), temporary)
            os.replace(temporary, target)
    except BrokenPipeError:
        raise
    except (OSError, *ODD_PATH) as error:
        raise FileError.of(
            error, target,
            what="The file could not be written.",
            do="Choose a path that can be written and give the command again: what was measured or trained is kept.",
        ) from error  # fmt: skip


@contextlib.contextmanager
def beside(target: Path) -> Generator[tuple[Path, int]]:
    """A new file beside ``target``, open for writing; gone afterwards unless it was put in the place of another.

    Where the system can, it has no name before ``give_name``: a process that is killed leaves nothing then. The folder
    is made where it is missing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # Drawn, not the number of the process: two containers on one volume may have the same.
    temporary = target.parent / f".{target.name}.{secrets.token_hex(6)}.tmp"
    # Not tempfile: its files are private to the user, and these may be shared (the umask decides).
    handle = -1
    if _UNNAMED and os.path.exists(_OPEN):
        with contextlib.suppress(OSError):  # not all file systems have such files
            handle = os.open(target.parent, os.O_WRONLY | _UNNAMED, 0o666)
    if handle < 0:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        yield temporary, handle
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def give_name(handle: int, temporary: Path) -> None:
    """Gives the open file of ``beside`` its name, where it has none yet."""
    if not temporary.exists():
        # A folder is named, though it plays no part, or Python would link the link and not the file.
        os.link(f"{_OPEN}/{handle}", temporary, src_dir_fd=handle)


VARIABLE: Final = "WHEELTAP_KEY"
"""Environment variable: a secret, for machines that keep none, such as those of CI."""

_LEAST: Final = 16
"""Characters of a key."""


def own_key() -> bytes:
    """The key: of the variable where that is set, else of a file that is made at first and is its owner's alone.

    Raises:
        StoreError: If others can read the file, it can be neither read nor made, or a key is too short to be one.
    """
    where, text = VARIABLE, os.environ.get(VARIABLE, "")
    if not text:
        import platformdirs

        path = Path(platformdirs.user_config_dir("wheeltap")) / "key"
        where, text = str(path), _kept(path)
    if len(text) < _LEAST:
        raise StoreError(
            "The key that stores are signed with is too short.",
            where=where,
            expected=f"at least {_LEAST} random characters",
            got=f"{len(text)}",
            do=f"Draw one: python -c 'import secrets; print(secrets.token_hex())', and set {VARIABLE} to it; or delete "
            "the file, and another is made.",
        )
    return hashlib.blake2b(text.encode(), digest_size=32, person=b"wheeltap key").digest()


def mark(digest: bytes, key: bytes) -> bytes:
    """128 bits that only who has the key can make of a digest.

    Source: RFC 7693 (2015), "The BLAKE2 cryptographic hash and message authentication code": keyed hashing.
    """
    return hashlib.blake2b(digest, key=key, digest_size=16, person=b"wheeltap mark").digest()


def _kept(path: Path) -> str:
    try:
        if not path.exists():
            with beside(path) as (temporary, handle), os.fdopen(handle, "w") as file:
                os.chmod(file.fileno(), 0o600)
                file.write(secrets.token_hex(32))
                file.flush()
                give_name(file.fileno(), temporary)
                with contextlib.suppress(FileExistsError):  # another process was faster: that one's it is
                    os.link(temporary, path)
        held, text = path.stat(), path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            "The key that stores are signed with cannot be read or made.",
            where=str(path),
            expected="a file in a folder that you may write",
            got=str(error),
            do=f"Set {VARIABLE} to a secret of {_LEAST} random characters or more.",
        ) from error
    if os.name == "posix" and (held.st_mode & 0o077 or held.st_uid != os.geteuid()):
        raise StoreError(
            "The key that stores are signed with is not yours alone.",
            where=str(path),
            expected=f"mode 0600 and owner {os.geteuid()}",
            got=f"mode {held.st_mode & 0o777:04o} and owner {held.st_uid}",
            do="If others read it, delete it: another is made, and what the old one signed is measured afresh.",
        )
    return text
