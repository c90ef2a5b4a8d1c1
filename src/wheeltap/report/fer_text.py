"""A picture study in the terminal: the headline, one small table for each metric, and how to read them together."""

from typing import TYPE_CHECKING

from wheeltap.report import view, words
from wheeltap.report.fer import LIKENESS, FerRecord, MetricRow, cohorts, status_of
from wheeltap.report.text import heading, paragraph

if TYPE_CHECKING:
    from rich.console import Console

_LABEL = 26


def write(record: FerRecord, console: "Console") -> None:
    """Prints a study."""
    report = record.report
    if report.void:
        heading(console, words.VOID_HEADLINE)
    for line in view.headlines(report):
        heading(console, line)
    paragraph(console, record.about)
    paragraph(
        console,
        f"Numbers of {cohorts(record)[0]} have intervals over its weights or layers, those of other nets over nets. "
        "Beside control nets: by that number alone they look unified (their mean reaches that of the net under "
        "study), are not distinguished (it could be one more of them), or are shown to differ, at the level of "
        "the strictest "
        "test of the verdict.",
    )
    for row in record.rows:
        _metric(record, row, console)
    if record.fooled:
        _part(console, "Read together, never one alone", record.fooled)
    for question, answer in record.answers:
        _part(console, question, (answer,))
    _part(console, "Controls", tuple(f"{c.status}: {c.name}. {c.because}" for c in report.controls))
    _part(console, "What this does not show", record.caveats)
    _part(console, "Cost", (f"{words.seconds(report.cost.seconds)}.",))


def _metric(record: FerRecord, row: MetricRow, console: "Console") -> None:
    word, _ = status_of(record, row)
    names = cohorts(record)
    heading(console, "")
    heading(console, f"{row.metric.title} ({row.metric.code}){f': {word}' if word else ''}")
    paragraph(console, f"{row.metric.unit}{_side(row)}", indent=2)
    lines = [(names[0], words.interval(row.own))]
    lines += [
        (f"{cohort.cohort} ({len(cohort.values)})", f"{words.interval(cohort.mean)}  {LIKENESS[cohort.likeness]}")
        for cohort in row.cohorts
    ]
    for name, number in lines:
        paragraph(
            console, f"{_cut(words.plain(name)):\u00a0<{_LABEL}} {number}".rstrip().replace(" ", "\u00a0"), indent=4
        )


def _cut(name: str) -> str:
    """A long name without its middle: what tells nets apart is as often at the end."""
    return name if len(name) <= _LABEL else f"{name[: _LABEL // 2]}\u2026{name[1 + _LABEL // 2 - _LABEL :]}"


def _side(row: MetricRow) -> str:
    return {"high": "; a unified net has more", "low": "; a unified net has less", "": ""}[row.metric.unified]


def _part(console: "Console", title: str, lines: tuple[str, ...]) -> None:
    heading(console, "")
    heading(console, title)
    for line in lines:
        paragraph(console, line, indent=2)
