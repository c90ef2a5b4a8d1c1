"""The deployment table: what each way of shipping a model costs, and how two models differ in that."""

import textwrap
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from functools import partial

import msgspec

from wheeltap.audits.deployment import SPARED
from wheeltap.audits.headline import FULL, is_drawn, margin_of, of_all, percent, times
from wheeltap.audits.losses import GROWN
from wheeltap.audits.sample_sizes import SHOW, TELL, enough_for, rounded_up
from wheeltap.audits.slices import part_of, title_of
from wheeltap.core.plain import fixed
from wheeltap.core.records import UNCOVERED, Estimate, Finding, SubjectRecord, TaskRecord
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Block, Cell, Table, Text
from wheeltap.plans.plan import GROUPED
from wheeltap.report import dots, drawn, view, words
from wheeltap.report.blocks import Drawing, LegendEntry
from wheeltap.report.dots import DeploymentTable, Line
from wheeltap.stats.draws import WITHIN

MOST_LINES = 15
"""Rows of a table on the first screen."""

_NAMED = 3
"""Modules that a note names."""

_NAMED_FROM = 0.01
"""Share of the weights from which a module that was left alone is named."""

_NEARLY = 0.95
"""Share of what was left alone from which the modules named are all of it."""

_MOST_SERIES, _PANEL_ROWS = 6, 8
"""Pairs in one chart: more cannot be distinguished; rows of a chart of several pairs."""

_SETS = 3
"""Test sets that a table has a column for."""

_LONG_NAME, _TITLE = 24, 50
"""Letters of a name, and of a line below an axis."""

READ_ON = "All of it: --full, --html FILE."
"""Where the rest is, for who reads in a terminal."""


def heads(record: ReportRecord) -> Table:
    """Every model in one line: its score, and the share of its weights that was disturbed."""
    rows: list[tuple[str | Cell, ...]] = []
    for subject in record.subjects:
        share = coverage(record, subject)
        mine = (f for f in record.findings if f.subject == subject.name and view.is_score(record, f.code))
        score = next((f.estimates[0] for f in mine if f.estimates), None)
        covered = "" if share is None else f"weights covered {percent(share)}"
        tone = "alarm" if share is not None and share < FULL else "quiet"
        stated = (
            "not scored" if score is None else _score(record, score.value, unit=True) + _scores_by_set(record, subject)
        )
        rows.append((words.plain(subject.name), stated, Cell(word=covered, tone=tone)))
    return Table(heads=("", "", ""), rows=tuple(rows), most=1000, place="first")


def _scores_by_set(record: ReportRecord, subject: SubjectRecord) -> str:
    """The clean score on each of a few test sets, in parentheses: under a scheme, and what that lost."""
    scores = dict[str, str]()
    for row in record.findings:
        dataset, under_scheme = part_of(row)[1], _named(row, "score")
        if row.subject == subject.name and dataset and under_scheme and record.instrument(row.code).asks == "slices":
            lost = row.estimates[0].value or 0.0
            clean = (under_scheme[0].value or 0.0) + (lost if record.task.higher_is_better else -lost)
            scores.setdefault(dataset, _score(record, clean))
    named = [f"{words.plain(one.name)} {scores[one.name]}" for one in record.task.sets if one.name in scores]
    return f" ({', '.join(named)})" if 0 < len(named) <= _SETS else ""


def controls_line(record: ReportRecord) -> str:
    """How many controls passed, in a few words."""
    if not record.controls:
        return "no controls"
    stated = f"controls {sum(c.status == 'passed' for c in record.controls)} of {len(record.controls)} passed"
    rest = words.not_passed(record.controls)
    return f"{stated} ({', '.join(rest)})" if rest else stated


def coverage(record: ReportRecord, subject: SubjectRecord) -> float | None:
    """Least share of a model's weights that a disturbance of all of them reached; None where none was measured."""
    mine = [f for f in record.findings if f.coverage is not None]
    own = [f for f in mine if f.subject == subject.name]
    paired = [f for f in mine if subject.name in f.subject.split(" vs ")]
    shares = [f.coverage for f in of_all(own or paired) if f.coverage is not None]
    return min(shares, default=None)


