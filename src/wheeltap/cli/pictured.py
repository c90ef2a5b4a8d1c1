"""What ``wheeltap fer`` does: reads the picture, carries out the study with progress, tells it."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wheeltap.cli.fer import Training, Written
from wheeltap.cli.options import Telling, exit_code
from wheeltap.errors import UsageError
from wheeltap.fer.cast import Stage, StudySettings, Watch
from wheeltap.fer.study import study
from wheeltap.models.pictures import PICTURES, Picture, mirror_image, picture
from wheeltap.report import fer, fer_text, files, jsonfile
from wheeltap.report.report import Report
from wheeltap.report.text import terminal
from wheeltap.sources import genomes
from wheeltap.sources.nets import read_nets


@dataclass(frozen=True)
class Asked:
    """Which picture, and which further nets."""

    genome: Path | None
    picture: str | None
    nets: Path | None

    def read(self) -> Picture:
        """The picture.

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
            return picture(self.picture)
        assert self.genome is not None
        found = genomes.read(self.genome)
        net = found.layerize()
        about = (
            f"The picture of {self.genome.name}: {len(net.links())} links, laid out as {net.layout.layers} layers of "
            f"{net.layout.width} units."
        )
        return Picture(found.name, about, found, {}, mirror_image)


def carry_out(asked: Asked, training: Training, *, written: Written) -> int:
    """Makes the study and writes its files; gives the exit code."""
    settings = StudySettings(
        seeds=training.seeds, control_seeds=training.control_seeds, size=training.size, steps=training.steps,
        controls=training.kinds, seed=training.seed,
    )  # fmt: skip
    drawn = asked.read()
    given = {} if asked.nets is None else read_nets(asked.nets)
    telling = Telling(out=written.out, json=written.json, fail_on=written.fail_on)
    telling.prepare()
    explorer = written.out / "explorer.html"
    files.require_writable(explorer)
    with _shown(f"{drawn.name}") as watch:
        stage = Stage(
            folder=written.out / "nets", threads=os.cpu_count() or 1, watch=watch, command=f"fer {drawn.name}"
        )
        record = study(drawn, settings, given=given, stage=stage)
    made = [files.write(page, fer.page(record).encode()) for page in telling.pages]
    made.append(files.write(explorer, fer.explorer_page(record).encode()))
    made += [files.write(file, jsonfile.to_json(record.report)) for file in telling.files]
    fer_text.write(record, terminal())
    print("\nWritten: " + ", ".join(str(path) for path in made))
    return exit_code(Report(record.report), written.fail_on)


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
