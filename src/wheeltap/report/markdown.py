"""The report as Markdown for a comment on a pull request: the answer, one table, what it does not prove."""

import re
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Final

from wheeltap.core.records import Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Block, Table, Text
from wheeltap.core.study import StudyRecord
from wheeltap.report import cohorts, deployment, estimates, gate, view, words
from wheeltap.report.deployment import Line
from wheeltap.report.origin import origin
from wheeltap.report.view import Cell
from wheeltap.report.words import Tone

_MOST_ROWS = 12
_MOST_FINDINGS = 25
_MOST_LINES = 8
"""Of headlines, models and notes, each."""

_MOST_BLOCKS = 6
"""Of sections."""

_LAST_NOTES = 3
"""Notes on the whole report, behind those on each model."""

_MARKUP = re.compile(r"([\\`*_{}|~$])")
_LOUD: Final[tuple[Tone, ...]] = ("alarm",)
_BREAK: Final = "&#8203;"
"""A space without width: keeps GitHub from making a link or a mention of a name."""


def markdown(record: ReportRecord) -> str:
    """GitHub-flavored Markdown of fewer than 60 lines; no name in it can become markup, a link or a mention.

    Args:
        record: The report.
    """
    first, *rest = view.headlines(record)
    blocks = [[f"**{escaped(first)}**"], [escaped(words.VOID)] if record.void else [], _items(rest)]
    shipped = deployment.tables(record, most=_MOST_ROWS)
    for table in shipped:
        blocks += _table(table)
    blocks += [part for one in record.sections for block in one.blocks for part in _block(block)][:_MOST_BLOCKS]
    blocks += _findings(record, _beside(record) if shipped else record.findings, beside=bool(shipped))
    if record.study is None:
        blocks += [[_facts(record)], _items(deployment.notes(record, read_on=""), last=_LAST_NOTES)]
    else:
        blocks += _study(record, record.study)
    blocks.append(_items(origin(record)))
    return "\n\n".join("\n".join(block) for block in blocks if block) + "\n"


def escaped(text: str) -> str:
    """``text`` as a reader is to see it: nothing in it acts on a terminal, on Markdown or on GitHub."""
    plain = _MARKUP.sub(r"\\\1", words.plain(text).replace("&", "&amp;"))
    plain = plain.replace("<", "&lt;").replace(">", "&gt;").replace("](", "]\\(").replace("][", "]\\[")
    # Mentions, issues and addresses become links even where nothing marks them.
    return re.sub(r"(@|#|:(?=//)|www\.)", rf"\1{_BREAK}", plain, flags=re.IGNORECASE)


def _items(lines: Sequence[str], *, last: int = 0) -> list[str]:
    """A list of the first lines and the ``last`` ones."""
    more = len(lines) - _MOST_LINES
    if more <= 0:
        return [f"- {escaped(line)}" for line in lines]
    first = _MOST_LINES - last
    return [f"- {escaped(line)}" for line in (*lines[:first], f"and {more} more", *lines[len(lines) - last :])]


# ---- tables ---------------------------------------------------------------------------------------------------


def _table(table: deployment.DeploymentTable) -> list[list[str]]:
    """A deployment table; without its last column where that says nothing."""
    rows = [_row(line) for line in table.lines]
    if not rows:
        return [[f"No difference was shown in {table.more} comparisons."]] if table.more else []
    headings = [escaped(heading) for heading in table.headings]
    if not any(row[-1] for row in rows):
        headings, rows = headings[:-1], [row[:-1] for row in rows]
    grid = _grid(headings, rows, right=range(1, len(table.headings) - 1))
    return [grid, [f"and {table.more} more"] if table.more else []]


