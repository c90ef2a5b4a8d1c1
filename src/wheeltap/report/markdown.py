"""The report as Markdown for a comment on a pull request: the answer, one table, what it does not prove."""

import re
from collections.abc import Sequence
from typing import Any, Final

from wheeltap.core.records import Estimate
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Cell, Table, Text
from wheeltap.report import cohorts, deployment, gate, shown, view, words
from wheeltap.report.origin import origin

_MOST_ROWS, _MOST_FINDINGS = 12, 25
_MOST_LINES = 8
"""Of headlines, models and notes, each."""

_MOST_BLOCKS = 6
"""Of sections."""

_LAST_NOTES = 3
"""Notes on the whole report, behind those on each model."""

_MARKUP = re.compile(r"([\\`*_{}|~$])")
_BREAK: Final = "&#8203;"
"""A space without width: keeps GitHub from making a link or a mention of a name."""


def markdown(record: ReportRecord) -> str:
    """GitHub-flavored Markdown of fewer than 60 lines; no name in it can become markup, a link or a mention."""
    line, *rest = view.headlines(record)
    blocks = [[f"**{escaped(line)}**"], [escaped(words.VOID)] if record.void else [], _items(rest)]
    shipped, study = bool(deployment.lines(record)), record.study
    parts = shown.first(record, page=True) if shipped or study is not None else record.sections
    first = [block for part in parts for block in part.blocks if block.place == "first"]
    tables = [made for block in first for made in _block(block)]
    blocks += tables if shipped or study is not None else tables[:_MOST_BLOCKS]
    found = record.findings
    if shipped:  # what fails and stands in no deployment table
        found = [f for f in gate.failing(record, "costs") if record.instrument(f.code).asks != "deployment"]
    ranked = sorted(found, key=lambda finding: not gate.fails(finding, "costs"))
    if ranked and study is None:
        blocks += _block(
            view.claims_table(record, ranked, label="claim", most=_MOST_FINDINGS, several=True), most=_MOST_FINDINGS
        )
    elif not ranked and not shipped:
        blocks.append(["Nothing was judged: the report holds no findings."])
    if study is None:
        blocks += [[_facts(record)], _items(deployment.notes(record, read_on=""), last=_LAST_NOTES)]
    else:
        stated = (cohorts.facts(record, study), cohorts.lost_line(record, study, most=_LAST_NOTES))
        blocks += [[escaped("; ".join(part for part in stated if part))], _items(study.caveats)]
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


def _block(block: Any, *, most: int = _MOST_ROWS) -> list[list[str]]:
    """What can be shown of a block: a text or a table, without columns that say nothing; bad news in bold."""
    if isinstance(block, Text):
        return [[escaped(block.text)]]
    if not isinstance(block, Table):
        return []
    most = min(block.most, most)
    rows = [[_cell(cell) for cell in row] for row in block.rows[:most]]
    kept = [at for at in range(len(block.heads)) if at == 0 or any(row[at] for row in rows)]
    marks = ["---" if at == 0 or at == kept[-1] else "---:" for at in kept]
    grid = [[escaped(block.heads[at]) for at in kept], marks, *([row[at] for at in kept] for row in rows)]
    more = len(block.rows) - most
    title = [[escaped(block.title)]] if block.title and not block.narrow else []
    return [*title, [f"| {' | '.join(cells)} |" for cells in grid], *([[f"and {more} more"]] if more > 0 else [])]


def _cell(cell: str | Estimate | Cell) -> str:
    if not isinstance(cell, Cell):
        return escaped(cell if isinstance(cell, str) else words.interval(cell))
    word = f"**{escaped(cell.word)}**" if cell.word and cell.tone == "alarm" else escaped(cell.word)
    note = f"({escaped(cell.note)})" if cell.note else ""
    return " ".join(part for part in (escaped(cell.number), word, note) if part)


def _facts(record: ReportRecord) -> str:
    """Models with score and coverage, examples and controls, in one line."""
    rows = [[_cell(cell) for cell in row] for row in deployment.heads(record).rows]
    stated = [", ".join(filter(None, row)) for row in rows[:_MOST_LINES]]
    more = len(rows) - len(stated)
    stated += [f"and {more} more models"] if more > 0 else []
    return "; ".join([*stated, *map(escaped, (view.examples(record), deployment.controls_line(record)))])
