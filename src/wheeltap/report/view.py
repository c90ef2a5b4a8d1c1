"""The report arranged for reading, as plain strings: what the terminal and the page both show."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import takewhile

from wheeltap.core.records import UNCOVERED, Estimate, Finding, FindingStatus
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Cell, Place, Table, Tone
from wheeltap.plans.plan import CUT, GROUPED
from wheeltap.report import words
from wheeltap.report.blocks import FindingList, FindingView

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


def is_recorded(record: ReportRecord) -> bool:
    """Whether it is about answers that were recorded, so that nothing was run."""
    return any(subject.role == "recorded" for subject in record.subjects)


def headlines(record: ReportRecord) -> tuple[str, ...]:
    """The headline, one entry a line; the first one is the title of the report."""
    lines = (words.plain(line).strip() for line in record.headline.splitlines())
    return tuple(line for line in lines if line) or ("wheeltap report",)


def codes(record: ReportRecord) -> tuple[str, ...]:
    """Finding codes of the report, the benchmark score first."""
    return tuple(
        sorted({finding.code for finding in record.findings}, key=lambda code: (not is_score(record, code), code))
    )


def pairs(record: ReportRecord) -> tuple[str, ...]:
    """Subjects of findings that are pairs: not the name of a single subject, and of the form "A vs B"."""
    single = {subject.name for subject in record.subjects}
    named = dict.fromkeys(finding.subject for finding in record.findings)
    return tuple(name for name in named if name not in single and " vs " in name)


def verdict_tables(record: ReportRecord, *, place: Place = "page") -> list[Table]:
    """Every claim on every model, then on every pair: its number and verdict."""
    stated = [code for code in codes(record) if not is_census(record, code)] or codes(record)
    claims = [(code, name, claim) for code in stated for name, claim in _claims(record, code)]
    paired = pairs(record)
    singles = tuple(dict.fromkeys(f.subject for f in record.findings if f.subject not in paired))
    levels = words.levels(e for f in record.findings for e in f.estimates)
    of_one = "Each system" if is_recorded(record) else "Each network"
    parameters = {one.name: f"{one.parameters:,} parameters" for one in record.subjects if one.role != "recorded"}
    made: list[Table] = []
    for names, pair in ((singles, False), (paired, True)):
        rows: list[tuple[Cell, ...]] = []
        for code, name, claim in claims:
            found = [
                [f for f in record.findings if (f.subject, f.code) == (one, code) and claim in ("", _claim(f))]
                for one in names
            ]
            cells, captions = (
                zip(*(_cell(record, each, pair=pair) for each in found), strict=True) if found else ((), ())
            )
            rows.append((Cell(word=name, note="; ".join(part for part in (code, _common(captions)) if part)), *cells))
        if names:
            title = "Each pair: the difference" if pair else of_one
            heads = [f"{words.plain(name)}{f' ({parameters[name]})' if name in parameters else ''}" for name in names]
            made.append(
                Table(title=f"{title}; {levels}", heads=("Claim", *heads), rows=tuple(rows), most=30, place=place)
            )
    return made


def _claims(record: ReportRecord, code: str) -> list[tuple[str, str]]:
    """What rows of a code are called: its instrument, or each claim where a subject has several under it."""
    mine = [finding for finding in record.findings if finding.code == code]
    stated = {subject: {_claim(f) for f in mine if f.subject == subject} for subject in {f.subject for f in mine}}
    if all(len(claims) == 1 for claims in stated.values()):
        return [(name_of(record, code), "")]
    return [(words.plain(claim), claim) for claim in dict.fromkeys(map(_claim, mine))]


def _claim(finding: Finding) -> str:
    """What a finding is about, the same of a subject and of a pair."""
    return finding.title.removesuffix(": difference")


def claims_table(record: ReportRecord, found: Sequence[Finding], *, label: str, most: int, several: bool) -> Table:
    """A row for each finding: what its number is, the number, the verdict; of which model, where there are several."""
    rows: list[tuple[str | Cell, ...]] = []
    paired = pairs(record)
    for one in found:
        what, number, _ = words.line(one.estimates[0]) if one.estimates else ("", "", "")
        word = verdict(one, pair=one.subject in paired)
        name = f"{words.plain(one.title)}{f': {what}' if what else ''}"
        model = (words.plain(one.subject),) if several else ()
        rows.append((Cell(word=name, note=one.code), *model, number, Cell(word=word, tone=tone_of(one))))
    heads = (label, *(("model",) if several else ()), "number", "verdict")
    return Table(heads=heads, rows=tuple(rows), most=most, place="first")


def if_alone(finding: Finding) -> str:
    """Return the verdict that an undecided row has without the correction for the others, if it has one."""
    return f"{words.plain(finding.verdict_alone)} if tested alone" if finding.verdict_alone else ""


def name_of(record: ReportRecord, code: str) -> str:
    """Plain name of the instrument with this code."""
    return words.plain(record.instrument(code).name)


def is_census(record: ReportRecord, code: str) -> bool:
    """Whether a code is that of the census of weights: what stands out is in the headline, and needs no column."""
    return record.instrument(code).asks == "census"


def is_score(record: ReportRecord, code: str) -> bool:
    """Whether a code is that of the benchmark's own score."""
    return record.instrument(code).asks == "score"


