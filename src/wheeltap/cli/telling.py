"""What every verb does with a report: files, the terminal, the exit code."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.core.errors import FileError, UsageError
from wheeltap.core.files import ODD_PATH
from wheeltap.report import files
from wheeltap.report.gate import FailOn, exit_code
from wheeltap.report.origin import origin
from wheeltap.report.report import Report

STDOUT = Path("-")
"""A path that stands for standard output."""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Telling:
    """Where the report goes."""

    out: Annotated[
        Path | None,
        Parameter(help="Folder for report.html and report.json; for explorer.html, where a study has nets that draw."),
    ] = None
    html: Annotated[Path | None, Parameter(help="Write the page to this file.")] = None
    json: Annotated[
        Path | None,
        Parameter(allow_leading_hyphen=True, help="Write the report as JSON to this file; - for the output."),
    ] = None
    markdown: Annotated[Path | None, Parameter(help="Write a summary for a pull request to this file.")] = None
    junit: Annotated[Path | None, Parameter(help="Write the verdicts as JUnit XML to this file.")] = None
    fail_on: Annotated[FailOn | None, Parameter(help="Exit with 1 if a verdict is this or worse. [default: costs]")] = (
        None
    )
    full: Annotated[bool, Parameter(negative="", help="Print everything: findings, controls, cost.")] = False
    quiet: Annotated[bool, Parameter(negative="", help="Print the answer alone, and no progress.")] = False

    @property
    def pages(self) -> list[Path]:
        """Where the page goes."""
        return [p for p in (self.html, self.out and self.out / "report.html") if p]

    @property
    def files(self) -> list[Path]:
        """Where the report goes as JSON."""
        return [p for p in (self.json, self.out and self.out / "report.json") if p and p != STDOUT]

    @property
    def others(self) -> list[Path]:
        """Where summaries for other programs go."""
        return [p for p in (self.markdown, self.junit) if p]

    def prepare(self) -> None:
        """Makes the folders asked for and proves that the files can be written: better an error now than after the run.

        Raises:
            FileError: If the folder cannot be made, or a file cannot be written.
            UsageError: If two of them are one.
        """
        if self.out is not None:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except (OSError, *ODD_PATH) as error:
                what, do = "The folder for the report cannot be made.", "Give another folder with --out."
                raise FileError.of(error, self.out, what=what, do=do) from error
        for path in (*self.pages, *self.files, *self.others):
            files.require_writable(path)
        self.require_apart()

    def require_apart(self, store: Path | None = None) -> None:
        """Raises ``UsageError`` if two of the files, or one of them and the store, are the same."""
        seen: set[Path] = set() if store is None else {store.resolve()}
        for path in (*self.pages, *self.files, *self.others):
            if path.resolve() in seen:
                raise UsageError(
                    "Two files are to be written to one path.",
                    where=str(path),
                    expected="a path of its own for the store, the page and the JSON file",
                    got=f"{path} twice",
                    do="Give another path to --store, --html or --json.",
                )
            seen.add(path.resolve())

    def tell(self, report: Report) -> int:
        """Writes the files asked for, prints the report, gives the exit code."""
        try:
            written = self.write(report)
        finally:
            self._print(report)  # after the files, so that a reader that goes away (head, a pager) costs none of them
        if written and not self.quiet and self.json != STDOUT:
            print(written)
        return exit_code(report.record, self.fail_on or "costs")

    def _print(self, report: Report) -> None:
        if self.json == STDOUT:
            from wheeltap.report.jsonfile import to_json

            print(to_json(report.record).decode())
        elif self.quiet:
            from wheeltap.report.lines import terminal, wrapped

            for line in report.headline.splitlines():
                wrapped(terminal(), line)
            for line in origin(report.record):
                print(line, file=sys.stderr)
        else:
            report.text(full=self.full)

    def write(self, report: Report) -> str:
        """Writes the files asked for; gives a line that names them, empty where there are none."""
        written = [*(report.html(page) for page in self.pages), *(report.json(file) for file in self.files)]
        study = report.record.study
        if self.out is not None and study is not None and study.drawn:
            from wheeltap.suites.pictures.sections.explorer import page

            alone = page(study.drawn, title=study.about or study.question, note=report.headline)
            written.append(files.write(self.out / "explorer.html", alone.encode()))
        if self.markdown is not None:
            written.append(files.write(self.markdown, report.markdown().encode()))
        if self.junit is not None:
            written.append(report.junit(self.junit, fail_on=self.fail_on or "costs"))
        return "Written: " + ", ".join(str(path) for path in written) if written else ""
