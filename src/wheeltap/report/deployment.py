"""The deployment table: what each way of shipping a model costs, and how two models differ in that."""

from collections.abc import Sequence
from dataclasses import dataclass

from wheeltap.audits.deployment import SPARED
from wheeltap.audits.headline import FULL, SHOW, TELL, margin_of, of_all, percent, rounded, times
from wheeltap.audits.losses import GROWN
from wheeltap.core.records import UNCOVERED, Estimate, Finding, SubjectRecord
from wheeltap.core.report import ReportRecord
from wheeltap.report import view, words
from wheeltap.report.words import Tone

MOST_LINES = 15
"""Rows of a table on the first screen."""

_NAMED = 3
"""Modules that a note names."""

_NAMED_FROM = 0.01
"""Share of the weights from which a module that was left alone is named."""

READ_ON = "All of it: --full, --html FILE."
"""Where the rest is, for who reads in a terminal."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One scheme of one model, or of one pair.

    Attributes:
        label: What was done to the weights.
        cells: One text a column, between the label and the verdict.
        tones: How loudly each cell is shown.
        verdict: In words.
        note: What would decide it, in words; empty where it is decided.
        effect: What a picture draws; ``None`` where nothing was measured.
        margin: In the unit of the effect.
    """

    label: str
    cells: tuple[str, ...]
    tones: tuple[Tone, ...]
    verdict: str
    tone: Tone
    note: str = ""
    effect: Estimate | None = None
    margin: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DeploymentTable:
    """Rows with their headings.

    Attributes:
        title: The model or pair it is about; empty where it is about several.
        headings: Of label, cells and verdict.
        more: How many rows were left out.
        scale: What effects are multiplied by to be shown: 100 for points.
        paired: Whether effects are differences of two models.
    """

    title: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    more: int = 0
    scale: float = 1.0
    paired: bool = False


@dataclass(frozen=True, kw_only=True)
class Head:
    """One model in one line: its score, and the share of its weights that was disturbed."""

    name: str
    score: str
    covered: str
    partly: bool


def tables(record: ReportRecord, *, most: int = MOST_LINES) -> tuple[DeploymentTable, ...]:
    """The tables of the first screen, none where no deployment was asked about.

    One model: its rows. Two: rows with both scores and the difference, the largest first. More: a table of every
    model's scores, then the largest differences from the first.

    Args:
        record: The report.
        most: Rows of each.
    """
    rows = [finding for finding in record.findings if record.instrument(finding.code).asks == "deployment"]
    if not rows:
        return ()
    names, pairs = [s.name for s in record.subjects], list(view.pairs(record))
    if len(names) == 1:
        return (_single(record, rows, names[0], most=most),)
    if len(pairs) == 1:
        return (_pair(record, rows, pairs, both=names, most=most),)
    return (_matrix(record, rows, names, most=most), _pair(record, rows, pairs, both=(), most=most))


def heads(record: ReportRecord) -> tuple[Head, ...]:
    """Every model of the report in one line."""
    return tuple(_head(record, subject) for subject in record.subjects)


def controls_line(record: ReportRecord) -> str:
    """How many controls passed, in a few words."""
    if not record.controls:
        return "no controls"
    stated = f"controls {sum(c.status == 'passed' for c in record.controls)} of {len(record.controls)} passed"
    rest = words.not_passed(record.controls)
    return f"{stated} ({', '.join(rest)})" if rest else stated


def coverage(record: ReportRecord, subject: SubjectRecord) -> float | None:
    """Least share of a model's weights that a disturbance of all of them reached."""
    mine = [f for f in record.findings if f.coverage is not None]
    own = [f for f in mine if f.subject == subject.name]
    paired = [f for f in mine if subject.name in f.subject.split(" vs ")]
    shares = [f.coverage for f in of_all(own or paired) if f.coverage is not None]
    known = subject.covered / subject.parameters if subject.parameters and subject.covered else None
    return min(shares, default=known)