def _common(captions: Iterable[str]) -> str:
    """One caption for a column: all there are, or how they all begin where each row has one of its own."""
    several = list(dict.fromkeys(caption for caption in captions if caption))
    columns = zip(*(caption.split() for caption in several), strict=False)
    shared = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, columns)]
    return f"{' '.join(shared)} ..." if len(several) > 2 and shared else " / ".join(several)


def _cell(record: ReportRecord, findings: Sequence[Finding], *, pair: bool) -> tuple[Cell, str]:
    """The gravest finding of its cell, and what its number is; says how many others stand behind it."""
    if not findings:
        return Cell(word="" if is_recorded(record) else "not measured"), ""
    worst = min(findings, key=lambda finding: _SEVERITY.index(finding.status))
    word = "" if worst.status == "measured" else _answer(record, worst, pair=pair) or verdict(worst, pair=pair)
    if len(findings) > 1:
        word = f"{word} (worst of {len(findings)})".strip()
    tone = tone_of(worst) if word else "quiet"
    if not worst.estimates:
        return Cell(word=word, tone=tone), ""
    first = worst.estimates[0]
    number = " ".join(filter(None, words.stated(first, found=worst.status == "found")))
    return Cell(word=word, number=number, tone=tone), words.caption(first)


def findings(record: ReportRecord) -> tuple[FindingList, ...]:
    """Findings by subject; pairs first, because they are what a comparison was made for."""
    paired, made = pairs(record), list[FindingList]()
    for name in dict.fromkeys((*paired, *(finding.subject for finding in record.findings))):
        found = sorted(
            (f for f in record.findings if f.subject == name), key=lambda f: (not is_score(record, f.code), f.code)
        )
        views = tuple(_finding(record, finding, pair=name in paired) for finding in found)
        count = Counter[tuple[str, Tone]]((one.word, one.tone) for one in views)
        tones: tuple[Tone, ...] = ("alarm", "warn", "quiet", "calm")
        chips = tuple(
            Cell(word=f"{word} {number}" if number > 1 else word, tone=tone)
            for each in tones
            for (word, tone), number in count.items()
            if tone == each
        )
        made.append(FindingList(label=words.plain(name), findings=views, chips=chips))
    return tuple(made)


def _finding(record: ReportRecord, finding: Finding, *, pair: bool) -> FindingView:
    least = finding.smallest_detectable
    unit = words.plain(finding.estimates[0].unit) if finding.estimates else ""
    name = name_of(record, finding.code)
    loud = finding.status not in ("excluded", "measured")
    if finding.status == "inconclusive" and record.instrument(finding.code).asks == "slices":
        loud = False  # of many slices most are open
    because, alone = words.paragraphs(finding.because), if_alone(finding)
    if alone:
        because = (*because, f"{alone[0].upper()}{alone[1:]}: here it is corrected for all tests of the report.")
    return FindingView(
        code=finding.code, name=name, title=words.plain(finding.title) or name, word=verdict(finding, pair=pair),
        tone=tone_of(finding), estimates=tuple(words.line(estimate) for estimate in finding.estimates),
        detectable="" if least is None else f"{words.number(least)} {unit}".strip(),
        because=because, loud=loud, answer=_answer(record, finding, pair=pair),
    )  # fmt: skip


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