def notes(record: ReportRecord, *, read_on: str = READ_ON) -> tuple[str, ...]:
    """What was left alone, what was spared, what was not asked, how to read on: one line each."""
    said = [text for finding in record.findings for text in words.paragraphs(finding.because)]
    found = [*dict.fromkeys(text for text in said if text.startswith("Warning: "))]
    found += _examples(record.task)
    for one in record.task.sets:
        found += [text.replace("Warning: ", f"Warning: {one.name}: ") for text in _examples(one)]
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
    open_rows = (line.verdict.note for table in lines(record) for line in table.lines)
    if any(TELL in text for text in (record.headline, *open_rows)):
        found.append(_ONCE)
    if any(map(is_drawn, record.findings)):
        found.append(_DRAWN)
    own = [f for f in record.findings if len(record.subjects) == 1 and record.instrument(f.code).asks == "deployment"]
    if any(map(_open_by_others, own)):
        found.append(_ALLOWS)
    if record.task.examples and GROUPED not in record.provenance:
        found.insert(0, _INDEPENDENT)
    if record.task.capped:
        found.insert(0, record.task.capped)
    return (*found, f"{_PROVES if record.task.examples else _UNRUN} {read_on}".strip())


_ONCE = (
    "Run it once more with the number named (it decides four times out of five): two looks keep false verdicts within "
    "alpha, a third does not."
)


_DRAWN = (
    "Of a random scheme one draw is deployed. Safe: at most 1 draw in 10 loses more than the margin. Costs: half of "
    "the draws do, or their mean. The interval is that of the mean."
)


_ALLOWS = (
    "An interval is of its row alone; a verdict allows for all tests of the report, and for losses that were not "
    "drawn. So a row can be open though its interval leaves the margin out."
)


def _open_by_others(row: Finding) -> bool:
    """Whether a model's own interval lies on one side of the margin, and the verdict says neither side."""
    if row.status != "inconclusive" or row.margin is None or not row.estimates:
        return False
    low, high = row.estimates[0].low, row.estimates[0].high
    return low is not None and high is not None and (high < row.margin or low > row.margin)


_ANSWERS = "Holds for these items and answers."
_AGAIN = "Look again once, with the number named and a fifth of alpha: both looks err in at most 1.2 times alpha."


_UNRUN = "No model was run: what its answers are is not known."
_PROVES = "Holds for these examples only; passing does not make a network correct or safe."


def _examples(task: TaskRecord) -> list[str]:
    """What is odd about the examples: few distinct ones, or one answer that is nearly always right."""
    found = list[str]()
    if task.repeats:
        found.append(
            f"Warning: {task.repeats:,} of the {task.examples + task.repeats:,} examples given repeat others and were "
            f"left out: {task.examples:,} differ, and each counts once."
        )
    if task.left_out:
        found.append(
            f"Warning: {task.left_out:,} of the {task.examples + task.left_out:,} examples were left out: they have no "
            f"{words.plain(task.measure)}."
        )
    if task.distinct is not None:
        found.append(
            f"Warning: only {task.distinct:,} of the {task.examples:,} examples differ in their inputs, and intervals "
            "take them for independent: they are too narrow."
        )
    if task.alike is not None:
        found.append(
            f"Warning: the {task.examples:,} examples are {task.alike:,} sets of copies or of rows of one subject: "
            "their inputs are much nearer to each other than to all others. Each set counts as one group, and joins "
            f"those that it is in. {_OTHERS}"
        )
    if task.found is not None:
        found.append(
            f"Warning: the {task.examples:,} examples are {task.found}. They count as groups, not one by one. {_OTHERS}"
        )
    if task.common is not None and task.common >= _UNEVEN:
        found.append(
            f"Warning: {fixed(100 * task.common, 1)} % of the examples have one answer, so a loss on all others can "
            "hide below the margin: test them alone too."
        )
    return found


_DECLARE = "--groups COLUMN, or Task(groups=...)"
_OTHERS = f"If these are others, declare them: {_DECLARE}."
_INDEPENDENT = f"Assumes independent examples; declare others: {_DECLARE}."

_UNEVEN = 0.8
"""Share of one answer from which the others need a test of their own."""


