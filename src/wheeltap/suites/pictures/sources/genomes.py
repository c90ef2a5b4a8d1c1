"""Picbreeder genomes: from XML, plain or in a zip file; the three of the paper, fetched and checked by digest.

A genome comes from strangers: no entities, no document types, nothing larger than a genome can be, nothing unpacked
to disk. Nothing but ``fetch`` opens a connection.

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
from typing import TYPE_CHECKING, Final, final
from xml.etree.ElementTree import TreeBuilder

from wheeltap.core.bounded import Archive, contents, opened
from wheeltap.core.errors import FileFormatError, MissingFile, UnknownName, UsageError, WheeltapError
from wheeltap.core.files import write_whole
from wheeltap.models.cppn import OUTPUTS
from wheeltap.suites.pictures.nets.genome import MOST_LINKS, MOST_NODES, Genome, GenomeLink, GenomeNode

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MOST_BYTES: Final = 4 * 2**20
"""Of the file, and of the XML in it; the largest published genome has 79 kB."""

MOST_ELEMENTS: Final = 150_000
"""Of the XML: as many as fit in a genome of that size."""

INK: Final = "ink"
"""The one output of a grey genome: its brightness."""


def read_genome(path: str | os.PathLike[str]) -> Genome:
    """The genome in a file: XML, or a zip file that holds it.

    Args:
        path: Of the file.

    Raises:
        MissingFile: If it is not there.
        FileFormatError: If it is too large, damaged, hostile, or holds no genome.
        DataError: If the genome is not a sound network.
        UnknownName: If an activation is not known.
    """
    path = Path(path)
    data = contents(path, "genome", limit=MOST_BYTES, do="wheeltap study pictures --help")
    if data[:2] == b"PK":
        with Archive(path, "genome") as archive:
            members = [name for name, member in archive.members.items() if not member.is_dir()]
            if len(members) != 1:
                what, got = "The file is not a genome.", f"{len(members)} members"
                raise FileFormatError(what, where=str(path), expected="a zip file with one member", got=got)
            data = archive.member(members[0], limit=MOST_BYTES)
    try:
        return parse_genome(data, name=path.stem)
    except WheeltapError as error:
        inside = error.where not in (None, path.stem)
        raise error.at(f"{path}: {error.where}" if inside else str(path)) from error


@final
class _Builder(TreeBuilder):
    """Builds the tree of elements, and stops where there are more than a genome can have."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name, self._left = name, MOST_ELEMENTS

    def start(self, tag: str, attrs: "dict[str, str]", /) -> "Element":
        """Opens an element.

        Raises:
            FileFormatError: If it is one too many.
        """
        self._left -= 1
        if self._left < 0:
            raise FileFormatError(
                "The file has more elements than a genome can have.",
                where=self._name,
                expected=f"at most {MOST_ELEMENTS:,}",
                got="more",
            )
        return super().start(tag, attrs)


