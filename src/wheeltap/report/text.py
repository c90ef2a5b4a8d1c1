"""The report in the terminal: headline first, tables that fit 80 columns, numbers that never wrap."""

from typing import TYPE_CHECKING

from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Text
from wheeltap.core.study import StudyRecord
from wheeltap.report import cohorts, deployment, sections, shown, view, words
from wheeltap.report.blocks import ReportPart
from wheeltap.report.origin import missing_trials, origin
from wheeltap.report.words import wrapped

if TYPE_CHECKING:
    from rich.console import Console

_MOST_LOST, _MOST_ANSWER = 3, 4
"""Members of a study that are left out, and lines of its answer, on the first screen."""


def summary(record: ReportRecord, console: "Console") -> None:
    """Print the first screen: the answer, its table, and how to read on.

    The answer comes first where sections follow, or of a study, else behind its table. What was not measured now is
    said last.
    """
    _void(record, console)
    lines, study = view.headlines(record), record.study
    bold = "bold red" if record.void and study is not None else "bold"
    if study is not None or shown.leads(record) or missing_trials(record):
        most = len(lines) if study is None else _MOST_ANSWER
        # Of a run that is not over, what follows is no result.
        lead = lines[:1] if missing_trials(record) and study is None and not shown.leads(record) else lines[:most]
        for at, line in enumerate(lead):
            loud = missing_trials(record) and at == 0 and (study is not None or not shown.leads(record))
            wrapped(console, line, style="bold red" if loud else bold)
        if len(lines) > most:
            wrapped(console, f"and {len(lines) - most} more: --full", style="dim")
        lines = () if study is not None or shown.leads(record) else lines[1:]
        if len(lead) and not lines:
            console.print()
    parts = shown.first(record)
    if study is None and deployment.lines(record):
        sections.terminal([ReportPart(blocks=(deployment.heads(record),))], console)
        wrapped(console, f"{view.examples(record)}; {deployment.controls_line(record)}")
        console.print()
    sections.terminal(parts, console)
    if study is not None:
        _study(record, study, console)
    else:
        if lines:
            console.print()
        for line in lines:
            wrapped(console, line, style="bold")
        for note in deployment.notes(record):
            wrapped(console, note, style="dim")
    for line in origin(record):
        wrapped(console, line, style="dim")


def _study(record: ReportRecord, study: StudyRecord, console: "Console") -> None:
    """Nets and controls in one line, who is left out, what it does not prove."""
    console.print()
    wrapped(console, cohorts.facts(record, study))
    lost = cohorts.lost_line(record, study, most=_MOST_LOST)
    if lost:
        wrapped(console, lost, style="yellow")
    said = words.plain(study.caveats[0]) if study.caveats else "Holds for these nets and examples only."
    wrapped(console, f"{said} {deployment.READ_ON}", style="dim")


def write(record: ReportRecord, console: "Console", *, full: bool = False) -> None:
    """Print the report: the first screen, or with ``full`` everything there is, the answer last."""
    if full:
        _void(record, console)
        parts = [*shown.detail(record, text=True), *shown.ending(record)]
        if record.study is not None:
            reads = [
                f"- {row.metric.title}: {said}" for row in cohorts.rows(record.study) if (said := cohorts.reads(row))
            ]
            numbers = (cohorts.metrics_table(record.study, place="page"), Text(text="\n\n".join(reads)))
            parts.insert(0, ReportPart(title="Numbers", blocks=numbers))
        else:
            fragile = view.fragile_table(record)
            parts += [ReportPart(title="Most fragile blocks", blocks=(fragile,))] if fragile.rows else []
            parts.append(shown.unproven(record))
        sections.terminal(parts, console, full=True)
        console.print()
    summary(record, console)


def _void(record: ReportRecord, console: "Console") -> None:
    if record.void:
        wrapped(console, words.VOID_HEADLINE, style="bold red")
        wrapped(console, words.VOID)