def _left_alone(record: ReportRecord, subject: SubjectRecord) -> str:
    share, least = coverage(record, subject), _NAMED_FROM * subject.parameters
    large = [module for module in subject.untouched if module.size >= least]
    if share is None or (share >= FULL and not large):
        return ""  # biases and norms, which deployment leaves alone too
    parts = [f"{words.plain(one.name) or 'the model itself'} ({one.size:,})" for one in large[:_NAMED]]
    more = len(large) - len(parts)
    whole = sum(module.size for module in large) >= _NEARLY * (1 - share) * subject.parameters
    listed = f"{', '.join(parts)}{f' and {more} more' if more > 0 else ''}"
    named = f"{':' if whole else ', among them'} {listed}" if parts else ""
    return f"Left alone in {words.plain(subject.name)}, {fixed(100 * (1 - share), 1)} % of the weights{named}."


# ---- rows -----------------------------------------------------------------------------------------------------


def lines(record: ReportRecord) -> tuple[DeploymentTable, ...]:
    """The rows of the first screen, none where no deployment was asked about.

    One model: its rows. Two: rows with both scores and the difference, the largest first. More: a table of every
    model's scores, then the largest differences from the first.
    """
    rows = [finding for finding in record.findings if record.instrument(finding.code).asks == "deployment"]
    if not rows:
        return ()
    names, pairs = [s.name for s in record.subjects], list(view.pairs(record))
    if len(names) == 1:
        return (_single(record, rows, names[0]),)
    if len(pairs) == 1:
        return (_pair(record, rows, pairs, both=names),)
    return (_matrix(record, rows, names), _pair(record, rows, pairs, both=()))


def _scale(record: ReportRecord) -> float:
    return 100.0 if record.task.in_points else 1.0


def _score(record: ReportRecord, value: float | None, *, unit: bool = False) -> str:
    if value is None:
        return words.UNKNOWN
    if record.task.in_points:
        return f"{fixed(100 * value, 1)}{' %' if unit else ''}"
    return f"{words.number(value)}{f' {words.plain(record.task.reported)}' if unit else ''}"


def _own_score(record: ReportRecord, row: Finding) -> str:
    score = _named(row, "score")
    return _score(record, score[0].value) if score else ""


def _effect(record: ReportRecord, row: Finding) -> str:
    """A loss or difference with its interval: in points, for a share of right answers; of an error, as its growth."""
    if not row.estimates:
        return ""
    effect, grown = row.estimates[0], _named(row, GROWN)
    shown = grown[0] if grown else effect
    ends = (shown.value, shown.low, shown.high)
    if grown:
        value, low, high = (words.OPEN if end is None else times(end) for end in ends)
        return f"x {value} [{low}, {high}]"
    if not record.task.in_points:
        return words.interval(effect)
    value, low, high = (words.OPEN if end is None else fixed(100 * end, 1) for end in ends)
    return f"{value} [{low}, {high}]"


def _named(finding: Finding, name: str) -> list[Estimate]:
    return [estimate for estimate in finding.estimates if estimate.name == name]


def label(finding: Finding) -> str:
    """What was done to the weights, in a few words."""
    first = finding.estimates[0].name if finding.estimates else finding.title
    return words.plain(finding.title if "difference" in first else first.removeprefix("loss "))


def _note(finding: Finding) -> str:
    """How many draws are within the margin, of a drawn row of one model; what would decide an open row."""
    counted = next((f"{one.value:.0f} of {one.n} draws within" for one in _named(finding, WITHIN)), "")
    paired = " vs " in finding.subject
    return "; ".join(filter(None, ("" if paired else counted, view.if_alone(finding), _needed(finding))))


def _needed(finding: Finding) -> str:
    part, power = finding.coverage, finding.power
    concludes = finding.status in ("found", "excluded", "inconclusive") or finding.verdict == UNCOVERED
    if part is not None and part < FULL and concludes:
        return f"{percent(part)} of the weights"
    named = next((one.name for one in finding.estimates if one.name.startswith("above always ")), "")
    if named and finding.status in ("found", "inconclusive"):
        return f"no better than {named.removeprefix('above ')}"
    if finding.status != "inconclusive" or power is None:
        return ""
    if power.together and power.examples is not None and power.draws is not None:
        return f"needs {rounded_up(power.examples)} examples and {power.draws:,} draws"
    if many := enough_for([finding], "examples"):
        return f"{many} {TELL}"
    if power.draws is not None:
        return f"needs {power.draws:,} draws"
    return "near the margin" if power.near else "needs more examples"


def _line(finding: Finding, *cells: str | Cell) -> Line:
    return Line(
        label=label(finding), cells=cells,
        verdict=Cell(finding.verdict, tone=view.tone_of(finding), note=_note(finding)),
        effect=finding.estimates[0] if finding.estimates else None, margin=finding.margin or 0.0,
    )  # fmt: skip


