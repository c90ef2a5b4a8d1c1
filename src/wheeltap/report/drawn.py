"""Every drawing of the page below its first screen: the chart, its words for who cannot see it, its numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from wheeltap.core.records import BlockMap, Curve, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.report import curves, figures, survival, view, words

CHART_COLOURS: dict[str, str] = {
    **{colour: f"series-{i}" for i, colour in enumerate(figures.SERIES)},
    **{colour: "muted" if tone == "quiet" else tone for tone, colour in figures.TONES.items()},
    figures.TWIN: "muted",
    figures.PLANTED: "muted",
    figures.INK: "ink",
    figures.MUTED: "muted",
    figures.GRID: "grid",
    figures.BAND: "band",
    figures.CARD: "card",
}
"""Drawn colour to the page's custom property. The stylesheet maps fills and strokes of a chart by these."""

# Outlines of the marks in a box of 16 by 16, for the legend.
_OUTLINES = {
    "circle": "M8 4.2a3.8 3.8 0 1 0 0 7.6a3.8 3.8 0 1 0 0-7.6z",
    "square": "M4.6 4.6h6.8v6.8h-6.8z",
    "triangle-up": "M8 3.8L12.4 11.6H3.6z",
    "diamond": "M8 3.2L12 8L8 12.8L4 8z",
    "cross": "M6.4 3.2h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",
    "triangle-down": "M8 12.2L3.6 4.4H12.4z",
    "triangle-right": "M12.2 8L4.4 12.4V3.6z",
    "triangle-left": "M3.8 8L11.6 3.6V12.4z",
}


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with its words: ``alt`` says what it shows to whoever cannot see it."""

    title: str
    code: str
    svg: Any
    alt: str
    rows: tuple[tuple[str, str, str], ...] = ()
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """One subject (or kind of control) in the legend of the charts."""

    label: str
    outline: str
    colour: str
    width: float = 1.4
    dash: str = ""

    @classmethod
    def of(cls, label: str, look: figures.Style, *, width: float = 1.6) -> "LegendEntry":
        """The entry of something drawn in this way."""
        colour = CHART_COLOURS[look.colour]
        return cls(label=words.plain(label), outline=_OUTLINES[look.shape], colour=colour, width=width)


@dataclass(frozen=True, kw_only=True)
class SurvivalPicture:
    """What survives, of one subject: every change of its weights on one axis, and dose by dose."""

    subject: str
    svg: Any
    alt: str
    legend: tuple[LegendEntry, ...]
    strips: tuple[survival.Strip, ...]
    note: str


def markup(text: str) -> Any:
    """For a template: SVG that vl-convert wrote: names in it are escaped already, as the text of an SVG."""
    from markupsafe import Markup

    text = text.replace('xmlns:xlink="http://www.w3.org/1999/xlink" ', "")
    # The figure around it has the words; a screen reader would otherwise read the axis labels as loose text.
    return Markup(text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))  # noqa: S704 (drawn by vl-convert, which escapes)


def looks(record: ReportRecord) -> dict[str, figures.Style]:
    """How each network is drawn, the same in every chart."""
    names = [subject.name for subject in record.subjects if subject.role == "subject"]
    names += [curve.subject for curve in record.curves if curve.role == "subject"]
    return figures.styles(names + [blocks.subject for blocks in record.blocks])


# ---- score against dose ---------------------------------------------------------------------------------------


def dosed(record: ReportRecord) -> list[Figure]:
    """One chart of score against dose for each instrument code."""
    made: list[Figure] = []
    for code in sorted({curve.code for curve in record.curves}):
        mine = [curve for curve in record.curves if curve.code == code and not curve.variant]
        shown = _shown(record, code)
        chart = curves.curve_chart(record.instrument(code), shown, looks(record)) if mine else None
        if chart is None:
            continue
        name = view.name_of(record, code)
        rows = tuple((words.plain(c.subject), _estimate(c.area), _estimate(c.half)) for c in mine)
        alt = f"Line chart of {words.plain(mine[0].measure)} against {name.lower()}. "
        alt += " ".join(_curve_words(curve) for curve in mine)
        note = "" if len(shown) == len(mine) else f"{len(shown)} of {len(mine)} curves are drawn; all are in numbers."
        made.append(Figure(title=name, code=code, svg=markup(figures.svg(chart)), alt=alt, rows=rows, note=note))
    return made


def _shown(record: ReportRecord, code: str) -> list[Curve]:
    """The curves of an instrument that are drawn."""
    mine = [curve for curve in record.curves if curve.code == code and not curve.variant]
    return curves.drawn(mine, sign=record.task.sign)


def legend(record: ReportRecord) -> list[LegendEntry]:
    """Everything drawn in a chart of score against dose."""
    shown = [curve for code in sorted({c.code for c in record.curves}) for curve in _shown(record, code)]
    known = looks(record)
    names = dict.fromkeys(curve.subject for curve in shown if curve.role == "subject")
    entries = [LegendEntry.of(name, known[name], width=known[name].width) for name in names]
    roles = {curve.role for curve in shown}
    if "twin" in roles:
        entries.append(LegendEntry(label="control: reparametrized copy", outline="", colour="muted", dash="6 3"))
    if "planted" in roles:
        entries.append(LegendEntry(label="control: planted defect", outline="", colour="muted", dash="1.5 2.5"))
    return entries


def _estimate(estimate: Any) -> str:
    return "not measured" if estimate is None else words.interval(estimate)


def _curve_words(curve: Curve) -> str:
    name, half = words.plain(curve.subject), curve.half
    if half is None:
        return f"{name}: half-dose not measured."
    return f"{name}: half of the score above chance is lost at dose {words.interval(half)}."


# ---- what survives --------------------------------------------------------------------------------------------


def matched(record: ReportRecord) -> list[SurvivalPicture]:
    """For each subject, what survives which change of its weights."""
    return [_matched(record, one) for one in survival.survival(record)]


def _matched(record: ReportRecord, one: survival.Survival) -> SurvivalPicture:
    sized = survival.sized(record, one.subject)
    places = survival.worst(sized, most=curves.MOST_LINES)
    strips = [one.strips[place] for place in places]
    styled = list(figures.styles(f"{strip.code} {strip.label}" for strip in strips).values())
    chart = survival.matched_chart([sized[place] for place in places], styled)
    alt = f"Line chart of the score of {one.subject} against the size of the change of its weights. " + " ".join(
        f"{strip.label}: half of the score above chance is lost at {strip.half} {strip.unit}." for strip in strips
    )
    left = len(one.strips) - len(strips)
    note = (
        f"Drawn are the {len(strips)} of {len(one.strips)} that lose half of the score at the smallest change. "
        "All are in the table."
    )
    return SurvivalPicture(
        subject=one.subject, svg="" if chart is None else markup(figures.svg(chart)), alt=alt, strips=one.strips,
        legend=tuple(LegendEntry.of(strip.label, look) for strip, look in zip(strips, styled, strict=True)),
        note=note if left else "",
    )  # fmt: skip


# ---- block maps -----------------------------------------------------------------------------------------------


def maps(record: ReportRecord) -> list[Figure]:
    """Block maps, those of one instrument together and on one scale."""
    made: list[Figure] = []
    known = looks(record)
    for code in sorted({blocks.code for blocks in record.blocks}):
        same = [blocks for blocks in record.blocks if blocks.code == code and blocks.blocks]
        ends = figures.block_ends(same)
        made += [_map(record, blocks, known[blocks.subject].colour, ends) for blocks in same]
    return made


def _map(record: ReportRecord, blocks: BlockMap, colour: str, ends: tuple[float, float]) -> Figure:
    drops = zip(blocks.blocks, blocks.drops, strict=True)
    rows = tuple((words.plain(name), words.interval(drop), "") for name, drop in drops)
    alt = f"Bar chart of the loss of score when one block of {words.plain(blocks.subject)} is disturbed. "
    alt += "; ".join(f"{name}: {drop}" for name, drop, _ in rows)
    svg = markup(figures.svg(figures.block_chart(blocks, colour, ends=ends)))
    note = f"{view.name_of(record, blocks.code)} at dose {words.number(blocks.dose)}"
    return Figure(title=words.plain(blocks.subject), code=blocks.code, svg=svg, alt=alt, rows=rows, note=note)


# ---- differences ----------------------------------------------------------------------------------------------


def forests(record: ReportRecord) -> list[Figure]:
    """One chart per pair and unit: what differs and what does not, on one scale for all pairs.

    Deployment has a picture of its own on the first screen.
    """
    paired = view.pairs(record)
    able = [f for f in record.findings if f.subject in paired and f.estimates and f.estimates[0].value is not None]
    able = [f for f in able if record.instrument(f.code).asks != "deployment"]
    units = dict.fromkeys(f.estimates[0].unit for f in able)
    made: list[Figure] = []
    for unit in units:
        same = [finding for finding in able if finding.estimates[0].unit == unit]
        if all(view.is_score(record, finding.code) for finding in same):
            continue
        seen = [end for f in same if f.smallest_detectable is not None for end in _both(f.smallest_detectable)]
        ends = figures.ends_of((finding.estimates[0] for finding in same), *seen)
        each = [(pair, [f for f in same if f.subject == pair]) for pair in paired]
        made += [_forest(record, pair, sorted(rows, key=lambda f: f.code), ends) for pair, rows in each if rows]
    return made


def _both(size: float) -> tuple[float, float]:
    return -size, size


def _forest(record: ReportRecord, pair: str, findings: Sequence[Finding], ends: tuple[float, float]) -> Figure:
    codes = [finding.code for finding in findings]
    names = [
        words.plain(f.title.removesuffix(": difference")) if codes.count(f.code) > 1 else view.name_of(record, f.code)
        for f in findings
    ]
    svg = markup(figures.svg(figures.forest_chart(findings, names, ends=ends)))
    said = (
        f"{name}: {words.interval(f.estimates[0])}, {words.status(f.status, pair=True)}"
        for name, f in zip(names, findings, strict=True)
    )
    alt = f"Differences between the two networks of {words.plain(pair)}, with intervals. {'; '.join(said)}."
    return Figure(title=words.plain(pair), code="", svg=svg, alt=alt)