def parse_genome(data: bytes, *, name: str = "genome") -> Genome:
    """The genome in XML text.

    Raises:
        FileFormatError: If it is no genome.
        DataError: If it is no sound network.
    """
    from defusedxml.common import DefusedXmlException
    from defusedxml.ElementTree import DefusedXMLParser, ParseError

    try:
        parser = DefusedXMLParser(target=_Builder(name), forbid_dtd=True)
        parser.feed(data)
        root: Element = parser.close()
    except DefusedXmlException as error:
        raise FileFormatError(
            "The file has a document type or entities, which no genome needs.",
            where=name,
            expected="plain XML",
            got=type(error).__name__,
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise FileFormatError(
            "The file is not XML.", where=name, expected="a Picbreeder genome", got=str(error)
        ) from error
    genome = root if root.tag == "genome" else root.find("genome")
    if genome is None:
        raise FileFormatError(
            "The file holds no genome.", where=name, expected="<genome> at the top or below <data>", got=f"<{root.tag}>"
        )
    nodes = [_node(element, name) for element in _several(genome, "nodes/node", MOST_NODES, name)]
    links = [_link(element, name) for element in _several(genome, "links/link", MOST_LINKS, name)]
    return Genome(*_coloured(nodes, links), name=name)


def _several(genome: "Element", path: str, most: int, name: str) -> "list[Element]":
    found = genome.findall(path)
    if not 1 <= len(found) <= most:
        raise FileFormatError(
            f"The genome has no {path} that can be read.",
            where=name,
            expected=f"1 to {most:,} of them",
            got=f"{len(found):,}",
        )
    return found


def _key(parent: "Element", tag: str, name: str) -> tuple[str, str]:
    """Branch and id, both: ids alone are not unique."""
    found = parent.find(tag)
    branch, number = (None, None) if found is None else (found.get("branch"), found.get("id"))
    if branch is None or number is None:
        raise FileFormatError(
            f"A <{parent.tag}> of the genome has no <{tag}> with branch and id.", where=name, expected="both"
        )
    return branch, number


def _text(parent: "Element", tag: str, name: str) -> str:
    found = parent.find(tag)
    if found is None or not (found.text or "").strip():
        raise FileFormatError(f"A <{parent.tag}> of the genome has no <{tag}>.", where=name, expected="one with text")
    return (found.text or "").strip()


def _node(element: "Element", name: str) -> GenomeNode:
    kind = element.get("type", "")
    if kind not in ("in", "hidden", "out"):
        raise FileFormatError("A node is of no known type.", where=name, expected="in, hidden or out", got=kind)
    function = _text(element, "activation", name).removesuffix("(x)")
    return GenomeNode(
        _key(element, "marking", name),
        "identity" if kind == "in" else function,
        kind,
        element.get("label", ""),
    )


def _link(element: "Element", name: str) -> GenomeLink:
    text = _text(element, "weight", name)
    try:
        weight = float(text)
    except ValueError as error:
        raise FileFormatError("A weight is no number.", where=name, expected="a number", got=text[:40]) from error
    return GenomeLink(_key(element, "source", name), _key(element, "target", name), weight)


def _coloured(nodes: list[GenomeNode], links: list[GenomeLink]) -> tuple[list[GenomeNode], list[GenomeLink]]:
    """A grey genome made one with three outputs: hue and saturation are added, fed by a link of weight 0."""
    inks = [node for node in nodes if node.kind == "out" and node.label == INK]
    labels = {node.label for node in nodes if node.kind == "out"}
    if len(inks) != 1 or labels & set(OUTPUTS):
        return nodes, links
    ink = GenomeNode(inks[0].key, inks[0].activation, "out", "brightness")
    nodes = [ink if node is inks[0] else node for node in nodes]
    added = [GenomeNode(("added", label), "identity", "out", label) for label in OUTPUTS[:2]]
    return [*nodes, *added], [*links, *(GenomeLink(ink.key, node.key, 0.0) for node in added)]


REPOSITORY: Final = "https://github.com/akarshkumar0101/fer"
BASE: Final = (
    "https://raw.githubusercontent.com/akarshkumar0101/fer/67c270c197d8243435d6a9ad036e26c9c5e3712d/picbreeder_genomes"
)
WAIT: Final = 20.0
"""Seconds to wait for an answer, or for more of it."""


@final
@dataclass(frozen=True)
class PublishedGenome:
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
        PublishedGenome("skull", 1_817, "63adfccc384d6fb48c79719c9336483c478839e1fc4773f289d3aee9fefaabb2"),
        PublishedGenome("butterfly", 3_017, "62df8bf336617ffbcf1a981a70d31378453e806efdd1850f4d394da88b106610"),
        # Only the length and eight digits were at hand: enough against a mix-up, not against somebody who forges it.
        # A genome is read as a stranger's file in any case.
        PublishedGenome("apple", 6_632, "2a81d8ce"),
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
                try:
                    write_whole(path, data)
                except OSError as error:
                    raise UsageError(
                        "The folder for the genomes cannot be used.",
                        where=str(path),
                        expected="a folder that can be read and written",
                        got=error.strerror or str(error),
                        do="Choose another folder with --out.",
                    ) from error
        paths.append(path)
    return paths


def _is_there(genome: PublishedGenome, path: Path) -> bool:
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


def _downloaded(genome: PublishedGenome, address: str) -> bytes:
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