def _single(record: ReportRecord, rows: Sequence[Finding], name: str) -> DeploymentTable:
    mine, found = [row for row in rows if row.subject == name], list[Line]()
    if record.task.sets:
        return _by_set(record, mine, name)
    for row in mine:
        changed = _named(row, "answers changed")
        share = f"{fixed(100 * (changed[0].value or 0.0), 1)} %" if changed else ""
        found.append(_line(row, _own_score(record, row), _effect(record, row), share))
    lost = "grows, 95 %" if any(_named(row, GROWN) for row in mine) else "lost, 95 %"
    heads = ("shipped as", words.plain(record.task.reported), lost, "changed", _heading(record, mine))
    return DeploymentTable(title=words.plain(name), headings=heads, lines=tuple(found), scale=_scale(record))


def _by_set(record: ReportRecord, rows: Sequence[Finding], name: str) -> DeploymentTable:
    """Verdict and loss under every scheme on every test set, the set that loses most first; then of all together."""
    known = {f.title: f for f in record.findings if f.subject == name and record.instrument(f.code).asks == "slices"}
    each = {one.name: [known.get(title_of(row.title, one.name)) for row in rows] for one in record.task.sets}
    lost = {part: [f.estimates[0].value or 0.0 for f in mine if f and f.estimates] for part, mine in each.items()}
    sets, found = sorted(each, key=lambda part: -max(lost[part], default=0.0)), list[Line]()
    for at, row in enumerate(rows):
        own = [each[part][at] for part in sets[:_SETS]]
        cells = [Cell(f.verdict, _effect(record, f).partition(" [")[0], view.tone_of(f)) if f else "" for f in own]
        found.append(_line(row, *cells, _effect(record, row)))
    heads = ("shipped as", *map(words.plain, sets[:_SETS]), f"all {len(sets)} sets, lost", _heading(record, rows))
    return DeploymentTable(title=words.plain(name), headings=heads, lines=tuple(found), scale=_scale(record))


def _heading(record: ReportRecord, rows: Sequence[Finding]) -> str:
    margins = sorted({row.margin for row in rows if row.margin is not None})
    if not margins:
        return "verdict"
    known = next((row for row in rows if row.margin is not None and _named(row, GROWN) and _named(row, "score")), None)
    if known is not None:
        return f"verdict (margin x {times(margin_of(known))})"
    return f"verdict (margin {_scale(record) * margins[0]:.3g})"


def _pair(
    record: ReportRecord, rows: Sequence[Finding], pairs: Sequence[str], *, both: Sequence[str]
) -> DeploymentTable:
    """Differences, the largest first and what was not measured last; both models' scores, where there are only two."""

    def size(row: Finding) -> float:
        value = row.estimates[0].value if row.estimates else None
        return 1.0 if value is None else -abs(value)

    every = sorted((row for row in rows if row.subject in pairs), key=size)
    # Of several pairs, too many to list: those where a difference was shown.
    mine = every if both else [row for row in every if row.status == "found" or row.leaning]
    found = list[Line]()
    for row in mine:
        same = [one for one in rows if (one.code, one.scheme) == (row.code, row.scheme)]
        own = [_own(record, [one for one in same if one.subject == name]) for name in both]
        found.append(_line(row, *(own or [words.plain(row.subject)]), _effect(record, row)))
    heading = f"{words.plain(both[1]) if both else 'second'} loses more, 95 %"
    named = tuple(words.plain(name) for name in both) if both else ("pair",)
    return DeploymentTable(
        title=words.plain(pairs[0]) if len(pairs) == 1 else "",
        headings=("shipped as", *named, heading, _heading(record, mine)), lines=tuple(found),
        hidden=len(every) - len(mine), scale=_scale(record), paired=True,
    )  # fmt: skip


def _own(record: ReportRecord, found: Sequence[Finding]) -> Cell:
    """A model's own score and verdict under one scheme."""
    return Cell(found[0].verdict, _own_score(record, found[0]), view.tone_of(found[0])) if found else Cell()