def controls_table(record: ReportRecord) -> Table:
    """Every control, failed ones first: what it is, and what was measured."""
    order = ("failed", "skipped", "passed")
    rows: list[tuple[str | Cell, ...]] = []
    for one in sorted(record.controls, key=lambda control: order.index(control.status)):
        lines = [words.line(estimate) for estimate in one.estimates]
        said = [*(f"{name}: {value}" for name, value, _ in lines), *words.paragraphs(one.because)]
        name = Cell(word=words.plain(one.name), note=words.CONTROL_KINDS[one.kind])
        rows.append((name, Cell(word=one.status, tone=words.CONTROL_TONES[one.status]), " ".join(said)))
    return Table(heads=("Control", "Status", "Measured"), rows=tuple(rows), most=100)


def fragile_table(record: ReportRecord) -> Table:
    """The most fragile blocks of each block map, the largest loss first: about six in all, one a map at least."""
    most, made = max(1, _FRAGILE // max(1, len(record.blocks))), list[tuple[str, ...]]()
    for one in record.blocks:
        known = [(name, drop) for name, drop in zip(one.blocks, one.drops, strict=True) if drop.value is not None]
        known.sort(key=lambda item: -(item[1].value or 0.0))
        subject, instrument, dose = words.plain(one.subject), name_of(record, one.code), words.number(one.dose)
        made += [
            (f"{subject}: {words.plain(name)}", instrument, dose, words.interval(drop)) for name, drop in known[:most]
        ]
    return Table(heads=("block", "instrument", "dose", "loss of score"), rows=tuple(made), most=_FRAGILE)


_FRAGILE = 6


def examples(record: ReportRecord) -> str:
    """How many examples there are, of what, scored how; and what it costs that they come in groups."""
    task = record.task
    if not task.examples:
        return "weights alone, no examples"
    chosen = f"; {task.chosen}" if task.chosen else ""
    stated = f"{words.examples_of(task)} ({words.plain(task.measure)}{chosen})"
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
    if not task.examples:
        return (
            "wheeltap compared the tensors of each file with those of the original, after what converters do to them, "
            "and held each error against that of its format. No model was run, so nothing is known of its answers."
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
    if not record.controls:
        return f"{text} No control was part of this run."
    passed, rest = sum(control.status == "passed" for control in record.controls), words.not_passed(record.controls)
    return f"{text} {passed} of {len(record.controls)} controls passed{''.join(f', {part}' for part in rest)}."


def estimate_columns(record: ReportRecord) -> dict[str, tuple[type, list[str | float | int | None]]]:
    """Columns of the table with a row for each estimate of each finding, one for a finding without any.

    Columns: ``code title status verdict scheme subject estimate value low high level n unit method p margin coverage
    smallest_detectable``.
    """
    rows = [(finding, estimate) for finding in record.findings for estimate in finding.estimates or (None,)]
    columns: dict[str, tuple[type, list[str | float | int | None]]] = {}
    for name, kind in _COLUMNS.items():
        field = "name" if name == "estimate" else name
        of_number = field in Estimate.__struct_fields__
        columns[name] = kind, [getattr(one, field, None) if of_number else getattr(f, field) for f, one in rows]
    return columns


_COLUMNS: dict[str, type] = {
    **dict.fromkeys(("code", "title", "status", "verdict", "scheme", "subject", "estimate"), str),
    "value": float,
    "low": float,
    "high": float,
    "level": float,
    "n": int,
    "unit": str,
    "method": str,
    "p": float,
    **dict.fromkeys(("margin", "coverage", "smallest_detectable"), float),
}


def cost_line(record: ReportRecord) -> str:
    """What the run cost, in one line."""
    cost = record.cost
    if is_recorded(record):
        return f"Nothing was run: the answers were recorded. {words.seconds(cost.seconds)}"
    whole = cost.trials + cost.reused
    trials = f"{whole:,} trials, {cost.reused:,} of them taken from the store; " if whole else ""
    forwards = "forward pass" if cost.forwards == 1 else "forward passes"
    cut = f". Cut to the budget: {record.provenance[CUT]}" if CUT in record.provenance else ""
    return f"{trials}{words.count(cost.forwards)} {forwards} over the whole task, {words.seconds(cost.seconds)}{cut}"
