"""The report arranged for reading, as plain strings: what the terminal and the page both show."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

from wheeltap.core.plain import many
from wheeltap.core.records import UNCOVERED, BlockMap, Control, Finding, FindingStatus
from wheeltap.core.report import ReportRecord
from wheeltap.plans.plan import CUT, GROUPED
from wheeltap.report import estimates, words
from wheeltap.report.words import Tone

_SEVERITY: tuple[FindingStatus, ...] = (
    "void",
    "error",
    "found",
    "inconclusive",
    "excluded",
    "measured",
    "not_applicable",
    "skipped",
)


MOST_COLUMNS = 5
"""Models or pairs side by side: more do not fit a page."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One instrument on one subject or pair: a verdict in words, a value and its interval."""

    word: str = ""
    value: str = ""
    bracket: str = ""
    tone: Tone = "quiet"
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One subject or pair."""

    label: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Rows of one kind; ``captions`` say what the number in each column is."""

    title: str
    captions: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Column:
    """A heading in plain words and its code; ``claim`` where the code stands for several claims of one subject."""

    code: str
    name: str
    claim: str = ""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Score versus inside: networks first, then pairs."""

    columns: tuple[Column, ...]
    sections: tuple[RowGroup, ...]
    levels: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One instrument or claim on every model or pair of a part; ``caption`` says what its numbers are."""

    name: str
    code: str
    caption: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some of the models or pairs, with everything that was claimed of them; ``label`` says what a row is."""

    title: str
    heads: tuple[tuple[str, str], ...]
    claims: tuple[Claim, ...]
    label: str = "Claim"


@dataclass(frozen=True, kw_only=True)
class FindingView:
    """One finding in words. ``loud`` ones are given in full everywhere; ``answer`` is what ``word`` leaves unsaid."""

    code: str
    name: str
    title: str
    word: str
    tone: Tone
    estimates: tuple[tuple[str, str, str], ...]
    detectable: str
    because: tuple[str, ...]
    loud: bool
    answer: str


@dataclass(frozen=True, kw_only=True)
class Group:
    """All findings about one subject or pair."""

    label: str
    pair: bool
    findings: tuple[FindingView, ...]

    @property
    def loud(self) -> bool:
        """Whether any finding needs to be read."""
        return any(finding.tone == "alarm" for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class ControlView:
    """One control in words."""

    name: str
    kind: str
    status: str
    tone: Tone
    estimates: tuple[tuple[str, str, str], ...]
    because: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class FragileBlock:
    """One block and what disturbing it alone costs."""

    subject: str
    instrument: str
    dose: str
    block: str
    drop: str


def is_recorded(record: ReportRecord) -> bool:
    """Whether it is about answers that were recorded, so that nothing was run."""
    return any(subject.role == "recorded" for subject in record.subjects)


def headlines(record: ReportRecord) -> tuple[str, ...]:
    """The headline, one entry a line; the first one is the title of the report."""
    lines = (words.plain(line).strip() for line in record.headline.splitlines())
    return tuple(line for line in lines if line) or ("wheeltap report",)


def codes(record: ReportRecord) -> tuple[str, ...]:
    """Finding codes of the report, the benchmark score first."""
    return tuple(sorted({finding.code for finding in record.findings}, key=lambda code: _place(record, code)))


def pairs(record: ReportRecord) -> tuple[str, ...]:
    """Subjects of findings that are pairs: not the name of a single subject, and of the form "A vs B"."""
    single = {subject.name for subject in record.subjects}
    named = dict.fromkeys(finding.subject for finding in record.findings)
    return tuple(name for name in named if name not in single and " vs " in name)


def score_table(record: ReportRecord) -> ScoreTable:
    """The score-versus-inside table of ``record``."""
    stated = [code for code in codes(record) if not is_census(record, code)] or codes(record)
    columns = tuple(column for code in stated for column in _columns(record, code))
    paired = pairs(record)
    singles = tuple(dict.fromkeys(f.subject for f in record.findings if f.subject not in paired))
    both = ((singles, False), (paired, True))
    sections = tuple(_section(record, names, columns, pair=pair) for names, pair in both if names)
    return ScoreTable(
        columns=columns, sections=sections, levels=estimates.levels(e for f in record.findings for e in f.estimates)
    )


def parts(table: ScoreTable) -> tuple[Part, ...]:
    """The table in parts, models before pairs."""
    return tuple(part for section in table.sections for part in _parts(table, section))


def _parts(table: ScoreTable, section: RowGroup) -> Iterator[Part]:
    for start in range(0, len(section.rows), MOST_COLUMNS):
        rows = section.rows[start : start + MOST_COLUMNS]
        claims = [
            Claim(name=column.name, code=column.code, caption=caption, cells=tuple(row.cells[i] for row in rows))
            for i, (column, caption) in enumerate(zip(table.columns, section.captions, strict=True))
        ]
        yield Part(
            title=section.title if not start else f"{section.title}, continued",
            heads=tuple((row.label, row.note) for row in rows), claims=tuple(claims),
        )  # fmt: skip


def _columns(record: ReportRecord, code: str) -> list[Column]:
    """One column for a code, or one for each claim where a subject has several under it."""
    mine = [finding for finding in record.findings if finding.code == code]
    stated = {subject: {_claim(f) for f in mine if f.subject == subject} for subject in {f.subject for f in mine}}
    if all(len(claims) == 1 for claims in stated.values()):
        return [Column(code=code, name=name_of(record, code))]
    return [Column(code=code, name=words.plain(claim), claim=claim) for claim in dict.fromkeys(map(_claim, mine))]


def _claim(finding: Finding) -> str:
    """What a finding is about, the same of a subject and of a pair."""
    return finding.title.removesuffix(": difference")


def name_of(record: ReportRecord, code: str) -> str:
    """Plain name of the instrument with this code."""
    return words.plain(record.instrument(code).name)


def _place(record: ReportRecord, code: str) -> tuple[bool, str]:
    """Where a code stands: the score first."""
    return not is_score(record, code), code


def is_census(record: ReportRecord, code: str) -> bool:
    """Whether a code is that of the census of weights: what stands out is in the headline, and needs no column."""
    return record.instrument(code).asks == "census"


def is_score(record: ReportRecord, code: str) -> bool:
    """Whether a code is that of the benchmark's own score."""
    return record.instrument(code).asks == "score"


