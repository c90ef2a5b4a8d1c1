"""Charts as data (altair), drawn offline to SVG. Colours are the light theme's; the page maps them to its own."""

import io
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from wheeltap.core.records import BlockMap, Curve, Estimate, Finding, Instrument
from wheeltap.report import words

if TYPE_CHECKING:
    import altair as alt

SERIES = ("#2457a6", "#c4520a", "#2a7a4b", "#8a3b9c", "#0b7c8c", "#b0283c", "#76670a", "#5b5b6e")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
TWIN, PLANTED = "#4f5964", "#4f5965"
INK, MUTED, GRID, BAND = "#1c2330", "#5a6472", "#dfe3e8", "#c9d0d8"
CONTROL_COLOURS = {"twin": TWIN, "planted": PLANTED}
DASHES: dict[str, list[float]] = {"subject": [1, 0], "twin": [6, 3], "planted": [1.5, 2.5]}

_WIDTH = 380
_THIN = 1.3
_ROW = 17
_LABEL = 132
_PAD = 9
"""Pixels between a label and the axis: a mark at the least value lies half beside it."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one subject is drawn in every chart."""

    colour: str
    shape: str
    width: float = _THIN


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Settings of the two axes, the same for every layer of a chart."""

    x: dict[str, Any]
    y: dict[str, Any]


def styles(names: Iterable[str]) -> dict[str, Style]:
    """One style a subject, in order; colour and shape together, so that colour is never needed alone."""
    # Each line is drawn over the ones before and is thinner: where they coincide (a twin on its original) all show.
    unique = list(dict.fromkeys(names))
    return {
        name: Style(
            colour=SERIES[i % len(SERIES)],
            shape=SHAPES[(i + i // len(SERIES)) % len(SHAPES)],
            width=min(5.0, 2.0 + 0.9 * (len(unique) - 1 - i)),
        )
        for i, name in enumerate(unique)
    }


def svg(chart: "alt.LayerChart") -> str:
    """The chart as SVG text, without any address to fetch."""
    buffer = io.StringIO()
    cast("Any", chart).save(buffer, format="svg")
    return buffer.getvalue()


def _data(rows: Sequence[dict[str, Any]]) -> Any:
    import altair as alt

    return alt.Data(values=list(rows))


def finish(layers: Sequence[Any], *, height: int, width: int = _WIDTH) -> "alt.LayerChart":
    """Layers as one chart of the house look."""
    import altair as alt

    chart: Any = alt.layer(*layers).properties(
        width=width,
        height=height,
        autosize=alt.AutoSizeParams(type="fit", contains="padding"),
        padding={"left": 8, "right": 10, "top": 6, "bottom": 2},
    )
    axis: dict[str, Any] = {
        "labelColor": MUTED,
        "titleColor": INK,
        "gridColor": GRID,
        "domainColor": BAND,
        "tickColor": BAND,
        "labelFontSize": 11.5,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    }
    chart = chart.configure(background="transparent", font="Helvetica, Arial, sans-serif", aria=False)
    return chart.configure_axis(**axis).configure_view(stroke=None)


def _x_scale(instrument: Instrument, curves: Sequence[Curve]) -> tuple[Any, Any]:
    """Scale and axis of the doses: logarithmic for noise; bits run down, so that damage always grows to the right."""
    import altair as alt

    doses = sorted({dose for curve in curves for dose in curve.doses})
    if curves[0].unit == "bits":
        return alt.Scale(reverse=True, zero=False), alt.Axis(values=doses, format="~g", grid=False)
    wide = bool(doses) and doses[0] > 0 and doses[-1] / doses[0] > 5
    if wide and not instrument.linear:
        axis = alt.Axis(values=_log_ticks(doses[0], doses[-1]), format="~g", grid=False, labelOverlap=True)
        return alt.Scale(type="log", nice=False), axis
    return alt.Scale(zero=False), alt.Axis(format="~g", tickCount=5, grid=False)


def _log_ticks(low: float, high: float) -> list[float]:
    """Ones, twos and fives between two doses; only ones where the range is wide."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def curve_chart(instrument: Instrument, curves: Sequence[Curve], looks: dict[str, Style]) -> "alt.LayerChart | None":
    """Score against dose, all subjects of one instrument; bands, half-doses, controls thin and dashed.

    Args:
        instrument: Whose doses they are.
        curves: Its curves.
        looks: Styles by subject name.

    Returns:
        The chart, or nothing where no curve has a point to draw.
    """
    import altair as alt

    drawn = [curve for curve in curves if any(_logable(curve))]
    if not drawn:
        return None
    scale, axis = _x_scale(instrument, drawn)
    x: dict[str, Any] = {"scale": scale, "axis": axis, "title": _dose_title(instrument, drawn[0])}
    domain = alt.Scale(domain=[0, 1]) if _is_share(drawn) else alt.Scale(zero=False)
    y: dict[str, Any] = {"scale": domain, "title": words.plain(drawn[0].measure), "axis": alt.Axis(tickCount=5)}
    frame = _Frame(x=x, y=y)
    layers: list[Any] = [_chance(drawn[0], frame)] if _is_share(drawn) else []
    # Controls last: thin dashes stay visible on the wide line of the subject they follow.
    order = {"subject": 0, "twin": 1, "planted": 1}
    ranked = sorted(drawn, key=lambda curve: order[curve.role])
    layers += [_band(curve, _look(curve, looks), frame) for curve in ranked if curve.role == "subject"]
    for curve in ranked:
        layers += _line(curve, _look(curve, looks), frame)
    for curve in ranked:
        layers += _half(curve, _look(curve, looks), frame)
    return finish(layers, height=270)


