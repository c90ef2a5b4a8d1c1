"""Pictures from files and by name: Picbreeder genomes, nets in .npz files, and the square that a net draws.

``picture:NAME`` and ``genome:FILE`` give a net and the square that it draws, ``npz:FILE#NAME`` a net alone. Files come
from strangers: no entities, no document types, no objects (pickles), nothing larger than it can be, nothing unpacked to
disk.
"""

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final
from xml.etree.ElementTree import TreeBuilder

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core import measure
from wheeltap.core.bounded import Archive, Npz, contents, opened
from wheeltap.core.errors import DataError, FileFormatError, MissingFile, UnknownName, UsageError, WheeltapError
from wheeltap.core.files import write_whole
from wheeltap.core.subject import Subject
from wheeltap.core.symmetry import mirror
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.models.cppn import MOST_PARAMETERS, OUTPUTS, Cppn, Layout, grid
from wheeltap.sources.base import DataSource, LoadedModel, ModelSource, Reader
from wheeltap.suites.pictures.nets.genome import MOST_LINKS, MOST_NODES, Genome, Key, Link, Node
from wheeltap.suites.pictures.nets.pictures import PICTURES, Picture, mirror_image, mirrored_share, picture
from wheeltap.suites.pictures.readings import drawing
from wheeltap.suites.pictures.specs import PICTURE_GRAPH, GraphSettings, as_bytes

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
    data = contents(path, "genome", limit=MOST_BYTES, do="wheeltap fer --help")
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


def _node(element: "Element", name: str) -> Node:
    kind = element.get("type", "")
    if kind not in ("in", "hidden", "out"):
        raise FileFormatError("A node is of no known type.", where=name, expected="in, hidden or out", got=kind)
    function = _text(element, "activation", name).removesuffix("(x)")
    return Node(
        _key(element, "marking", name),
        "identity" if kind == "in" else function,
        kind,
        element.get("label", ""),
    )


def _link(element: "Element", name: str) -> Link:
    text = _text(element, "weight", name)
    try:
        weight = float(text)
    except ValueError as error:
        raise FileFormatError("A weight is no number.", where=name, expected="a number", got=text[:40]) from error
    return Link(_key(element, "source", name), _key(element, "target", name), weight)


def _coloured(nodes: list[Node], links: list[Link]) -> tuple[list[Node], list[Link]]:
    """A grey genome made one with three outputs: hue and saturation are added, fed by a link of weight 0."""
    inks = [node for node in nodes if node.kind == "out" and node.label == INK]
    labels = {node.label for node in nodes if node.kind == "out"}
    if len(inks) != 1 or labels & set(OUTPUTS):
        return nodes, links
    ink = Node(inks[0].key, inks[0].activation, "out", "brightness")
    nodes = [ink if node is inks[0] else node for node in nodes]
    added = [Node(("added", label), "identity", "out", label) for label in OUTPUTS[:2]]
    return [*nodes, *added], [*links, *(Link(ink.key, node.key, 0.0) for node in added)]


MOST_NETS: Final = 64
LARGEST: Final = 1e6
"""Of a weight: beyond it every unit is saturated, and single precision overflows."""

MOST_ARCH: Final = 16_384
"""Bytes of ``arch``."""

FLOATS: Final = (2, 4, 8)
"""Bytes of a number: half, single or double precision."""


def read_nets(path: Path) -> dict[str, Cppn]:
    """The nets in a file: ``arch`` (a text such as ``12;cache:15,gaussian:4``), and one array of parameters for each.

    Args:
        path: An ``.npz`` file; parameters in the published order, layers sorted by name, each ``[in, out]`` row by row.

    Returns:
        Nets by the names of their arrays.

    Raises:
        MissingFile: If it is not there.
        FileFormatError: If it is no such file, an array has another number of parameters than the layout, there are
            too many of them, or a number is not finite or very large.
    """
    with Npz(path, "file of nets") as archive:
        nets = [name for name in archive.names if name != "arch"]
        layout = _layout(archive)
        whole = len(nets) * layout.parameters
        if not 1 <= len(nets) <= MOST_NETS or whole > MOST_PARAMETERS:
            wanted = f"1 to {MOST_NETS} arrays of parameters beside arch, {MOST_PARAMETERS:,} numbers at most in all"
            raise _unreadable(path, wanted, f"{len(nets)} of {layout.parameters:,} each")
        return {name: _net(archive, name, layout) for name in nets}


def _layout(archive: Npz) -> Layout:
    wanted = "a text arch and arrays of parameters"
    if "arch" not in archive.names:
        raise _unreadable(archive.path, wanted, "no arch")
    shape, dtype, _ = archive.header("arch")
    if shape != () or dtype.kind != "U" or dtype.itemsize > MOST_ARCH:
        raise _unreadable(archive.path, wanted, f"an arch of {dtype} {list(shape)}"[:80])
    text = str(archive.array("arch", dtype))
    try:
        return Layout.parse(text)
    except (UsageError, FileFormatError) as error:
        got = f"{ascii(text)[:80]} ({error.what})"
        raise _unreadable(archive.path, f"a net in arch: {error.expected}", got) from error