def _block(block: Block) -> list[list[str]]:
    """What stands first in a section, where it is text or a table."""
    if block.place == "first" and isinstance(block, Text):
        return [[escaped(block.text)]]
    if block.place != "first" or not isinstance(block, Table):
        return []
    rows = [[escaped(cell if isinstance(cell, str) else words.interval(cell)) for cell in row] for row in block.rows]
    shown = _grid([escaped(head) for head in block.heads], rows[:_MOST_LINES], right=range(1, len(block.heads)))
    more = len(rows) - _MOST_LINES
    title = [[escaped(block.title)]] if block.title else []
    return [*title, shown, *([[f"and {more} more"]] if more > 0 else [])]


def _row(line: Line) -> list[str]:
    cells = (_loud(text, tone) for text, tone in zip(line.cells, line.tones, strict=True))
    note = f" ({escaped(line.note)})" if line.note else ""
    return [escaped(line.label), *cells, f"{_loud(line.verdict, line.tone)}{note}"]


def _loud(text: str, tone: Tone) -> str:
    """Bad news in bold."""
    return f"**{escaped(text)}**" if text and tone in _LOUD else escaped(text)


def _grid(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> list[str]:
    marks = ["---:" if at in set(right) else "---" for at in range(len(headings))]
    return [f"| {' | '.join(cells)} |" for cells in (headings, marks, *rows)]


def _findings(record: ReportRecord, found: Sequence[Finding], *, beside: bool) -> list[list[str]]:
    """Findings as a table, those that fail first."""
    if not found:
        return [] if beside else [["Nothing was judged: the report holds no findings."]]
    ordered = sorted(found, key=lambda finding: not gate.fails(finding, "costs"))
    rows = [_finding(record, finding) for finding in islice(ordered, _MOST_FINDINGS)]
    more = len(ordered) - len(rows)
    grid = _grid(("code", "what", "of", "verdict", "number"), rows)
    return [grid, [f"and {more} more"] if more else []]


def _study(record: ReportRecord, study: StudyRecord) -> list[list[str]]:
    """Metrics by cohorts, who is left out, what it does not prove."""
    blocks: list[list[str]] = []
    for part in cohorts.metric_parts(study)[:1]:
        heads = ["mean over nets", *(escaped(f"{name}, {note}") for name, note in part.heads)]
        cells = ((escaped(claim.name), *map(_number, claim.cells)) for claim in part.claims[:_MOST_ROWS])
        more = len(part.claims) - _MOST_ROWS
        blocks += [_grid(heads, cells), [f"and {more} more metrics"] if more > 0 else []]
    stated = (cohorts.facts(record, study), cohorts.lost_line(record, study, most=_LAST_NOTES))
    return [*blocks, [escaped("; ".join(part for part in stated if part))], _items(study.caveats)]


def _number(cell: Cell) -> str:
    return escaped(" ".join(part for part in (cell.value, cell.bracket) if part) or cell.word)


def _finding(record: ReportRecord, finding: Finding) -> list[str]:
    pair = finding.subject in view.pairs(record)
    verdict = finding.verdict or words.status(finding.status, pair=pair)
    first = finding.estimates[0] if finding.estimates else None
    number = "" if first is None else f"{estimates.caption(first)} {words.interval(first)}"
    stated = (finding.code, finding.title, finding.subject)
    return [*map(escaped, stated), _loud(verdict, deployment.verdict_tone(finding)), escaped(number)]


def _beside(record: ReportRecord) -> list[Finding]:
    """What fails and stands in no deployment table."""
    failing = gate.failing(record, "costs")
    return [finding for finding in failing if record.instrument(finding.code).asks != "deployment"]


def _facts(record: ReportRecord) -> str:
    """Models with score and coverage, examples and controls, in one line."""
    heads = deployment.heads(record)
    stated = [", ".join(part for part in (head.name, head.score, head.covered) if part) for head in heads[:_MOST_LINES]]
    more = len(heads) - len(stated)
    stated += [f"and {more} more models"] if more > 0 else []
    return "; ".join(escaped(part) for part in (*stated, view.examples(record), deployment.controls_line(record)))
