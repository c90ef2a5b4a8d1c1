"""What ``wheeltap fer`` does: reads the picture, carries out the study with progress, tells it."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from wheeltap.cli.options import FailOn, Telling, exit_code
from wheeltap.errors import UsageError
from wheeltap.fer.cast import Stage, StudySettings, Watch
from wheeltap.fer.study import study
from wheeltap.models.pictures import PICTURES, Picture, mirror_image, picture
from wheeltap.report import fer, fer_text, files, jsonfile
from wheeltap.report.report import Report
from wheeltap.report.text import terminal
from wheeltap.sources import genomes
from wheeltap.sources.nets import read_nets


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which picture, and where the report goes."""

    genome: Path | None
    picture: str | None
    nets: Path | None
    out: Path
    json: Path | None
    fail_on: FailOn

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


def carry_out(wanted: Wanted, settings: StudySettings) -> int:
    """Makes the study and writes its files; gives the exit code."""
    telling = Telling(out=wanted.out, json=wanted.json, fail_on=wanted.fail_on)
    telling.prepare()
    explorer = wanted.out / "explorer.html"
    files.require_writable(explorer)
    drawn = wanted.read()
    given = {} if wanted.nets is None else read_nets(wanted.nets)
    threads = os.cpu_count() or 1
    with _shown(f"{drawn.name}") as watch:
        stage = Stage(folder=wanted.out / "nets", threads=threads, watch=watch, command=f"fer {drawn.name}")
        record = study(drawn, settings, given=given, stage=stage)
    written = [files.write(page, fer.page(record).encode()) for page in telling.pages]
    written.append(files.write(explorer, fer.explorer_page(record).encode()))
    written += [files.write(file, jsonfile.to_json(record.report)) for file in telling.files]
    console = terminal()
    fer_text.write(record, console)
    print("\nWritten: " + ", ".join(str(path) for path in written))
    return exit_code(Report(record.report), wanted.fail_on)


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
