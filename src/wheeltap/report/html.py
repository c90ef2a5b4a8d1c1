"""The report as one self-contained page: no script, no font, no address to fetch; one drawing serves both themes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wheeltap.core.records import BlockMap, Curve, Finding, ReportRecord
from wheeltap.report import figures, survival, view, words

if TYPE_CHECKING:
    from jinja2 import Environment

# Dark counterparts of figures.SERIES, in its order: each reads at 4.5 to 1 or better on the dark page.
DARK = ("#7fb0ff", "#ffa25c", "#74cf98", "#d79be8", "#5fd0de", "#ff8e9c", "#d9c54a", "#b7b7c9")
# Drawn colour to the page's custom property. The stylesheet maps fills and strokes of a chart by these.
CHART_COLOURS = {
    **{colour: f"series-{i}" for i, colour in enumerate(figures.SERIES)},
    figures.TWIN: "muted",
    figures.PLANTED: "muted",
    figures.INK: "ink",
    figures.MUTED: "muted",
    figures.GRID: "grid",
    figures.BAND: "band",
}
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


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What survives, of one subject: every change of its weights on one axis, and dose by dose."""

    subject: str
    svg: Any
    alt: str
    legend: tuple[LegendEntry, ...]
    strips: tuple[survival.Strip, ...]


def page(record: ReportRecord) -> str:
    """The whole page.

    Args:
        record: The report.

    Returns:
        A complete HTML document.
    """
    return environment().get_template("report.html.j2").render(_context(record))


def fragment(record: ReportRecord) -> str:
    """Headline and score-versus-inside table, for a notebook.

    Args:
        record: The report.

    Returns:
        An HTML fragment.
    """
    template = environment().get_template("summary.html.j2")
    return template.render(record=record, table=view.score_table(record), headlines=view.headlines(record), words=words)