def notes(record: ReportRecord, *, read_on: str = READ_ON) -> tuple[str, ...]:
    """What was left alone, what was spared, what was not asked, how to read on: one line each."""
    said = [text for finding in record.findings for text in words.paragraphs(finding.because)]
    found = [text for text in said if text.startswith("Warning: ")]
    found += _examples(record)
    found += [note for subject in record.subjects if (note := _left_alone(record, subject))]
    found += [text for text in said if text.startswith(SPARED)][:1]
    asked = {record.instrument(finding.code).asks for finding in record.findings}
    if "deployment" in asked and not asked & {"weights", "learning", "structure"}:
        found.append("Not asked: noise curves, fine-tuning (--audits survival); what is inside (--audits structure).")
    if view.is_recorded(record):
        tested = [
            f for f in record.findings if f.status in ("found", "excluded", "inconclusive") and f.margin is not None
        ]
        several = (
            f"Verdicts are corrected for all {len(tested)} tests of this report; an interval or p-value is by itself."
        )
        said = (_ANSWERS, several if len(tested) > 1 else "", _AGAIN if SHOW in record.headline else "", read_on)
        return tuple(part for part in said if part)
    open_rows = (line.note for table in tables(record) for line in table.lines)
    if any(TELL in text for text in (record.headline, *open_rows)):
        found.append(_ONCE)
    return (*found, f"{_PROVES} {read_on}".strip())


_ONCE = "Look again once, with the number named: both looks keep false verdicts within alpha; more do not."


_ANSWERS = "Holds for these items and answers."
_AGAIN = "Look again once, with the number named and a fifth of alpha: both looks err in at most 1.2 alpha."


_PROVES = "Holds for these examples only; passing does not make a network correct or safe."


def _examples(record: ReportRecord) -> list[str]:
    """What is odd about the examples: few distinct ones, or one answer that is nearly always right."""
    task, found = record.task, list[str]()
    if task.repeats:
        found.append(
            f"Warning: {task.repeats:,} of the {task.examples + task.repeats:,} examples given repeat others and were "
            f"left out: {task.examples:,} differ, and each counts once."
        )
    if task.distinct is not None:
        found.append(
            f"Warning: only {task.distinct:,} of the {task.examples:,} examples differ in their inputs, and intervals "
            "take them for independent: they are too narrow."
        )
    if task.alike is not None:
        found.append(
            f"Warning: near-duplicates: only {task.alike:,} of the {task.examples:,} examples differ by more than a "
            "tiny change of their inputs. Each set of copies counts as one group, and joins those that it is in."
        )
    if task.found is not None:
        found.append(
            f"Warning: the {task.examples:,} examples are {task.found} that share a template, prefix or passage. They "
            "count as groups, not one by one; give their groups (groups, in .jsonl group) if these are others."
        )
    if task.common is not None and task.common >= _UNEVEN:
        found.append(
            f"Warning: {task.common:.1%} of the examples have one answer, so a loss on all others can hide below the "
            "margin: test them alone too."
        )
    return found


_UNEVEN = 0.8
"""Share of one answer from which the others need a test of their own."""


def _left_alone(record: ReportRecord, subject: SubjectRecord) -> str:
    share, least = coverage(record, subject), _NAMED_FROM * subject.parameters
    large = [module for module in subject.untouched if module.size >= least]
    if share is None or (share >= FULL and not large):
        return ""  # biases and norms, which deployment leaves alone too
    parts = [f"{words.plain(one.name) or 'the model itself'} ({one.size:,})" for one in large[:_NAMED]]
    more = len(large) - len(parts)
    named = f": {', '.join(parts)}{f' and {more} more' if more > 0 else ''}" if parts else ""
    return f"Left alone in {words.plain(subject.name)}, {1 - share:.1%} of the weights{named}."


def _head(record: ReportRecord, subject: SubjectRecord) -> Head:
    share = coverage(record, subject)
    mine = (f for f in record.findings if f.subject == subject.name and view.is_score(record, f.code) and f.estimates)
    score = next((f.estimates[0] for f in mine), None)
    return Head(
        name=words.plain(subject.name),
        score="not scored" if score is None else _score(record, score.value, unit=True),
        covered="" if share is None else f"weights covered {percent(share)}",
        partly=share is not None and share < FULL,
    )


# ---- rows -----------------------------------------------------------------------------------------------------


def _scale(record: ReportRecord) -> float:
    return 100.0 if record.task.bounded else 1.0


