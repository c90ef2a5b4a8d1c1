"""The three genomes of the paper, fetched from its authors' public repository and checked by digest.

Nothing else in wheeltap opens a connection; this does so only when called.

Source: Kumar et al. 2025, arXiv:2505.11581; https://github.com/akarshkumar0101/fer (Apache-2.0, data included).
"""

import errno
import hashlib
import http.client
import io
import os
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast, final

from wheeltap.core.errors import FileFormatError, MissingFile, UnknownName, UsageError

REPOSITORY: Final = "https://github.com/akarshkumar0101/fer"
BASE: Final = (
    "https://raw.githubusercontent.com/akarshkumar0101/fer/67c270c197d8243435d6a9ad036e26c9c5e3712d/picbreeder_genomes"
)
LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")
"""Hosts that may be asked without encryption: a mirror on this machine."""

WAIT: Final = 20.0
"""Seconds to wait for an answer, or for more of it."""


@final
@dataclass(frozen=True)
class Published:
    """A file of the paper.

    Attributes:
        name: What it is called by; the file is ``name.zip``.
        size: Bytes.
        sha256: Its digest in hexadecimal digits, or the first of them where no more are known.
    """

    name: str
    size: int
    sha256: str

    @property
    def file(self) -> str:
        """Name of the file, here and there."""
        return f"{self.name}.zip"

    def is_in(self, data: bytes) -> bool:
        """Whether these bytes are the file."""
        return len(data) == self.size and hashlib.sha256(data).hexdigest().startswith(self.sha256)


PUBLISHED: Final = {
    each.name: each
    for each in (
        Published("skull", 1_817, "63adfccc384d6fb48c79719c9336483c478839e1fc4773f289d3aee9fefaabb2"),
        Published("butterfly", 3_017, "62df8bf336617ffbcf1a981a70d31378453e806efdd1850f4d394da88b106610"),
        # Only the length and eight digits were at hand: enough against a mix-up, not against somebody who forges it.
        # A genome is read as a stranger's file in any case.
        Published("apple", 6_632, "2a81d8ce"),
    )
}


def fetch(
    folder: str | os.PathLike[str],
    *,
    names: Sequence[str] = tuple(PUBLISHED),
    base: str = BASE,
    patience: float = 60.0,
) -> list[Path]:
    """The files of these genomes in a folder, downloaded where they are not there yet.

    Nothing is written that was not checked, and no file that is there is ever replaced.

    Args:
        folder: Where to; made where missing.
        names: Which: ``skull``, ``butterfly``, ``apple``.
        base: Address of the folder with the files, for a mirror.
        patience: Seconds that one file may take in all, from the first byte on.

    Raises:
        UnknownName: If there is no such genome.
        UsageError: If ``base`` is not https, or the folder cannot be written to.
        MissingFile: If the address does not answer or does not have the file.
        FileFormatError: If what came, or what is there already, is another file.
    """
    for name in names:
        if name not in PUBLISHED:
            raise UnknownName("published genome", name, PUBLISHED)
    _require_safe(base)
    wanted = [(PUBLISHED[name], Path(folder) / PUBLISHED[name].file) for name in dict.fromkeys(names)]
    missing = [(genome, path) for genome, path in wanted if not _is_there(genome, path)]
    for genome, path in missing:
        data = _downloaded(genome, f"{base.rstrip('/')}/{genome.file}", patience=patience)
        if not _write(path, data):
            _is_there(genome, path)  # somebody else put a file there meanwhile: it stays, and must be the same
    return [path for _, path in wanted]


def _require_safe(base: str) -> None:
    """Only https, and http to this machine itself."""
    try:
        parts = urllib.parse.urlsplit(base)
        safe = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    except ValueError:
        safe = False
    if not safe:
        raise UsageError(
            "Genomes are fetched over https only.", expected="an address that begins with https://", got=base[:200]
        )


