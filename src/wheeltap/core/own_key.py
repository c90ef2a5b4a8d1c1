"""The user's own key: what bears its mark was written by someone who has it, not by whoever can write files."""

import contextlib
import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from wheeltap.core.errors import StoreError
from wheeltap.core.files import beside, give_name

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