def _net(archive: Npz, name: str, layout: Layout) -> Cppn:
    wanted = f"{layout.parameters:,} floating-point numbers of at most {LARGEST:g} in {ascii(name)[1:80]}"
    shape, dtype, _ = archive.header(name)
    if dtype.kind != "f" or dtype.itemsize not in FLOATS or shape != (layout.parameters,):
        raise _unreadable(archive.path, wanted, f"{dtype} {list(shape)}"[:80])
    flat = archive.array(name, dtype)
    if not float(np.abs(flat).max()) <= LARGEST:  # written so that NaN fails
        raise _unreadable(archive.path, wanted, "NaN, infinite or larger numbers")
    return Cppn.of(layout, layout.split(flat))


def _unreadable(path: Path, expected: str, got: str) -> FileFormatError:
    return FileFormatError("The file holds no nets that can be read.", where=str(path), expected=expected, got=got)


SIZE: Final = 64
"""Side of the square where none is named."""

MIRRORED: Final = 0.75
"""Share of a genome's picture that must be its own mirror image before metrics ask for that symmetry; the published
skull has .86, the butterfly .92."""

BLANK: Final = 1.0 / 255.0
"""A picture whose colors differ by less is blank: no screen shows it."""


def picture_named(kind: str, rest: str) -> Picture:
    """The picture that ``picture:NAME`` or ``genome:FILE`` names, with what there is to say of its symmetry.

    Raises:
        UnknownName: If there is no picture of this name.
        WheeltapError: If the genome cannot be read.
    """
    if kind == "picture":
        return picture(rest)
    path = Path(rest).expanduser()
    if rest in PICTURES and not path.exists():
        raise UsageError(
            "There is no genome at this path, but a built-in picture of that name.",
            got=rest,
            do=f"wheeltap fer --picture {rest}",
        )
    found = read_genome(path)
    layout, said = found.layerize().layout, known_symmetry(found)
    about = (
        f"The picture of {path.name}: {len(found.layerize().links())} links, laid out as {layout.layers} layers of "
        f"{layout.width} units. {said}"
    )
    return Picture(found.name, about, found, {}, mirror_image if is_mirrored(found) else None)


def is_mirrored(genome: Genome) -> bool:
    """Whether enough of a genome's picture is its own mirror image.

    Nobody knows beforehand what a genome draws: to ask of a lopsided picture whether its changes are mirror images
    would be to ask for a symmetry that is not there.
    """
    return mirrored_share(genome) >= MIRRORED


def known_symmetry(genome: Genome) -> str:
    """One sentence on how much of a genome's picture is its own mirror image, and what follows."""
    share = mirrored_share(genome)
    if is_mirrored(genome):
        return f"{100 * share:.0f} % of the picture is its own mirror image: metrics ask for this symmetry."
    # Rounded down, so that it never reads as what was asked for.
    return (
        f"Only {int(100 * share)} % of the picture is its own mirror image ({100 * MIRRORED:.0f} % are needed): "
        "metrics of symmetry are left out."
    )


def task_named(kind: str, rest: str) -> Task:
    """The square picture that ``picture:NAME,SIZE`` or ``genome:FILE,SIZE`` names.

    Inputs are what a net reads at each pixel, targets the colors there. Parts that are known are its behaviors, and
    a symmetry that acts on the pixels is its own.

    Raises:
        UsageError: If a part has no pixel of this size.
        DataError: If the picture is blank.
    """
    name, comma, asked = rest.rpartition(",")
    whole = bool(comma) and asked.isdigit()
    drawn, size = picture_named(kind, name if whole else rest), int(asked) if whole else SIZE
    drawn.require_parts(size)
    colors = drawn.genome.render(size)
    if float(np.ptp(colors.reshape(-1, colors.shape[-1]), axis=0).max()) < BLANK:
        raise DataError(
            "The picture is blank.",
            where=drawn.name,
            expected="something that a net can draw",
            got="one color everywhere",
            do="Look at the genome: a net with no links, or with weights of 0, draws nothing.",
        )
    inputs, target = grid(size), to_tensor(colors).view(-1, 3)
    name = f"{drawn.name}, {size} x {size} pixels"
    task = Task(inputs, target, measure=measure.squared_error, batch=len(inputs), name=name)
    if drawn.parts:
        task = task.with_behaviors(drawn.masks(size).argmax(0))
    return task.with_symmetry(mirror(inputs[:, :2])) if drawn.symmetric is mirror_image else task