def _score(record: ReportRecord, value: float | None, *, unit: bool = False) -> str:
    if value is None:
        return words.UNKNOWN
    if record.task.bounded:
        return f"{100 * value:.1f}{' %' if unit else ''}"
    return f"{words.number(value)}{f' {words.plain(record.task.measure)}' if unit else ''}"


def _effect(record: ReportRecord, row: Finding) -> str:
    """A loss or difference with its interval: in points, for a share of right answers; of an error, as its growth."""
    effect = row.estimates[0]
    if grown := _named(row, GROWN):
        value, low, high = (words.OPEN if end is None else times(end) for end in _ends(grown[0]))
        return f"x {value} [{low}, {high}]"
    if not record.task.bounded:
        return words.interval(effect)
    value, low, high = (words.OPEN if end is None else f"{100 * end + 0.0:.1f}" for end in _ends(effect))
    return f"{value} [{low}, {high}]".replace("-0.0", "0.0")


def _ends(effect: Estimate) -> tuple[float | None, float | None, float | None]:
    return effect.value, effect.low, effect.high


def _named(finding: Finding, name: str) -> list[Estimate]:
    return [estimate for estimate in finding.estimates if estimate.name == name]


def label(finding: Finding) -> str:
    """What was done to the weights, in a few words."""
    first = finding.estimates[0].name if finding.estimates else finding.title
    return words.plain(finding.title if "difference" in first else first.removeprefix("loss "))


def _note(finding: Finding) -> str:
    """What would decide an open row."""
    part = finding.coverage
    concludes = finding.status in ("found", "excluded", "inconclusive") or finding.verdict == UNCOVERED
    if part is not None and part < FULL and concludes:
        return f"{percent(part)} of the weights"
    if finding.status in ("found", "inconclusive") and (left := _left(finding)):
        return f"no better than {left}"
    if finding.status != "inconclusive":
        return ""
    n, power = (finding.estimates[0].n if finding.estimates else 0), finding.power
    if power is None:
        return ""
    if power.examples is not None and power.examples > n:
        few = "at least " if n < _FEW else ""
        many = f"{rounded(power.examples)} examples" if power.groups is None else f"{rounded(power.groups)} groups"
        return f"{few}{many} {TELL}"
    if power.draws is not None:
        return f"{rounded(power.draws)} draws {TELL}"
    return "near the margin" if power.examples is not None else MORE


MORE = "more draws and examples"
"""What an open row needs, where neither alone would do."""


def _left(finding: Finding) -> str:
    """What the disturbed score is not shown to be better than; empty where it is."""
    named = next((one.name for one in finding.estimates if one.name.startswith("above always ")), "")
    return named.removeprefix("above ")


_FEW = 200
"""Examples below which their spread is too poorly known to foresee how many would do."""


def verdict_tone(finding: Finding) -> Tone:
    """How loudly a verdict is shown: nothing undecided is calm."""
    if finding.status == "found":
        return "alarm" if finding.alarm else "quiet"
    if finding.status in ("error", "void"):
        return "alarm"
    if finding.leaning or finding.verdict == UNCOVERED:
        return "warn"
    return "calm" if finding.status == "excluded" else "quiet"


def _line(record: ReportRecord, finding: Finding, cells: Sequence[tuple[str, Tone]], *, noted: bool = True) -> Line:
    return Line(
        label=label(finding), cells=tuple(text for text, _ in cells), tones=tuple(tone for _, tone in cells),
        verdict=finding.verdict, tone=verdict_tone(finding), note=_note(finding) if noted else "",
        effect=finding.estimates[0] if finding.estimates else None, margin=finding.margin or 0.0,
    )  # fmt: skip


def _single(record: ReportRecord, rows: Sequence[Finding], name: str, *, most: int) -> DeploymentTable:
    mine = [row for row in rows if row.subject == name]
    lines = [_line(record, row, _single_cells(record, row)) for row in mine]
    measure = words.plain(record.task.measure)
    lost = "grows, 95 %" if any(_named(row, GROWN) for row in mine) else "lost, 95 %"
    return DeploymentTable(
        title=words.plain(name), headings=("shipped as", measure, lost, "changed", _heading(record, mine)),
        lines=tuple(lines[:most]), more=max(len(lines) - most, 0), scale=_scale(record),
    )  # fmt: skip