def _matrix(record: ReportRecord, rows: Sequence[Finding], names: Sequence[str]) -> DeploymentTable:
    """Every model's score and verdict under every scheme."""
    mine, found = [row for row in rows if row.subject in names], list[Line]()
    for code, scheme in dict.fromkeys((row.code, row.scheme) for row in mine):
        same = [row for row in mine if (row.code, row.scheme) == (code, scheme)]
        cells = [_own(record, [row for row in same if row.subject == name]) for name in names]
        plain = label(same[0]) if len({label(row) for row in same}) == 1 else "without its worst weight"
        found.append(Line(label=plain, cells=tuple(cells), verdict=Cell()))
    heads = ("shipped as", *(words.plain(name) for name in names), "")
    return DeploymentTable(title="", headings=heads, lines=tuple(found), scale=_scale(record))


# ---- blocks ---------------------------------------------------------------------------------------------------


def blocks(record: ReportRecord, *, page: bool) -> list[Block | Drawing]:
    """The tables of the first screen with their picture: behind the first one, in a terminal before it."""
    shown, made = lines(record), list[Block | Drawing]()
    pictures = list(_single_picture(record, shown[0]) if len(shown) == 1 else _several(record) if shown else ())
    for at, table in enumerate(shown):
        rows = tuple((line.label, *line.cells, line.verdict) for line in table.lines)
        last = len(table.headings) - 1
        narrow = (last - 1, last) if table.paired else (2, last) if table.title else tuple(range(1, last))
        block = Table(
            title=_caption(record, table), heads=table.headings, rows=rows, most=MOST_LINES, narrow=narrow,
            place="first",
        )  # fmt: skip
        made += [block] if rows else []
        if at == 0:
            made = [*made, *pictures] if page else [*pictures, *made]
        if table.hidden:
            more = f"and {table.hidden} more without a shown difference: see every verdict."
            made.append(Text(text=more if rows else f"No difference was shown in {table.hidden} comparisons."))
    sets = {one.name for one in record.task.sets}  # of one model they have columns
    return [*made, *(_slices(record, sets, "set") if len(record.subjects) > 1 else ()), *_slices(record, sets, "slice")]


def _slices(record: ReportRecord, sets: Set[str], kind: str) -> list[Block]:
    """The slice, or test set, that loses most under each scheme: what costs comes before what may."""
    mine = [f for f in record.findings if record.instrument(f.code).asks == "slices" and f.margin is not None]
    mine = [f for f in mine if (part_of(f)[1] in sets) == (kind == "set")]
    paired = view.pairs(record)  # these lose either way

    def size(row: Finding) -> float:
        value = row.estimates[0].value or 0.0
        return abs(value) if row.subject in paired else value

    mine.sort(key=lambda f: (f.status == "found", size(f)))
    last = {(f.subject, part_of(f)[0]): f for f in mine}
    worst = {key: last[key] for key in dict.fromkeys((f.subject, f.title) for f in record.findings) if key in last}
    if not worst:
        return []
    several = len(record.subjects) > 1
    rows = tuple(
        (*((words.plain(subject),) if several else ()), label, words.plain(part_of(row)[1]), f"{row.estimates[0].n:,}",
         _effect(record, row), Cell(row.verdict, tone=view.tone_of(row), note=_note(row)))
        for (subject, label), row in worst.items()
    )  # fmt: skip
    every = "" if kind == "set" else "; its interval holds for all slices of a row together"
    title = f"The {kind} that loses most, in {_unit(record)}{every}"
    lost = "lost, or difference" if any(subject in paired for subject, _ in worst) else "lost"
    heads = (*(("model",) if several else ()), "shipped as", kind, "examples", lost, "verdict")
    return [Table(title=title, heads=heads, rows=rows, most=MOST_LINES, place="first")]


def _unit(record: ReportRecord) -> str:
    measure = words.plain(record.task.measure)
    return f"points of {measure}" if record.task.in_points else measure


def _caption(record: ReportRecord, table: DeploymentTable) -> str:
    if table.title and not table.paired:
        return f"What shipping costs, in {_unit(record)}; in brackets the 95 % interval"
    if not table.paired:
        return "Score and verdict of each model"
    if table.title:
        return f"Score and verdict of each model; the difference in {_unit(record)}, the largest first"
    first = words.plain(record.subjects[0].name)
    return f"How much more each loses than {first}, in {_unit(record)}, the largest first"


# ---- picture --------------------------------------------------------------------------------------------------


def _sober(record: ReportRecord, lines: Sequence[Line]) -> list[Line]:
    """Rows without anything to go by where the report is void."""
    return [replace(line, verdict=line.verdict._replace(tone="quiet")) if record.void else line for line in lines]


