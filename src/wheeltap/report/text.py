"""The report in the terminal: headline first, tables that fit 80 columns, numbers that never wrap."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from wheeltap.core.plain import many
from wheeltap.core.report import ReportRecord
from wheeltap.report import deployment, estimates, first_screen, sections, study_text, survival, view, words
from wheeltap.report.lines import wrapped
from wheeltap.report.origin import missing_trials, origin
from wheeltap.report.view import Cell, FindingView, ScoreTable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

_STYLES = first_screen.STYLES
_LEAST_LABEL = 12
_GAP = 1
_WIDEST_WORD = 20


def summary(record: ReportRecord, console: "Console") -> None:
    """Print the first screen: the deployment table with its picture, the answer, and how to read on.

    Where no deployment was asked about, the table of verdicts stands in for it. What was not measured now is said last.
    """
    _void(record, console)
    _first(record, console)
    for line in origin(record):
        wrapped(console, line, style="dim")


def _first(record: ReportRecord, console: "Console") -> None:
    """The answer: first where sections follow, else after its table."""
    if record.study is not None:
        study_text.first(record, record.study, console)
        return
    shipped = deployment.tables(record)
    lines = view.headlines(record)
    if record.sections:
        for line in lines:
            wrapped(console, line, style="bold")
        console.print()
    elif missing_trials(record):  # what follows is no result
        wrapped(console, lines[0], style="bold red")
        lines = lines[1:]
    if shipped:
        first_screen.heads(record, console)
        for table in shipped:
            first_screen.table(table, console)
        _asked(record, console, beside=True)
    sections.terminal(record.sections, console)
    if record.sections and not shipped:
        _asked(record, console, beside=False)
    elif not shipped:
        _verdicts(record, console)
    if not record.sections:
        console.print()
        for line in lines:
            wrapped(console, line, style="bold")
    for note in deployment.notes(record):
        wrapped(console, note, style="dim")


def _asked(record: ReportRecord, console: "Console", *, beside: bool) -> None:
    """A line for each finding of another question than what stands above: its number and verdict."""
    from rich.table import Table
    from rich.text import Text

    # What a census found is in the headline, and so is what a benchmark leaves out.
    stated = ("score", "deployment", "census", "benchmark")
    asked = [f for f in record.findings if record.instrument(f.code).asks not in stated]
    if not asked:
        return
    most = _MOST_BESIDE if beside else _MOST_CLAIMS
    grid = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column("also asked" if beside else "claim", overflow="fold")
    several = beside or len(record.subjects) > 1
    if several:
        grid.add_column("model", overflow="fold")
    shown = [estimates.line(f.estimates[0])[1] for f in asked[:most] if f.estimates]
    grid.add_column("number", min_width=max(map(len, shown), default=6), no_wrap=True)
    grid.add_column("verdict", min_width=11)
    for finding in asked[:most]:
        number = estimates.line(finding.estimates[0]) if finding.estimates else ("", "", "")
        verdict = Text(finding.verdict, style=_STYLES[deployment.verdict_tone(finding)])
        title = words.plain(finding.title)
        asks = f"{title}{f': {number[0]}' if number[0] else ''}" if beside else f"{finding.code} {title}"
        model = [Text(words.plain(finding.subject))] if several else []
        grid.add_row(Text(asks), *model, Text(number[1]), verdict)
    console.print()
    console.print(grid, highlight=False)
    if len(asked) > most:
        wrapped(console, f"and {len(asked) - most} more: --full", style="dim")


_MOST_BESIDE, _MOST_CLAIMS = 12, 22
"""Findings of other questions on the first screen: beside a deployment table, and where there is none."""


def _verdicts(record: ReportRecord, console: "Console") -> None:
    """Every finding of every network and pair, a column an instrument."""
    table = view.score_table(record)
    if not table.sections:
        wrapped(console, "Nothing was judged: the report holds no findings.")
        return
    room = max(console.width, 40) - _label_width(console.width)
    columns = range(len(table.columns))
    for chunk in sections.fitting(columns, lambda index: _column_width(table, index) + _GAP, room=room):
        _score_table(table, chunk, console)
    what = many(record.task.examples, "item" if view.is_recorded(record) else "example")
    wrapped(console, f"value [interval]; {table.levels}, on {what}", style="dim")


def write(record: ReportRecord, console: "Console", *, full: bool = False) -> None:
    """Print the report: the first screen, or with ``full`` everything there is, the answer last."""
    if full:
        _void(record, console)
        _everything(record, console)
        console.print()
    summary(record, console)


def _void(record: ReportRecord, console: "Console") -> None:
    if record.void:
        wrapped(console, words.VOID_HEADLINE, style="bold red")
        wrapped(console, words.VOID)


def _everything(record: ReportRecord, console: "Console") -> None:
    study = record.study
    parts: tuple[tuple[str, Callable[[ReportRecord, Console], None], bool], ...] = (
        ("Numbers", study_text.numbers, study is not None),
        ("Rules, fixed before the first net was made", study_text.rules, study is not None),
        ("Read together", study_text.together, study is not None and bool(study.notes or study.answers)),
        ("Every net", study_text.members, study is not None),
        ("Every verdict", _verdicts, bool(deployment.tables(record) or record.sections)),
        ("Sections", _sections, bool(record.sections)),
        ("What was found", _findings, bool(record.findings)),
        ("What survives: the score at each dose, mildest first", _survival, bool(survival.survival(record))),
        ("Most fragile blocks, disturbed one at a time", _blocks, bool(record.blocks)),
        ("Controls", _controls, True),
        ("Cost", _cost, True),
        ("What this does not prove", _unproven if study is None else study_text.caveats, True),
    )
    for title, show, wanted in parts:
        if wanted:
            if show is not _sections:
                wrapped(console, title, style="bold")
            show(record, console)
            console.print()


def _sections(record: ReportRecord, console: "Console") -> None:
    sections.terminal(record.sections, console, full=True)


def _width(cell: Cell) -> int:
    return max(len(cell.value), len(cell.bracket), *(len(word) for word in cell.word.split()), 9)


def _label_width(width: int) -> int:
    """Room for names: less of it on a narrow terminal, because a name may fold and a number may not."""
    return 22 if width >= 80 else _LEAST_LABEL


def _column_width(table: ScoreTable, index: int) -> int:
    widths = [_width(row.cells[index]) for section in table.sections for row in section.rows]
    heading = [len(word) for word in table.columns[index].name.split()]
    # 17 is a signed number of three decimals and its verdict: the usual cell, so that most tables look alike.
    return max([*widths, *(min(length, _WIDEST_WORD) for length in heading), 17])


def _score_table(table: ScoreTable, chunk: Sequence[int], console: "Console") -> None:
    from rich.table import Table

    grid = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    labels = [len(row.label) for section in table.sections for row in section.rows]
    width = max(_LEAST_LABEL, min(max(labels), _label_width(console.width)))
    grid.add_column("", min_width=width, max_width=width, overflow="fold")
    for index in chunk:
        column = table.columns[index]
        least = _column_width(table, index)
        grid.add_column(f"{column.name}\n{column.code}", min_width=least, max_width=least, overflow="fold")
    console.print()
    for section in table.sections:
        _section(grid, section, table, chunk)
    console.print(grid, highlight=False)


def _section(grid: "Table", section: view.RowGroup, table: ScoreTable, chunk: Sequence[int]) -> None:
    from rich.text import Text

    if grid.row_count:
        grid.add_row("")
    captions = (Text(section.captions[index], style="italic dim") for index in chunk)
    grid.add_row(Text(section.title, style="italic"), *captions)
    for row in section.rows:
        label = Text(row.label, style="bold")
        grid.add_row(label, *(_cell(row.cells[index], _column_width(table, index)) for index in chunk))


def _cell(cell: Cell, width: int) -> "Text":
    from rich.text import Text

    word = Text(cell.word, style=_STYLES[cell.tone])
    if not cell.value:
        return word
    bracket = [Text(cell.bracket)] if cell.bracket else []
    if len(cell.value) + 1 + len(cell.word) <= width:
        return Text("\n").join([Text(" ").join([Text(cell.value), word]) if cell.word else Text(cell.value), *bracket])
    return Text("\n").join([Text(cell.value), *bracket, word])


def _findings(record: ReportRecord, console: "Console") -> None:
    for group in view.groups(record):
        wrapped(console, group.label, style="bold", indent=1)
        for finding in (finding for finding in group.findings if finding.loud):
            what = f"{finding.word}: {finding.title or finding.name} ({finding.code})"
            wrapped(console, what, style=_STYLES[finding.tone], indent=3, hang=2)
            _lines(console, finding.estimates, indent=5)
            if finding.detectable:
                wrapped(console, f"smallest detectable effect: {finding.detectable}", style="dim", indent=5)
            for text in finding.because:
                wrapped(console, text, indent=5)
        _quiet(console, [finding for finding in group.findings if not finding.loud])


def _quiet(console: "Console", findings: Sequence[FindingView]) -> None:
    """One line for everything of one verdict that needs no reading, each with its smallest detectable effect."""
    codes = [f.code for f in findings]
    for word in dict.fromkeys(f.word for f in findings):
        same = [f for f in findings if f.word == word]
        each = (_briefly(f, f.title if codes.count(f.code) > 1 or f.answer else f.name) for f in same)
        wrapped(console, f"{word}: {'; '.join(each)}", indent=3, hang=2)


def _briefly(finding: FindingView, name: str) -> str:
    least = f"smallest detectable {finding.detectable}" if finding.detectable else ""
    return f"{name} ({'; '.join(part for part in (finding.answer, finding.code, least) if part)})"


def _lines(console: "Console", estimates: Iterable[tuple[str, str, str]], *, indent: int) -> None:
    for name, value, _ in estimates:
        wrapped(console, f"{name}: {value}", indent=indent)


def _survival(record: ReportRecord, console: "Console") -> None:
    for one in survival.survival(record):
        wrapped(console, one.subject, style="bold", indent=1)
        for strip in one.strips:
            steps = "; ".join(f"{step.dose}: {step.score}" for step in strip.steps)
            wrapped(console, f"{strip.label} ({strip.unit}): {steps}", indent=3, hang=2)


def _blocks(record: ReportRecord, console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    blocks = view.fragile(record)
    grid = Table(box=None, padding=(0, 2, 0, 1), pad_edge=False, header_style="bold")
    for heading in ("network", "block", "instrument"):
        grid.add_column(heading, overflow="fold", ratio=1)
    grid.add_column("dose", no_wrap=True, min_width=max(len(block.dose) for block in blocks) if blocks else 4)
    grid.add_column("loss of score", no_wrap=True, min_width=max((len(block.drop) for block in blocks), default=13))
    for block in blocks:
        grid.add_row(*(Text(t) for t in (block.subject, block.block, block.instrument, block.dose, block.drop)))
    console.print(grid, highlight=False)


def _controls(record: ReportRecord, console: "Console") -> None:
    if not record.controls:
        wrapped(console, "none in this run", indent=1)
    for control in view.controls(record):
        wrapped(console, f"{control.status}: {control.name}", style=_STYLES[control.tone], indent=1)
        wrapped(console, control.kind, style="dim", indent=3, hang=2)
        _lines(console, control.estimates, indent=3)
        for text in control.because:
            wrapped(console, text, indent=3)


def _cost(record: ReportRecord, console: "Console") -> None:
    wrapped(console, view.cost_line(record), indent=1)


def _unproven(record: ReportRecord, console: "Console") -> None:
    for text in words.LENS_UNPROVEN if view.is_recorded(record) else words.UNPROVEN:
        wrapped(console, f"- {text}", indent=1, hang=2)