def _single_cells(record: ReportRecord, row: Finding) -> list[tuple[str, Tone]]:
    if not row.estimates:
        return [("", "quiet")] * 3
    score, changed = _named(row, "score"), _named(row, "answers changed")
    return [
        (_score(record, score[0].value) if score else "", "quiet"),
        (_effect(record, row), "quiet"),
        (f"{100 * (changed[0].value or 0.0):.1f} %" if changed else "", "quiet"),
    ]


def _heading(record: ReportRecord, rows: Sequence[Finding]) -> str:
    margins = sorted({row.margin for row in rows if row.margin is not None})
    if not margins:
        return "verdict"
    known = next((row for row in rows if row.margin is not None and _named(row, GROWN) and _named(row, "score")), None)
    if known is not None:
        return f"verdict (margin x {times(margin_of(known))})"
    return f"verdict (margin {_scale(record) * margins[0]:.3g})"


def _pair(
    record: ReportRecord, rows: Sequence[Finding], pairs: Sequence[str], *, both: Sequence[str], most: int
) -> DeploymentTable:
    """Differences, the largest first; beside them both models' scores, where there are only two."""
    mine = sorted((row for row in rows if row.subject in pairs), key=_size)
    hidden = 0
    if not both:  # too many to list: those where a difference was shown
        hidden = len(mine)
        mine = [row for row in mine if row.status == "found" or row.leaning]
        hidden -= len(mine)
    lines = [_line(record, row, _pair_cells(record, rows, row, both), noted=False) for row in mine]
    heading = f"{words.plain(both[1]) if both else 'second'} loses more, 95 %"
    named = tuple(words.plain(name) for name in both) if both else ("pair",)
    return DeploymentTable(
        title=words.plain(pairs[0]) if len(pairs) == 1 else "",
        headings=("shipped as", *named, heading, _heading(record, mine)), lines=tuple(lines[:most]),
        more=max(len(lines) - most, 0) + hidden, scale=_scale(record), paired=True,
    )  # fmt: skip


def _size(row: Finding) -> float:
    """Sorts differences: the largest first, and what was not measured last."""
    value = row.estimates[0].value if row.estimates else None
    return 1.0 if value is None else -abs(value)


def _pair_cells(
    record: ReportRecord, rows: Sequence[Finding], row: Finding, both: Sequence[str]
) -> list[tuple[str, Tone]]:
    gap = _effect(record, row) if row.estimates else ""
    if not both:
        return [(words.plain(row.subject), "quiet"), (gap, "quiet")]
    own = [[one for one in rows if one.subject == name and _same(one, row)] for name in both]
    return [*(_own(record, one) for one in own), (gap, "quiet")]


def _same(one: Finding, row: Finding) -> bool:
    """Whether two findings are about one way of shipping."""
    return one.code == row.code and one.scheme == row.scheme


def _own(record: ReportRecord, found: Sequence[Finding]) -> tuple[str, Tone]:
    """A model's own score and verdict under one scheme."""
    score = _named(found[0], "score") if found else []
    if not found:
        return "", "quiet"
    stated = f"{_score(record, score[0].value)} {found[0].verdict}" if score else found[0].verdict
    return stated, verdict_tone(found[0])


def _matrix(record: ReportRecord, rows: Sequence[Finding], names: Sequence[str], *, most: int) -> DeploymentTable:
    """Every model's score and verdict under every scheme."""
    schemes = list(dict.fromkeys((row.code, row.scheme) for row in rows if row.subject in names))
    lines: list[Line] = []
    for code, scheme in schemes:
        same = [row for row in rows if (row.code, row.scheme) == (code, scheme) and row.subject in names]
        cells = [_own(record, [row for row in same if row.subject == name]) for name in names]
        plain = label(same[0]) if len({label(row) for row in same}) == 1 else "without its worst weight"
        lines.append(
            Line(
                label=plain,
                cells=tuple(t for t, _ in cells),
                tones=tuple(t for _, t in cells),
                verdict="",
                tone="quiet",
            )
        )
    return DeploymentTable(
        title="", headings=("shipped as", *(words.plain(name) for name in names), ""), lines=tuple(lines[:most]),
        more=max(len(lines) - most, 0), scale=_scale(record),
    )  # fmt: skip
