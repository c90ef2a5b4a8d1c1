"""The first screen of the page: what is said first, the models in one line each, the deployment table, its picture."""

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from wheeltap.core.report import ReportRecord
from wheeltap.report import deployment, dots, drawn, figures, view, words
from wheeltap.report.deployment import DeploymentTable, Line
from wheeltap.report.drawn import LegendEntry, markup

_ALL = 10**9
_MOST_SERIES = 6
"""Pairs in one chart: more cannot be distinguished."""

_MOST_ROWS = 8
_PANEL_ROWS = 8
_MOST_COLUMNS = 6
"""Models in one table: more do not fit."""

_MOST_SAID = 3
"""Lines of the headline that are not folded away, after the first."""

_SHORT = 60
"""Letters below which the first sentence is shown with the next one."""

_LONG_NAME = 24
_TITLE = 50
"""Letters of a line below an axis."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """The headline by weight: in large letters, in small ones, folded away."""

    large: str
    small: tuple[str, ...]
    folded: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """A deployment table as it fits.

    Attributes:
        caption: What its numbers are.
        rest: Rows that are folded away.
        hidden: How many rows are left out.
        named: Whether the first column after the label holds names.
    """

    caption: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    rest: tuple[Line, ...] = ()
    hidden: int = 0
    named: bool = False


@dataclass(frozen=True, kw_only=True)
class PicturePanel:
    """One drawing, made for a page and for a phone; ``alt`` says what it shows to whoever cannot see it."""

    title: str
    wide: Any
    narrow: Any
    alt: str


@dataclass(frozen=True, kw_only=True)
class TopPicture:
    """The deployment table drawn."""

    caption: str
    panels: tuple[PicturePanel, ...]
    legend: tuple[LegendEntry, ...] = ()


def said(record: ReportRecord) -> Said:
    """The headline of a report."""
    first, *others = view.headlines(record)
    sentences = re.split(r"(?<=[.!?]) (?=[A-Z])", first)
    count = 1
    while count < len(sentences) and len(" ".join(sentences[:count])) < _SHORT:
        count += 1
    rest = " ".join(sentences[count:])
    small = ([rest] if rest else []) + others
    return Said(large=" ".join(sentences[:count]), small=tuple(small[:_MOST_SAID]), folded=tuple(small[_MOST_SAID:]))


# ---- tables ---------------------------------------------------------------------------------------------------


def tables(record: ReportRecord) -> list[PageTable]:
    """The deployment tables, cut into as many as fit side by side."""
    full = deployment.tables(record, most=_ALL)
    return [part for table in full for part in _fitted(table, _caption(record, table)) if part.lines]


def _fitted(table: DeploymentTable, caption: str) -> Iterator[PageTable]:
    """A table of many models in parts; a part says more than ``MOST_LINES`` rows in its folded rest."""
    models = 0 if table.title or table.paired else len(table.headings) - 2
    for start in range(0, max(models, 1), _MOST_COLUMNS):
        cut = slice(start, start + _MOST_COLUMNS) if models else slice(None)
        label, *middle, verdict = table.headings
        lines = tuple(replace(line, cells=line.cells[cut], tones=line.tones[cut]) for line in table.lines)
        headings, most = (label, *middle[cut], verdict), deployment.MOST_LINES
        yield PageTable(
            caption=caption, headings=headings, lines=lines[:most], rest=lines[most:], hidden=table.more,
            named=table.paired and not table.title,
        )  # fmt: skip


def _unit(record: ReportRecord) -> str:
    measure = words.plain(record.task.measure)
    return f"points of {measure}" if record.task.bounded else measure


def _caption(record: ReportRecord, table: DeploymentTable) -> str:
    if table.title and not table.paired:
        return f"What shipping costs, in {_unit(record)}. In brackets: the 95 % interval."
    if not table.paired:
        return "Score and verdict of each model."
    if table.title:
        return f"Score and verdict of each model; the difference in {_unit(record)}, the largest first."
    first = words.plain(record.subjects[0].name)
    return f"How much more each loses than {first}, in {_unit(record)}, the largest first."


# ---- picture --------------------------------------------------------------------------------------------------


def picture(record: ReportRecord) -> TopPicture | None:
    """The rows of the first screen drawn; nothing where none has a number."""
    full = deployment.tables(record)
    if not full:
        return None
    if len(full) == 1:
        return _single(record, full[0])
    return _several(record)


def _sober(record: ReportRecord, lines: Sequence[Line]) -> list[Line]:
    """Rows without anything to go by where the report is void."""
    return [replace(line, tone="quiet") if record.void else line for line in lines]


def _single(record: ReportRecord, table: DeploymentTable) -> TopPicture | None:
    lines = dots.ranked(_sober(record, table.lines), paired=table.paired)
    if not lines:
        return None
    scale = dots.DotScale.of(lines, factor=table.scale, title=_axis(record, table), paired=table.paired)
    wide, narrow = (markup(figures.svg(dots.one(lines, scale, width=width))) for width in (dots.WIDE, dots.NARROW))
    what = "difference" if table.paired else "loss"
    alt = f"Dot plot of the {what} at each row of the table, the largest first. {_spoken(lines, scale)}"
    return TopPicture(caption=_legend(scale, what), panels=(PicturePanel(title="", wide=wide, narrow=narrow, alt=alt),))


def _axis(record: ReportRecord, table: DeploymentTable) -> tuple[str, ...]:
    if not table.paired:
        return tuple(textwrap.wrap(f"lost ({_unit(record)})", _TITLE))
    second = words.plain(record.subjects[1].name)
    return _gap_axis(record, second if len(second) <= _LONG_NAME else "the second")


def _gap_axis(record: ReportRecord, worse: str) -> tuple[str, ...]:
    return (*textwrap.wrap(f"difference ({_unit(record)})", _TITLE), f"right: {worse} loses more")


def _legend(scale: dots.DotScale, what: str) -> str:
    """How to read the marks."""
    text = f"Dot: {what}. Line: its 95 % interval. Gray: within the margin ({scale.margin:.3g})."
    return f"{text} Beyond the margin the axis is compressed." if scale.compressed else text


def _spoken(lines: Sequence[Line], scale: dots.DotScale) -> str:
    stated = (
        f"{line.label}: {words.interval(dots.times(line.effect, scale.factor))}, {line.verdict}"
        for line in lines
        if line.effect is not None
    )
    return f"{'; '.join(stated)}."


def _several(record: ReportRecord) -> TopPicture | None:
    """All pairs in one chart; where they are too many, a chart each."""
    by_rival = {name: dots.ranked(_sober(record, table.lines), paired=True) for name, table in _pairs(record)}
    by_rival = {name: lines for name, lines in by_rival.items() if lines}
    lines = dots.ranked([line for mine in by_rival.values() for line in mine], paired=True)
    if not lines:
        return None
    scale = dots.DotScale.of(
        lines, factor=_pairs(record)[0][1].scale, title=_gap_axis(record, "the named one"), paired=True
    )
    if len(by_rival) > _MOST_SERIES:
        panels = [_panel(name, mine[:_PANEL_ROWS], scale) for name, mine in by_rival.items()]
        caption = f"{_legend(scale, 'difference')} The {_PANEL_ROWS} largest of each."
        return TopPicture(caption=caption, panels=tuple(panels))
    looks = [drawn.looks(record)[name] for name in by_rival]
    labels = list(dict.fromkeys(line.label for line in lines))[:_MOST_ROWS]
    kept = [[line for line in mine if line.label in labels] for mine in by_rival.values()]
    series = list(zip(looks, kept, strict=True))
    wide, narrow = (
        markup(figures.svg(dots.several(labels, series, scale, width=width))) for width in (dots.WIDE, dots.NARROW)
    )
    alt = "Dot plot of the differences of each pair, the largest first. "
    alt += " ".join(f"{words.plain(name)}: {_spoken(mine, scale)}" for name, mine in by_rival.items())
    legend = tuple(LegendEntry.of(name, look) for name, look in zip(by_rival, looks, strict=True))
    left = len({line.label for line in lines}) - len(labels)
    caption = f"{_legend(scale, 'difference')} Filled: shown to differ."
    caption += f" The {len(labels)} rows with the largest differences." if left else ""
    return TopPicture(
        caption=caption, panels=(PicturePanel(title="", wide=wide, narrow=narrow, alt=alt),), legend=legend
    )


def _pairs(record: ReportRecord) -> list[tuple[str, DeploymentTable]]:
    """The second model of each pair, and the table there would be of the two alone."""
    first, *rivals = record.subjects
    made: list[tuple[str, DeploymentTable]] = []
    for rival in rivals:
        names = (first.name, rival.name, f"{first.name} vs {rival.name}")
        mine = tuple(finding for finding in record.findings if finding.subject in names)
        alone = msgspec.structs.replace(record, subjects=(first, rival), findings=mine)
        made += [(rival.name, table) for table in deployment.tables(alone, most=_ALL) if table.paired]
    return made


def _panel(name: str, lines: Sequence[Line], scale: dots.DotScale) -> PicturePanel:
    svg, name = markup(figures.svg(dots.one(lines, scale, width=dots.NARROW))), words.plain(name)
    return PicturePanel(
        title=name, wide=svg, narrow="", alt=f"Dot plot of the differences of {name}. {_spoken(lines, scale)}"
    )


# ---- findings -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Verdicts:
    """How many findings of a subject or pair have one verdict."""

    word: str
    tone: words.Tone
    count: int


def verdicts(group: view.Group) -> list[Verdicts]:
    """The verdicts of a subject or pair, the gravest first."""
    found = dict.fromkeys((finding.word, finding.tone) for finding in group.findings)
    order: tuple[words.Tone, ...] = ("alarm", "warn", "quiet", "calm")
    return [
        Verdicts(word=word, tone=tone, count=sum((f.word, f.tone) == (word, tone) for f in group.findings))
        for tone in order
        for word in (word for word, same in found if same == tone)
    ]