def _logable(curve: Curve) -> list[float]:
    return [dose for dose in curve.doses if dose > 0]


def _is_share(curves: Sequence[Curve]) -> bool:
    """Whether every score and band lies between 0 and 1, as shares of right answers do."""
    ends = [end for curve in curves for end in (*curve.score, *curve.low, *curve.high) if end is not None]
    return min(ends) >= -0.01 and max(ends) <= 1.01


def _dose_title(instrument: Instrument, curve: Curve) -> str:
    return words.plain(instrument.axis) or f"dose ({words.plain(curve.unit)})"


def _look(curve: Curve, looks: dict[str, Style]) -> Style:
    if curve.role == "subject":
        return looks[curve.subject]
    return Style(colour=CONTROL_COLOURS[curve.role], shape="circle")


def _points(curve: Curve) -> list[dict[str, Any]]:
    rows = zip(curve.doses, curve.score, curve.low, curve.high, strict=True)
    return [{"dose": d, "score": s, "low": low, "high": high} for d, s, low, high in rows if d > 0]


def _band(curve: Curve, look: Style, frame: _Frame) -> Any:
    import altair as alt

    bounded = [row for row in _points(curve) if row["low"] is not None and row["high"] is not None]
    base = alt.Chart(_data(bounded)).mark_area(color=look.colour, opacity=0.13)
    return base.encode(x=alt.X("dose:Q", **frame.x), y=alt.Y("low:Q", **frame.y), y2="high:Q")


def _line(curve: Curve, look: Style, frame: _Frame) -> list[Any]:
    import altair as alt

    subject = curve.role == "subject"
    base = alt.Chart(_data(_points(curve)))
    x, y = alt.X("dose:Q", **frame.x), alt.Y("score:Q", **frame.y)
    line = base.mark_line(color=look.colour, strokeWidth=look.width, strokeDash=DASHES[curve.role]).encode(x=x, y=y)
    if not subject:
        return [line]
    marks = base.mark_point(stroke=look.colour, shape=cast("Any", look.shape), size=38, strokeWidth=1.4)
    return [line, marks.encode(x=x, y=y)]


