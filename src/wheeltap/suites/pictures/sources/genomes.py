"""Picbreeder genomes: from XML, plain or in a zip file.

A genome comes from strangers: no entities, no document types, nothing larger than a genome can be, nothing unpacked
to disk.

Source: Kumar et al. 2025, arXiv:2505.11581; https://github.com/akarshkumar0101/fer (Apache-2.0, data included).
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, final
from xml.etree.ElementTree import TreeBuilder

from wheeltap.core.bounded import Archive, contents
from wheeltap.core.errors import FileFormatError, WheeltapError
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
