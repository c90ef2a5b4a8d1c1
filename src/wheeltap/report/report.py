"""The report a caller holds: findings to read, and renderers for the terminal, files and tables."""

import importlib.util
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, final

import msgspec

from wheeltap.core.bounded import document
from wheeltap.core.errors import FileFormatError, UnknownName, WheeltapError
from wheeltap.core.records import Finding
from wheeltap.core.report import FailOn, ReportRecord
from wheeltap.core.settings import checked
from wheeltap.report import files, gate, jsonfile
from wheeltap.report.origin import FILE

if TYPE_CHECKING:
    from rich.console import Console

_TABLE_LIBRARIES = ("polars", "pandas", "pyarrow")


class MissingTableLibrary(WheeltapError, ImportError):
    """No library for tables is installed."""


@final
class Report:
    """What an audit or a comparison found, with its controls and its cost.

    Args:
        record: The report as data. Every renderer reads it and nothing else.

    Attributes:
        findings: Every coded claim, in the order the audits made them.
        controls: The checks on the instruments themselves.
        cost: Passes and seconds the run took.
        headline: The result in one line.
        void: Whether a control failed, so that no verdict counts.
    """

    def __init__(self, record: ReportRecord) -> None:
        self.record = record
        self.findings, self.controls, self.cost = record.findings, record.controls, record.cost
        self.headline, self.void = record.headline, record.void

    @property
    def passed(self) -> bool:
        """Whether the run is over, its controls held, enough weights were disturbed, and nothing was shown to cost.

        Raises:
            UsageError: If the report was loaded from a file, which decides nothing.
        """
        return gate.exit_code(self.record, "costs") == gate.PASSED

    @checked
    def check(self, max_loss: Mapping[str, float] | None = None, *, fail_on: FailOn = "costs") -> None:
        """Raise if the report does not pass, or a loss is not shown to stay under its limit: for tests and scripts.

        Args:
            max_loss: From a scheme's name to the largest loss that is accepted, in units of the measure: ``{"nf4":
                .01}`` is one point of a share of right answers. For every model of the report, on all examples and on
                each test set and slice, the upper end of the interval must be no more: a test at a nominal one-sided
                level of 97.5 %, for any number of schemes. A set or slice may have a limit of its own, which then
                counts there: ``{"nf4": .01, "nf4 on hard": .03}``. The rest of the report is not looked at, but its
                run must be over and its controls must have held.
            fail_on: The mildest verdict that fails, where no ``max_loss`` is given.

        Raises:
            GateError: If so. It is an ``AssertionError``, too.
            UnknownName: If the report holds no scheme of such a name.
            UsageError: If a limit cannot be used, or the report was loaded from a file, which decides nothing.
        """
        if max_loss is None:
            gate.require_passed(self.record, fail_on)
        else:
            gate.require_losses(self.record, max_loss)

    def __getitem__(self, code: str) -> list[Finding]:
        found = [finding for finding in self.record.findings if finding.code == code]
        if not found:
            raise UnknownName("finding code in this report", code, {finding.code for finding in self.record.findings})
        return found

    def html(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as one self-contained page; returns the path."""
        from wheeltap.report.html import page

        return files.write(path, page(self.record).encode())

    def json(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as JSON, schema ``wheeltap.report/3``; returns the path."""
        return files.write(path, jsonfile.to_json(self.record))

    @checked
    def text(self, *, full: bool = False, width: int = 80) -> str:
        """Return the report as it is printed in a terminal.

        Args:
            full: Include each finding and control, curves, and cost.
            width: Characters in a line.
        """
        from wheeltap.core.plain import terminal

        buffer = io.StringIO()
        self.print(terminal(file=buffer, width=width), full=full)
        return buffer.getvalue().rstrip()

    @checked
    def print(self, console: "Console | None" = None, *, full: bool = False) -> None:
        """Print the report in the terminal, or on ``console``.

        Args:
            console: A console of rich.
            full: Include each finding and control, curves, and cost.
        """
        from wheeltap.core.plain import terminal
        from wheeltap.report.text import write

        write(self.record, console or terminal(), full=full)

    def markdown(self) -> str:
        """The answer and its table for a comment on a pull request: GitHub-flavored Markdown."""
        from wheeltap.report.markdown import markdown

        return markdown(self.record)

    @checked
    def junit(self, path: str | os.PathLike[str], *, fail_on: FailOn = "costs") -> Path:
        """Write the report as JUnit XML, a test for each finding; returns the path.

        Args:
            path: Where to.
            fail_on: The mildest verdict that is a failure.

        Raises:
            UsageError: If the report was loaded from a file, which decides nothing.
        """
        from wheeltap.report.junit import junit

        return files.write(path, junit(self.record, fail_on))

    def scalars(self) -> dict[str, float]:
        """Flat names and finite numbers for any logger of experiments; see ``wheeltap.report.scalars.scalars``."""
        from wheeltap.report.scalars import scalars

        return scalars(self.record)

    def frame(self) -> Any:
        """One row per estimate of each finding, as a polars, pandas or pyarrow table (the first one installed).

        Of a study, one row per member and metric.

        Returns:
            A native data frame with the columns of :func:`wheeltap.report.view.estimate_columns`, or of
            :func:`wheeltap.report.cohorts.columns`.

        Raises:
            MissingTableLibrary: If none of the three is installed.
        """
        from wheeltap.report import cohorts, view

        backend = next((name for name in _TABLE_LIBRARIES if importlib.util.find_spec(name)), None)
        if backend is None:
            raise MissingTableLibrary(
                "No library for tables is installed.",
                where="Report.frame()",
                expected=f"one of {', '.join(_TABLE_LIBRARIES)}",
                do="pip install polars   (or pandas, or pyarrow)",
            )
        import narwhals as nw

        kinds = {str: nw.String(), float: nw.Float64(), int: nw.Int64()}
        study = self.record.study
        columns = view.estimate_columns(self.record) if study is None else cohorts.columns(study)
        schema = {name: kinds[kind] for name, (kind, _) in columns.items()}
        values = {name: column for name, (_, column) in columns.items()}
        return nw.from_dict(values, schema, backend=cast("Any", backend)).to_native()

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Report":
        """Load the report in the JSON file at ``path``, for reading.

        A file can be edited, so a report loaded from one decides nothing: ``passed``, ``check``, and ``junit`` raise.

        Raises:
            MissingFile: If there is no such file.
            FileFormatError: If it is too large, no report, or of another schema.
        """
        where = str(path)
        data = document(Path(path), "report", do="Give the path of a report.json.")
        record = jsonfile.validate(data, where=where)
        if not record.subjects:
            raise FileFormatError(
                "The report is about no model.", where=where, expected="subjects: at least one model",
                got="subjects: []", do="Run the command that wrote it again.",
            )  # fmt: skip
        return cls(msgspec.structs.replace(record, provenance={**record.provenance, FILE: where}))

    def __repr__(self) -> str:
        from wheeltap.core.plain import terminal
        from wheeltap.report.text import summary

        buffer = io.StringIO()
        summary(self.record, terminal(file=buffer, width=80))
        return buffer.getvalue().rstrip()

    def _repr_html_(self) -> str:
        from wheeltap.report.html import notebook

        return notebook(self.record)