def _half(curve: Curve, look: Style, frame: _Frame) -> list[Any]:
    """The half-dose on its curve: a filled mark with a whisker as long as its interval."""
    import altair as alt

    half = curve.half
    if curve.role != "subject" or half is None or half.value is None or half.value <= 0:
        return []
    row: dict[str, Any] = {"dose": half.value, "score": _between(curve, half.value)}
    if half.low is not None and half.high is not None and half.low > 0:
        row |= {"from": half.low, "to": half.high}
    base, shape = alt.Chart(_data([row])), cast("Any", look.shape)
    x, y = alt.X("dose:Q", **frame.x), alt.Y("score:Q", **frame.y)
    mark = base.mark_point(shape=shape, color=look.colour, filled=True, size=120, opacity=1).encode(x=x, y=y)
    if "from" not in row:
        return [mark]
    start = alt.X("from:Q", **frame.x)
    return [base.mark_rule(color=look.colour, strokeWidth=3).encode(x=start, x2="to:Q", y=y), mark]


def _between(curve: Curve, dose: float) -> float:
    """The score of the drawn line at ``dose``, so that the mark sits on the line."""
    points = [(row["dose"], row["score"]) for row in _points(curve)]
    for (left, above), (right, below) in itertools.pairwise(points):
        if left <= dose <= right:
            return above + (below - above) * (dose - left) / (right - left)
    return points[0][1] if dose < points[0][0] else points[-1][1]


def _chance(curve: Curve, frame: _Frame) -> Any:
    import altair as alt

    rule = alt.Chart(_data([{"score": curve.chance}])).mark_rule(color=MUTED, strokeDash=[2, 4], strokeWidth=1)
    return rule.encode(y=alt.Y("score:Q", **frame.y))