def _single_picture(record: ReportRecord, table: DeploymentTable) -> Iterator[Drawing]:
    ranked = dots.ranked(_sober(record, table.lines[:MOST_LINES]), paired=table.paired)
    if not ranked:
        return
    if table.paired:
        second = words.plain(record.subjects[1].name)
        title = _gap_axis(record, second if len(second) <= _LONG_NAME else "the second")
    else:
        title = tuple(textwrap.wrap(f"lost ({_unit(record)})", _TITLE))
    scale = dots.DotScale.of(ranked, factor=table.scale, title=title, paired=table.paired)
    what = "difference" if table.paired else "loss"
    yield Drawing(
        alt=f"Dot plot of the {what} at each row of the table, the largest first. {_spoken(ranked, scale)}",
        draw=lambda: tuple(dots.one(ranked, scale, width=width) for width in (dots.WIDE, dots.NARROW)),
        note=_legend(scale, what), printed=partial(dots.bars, table), place="first",
    )  # fmt: skip


def _gap_axis(record: ReportRecord, worse: str) -> tuple[str, ...]:
    return (*textwrap.wrap(f"difference ({_unit(record)})", _TITLE), f"right: {worse} loses more")


def _legend(scale: dots.DotScale, what: str) -> str:
    """How to read the marks."""
    text = f"Dot: {what}. Line: its 95 % interval. Gray: within the margin ({scale.margin:.3g})."
    return f"{text} Beyond the margin the axis is compressed." if scale.compressed else text


def _spoken(lines: Sequence[Line], scale: dots.DotScale) -> str:
    stated = (
        f"{line.label}: {words.interval(dots.times(line.effect, scale.factor))}, {line.verdict.word}"
        for line in lines
        if line.effect is not None
    )
    return f"{'; '.join(stated)}."


def _several(record: ReportRecord) -> Iterator[Drawing]:
    """All pairs in one chart; where they are too many, a chart each."""
    first, *rivals = record.subjects
    by_rival: dict[str, list[Line]] = {}
    for rival in rivals:
        names = (first.name, rival.name, f"{first.name} vs {rival.name}")
        mine = tuple(finding for finding in record.findings if finding.subject in names)
        alone = msgspec.structs.replace(record, subjects=(first, rival), findings=mine)
        for table in lines(alone):
            if table.paired and (ranked := dots.ranked(_sober(record, table.lines), paired=True)):
                by_rival[rival.name] = ranked
    every = dots.ranked([line for mine in by_rival.values() for line in mine], paired=True)
    if not every:
        return
    title = _gap_axis(record, "the named one")
    scale = dots.DotScale.of(every, factor=_scale(record), title=title, paired=True)
    if len(by_rival) > _MOST_SERIES:
        for at, (name, mine) in enumerate(by_rival.items()):
            note = f"{_legend(scale, 'difference')} The {_PANEL_ROWS} largest of each." if at == 0 else ""
            yield Drawing(
                title=words.plain(name), note=note, place="first",
                alt=f"Dot plot of the differences of {words.plain(name)}. {_spoken(mine[:_PANEL_ROWS], scale)}",
                draw=lambda mine=mine: (dots.one(mine[:_PANEL_ROWS], scale, width=dots.NARROW),),
            )  # fmt: skip
        return
    looks = [drawn.looks(record)[name] for name in by_rival]
    labels = list(dict.fromkeys(line.label for line in every))[:_PANEL_ROWS]
    kept = [[line for line in mine if line.label in labels] for mine in by_rival.values()]
    series = list(zip(looks, kept, strict=True))
    alt = "Dot plot of the differences of each pair, the largest first. "
    alt += " ".join(f"{words.plain(name)}: {_spoken(mine, scale)}" for name, mine in by_rival.items())
    left = len({line.label for line in every}) - len(labels)
    note = f"{_legend(scale, 'difference')} Filled: shown to differ."
    yield Drawing(
        alt=alt, place="first",
        draw=lambda: tuple(dots.several(labels, series, scale, width=width) for width in (dots.WIDE, dots.NARROW)),
        legend=tuple(LegendEntry.of(name, look) for name, look in zip(by_rival, looks, strict=True)),
        note=f"{note} The {len(labels)} rows with the largest differences." if left else note,
    )  # fmt: skip
