"""The three genomes of the paper, fetched from its authors' public repository and checked by digest.

Nothing else in wheeltap opens a connection; this does so only when called.

Source: Kumar et al. 2025, arXiv:2505.11581; https://github.com/akarshkumar0101/fer (Apache-2.0, data included).
"""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from wheeltap.core.bounded import opened
from wheeltap.core.errors import FileFormatError, MissingFile, UnknownName, UsageError
from wheeltap.core.files import write_whole

REPOSITORY: Final = "https://github.com/akarshkumar0101/fer"
BASE: Final = (
    "https://raw.githubusercontent.com/akarshkumar0101/fer/67c270c197d8243435d6a9ad036e26c9c5e3712d/picbreeder_genomes"
)
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

    def __str__(self) -> str:
        return f"{self.size:,} bytes, SHA-256 {self.sha256}"

    def other(self, data: bytes) -> str:
        """What these bytes are instead, of which one more was read than the file has."""
        if len(data) > self.size:
            return f"more than {self.size:,} bytes"
        return f"{len(data):,} bytes, SHA-256 {hashlib.sha256(data).hexdigest()[: len(self.sha256)]}"


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


def fetch(folder: str | os.PathLike[str], *, names: Sequence[str] = tuple(PUBLISHED), base: str = BASE) -> list[Path]:
    """The files of these genomes in a folder, downloaded where they are not there yet.

    Nothing is written that was not checked, and no file that is there is replaced.

    Args:
        folder: Where to; made where missing.
        names: Which: ``skull``, ``butterfly``, ``apple``.
        base: Address of the folder with the files.

    Raises:
        UnknownName: If there is no such genome.
        UsageError: If the folder cannot be used.
        MissingFile: If the address does not answer or does not have the file.
        FileFormatError: If what came, or what is there already, is another file.
    """
    for name in names:
        if name not in PUBLISHED:
            raise UnknownName("published genome", name, PUBLISHED)
    paths: list[Path] = []
    for genome in (PUBLISHED[name] for name in dict.fromkeys(names)):
        path = Path(folder) / genome.file
        if not _is_there(genome, path):
            data = _downloaded(genome, f"{base}/{genome.file}")
            if not _is_there(genome, path):  # somebody else may have put a file there meanwhile: it stays
                _write(path, data)
        paths.append(path)
    return paths


def _is_there(genome: Published, path: Path) -> bool:
    """Whether the file is there already; an error if another one is, under its name."""
    if not (path.exists() or path.is_symlink()):
        return False
    with opened(path, "genome", do="Choose another folder with --out.") as stream:
        found = stream.read(genome.size + 1)
    if not genome.is_in(found):
        raise FileFormatError(
            "Another file of this name is there; it is left as it is.",
            where=str(path),
            expected=str(genome),
            got=genome.other(found),
            do="Move it away, or fetch into another folder with --out.",
        )
    return True


def _downloaded(genome: Published, address: str) -> bytes:
    """The bytes at an address, checked; no more are read than the file can have."""
    try:
        with urllib.request.urlopen(address, timeout=WAIT) as response:  # noqa: S310 (the address is ours, and https)
            data: bytes = response.read(genome.size + 1)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        raise MissingFile(
            f"The genome {genome.name} could not be fetched.",
            where=address,
            expected=f"{genome.size:,} bytes",
            got=str(error).removeprefix("<urlopen error ").removesuffix(">") or type(error).__name__,
            do=f"Check the connection, or take picbreeder_genomes/{genome.file} from {REPOSITORY} by hand.",
        ) from error
    if not genome.is_in(data):
        raise FileFormatError(
            "What was downloaded is not the published genome; nothing was written.",
            where=address,
            expected=str(genome),
            got=genome.other(data),
            do="Try again; if it stays so, a proxy or mirror on the way gives another file.",
        )
    return data


def _write(path: Path, data: bytes) -> None:
    try:
        write_whole(path, data)
    except OSError as error:
        raise _unusable(path, error) from error


def _unusable(path: Path, error: OSError) -> UsageError:
    return UsageError(
        "The folder for the genomes cannot be used.",
        where=str(path),
        expected="a folder that can be read and written",
        got=error.strerror or str(error),
        do="Choose another folder with --out.",
    )
