"""A study in the terminal: its answer, its metrics by cohort, its rules with their verdicts; all of it where asked."""

import textwrap
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from wheeltap.core.report import ReportRecord
from wheeltap.core.study import Cohort, MetricRow, StudyRecord
from wheeltap.report import cohorts, first_screen, view, words
from wheeltap.report.lines import wrapped
from wheeltap.report.origin import missing_trials
from wheeltap.report.sections import fitting

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

READ_ON: Final = "All of it: --full, --html FILE."

_MOST_ROWS, _MOST_RULES, _MOST_LOST, _MOST_ANSWER = 8, 8, 3, 4
"""Metrics, rules, members left out, and lines of the answer of the first screen."""

_MOST_LINES = 10
"""Of the first screen for metrics where cohorts are too many for a column each."""

_LABEL, _NARROW_LABEL = 30, 20
_NARROW = 90
_GAP = 2


def first(record: ReportRecord, study: StudyRecord, console: "Console") -> None:
    """Print the first screen: the answer, metrics by cohort, rules with their verdicts, what else to know."""
    style = "bold red" if record.void or missing_trials(record) else "bold"
    several = view.headlines(record)
    for line in several[:_MOST_ANSWER]:
        wrapped(console, line, style=style)
        style = "bold red" if record.void else "bold"
    if len(several) > _MOST_ANSWER:
        wrapped(console, f"and {len(several) - _MOST_ANSWER} more: --full", style="dim")
    console.print()
    _metrics(study, console, whole=False)
    console.print()
    _rules(record, study, console)
    console.print()
    wrapped(console, cohorts.facts(record, study))
    lost = cohorts.lost_line(record, study, most=_MOST_LOST)
    if lost:
        wrapped(console, lost, style="yellow")
    said = words.plain(study.caveats[0]) if study.caveats else "Holds for these nets and examples only."
    wrapped(console, f"{said} {READ_ON}", style="dim")


def numbers(record: ReportRecord, console: "Console") -> None:
    """Print what is asked, of which nets, and every metric of every cohort."""
    study = _study(record)
    for text in (study.question, study.about):
        if text:
            wrapped(console, text, indent=1)
    for cohort in study.cohorts:
        about = f": {cohort.about}" if cohort.about else ""
        counted = cohorts.counted(study, cohort)
        wrapped(console, f"{cohort.name} ({counted}; {cohorts.ROLES[cohort.role]}){about}", indent=1)
    console.print()
    _metrics(study, console, whole=True)
    for row in cohorts.rows(study):
        said = cohorts.reads(row)
        if said:
            wrapped(console, f"{row.metric.title}: {said}", indent=1, hang=2)


def rules(record: ReportRecord, console: "Console") -> None:
    """Print the rules as they were fixed beforehand: statistic, what counts, and what either outcome means."""
    for one in cohorts.decided(record, _study(record)):
        of = f", {one.of}" if one.of else ""
        wrapped(
            console, f"{one.name}{of} ({one.code}): {one.word}", style=first_screen.STYLES[one.tone], indent=1, hang=2
        )
        wrapped(console, f"{one.asks}; counts if {one.counts}", indent=3, hang=2)
        for word, meaning in (("if found", one.supports), ("if excluded", one.refutes)):
            if meaning:
                wrapped(console, f"{word}: {meaning}", indent=3, hang=2)


def members(record: ReportRecord, console: "Console") -> None:
    """Print every member with every number that it has."""
    for net in cohorts.members(_study(record)):
        stated = [net.note, net.status if net.status != "done" else "", net.because]
        stated += [f"{title} {value}" for title, value in net.numbers]
        said = "; ".join(part for part in stated if part)
        wrapped(console, f"{net.name} ({net.cohort}): {said}", indent=1, hang=2)


def together(record: ReportRecord, console: "Console") -> None:
    """Print how to read the numbers together, and the questions the study was made for."""
    study = _study(record)
    for note in study.notes:
        wrapped(console, f"- {note}", indent=1, hang=2)
    for question, answer in study.answers:
        wrapped(console, f" {question}", style="bold")
        wrapped(console, answer, indent=3)


def caveats(record: ReportRecord, console: "Console") -> None:
    """Print what the numbers cannot say."""
    for text in _study(record).caveats or ("Holds for these nets and examples only.",):
        wrapped(console, f"- {text}", indent=1, hang=2)


def _study(record: ReportRecord) -> StudyRecord:
    assert record.study is not None, "only of a study"
    return record.study


# ---- tables ---------------------------------------------------------------------------------------------------


def _metrics(study: StudyRecord, console: "Console", *, whole: bool) -> None:
    """Metrics by cohort: all of them, or as many as fit the first screen with every cohort that a rule is about."""
    several, shown = cohorts.cohorts(study), cohorts.rows(study)
    if not shown:
        return
    label = _LABEL if console.width >= _NARROW else _NARROW_LABEL
    rows = shown if whole else shown[:_MOST_ROWS]
    chunks = fitting(several, lambda cohort: _width(study, rows, cohort) + _GAP, room=console.width - label - _GAP)
    if whole or len(chunks) == 1:
        for chunk in chunks:
            console.print(_table(study, rows, chunk, label=label), highlight=False)
        left = {"metric": len(shown) - len(rows)}
    else:
        left = _by_cohort(study, shown, several, console, label=label)
    more = ", ".join(f"{count} more {what}{'s' * (count != 1)}" for what, count in left.items() if count)
    wrapped(console, f"mean over nets, {cohorts.level(study)}{f'; {more}: --full' if more else ''}", style="dim")


