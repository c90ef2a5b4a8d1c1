"""What a report shows, part by part: the same blocks for the terminal, the page, a notebook and Markdown."""

from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Section, Text
from wheeltap.report import cohorts, deployment, drawn, view, words
from wheeltap.report.blocks import ReportPart

Parts = list[Section | ReportPart]

_MOST_BESIDE, _MOST_CLAIMS = 12, 22
"""Findings of other questions on a first screen: beside a deployment table, and where there is none."""


def first(record: ReportRecord, *, page: bool = False) -> Parts:
    """What stands first, behind the answer: the deployment table, sections, or every verdict.

    On a ``page`` every verdict follows below, and a picture its table; in a terminal, which is read from its end,
    verdicts come last, and findings of other questions have a line each.
    """
    if record.study is not None:
        return [cohorts.first(record, record.study, page=page)]
    shipped = deployment.blocks(record, page=page)
    parts: Parts = [ReportPart(blocks=tuple(shipped))] if shipped else []
    # What a census found is in the headline, and so is what a benchmark leaves out.
    stated = ("score", "deployment", "slices", "census", "benchmark")
    rest = [f for f in record.findings if record.instrument(f.code).asks not in stated]
    several = bool(shipped) or len(record.subjects) > 1
    label, most = ("also asked", _MOST_BESIDE) if shipped else ("claim", _MOST_CLAIMS)
    claims = view.claims_table(record, rest, label=label, most=most, several=several)
    beside: Parts = [ReportPart(blocks=(claims,))] if rest and not page and (shipped or leads(record)) else []
    if shipped:
        return [*parts, *beside, *(one for one in record.sections if not page or _is_first(one))]
    parts = [*(one for one in record.sections if not page or _is_first(one)), *beside]
    if page or not leads(record):
        tables = view.verdict_tables(record, place="first")
        said = Text(text="Nothing was judged: the report holds no findings.")
        parts.append(ReportPart(blocks=tuple(tables) or (said,)))
    return parts


def leads(record: ReportRecord) -> bool:
    """Whether sections stand on the first screen: those that are folded and say nothing there do not."""
    return any(not one.folded or one.says or _is_first(one) for one in record.sections)


def _is_first(one: Section) -> bool:
    return any(block.place == "first" for block in one.blocks)


def detail(record: ReportRecord, *, text: bool = False) -> Parts:
    """Everything else, but for what every report ends with; as ``text``, sections stand here alone, and not first."""
    if record.study is not None:  # all of its sections stand here: its table stands first
        return [*cohorts.detail(record, record.study), *record.sections, cohorts.nets(record.study)]
    sections = [one for one in record.sections if text or not _is_first(one)]
    tables, found, parts = view.verdict_tables(record), view.findings(record), list[Section | ReportPart]()
    if tables and (text or deployment.lines(record)):
        note = "of all instruments, with intervals"
        parts.append(ReportPart(title="Every verdict", folded=True, note=note, blocks=tuple(tables)))
    if found:
        parts.append(ReportPart(title="Findings", blocks=found))
    drawings = (drawn.forests(record), drawn.dosed(record), drawn.matched(record), drawn.maps(record))
    return [*sections, *parts, *(one for one in drawings if one is not None)]


def ending(record: ReportRecord) -> Parts:
    """What every report ends with: controls, cost, what it does not prove."""
    none = "Recorded answers have no control copies." if view.is_recorded(record) else words.NO_CONTROLS
    checks = view.controls_table(record) if record.controls else Text(text=none, place="page")
    note = deployment.controls_line(record)
    cost = Text(text=f"{view.cost_line(record)}.", place="page")
    return [
        ReportPart(title="Controls", folded=True, note=note, blocks=(checks,)),
        ReportPart(title="Cost", blocks=(cost,)),
    ]


def unproven(record: ReportRecord) -> ReportPart:
    """What a report on models does not prove."""
    lines = words.LENS_UNPROVEN if view.is_recorded(record) else words.UNPROVEN
    text = Text(text="\n\n".join(f"- {line}" for line in lines), place="page")
    return ReportPart(title="What this does not prove", blocks=(text,))
