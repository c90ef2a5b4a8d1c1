"""Nets from ``.npz`` files, pictures by name, and the square that a net draws; the graph that it was laid out from.

``picture:NAME`` and ``genome:FILE`` give a net and the square that it draws, ``npz:FILE#NAME`` a net alone. A file
comes from strangers: it holds arrays, never objects (pickles). Layout and headers are read first, and say how many
bytes the numbers may be; nothing larger is unpacked.
"""

from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core import measure
from wheeltap.core.bounded import Npz
from wheeltap.core.errors import DataError, FileFormatError, UnknownName, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.symmetry import mirror
from wheeltap.core.task import BaseTask, Task
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.models.cppn import MOST_PARAMETERS, OUTPUTS, Cppn, Layout, grid
from wheeltap.sources.base import DataSource, ExampleReader, LoadedModel, ModelSource
from wheeltap.suites.pictures.nets.genome import Genome, GenomeLink, Key
from wheeltap.suites.pictures.nets.pictures import PICTURES, KnownPicture, mirror_image, mirrored_share, picture
from wheeltap.suites.pictures.readings import drawing
from wheeltap.suites.pictures.sources.genomes import read_genome
from wheeltap.suites.pictures.specs import PICTURE_GRAPH, GraphSettings, as_bytes

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


def picture_named(kind: str, rest: str) -> KnownPicture:
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
            do=f"wheeltap study pictures --picture {rest}",
        )
    found = read_genome(path)
    net, share = found.layerize(), mirrored_share(found)
    # Nobody knows beforehand what a genome draws: to ask of a lopsided picture whether its changes are mirror images
    # would be to ask for a symmetry that is not there.
    mirrored = share >= MIRRORED
    said = (
        f"{100 * share:.0f} % of the picture is its own mirror image: metrics ask for this symmetry."
        if mirrored  # else rounded down, so that it never reads as what was asked for
        else f"Only {int(100 * share)} % of the picture is its own mirror image ({100 * MIRRORED:.0f} % are needed): "
        "metrics of symmetry are left out."
    )
    about = (
        f"The picture of {path.name}: {len(net.links())} links, laid out as {net.layout.layers} layers of "
        f"{net.layout.width} units. {said}"
    )
    return KnownPicture(found.name, about, found, mirror_image if mirrored else None)


def task_named(kind: str, rest: str) -> Task:
    """The square picture that ``picture:NAME,SIZE`` or ``genome:FILE,SIZE`` names.

    Inputs are what a net reads at each pixel, targets the colors there. A symmetry that acts on the pixels is its own.

    Raises:
        DataError: If the picture is blank.
    """
    name, comma, asked = rest.rpartition(",")
    whole = bool(comma) and asked.isdigit()
    drawn, size = picture_named(kind, name if whole else rest), int(asked) if whole else SIZE
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


class PictureModels(ModelSource):
    """A net that draws, with the square picture that it draws; see ``net_named``."""

    form = "picture:NAME"
    title = "The net of a built-in picture; ,SIZE behind the name is the side of its square."

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        kind = self.form.partition(":")[0]
        own = None if kind == "npz" else partial(task_named, kind, rest)
        return LoadedModel(Subject(net_named(kind, rest).eval(), name=name), own)


@final
class GenomeModels(PictureModels):
    """The same of a genome."""

    form = "genome:FILE"
    title = "The net of a Picbreeder genome, XML or a zip file with it; ,SIZE as of picture."


@final
class NetFiles(PictureModels):
    """The same of a file of nets, without a picture."""

    form = "npz:FILE#NAME"
    title = "One of the layered nets that an .npz file holds with their layout."


class PictureData(DataSource):
    """The square picture, pixel by pixel; see ``task_named``."""

    form = "picture:NAME"
    title = "The pixels of a built-in picture; ,SIZE behind the name is the side of its square."

    def load(self, rest: str, reader: ExampleReader) -> Task:
        """See ``DataSource.load``."""
        return task_named(self.form.partition(":")[0], rest)


@final
class GenomeData(PictureData):
    """The same of a genome."""

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
    return Genome(genome.nodes, [GenomeLink(*ends, weight=rounded[ends]) for ends in links], name=genome.name)
