"""What audits of a circuit show in the terminal: a row for each claim."""

from typing import TYPE_CHECKING, Final

from wheeltap.core.records import Finding
from wheeltap.core.report import ReportRecord
from wheeltap.report import deployment, estimates, words
from wheeltap.report.first_screen import STYLES
from wheeltap.report.lines import wrapped
from wheeltap.suites.circuits.record import circuits_of

if TYPE_CHECKING:
    from rich.console import Console

_MOST: Final = 22
"""Rows of the first screen."""


def claims(record: ReportRecord) -> list[Finding]:
    """What was claimed of circuits."""
    return [finding for finding in record.findings if record.instrument(finding.code).asks == "circuit"]


def table(record: ReportRecord, console: "Console") -> None:
    """Print every claim with its number and verdict, and how large each circuit is."""
    from rich.table import Table
    from rich.text import Text

    for one in circuits_of(record.sections):
        target = "" if one.target is None else f"target {one.target:.3g} nats, "
        wrapped(console, f"{one.subject}: {one.size}; {target}a guess has {one.chance:.3f}.")
    several, rows = len(record.subjects) > 1, claims(record)
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column("claim", overflow="fold")
    if several:
        grid.add_column("model", overflow="fold")
    grid.add_column("number", no_wrap=True, justify="right")
    grid.add_column("verdict", overflow="fold")
    for row in rows[:_MOST]:
        number = estimates.line(row.estimates[0])[1] if row.estimates else ""
        verdict = Text(row.verdict, style=STYLES[deployment.verdict_tone(row)])
        model = [Text(words.plain(row.subject))] if several else []
        grid.add_row(Text(f"{row.code} {words.plain(row.title)}"), *model, Text(number), verdict)
    console.print(grid, highlight=False)
    if len(rows) > _MOST:
        wrapped(console, f"and {len(rows) - _MOST} more: --full", style="dim")
