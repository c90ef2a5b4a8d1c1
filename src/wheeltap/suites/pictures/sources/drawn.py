"""Pictures as sources: ``picture:NAME`` and ``genome:FILE`` give a net and the square that it draws.

``npz:FILE#NAME`` gives a net alone.
"""

from functools import partial
from pathlib import Path
from typing import Final, final

import numpy as np

from wheeltap.core import measure
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.symmetry import mirror
from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor
from wheeltap.models.cppn import Cppn, grid
from wheeltap.sources.base import DataSource, LoadedModel, ModelSource, Reader
from wheeltap.suites.pictures.nets.genome import Genome
from wheeltap.suites.pictures.nets.pictures import PICTURES, Picture, mirror_image, mirrored_share, picture
from wheeltap.suites.pictures.sources import genomes
from wheeltap.suites.pictures.sources.nets import read_nets

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
    found = genomes.read(path)
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