def _is_there(genome: Published, path: Path) -> bool:
    """Whether the file is there already.

    Raises:
        FileFormatError: If another file is there under its name.
        UsageError: If it cannot be read.
    """
    if not (path.exists() or path.is_symlink()):
        return False
    try:
        with path.open("rb") as stream:
            found = stream.read(genome.size + 1)
    except OSError as error:
        raise _unusable(path, error) from error
    if not genome.is_in(found):
        raise FileFormatError(
            "Another file of this name is there; it is left as it is.",
            where=str(path),
            expected=_described(genome, genome.size, genome.sha256),
            got=_described(genome, path.stat().st_size, hashlib.sha256(found).hexdigest()),
            do="Move it away, or fetch into another folder with --out.",
        )
    return True


def _described(genome: Published, size: int, digest: str) -> str:
    return f"{size:,} bytes, SHA-256 {digest[: len(genome.sha256)]}" if size <= genome.size else f"{size:,} bytes"


def _opener(host: str | None) -> urllib.request.OpenerDirector:
    """Opens http and https and nothing else; a redirect is an error, so that no answer leads elsewhere."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({} if host in LOOPBACK else None),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _downloaded(genome: Published, address: str, *, patience: float) -> bytes:
    """The bytes at an address, checked."""
    request = urllib.request.Request(address, headers={"User-Agent": "wheeltap"})  # noqa: S310 (https only, see above)
    try:
        with _opener(urllib.parse.urlsplit(address).hostname).open(request, timeout=WAIT) as response:
            data = _read(cast("http.client.HTTPResponse", response), genome.size + 1, patience=patience)
    except (OSError, http.client.HTTPException) as error:
        raise _unanswered(genome, address, error) from error
    if genome.is_in(data):
        return data
    raise FileFormatError(
        "What was downloaded is not the published genome; nothing was written.",
        where=address,
        expected=_described(genome, genome.size, genome.sha256),
        got=f"more than {genome.size:,} bytes"
        if len(data) > genome.size
        else _described(genome, len(data), hashlib.sha256(data).hexdigest()),
        do="Try again; if it stays so, a proxy or mirror on the way gives another file.",
    )


def _read(response: http.client.HTTPResponse, most: int, *, patience: float) -> bytes:
    """Up to ``most`` bytes; a server that sends them one by one is not waited for.

    Raises:
        TimeoutError: If it takes too long in all.
    """
    end, data = time.monotonic() + patience, bytearray()
    while len(data) < most:
        more = response.read1(most - len(data))
        if not more:
            break
        data += more
        if time.monotonic() > end:
            raise TimeoutError(f"no end after {patience:g} seconds")
    return bytes(data)


def _unanswered(genome: Published, address: str, error: Exception) -> MissingFile:
    got = str(error.reason) if isinstance(error, urllib.error.URLError) else str(error) or type(error).__name__
    if isinstance(error, urllib.error.HTTPError):
        got = f"HTTP {error.code} {error.reason}"
        error.close()
    return MissingFile(
        f"The genome {genome.name} could not be fetched.",
        where=address,
        expected=f"{genome.size:,} bytes",
        got=got,
        do=f"Check the connection, or take picbreeder_genomes/{genome.file} from {REPOSITORY} by hand.",
    )


def _unusable(path: Path, error: OSError) -> UsageError:
    return UsageError(
        "The folder for the genomes cannot be used.",
        where=str(path),
        expected="a folder that can be read and written",
        got=error.strerror or str(error),
        do="Choose another folder with --out.",
    )


def _write(path: Path, data: bytes) -> bool:
    """Makes a file, unless there is one of this name: then that one stays, and the answer is no."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error
    try:
        # Made and opened in one step of the file system. (To move a finished file here would replace what is there.)
        with path.open("xb", buffering=0) as stream:
            _fill(stream, path, data)
    except FileExistsError:
        return False
    except OSError as error:
        raise _unusable(path, error) from error
    return True


def _fill(stream: io.FileIO, path: Path, data: bytes) -> None:
    """Whole or not at all: where there is no room for the rest, the file that was just made is taken away."""
    try:
        if stream.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