def _section(record: ReportRecord, names: Sequence[str], columns: Sequence[Column], *, pair: bool) -> RowGroup:
    parameters = {one.name: f"{one.parameters:,} parameters" for one in record.subjects if one.role != "recorded"}
    rows = [
        Row(
            label=words.plain(name),
            note=parameters.get(name, ""),
            cells=tuple(_cell(record, _of(record, name, column), pair=pair) for column in columns),
        )
        for name in names
    ]
    captions = tuple(_common(row.cells[i].caption for row in rows) for i in range(len(columns)))
    single = "Each system" if is_recorded(record) else "Each network"
    title = "Each pair: the difference" if pair else single
    return RowGroup(title=title, captions=captions, rows=tuple(rows))


def _common(captions: Iterable[str]) -> str:
    """One caption for a column: all there are, or how they all begin where each row has one of its own."""
    several = list(dict.fromkeys(caption for caption in captions if caption))
    columns = zip(*(caption.split() for caption in several), strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    return f"{' '.join(shared)} ..." if len(several) > 2 and shared else " / ".join(several)


def _of(record: ReportRecord, subject: str, column: Column) -> list[Finding]:
    mine = (finding for finding in record.findings if (finding.subject, finding.code) == (subject, column.code))
    return [finding for finding in mine if not column.claim or _claim(finding) == column.claim]


def _cell(record: ReportRecord, findings: Sequence[Finding], *, pair: bool) -> Cell:
    """The gravest finding of its cell; says how many others stand behind it."""
    if not findings:
        return Cell(word="" if is_recorded(record) else "not measured")
    worst = min(findings, key=lambda finding: _SEVERITY.index(finding.status))
    word = _answer(record, worst, pair=pair) or verdict(worst, pair=pair)
    if worst.status == "measured":
        word = ""
    if len(findings) > 1:
        word = f"{word} (worst of {len(findings)})".strip()
    tone = tone_of(worst) if word else "quiet"
    if not worst.estimates:
        return Cell(word=word, tone=tone)
    first = worst.estimates[0]
    value, bracket = estimates.parts(first, found=worst.status == "found")
    return Cell(word=word, value=value, bracket=bracket, tone=tone, caption=estimates.caption(first))


def groups(record: ReportRecord) -> tuple[Group, ...]:
    """Findings by subject; pairs first, because they are what a comparison was made for."""
    paired = pairs(record)
    named = dict.fromkeys((*paired, *(finding.subject for finding in record.findings)))
    return tuple(_group(record, name, pair=name in paired) for name in named)


def _group(record: ReportRecord, name: str, *, pair: bool) -> Group:
    found = sorted((f for f in record.findings if f.subject == name), key=lambda f: _place(record, f.code))
    views = tuple(_finding(record, finding, pair=pair) for finding in found)
    return Group(label=words.plain(name), pair=pair, findings=views)


def _finding(record: ReportRecord, finding: Finding, *, pair: bool) -> FindingView:
    least = finding.smallest_detectable
    unit = words.plain(finding.estimates[0].unit) if finding.estimates else ""
    return FindingView(
        code=finding.code,
        name=name_of(record, finding.code),
        title=words.plain(finding.title),
        word=verdict(finding, pair=pair),
        tone=tone_of(finding),
        estimates=tuple(estimates.line(estimate) for estimate in finding.estimates),
        detectable="" if least is None else f"{words.number(least)} {unit}".strip(),
        because=words.paragraphs(finding.because),
        loud=finding.status not in ("excluded", "measured"),
        answer=_answer(record, finding, pair=pair),
    )


def _answer(record: ReportRecord, finding: Finding, *, pair: bool) -> str:
    """What was shown where the claim was not: of a factor that is not unused, that it is used."""
    return words.plain(record.instrument(finding.code).otherwise) if finding.status == "excluded" and not pair else ""


def tone_of(finding: Finding) -> Tone:
    """How loudly a finding is shown; what leans to bad news, or left most weights alone, louder than what is open."""
    undecided = finding.status not in ("found", "error", "void")
    leaning = undecided and (finding.leaning or finding.verdict == UNCOVERED)
    return "warn" if leaning else words.tone(finding.status, alarm=finding.alarm)


def verdict(finding: Finding, *, pair: bool = False) -> str:
    """The verdict in the words of its question."""
    return words.plain(finding.verdict) or words.status(finding.status, pair=pair)


def controls(record: ReportRecord) -> tuple[ControlView, ...]:
    """Every control, failed ones first."""
    order = ("failed", "skipped", "passed")
    return tuple(_control(control) for control in sorted(record.controls, key=lambda c: order.index(c.status)))


def _control(control: Control) -> ControlView:
    return ControlView(
        name=words.plain(control.name),
        kind=words.CONTROL_KINDS[control.kind],
        status=control.status,
        tone=words.control_tone(control),
        estimates=tuple(estimates.line(estimate) for estimate in control.estimates),
        because=words.paragraphs(control.because),
    )


def fragile(record: ReportRecord, *, rows: int = 6) -> tuple[FragileBlock, ...]:
    """The most fragile blocks of each block map, the largest loss first: about ``rows`` in all, one a map at least."""
    most = max(1, rows // max(1, len(record.blocks)))
    return tuple(block for blocks in record.blocks for block in _fragile(record, blocks, most=most))


def _fragile(record: ReportRecord, blocks: BlockMap, *, most: int) -> Iterable[FragileBlock]:
    known = [(name, drop) for name, drop in zip(blocks.blocks, blocks.drops, strict=True) if drop.value is not None]
    known.sort(key=lambda item: -(item[1].value or 0.0))
    for name, drop in known[:most]:
        yield FragileBlock(
            subject=words.plain(blocks.subject),
            instrument=name_of(record, blocks.code),
            dose=words.number(blocks.dose),
            block=words.plain(name),
            drop=words.interval(drop),
        )


def examples(record: ReportRecord) -> str:
    """How many examples there are, of what, scored how; and what it costs that they come in groups."""
    task = record.task
    stated = f"{many(task.examples, 'example')} of {words.plain(task.name)} ({words.plain(task.measure)})"
    grouped = record.provenance.get(GROUPED)
    return f"{stated} {words.plain(str(grouped))}" if grouped else stated


def explanation(record: ReportRecord) -> str:
    """One paragraph: what was done, to what, and how to take the result; nothing of what was not asked."""
    task, paired = record.task, pairs(record)
    if is_recorded(record):
        return (
            f"A benchmark asks how many answers are right. This report asks what that leaves out: from the answers to "
            f"{task.examples:,} items, and the votes of people on them where there are any. Nothing was run. Systems "
            "are compared item by item, so what differs is not that one met harder items."
        )
    names = dict.fromkeys(finding.subject for finding in record.findings if finding.subject not in paired)
    nets = "the network" if len(names) == 1 else f"{len(names)} networks" if names else "the networks"
    disturbed = f"wheeltap disturbed {nets} in controlled ways and measured, on the same {examples(record)}"
    if all(is_score(record, code) or is_census(record, code) for code in codes(record)):
        asks = f"no more: wheeltap scored {nets} on {examples(record)} and disturbed nothing"
    elif any(record.instrument(curve.code).asks == "weights" for curve in record.curves):
        asks = f"how robust they are: {disturbed}, how fast the score falls"
    else:
        asks = f"what lies behind them: {disturbed}, what that does to the answers"
    text = f"A benchmark asks whether a network's answers are right. This report asks {asks}."
    if paired:
        text += (
            " In a pair both networks met the same examples and the same random numbers, so what differs is the "
            "network and not chance."
        )
    return f"{text} {_controls_line(record)}"


def _controls_line(record: ReportRecord) -> str:
    if not record.controls:
        return "No control was part of this run."
    passed, rest = sum(control.status == "passed" for control in record.controls), words.not_passed(record.controls)
    return f"{passed} of {len(record.controls)} controls passed{''.join(f', {part}' for part in rest)}."


def estimate_columns(record: ReportRecord) -> dict[str, tuple[type, list[str | float | int | None]]]:
    """Columns of the table with a row for each estimate of each finding, one for a finding without any.

    Columns: ``code title status verdict scheme subject estimate value low high level n unit method p margin coverage
    smallest_detectable``.
    """
    rows = [(finding, estimate) for finding in record.findings for estimate in finding.estimates or (None,)]
    found, estimates_ = [finding for finding, _ in rows], [estimate for _, estimate in rows]
    return {
        "code": (str, [f.code for f in found]),
        "title": (str, [f.title for f in found]),
        "status": (str, [f.status for f in found]),
        "verdict": (str, [f.verdict for f in found]),
        "scheme": (str, [f.scheme for f in found]),
        "subject": (str, [f.subject for f in found]),
        "estimate": (str, [e and e.name for e in estimates_]),
        "value": (float, [e and e.value for e in estimates_]),
        "low": (float, [e and e.low for e in estimates_]),
        "high": (float, [e and e.high for e in estimates_]),
        "level": (float, [e and e.level for e in estimates_]),
        "n": (int, [e and e.n for e in estimates_]),
        "unit": (str, [e and e.unit for e in estimates_]),
        "method": (str, [e and e.method for e in estimates_]),
        "p": (float, [e and e.p for e in estimates_]),
        "margin": (float, [f.margin for f in found]),
        "coverage": (float, [f.coverage for f in found]),
        "smallest_detectable": (float, [f.smallest_detectable for f in found]),
    }


def cost_line(record: ReportRecord) -> str:
    """What the run cost, in one line."""
    cost = record.cost
    if is_recorded(record):
        return f"Nothing was run: the answers were recorded. {words.seconds(cost.seconds)}"
    trials = f"{cost.trials:,} trials, {cost.reused:,} of them taken from the store; " if cost.trials else ""
    forwards = "forward pass" if cost.forwards == 1 else "forward passes"
    cut = f". Cut to the budget: {record.provenance[CUT]}" if CUT in record.provenance else ""
    return f"{trials}{words.count(cost.forwards)} {forwards} over the whole task, {words.seconds(cost.seconds)}{cut}"
