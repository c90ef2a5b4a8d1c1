"""What ``wheeltap fer`` does: reads the picture, carries out the study with progress, tells it."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wheeltap.cli.fer import Training, Written
from wheeltap.cli.telling import Telling, exit_code
from wheeltap.core.errors import UsageError
from wheeltap.fer.cast import Stage, StudySettings, Watch
from wheeltap.fer.study import study
from wheeltap.models.genome import Genome
from wheeltap.models.pictures import PICTURES, Picture, Symmetric, mirror_image, mirrored_share, picture
from wheeltap.recipes.paint import usable_threads
from wheeltap.report import fer, fer_text, files, jsonfile
from wheeltap.report.text import terminal
from wheeltap.sources import genomes
from wheeltap.sources.nets import read_nets

MIRRORED: Final = 0.75
"""Share of a genome's picture that must be its own mirror image before metrics ask for that symmetry; the published
skull has .86, the butterfly .92."""


@dataclass(frozen=True)
class Asked:
    """Which picture, and which further nets."""

    genome: Path | None
    picture: str | None
    nets: Path | None

    def read(self) -> tuple[Picture, str]:
        """The picture, and what there is to say of its symmetry beforehand.

        Raises:
            UsageError: If neither or both ways of naming it are used.
            WheeltapError: If the genome cannot be read.
        """
        if (self.genome is None) == (self.picture is None):
            raise UsageError(
                "One picture is needed.",
                expected="a genome, or --picture NAME",
                got="neither" if self.genome is None else "both",
                do=f"wheeltap fer --picture {next(iter(PICTURES))}",
            )
        if self.picture is not None:
            return picture(self.picture), ""
        assert self.genome is not None
        if str(self.genome) in PICTURES and not self.genome.exists():
            raise UsageError(
                "There is no genome at this path, but a built-in picture of that name.",
                got=str(self.genome),
                do=f"wheeltap fer --picture {self.genome}",
            )
        found = genomes.read(self.genome)
        net = found.layerize()
        symmetric, said = known_symmetry(found)
        about = (
            f"The picture of {self.genome.name}: {len(net.links())} links, laid out as {net.layout.layers} layers of "
            f"{net.layout.width} units. {said}"
        )
        return Picture(found.name, about, found, {}, symmetric), said


def known_symmetry(genome: Genome) -> tuple[Symmetric | None, str]:
    """The symmetry of a genome's picture, if it has enough of it, and one sentence that says so.

    Nobody knows beforehand what a genome draws: to ask of a lopsided picture whether its changes are mirror images
    would be to ask for a symmetry that is not there.
    """
    share = mirrored_share(genome)
    if share >= MIRRORED:
        return (
            mirror_image,
            f"{100 * share:.0f} % of the picture is its own mirror image: metrics ask for this symmetry.",
        )
    # Rounded down, so that it never reads as what was asked for.
    return None, (
        f"Only {int(100 * share)} % of the picture is its own mirror image ({100 * MIRRORED:.0f} % are needed): "
        "metrics of symmetry are left out."
    )


def carry_out(asked: Asked, training: Training, *, written: Written) -> int:
    """Makes the study and writes its files; gives the exit code."""
    settings = StudySettings(
        seeds=training.seeds, control_seeds=training.control_seeds, size=training.size, steps=training.steps,
        controls=training.kinds, seed=training.seed,
    )  # fmt: skip
    drawn, said = asked.read()
    drawn.require_parts(settings.size)
    given = {} if asked.nets is None else read_nets(asked.nets)
    out = written.folder(drawn.name)
    telling = Telling(out=out, json=written.json, fail_on=written.fail_on)
    telling.prepare()
    explorer, numbers = out / "explorer.html", out / "numbers.json"
    for path in (explorer, numbers):
        files.require_writable(path)
    if said:
        print(said, flush=True)
    with _shown(f"{drawn.name}") as watch:
        stage = Stage(folder=out / "nets", threads=usable_threads(), watch=watch, command=f"fer {drawn.name}")
        record = study(drawn, settings, given=given, stage=stage)
    made = [files.write(page, fer.page(record).encode()) for page in telling.pages]
    made.append(files.write(explorer, fer.explorer_page(record).encode()))
    made.append(files.write(numbers, fer.numbers(record)))
    made += [files.write(file, jsonfile.to_json(record.report)) for file in telling.files]
    fer_text.write(record, terminal())
    print("\nWritten: " + ", ".join(str(path) for path in made))
    return exit_code(record.report, written.fail_on)


@contextmanager
def _shown(label: str) -> Generator[Watch]:
    """A bar on standard error while the block runs; silent where nobody watches."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda what, share: None
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=1.0)
        yield lambda what, share: bar.update(task, description=f"{label}: {what}", completed=share)