def environment() -> "Environment":
    """The templates of this package; what is put into them is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("wheeltap.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["hold"] = words.hold
    return environment


def _context(record: ReportRecord) -> dict[str, Any]:
    looks = figures.styles(_drawn(record))
    return {
        "record": record,
        "words": words,
        "palette": list(zip(figures.SERIES, DARK, strict=True)),
        "chart_colours": CHART_COLOURS,
        "headlines": view.headlines(record),
        "command": words.plain(record.command),
        "failed": [control.name for control in view.controls(record) if control.status == "failed"],
        "explanation": view.explanation(record),
        "table": view.score_table(record),
        "groups": view.groups(record),
        "forests": _forests(record),
        "legend": _legend(record, looks),
        "curves": _curves(record, looks),
        "survival": _survival(record),
        "maps": _maps(record, looks),
        "controls": view.controls(record),
        "cost": view.cost_line(record),
        "instruments": [
            (view.name_of(record, code), words.plain(record.instrument(code).reads)) for code in view.codes(record)
        ],
        "subjects": [(words.plain(s.name), f"{s.parameters:,}", words.plain(s.fingerprint)) for s in record.subjects],
        "provenance": [(words.plain(key), words.scalar(value)) for key, value in sorted(record.provenance.items())],
    }


def _drawn(record: ReportRecord) -> list[str]:
    """Names that need a colour, in the order of the subjects."""
    names = [subject.name for subject in record.subjects if subject.role == "subject"]
    names += [curve.subject for curve in record.curves if curve.role == "subject"]
    return names + [blocks.subject for blocks in record.blocks]


def markup(text: str) -> Any:
    """For a template: SVG that vl-convert wrote: names in it are escaped already, as the text of an SVG."""
    from markupsafe import Markup

    text = text.replace('xmlns:xlink="http://www.w3.org/1999/xlink" ', "")
    # The figure around it has the words; a screen reader would otherwise read the axis labels as loose text.
    return Markup(text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))  # noqa: S704 (drawn by vl-convert, which escapes)


def _legend(record: ReportRecord, looks: dict[str, figures.Style]) -> list[LegendEntry]:
    if not record.curves:
        return []
    shown = dict.fromkeys(curve.subject for curve in record.curves if curve.role == "subject")
    entries = [
        LegendEntry(
            label=words.plain(name),
            outline=_OUTLINES[looks[name].shape],
            colour=CHART_COLOURS[looks[name].colour],
            width=looks[name].width,
        )
        for name in shown
    ]
    roles = {curve.role for curve in record.curves}
    if "twin" in roles:
        entries.append(LegendEntry(label="control: re-coded twin", outline="", colour="muted", dash="6 3"))
    if "planted" in roles:
        entries.append(LegendEntry(label="control: planted defect", outline="", colour="muted", dash="1.5 2.5"))
    return entries


def _curves(record: ReportRecord, looks: dict[str, figures.Style]) -> list[Figure]:
    """One chart per instrument code."""
    made: list[Figure] = []
    for code in sorted({curve.code for curve in record.curves}):
        curves = [curve for curve in record.curves if curve.code == code and not curve.variant]
        chart = figures.curve_chart(record.instrument(code), curves, looks) if curves else None
        if chart is None:
            continue
        name = view.name_of(record, code)
        rows = tuple((words.plain(c.subject), _estimate(c.area), _estimate(c.half)) for c in curves)
        alt = f"Line chart of {words.plain(curves[0].measure)} against {name.lower()}. "
        alt += " ".join(_curve_words(curve) for curve in curves)
        made.append(Figure(title=name, code=code, svg=markup(figures.svg(chart)), alt=alt, rows=rows))
    return made


def _survival(record: ReportRecord) -> list[Matched]:
    """For each subject, what survives which change of its weights."""
    made: list[Matched] = []
    for one in survival.survival(record):
        looks = figures.styles(f"{strip.code} {strip.label}" for strip in one.strips)
        chart = survival.matched_chart(survival.sized(record, one.subject), list(looks.values()))
        legend = [
            LegendEntry(label=strip.label, outline=_OUTLINES[look.shape], colour=CHART_COLOURS[look.colour])
            for strip, look in zip(one.strips, looks.values(), strict=True)
        ]
        alt = f"Line chart of the score of {one.subject} against the size of the change of its weights. " + " ".join(
            f"{strip.label}: half of the score above chance is lost at {strip.half} {strip.unit}."
            for strip in one.strips
        )
        svg = "" if chart is None else markup(figures.svg(chart))
        made.append(Matched(subject=one.subject, svg=svg, alt=alt, legend=tuple(legend), strips=one.strips))
    return made


def _estimate(estimate: Any) -> str:
    return "not measured" if estimate is None else words.interval(estimate)


def _curve_words(curve: Curve) -> str:
    name, half = words.plain(curve.subject), curve.half
    if half is None:
        return f"{name}: half-dose not measured."
    return f"{name}: half of the score above chance is lost at dose {words.interval(half)}."


def _maps(record: ReportRecord, looks: dict[str, figures.Style]) -> list[Figure]:
    """Block maps, those of one instrument together and on one scale."""
    made: list[Figure] = []
    for code in sorted({blocks.code for blocks in record.blocks}):
        maps = [blocks for blocks in record.blocks if blocks.code == code and blocks.blocks]
        ends = figures.block_ends(maps)
        made += [_map(record, blocks, looks[blocks.subject].colour, ends) for blocks in maps]
    return made


def _map(record: ReportRecord, blocks: BlockMap, colour: str, ends: tuple[float, float]) -> Figure:
    drops = zip(blocks.blocks, blocks.drops, strict=True)
    rows = tuple((words.plain(name), words.interval(drop), "") for name, drop in drops)
    alt = f"Bar chart of the loss of score when one block of {words.plain(blocks.subject)} is disturbed. "
    alt += "; ".join(f"{name}: {drop}" for name, drop, _ in rows)
    svg = markup(figures.svg(figures.block_chart(blocks, colour, ends=ends)))
    note = f"{view.name_of(record, blocks.code)} at dose {words.number(blocks.dose)}"
    return Figure(title=words.plain(blocks.subject), code=blocks.code, svg=svg, alt=alt, rows=rows, note=note)


def _forests(record: ReportRecord) -> list[Figure]:
    """One chart per pair and unit: what differs and what does not, on one scale for all pairs."""
    paired = view.pairs(record)
    able = [f for f in record.findings if f.subject in paired and f.estimates and f.estimates[0].value is not None]
    units = dict.fromkeys(f.estimates[0].unit for f in able)
    made: list[Figure] = []
    for unit in units:
        same = [finding for finding in able if finding.estimates[0].unit == unit]
        ends = figures.forest_ends(same)
        each = [(pair, [f for f in same if f.subject == pair]) for pair in paired]
        made += [_forest(record, pair, sorted(rows, key=lambda f: f.code), ends) for pair, rows in each if rows]
    return made


def _forest(record: ReportRecord, pair: str, findings: Sequence[Finding], ends: tuple[float, float]) -> Figure:
    names = [view.name_of(record, finding.code) for finding in findings]
    svg = markup(figures.svg(figures.forest_chart(findings, names, ends=ends)))
    said = (
        f"{name}: {words.interval(f.estimates[0])}, {words.status(f.status, pair=True)}"
        for name, f in zip(names, findings, strict=True)
    )
    alt = f"Differences between the two networks of {words.plain(pair)}, with intervals. {'; '.join(said)}."
    return Figure(title=words.plain(pair), code="", svg=svg, alt=alt)