def _by_cohort(
    study: StudyRecord, shown: list[MetricRow], several: list[Cohort], console: "Console", *, label: int
) -> dict[str, int]:
    """Prints a row for each cohort, a column for each metric, in small tables; gives how many of either are left."""
    label = min(label, max(len(_named(cohort)) for cohort in several))
    tall = accumulate(_lines(_named(cohort), label) for cohort in several)
    rows = several[: max(sum(lines <= _MOST_LINES for lines in tall), 1)]
    used, drawn = 0, 0
    for chunk in fitting(
        shown, lambda row: _column(study, row, rows) + _GAP, room=console.width - label - _GAP - _NETS - _GAP
    ):
        heads = max(_lines(_titled(row), _column(study, row, rows)) for row in chunk)
        used += heads + sum(_lines(_named(cohort), label) for cohort in rows)
        if drawn and used > _MOST_LINES:
            break
        console.print(_turned(study, chunk, rows, label=label), highlight=False)
        drawn += len(chunk)
    return {"metric": len(shown) - drawn, "cohort": len(several) - len(rows)}


def _lines(text: str, width: int) -> int:
    """How many lines a text takes in a column."""
    return len(textwrap.wrap(text, width)) or 1


def _turned(study: StudyRecord, chunk: list[MetricRow], rows: list[Cohort], *, label: int) -> "Table":
    """A row for each cohort, a column for each metric."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column("", width=label, overflow="fold")
    grid.add_column("nets", width=_NETS, style="dim", overflow="fold")
    for row in chunk:
        grid.add_column(Text(_titled(row)), width=_column(study, row, rows), overflow="fold")
    for cohort in rows:
        count = cohorts.counted(study, cohort).removesuffix("s").removesuffix(" net")
        grid.add_row(Text(_named(cohort)), count, *(Text(_number(study, row, cohort)) for row in chunk))
    return grid


def _column(study: StudyRecord, row: MetricRow, rows: list[Cohort]) -> int:
    return max(_LEAST_COLUMN, *(len(_number(study, row, cohort)) for cohort in rows))


_NETS = len("10 of 10")

_LEAST_COLUMN = 12
"""Columns that the title of a metric needs."""


_LONGEST_NAME = 16


def _width(study: StudyRecord, shown: list[MetricRow], cohort: Cohort) -> int:
    numbers = (len(_number(study, row, cohort)) for row in shown)
    return max([min(len(_named(cohort)), _LONGEST_NAME), len("10 of 10 nets"), *numbers])


def _number(study: StudyRecord, row: MetricRow, cohort: Cohort) -> str:
    cell = cohorts.cell(study, row, cohort)
    return " ".join(part for part in (cell.value, cell.bracket) if part) or cell.word


def _table(study: StudyRecord, shown: list[MetricRow], chunk: list[Cohort], *, label: int) -> "Table":
    """A row for each metric, a column for each cohort."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    longest = max((len(_titled(row)) for row in shown), default=label)
    grid.add_column("", width=min(label, longest), overflow="fold")
    for cohort in chunk:
        head = Text(_named(cohort)).append(f"\n{cohorts.counted(study, cohort)}", style="not bold dim")
        grid.add_column(head, min_width=_width(study, shown, cohort), overflow="fold")
    for row in shown:
        grid.add_row(Text(_titled(row)), *(Text(_number(study, row, cohort)) for cohort in chunk))
    return grid


def _named(cohort: Cohort) -> str:
    return words.plain(cohort.name)


def _titled(row: MetricRow) -> str:
    return words.plain(row.metric.title)


def _rules(record: ReportRecord, study: StudyRecord, console: "Console") -> None:
    """A row for each rule: its effect, what counts, the verdict; of an open one, what would have been found."""
    from rich.table import Table
    from rich.text import Text

    several = cohorts.decided(record, study)
    shown, wide = several[:_MOST_RULES], console.width >= _NARROW
    grid = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    same = shown[0].of if len({one.of for one in shown}) == 1 else ""
    grid.add_column(f"rule on {same}" if same else "rule", overflow="fold")
    stated = [(f"{one.value} {one.bracket}".strip(), one.counts, one.word, one.least) for one in shown]
    for at, name in enumerate(("effect", "counts if", "verdict", "detectable")[: 4 if wide else 3]):
        grid.add_column(name, min_width=max([len(name), *(len(cells[at]) for cells in stated)]), overflow="fold")
    for one, (effect, counts, word, least) in zip(shown, stated, strict=True):
        cells = (Text(effect), Text(counts), Text(word, style=first_screen.STYLES[one.tone]), Text(least))
        grid.add_row(Text(f"{one.name} ({one.of})" if one.of and not same else one.name), *cells[: 4 if wide else 3])
    console.print(grid, highlight=False)
    if not wide and any(one.least for one in shown):
        least = ", ".join(one.least or "-" for one in shown)
        wrapped(console, f"detectable effect{'s, in this order' if len(shown) > 1 else ''}: {least}", style="dim")
    if len(several) > _MOST_RULES:
        wrapped(console, f"and {len(several) - _MOST_RULES} more: --full", style="dim")