def net_named(kind: str, rest: str) -> Cppn:
    """The net that ``picture:NAME``, ``genome:FILE`` or ``npz:FILE#NAME`` names.

    Raises:
        UnknownName: If there is none of this name.
        WheeltapError: If a file cannot be read.
    """
    if kind != "npz":
        return picture_named(kind, rest).genome.layerize()
    path, mark, name = rest.rpartition("#")
    nets = read_nets(Path(path if mark else rest).expanduser())
    if not mark and len(nets) == 1:
        return next(iter(nets.values()))
    if not mark or name not in nets:
        raise UnknownName("net", name if mark else "", nets)
    return nets[name]


class _Drawn(ModelSource):
    """A net that draws, with the square picture that it draws."""

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        kind = self.form.partition(":")[0]
        own = None if kind == "npz" else partial(task_named, kind, rest)
        return LoadedModel(Subject(net_named(kind, rest).eval(), name=name), own)


@final
class PictureModels(_Drawn):
    """See ``net_named``."""

    form = "picture:NAME"
    title = "The net of a built-in picture; ,SIZE behind the name is the side of its square."


@final
class GenomeModels(_Drawn):
    """See ``net_named``."""

    form = "genome:FILE"
    title = "The net of a Picbreeder genome, XML or a zip file with it; ,SIZE as of picture."


@final
class NetFiles(_Drawn):
    """See ``net_named``."""

    form = "npz:FILE#NAME"
    title = "One of the layered nets that an .npz file holds with their layout."


class _Squares(DataSource):
    """The square picture, pixel by pixel."""

    def load(self, rest: str, reader: Reader) -> Task:
        """See ``DataSource.load``."""
        return task_named(self.form.partition(":")[0], rest)


@final
class PictureData(_Squares):
    """See ``task_named``."""

    form = "picture:NAME"
    title = "The pixels of a built-in picture; ,SIZE behind the name is the side of its square."


@final
class GenomeData(_Squares):
    """See ``task_named``."""

    form = "genome:FILE"
    title = "The pixels of the picture of a Picbreeder genome; ,SIZE as of picture."


@final
class PictureGraph(Reading):
    """How far a layered net is from the graph it was laid out from, and what is known of that graph.

    Both are computed in double precision, and the graph with its weights rounded as the net holds them: in single
    precision, a sound net of a deep genome may differ from its graph by more than a wrong net of a shallow one.
    """

    spec = PICTURE_GRAPH
    settings: GraphSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """Two passes.

        Raises:
            ModelError: If the subject draws no picture.
            WheeltapError: If there is no such graph.
        """
        net = drawing(subject)
        kind, _, rest = self.settings.source.partition(":")
        drawn = picture_named(kind, rest)
        gap, rmse = gaps(drawn.genome, net, size=self.settings.size)
        factors, folds = drawn.genome.factors(), 0
        if drawn.symmetric is not None and drawn.symmetric is not mirror_image:
            folds = drawn.symmetric(8)[1].order // 2  # turns, where the symmetry is more than one mirror
        values: dict[str, NDArray[Any]] = {
            "strongest": np.array(np.count_nonzero(net.flat_parameters())),
            "folds": np.array(folds),
            "about": np.array(as_bytes(drawn.about)),
        }
        if factors:
            values["factor"] = np.array([(at, *net.layout.address(at)) for at in factors])
            values["factors"] = np.array(as_bytes("\n".join(factors.values())))
        values |= {name: np.array(value) for name, value in (("gap", gap), ("rmse", rmse)) if np.isfinite(value)}
        return Readings(values, forwards=2.0)


def gaps(genome: Genome, net: Cppn, *, size: int) -> tuple[float, float]:
    """How far a layered net is from its graph: in double precision, and as it is.

    The first is the largest difference in hue, saturation or brightness at any pixel, as a share of the largest value
    that this has in the picture where that is above 1; the second the root mean square of the difference in color.
    """
    pixels = grid(size).double()
    with torch.no_grad():
        graph, layered = _as_held(genome).evaluate(pixels), net.precise().hsv(pixels)
        gap = float(((layered - graph).abs() / graph.abs().amax(0).clamp(min=1.0)).max())
        single = to_array(net(grid(size))) - genome.render(size).reshape(-1, len(OUTPUTS))
    return gap, float(np.sqrt(np.square(single, dtype=np.float64).mean()))


def _as_held(genome: Genome) -> Genome:
    """The graph with its weights as the layered net holds them: of all links between two nodes together, rounded."""
    total: dict[tuple[Key, Key], float] = {}
    links = [(link.source, link.target) for link in genome.links]
    for ends, link in zip(links, genome.links, strict=True):
        total[ends] = total.get(ends, 0.0) + link.weight
    count = Counter(links)
    rounded = {ends: float(np.float32(weight)) / count[ends] for ends, weight in total.items()}
    return Genome(genome.nodes, [Link(*ends, weight=rounded[ends]) for ends in links], name=genome.name)


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