def block_chart(blocks: BlockMap, colour: str, *, ends: tuple[float, float]) -> "alt.LayerChart":
    """Loss of score block by block: a bar a block, with its interval.

    Args:
        blocks: The map.
        colour: Of the subject.
        ends: Of the loss axis, shared by the maps of one instrument so that bars can be compared.

    Returns:
        The chart.
    """
    import altair as alt

    rows = [_bar(name, i, drop) for i, (name, drop) in enumerate(zip(blocks.blocks, blocks.drops, strict=True))]
    base = alt.Chart(_data(rows))
    # Blocks are placed by position: two may carry the same (sanitised) name.
    labels = {row["row"]: row["name"] for row in rows}
    axis = _named_rows(labels)
    y = alt.Y("row:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(rows)))))
    x = alt.X("drop:Q", scale=alt.Scale(domain=list(ends)), title="loss of score", axis=alt.Axis(tickCount=5))
    start = alt.X("low:Q", scale=alt.Scale(domain=list(ends)), title="loss of score", axis=alt.Axis(tickCount=5))
    bars = base.mark_bar(color=colour, opacity=0.62, height=9).encode(x=x, y=y)
    whisker = base.mark_rule(color=INK, strokeWidth=1.4).encode(x=start, x2="high:Q", y=y)
    return finish([bars, whisker], height=_ROW * max(1, len(rows)) + 46)


def _js(labels: dict[int, str]) -> str:
    """An expression literal of the labels; JSON, with what could end a string or a script written as escapes."""
    import json

    return json.dumps(labels).replace("<", "\\u003c")


def _named_rows(labels: dict[int, str]) -> Any:
    """An axis of rows by position, with their names."""
    import altair as alt

    return alt.Axis(
        labelLimit=_LABEL,
        labelPadding=_PAD,
        labelExpr=f"{_js(labels)}[datum.value]",
        grid=False,
        ticks=False,
        domain=False,
    )


def _bar(name: str, row: int, drop: Estimate) -> dict[str, Any]:
    return {"row": row, "name": words.plain(name), "drop": drop.value, "low": drop.low, "high": drop.high}


def block_ends(maps: Iterable[BlockMap]) -> tuple[float, float]:
    """Ends of a loss axis that shows every bar and whisker of ``maps``."""
    drops = [drop for blocks in maps for drop in blocks.drops]
    known = [end for drop in drops for end in (drop.value, drop.low, drop.high) if end is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    return low, high + 0.03 * (high - low) if high > low else low + 1.0


def forest_chart(findings: Sequence[Finding], names: Sequence[str], *, ends: tuple[float, float]) -> "alt.LayerChart":
    """What differs in one pair: an effect with its interval a row, and in grey what could not have been seen.

    Args:
        findings: One a row, their first estimates in one unit.
        names: What each is called.
        ends: Of the effect axis.

    Returns:
        The chart.
    """
    import altair as alt

    rows = [_effect(finding, names[i], i) for i, finding in enumerate(findings)]
    base = alt.Chart(_data(rows))
    labels = {row["row"]: row["name"] for row in rows}
    axis = _named_rows(labels)
    unit = words.plain(findings[0].estimates[0].unit)
    # The whole domain is given: rows without a grey bar would otherwise be moved to the end.
    y = alt.Y("row:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(rows)))))
    same: dict[str, Any] = {
        "scale": alt.Scale(domain=list(ends)),
        "title": f"difference ({unit})",
        "axis": alt.Axis(tickCount=5),
    }
    unseen = base.mark_bar(color=BAND, height=11).encode(x=alt.X("from:Q", **same), x2="to:Q", y=y)
    zero = alt.Chart(_data([{"at": 0}])).mark_rule(color=MUTED, strokeWidth=1).encode(x=alt.X("at:Q", **same))
    whisker = base.mark_rule(strokeWidth=2.2, color=INK).encode(x=alt.X("low:Q", **same), x2="high:Q", y=y)
    shape = alt.condition("datum.found", alt.value("diamond"), alt.value("circle"))
    fill = alt.condition("datum.found", alt.value(SERIES[1]), alt.value(INK))
    point = base.mark_point(filled=True, size=95, opacity=1)
    points = point.encode(x=alt.X("value:Q", **same), y=y, shape=shape, fill=fill)
    return finish([unseen, zero, whisker, points], height=24 * len(rows) + 46)


def _effect(finding: Finding, name: str, row: int) -> dict[str, Any]:
    first, least = finding.estimates[0], finding.smallest_detectable
    effect: dict[str, Any] = {"row": row, "name": name}
    effect |= {"value": first.value, "low": first.low, "high": first.high, "found": finding.status == "found"}
    return effect | ({} if least is None else {"from": -least, "to": least})


def forest_ends(findings: Iterable[Finding]) -> tuple[float, float]:
    """Ends of an effect axis that shows every effect, its interval, what was detectable, and zero."""
    known = [0.0]
    for finding in findings:
        first, least = finding.estimates[0], finding.smallest_detectable or 0.0
        known += [end for end in (first.value, first.low, first.high, least, -least) if end is not None]
    low, high = min(known), max(known)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def net_chart(
    labels: Sequence[str], means: Sequence[dict[str, Any]], nets: Sequence[dict[str, Any]], *, unit: str
) -> "alt.LayerChart":
    """One number of nets of several kinds: a row for each kind, a ring for each net, the mean with its interval.

    Args:
        labels: Kinds of nets, from the top.
        means: For each row its ``value`` with ``low`` and ``high`` (either may be missing).
        nets: ``row`` and ``value`` of each net.
        unit: Of the number.

    Returns:
        The chart.
    """
    import altair as alt

    names = {at: words.plain(label) for at, label in enumerate(labels)}
    axis = _named_rows(names)
    y = alt.Y("row:O", title=None, axis=axis, scale=alt.Scale(domain=list(range(len(labels)))))
    same: dict[str, Any] = {"scale": alt.Scale(zero=False, nice=True), "title": unit, "axis": alt.Axis(tickCount=5)}
    rings = alt.Chart(_data(nets)).mark_point(stroke=SERIES[0], size=60, strokeWidth=1.5)
    ends = [row for row in means if row["low"] is not None and row["high"] is not None]
    whisker = alt.Chart(_data(ends)).mark_rule(color=INK, strokeWidth=2.2)
    mean = alt.Chart(_data([row for row in means if row["value"] is not None]))
    fill = alt.condition("datum.row == 0", alt.value(SERIES[1]), alt.value(INK))
    shape = alt.condition("datum.row == 0", alt.value("diamond"), alt.value("circle"))
    marks = mean.mark_point(filled=True, size=85, opacity=1).encode(
        x=alt.X("value:Q", **same), y=y, fill=fill, shape=shape
    )
    layers = [
        rings.encode(x=alt.X("value:Q", **same), y=y),
        whisker.encode(x=alt.X("low:Q", **same), x2="high:Q", y=y),
        marks,
    ]
    return finish(layers, height=24 * len(labels) + 46)
