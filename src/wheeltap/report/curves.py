"""Score against dose, and against the size of the change: curves in words, and drawn.

A line for each network has its band and its half-dose; control copies are thin and dashed.
"""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wheeltap.core.records import Curve, Instrument
from wheeltap.core.report import ReportRecord
from wheeltap.report import figures, view, words
from wheeltap.report.figures import Style

if TYPE_CHECKING:
    import altair as alt

MOST_LINES = 6
"""Lines of one chart: more cannot be distinguished."""

_WIDTH = 460
"""Of the chart of what survives: its letters can be read on a phone too."""


def drawn(curves: Sequence[Curve], *, sign: float) -> list[Curve]:
    """The curves that fit one chart: all, or those of networks alone, or the first network and those that lose most.

    ``sign`` is 1 where more of the measure is better, -1 where less is.
    """
    if len(curves) <= MOST_LINES:
        return list(curves)
    subjects = [curve for curve in curves if curve.role == "subject"]
    if len(subjects) <= MOST_LINES:
        return subjects

    def kept(curve: Curve) -> float:
        return sign * sum(curve.score) / len(curve.score) if curve.score else math.inf

    worst = sorted(subjects[1:], key=kept)[: MOST_LINES - 1]
    return [curve for curve in subjects if curve is subjects[0] or curve in worst]


def _x_scale(instrument: Instrument, curves: Sequence[Curve]) -> tuple[Any, Any]:
    """Scale and axis of the doses: logarithmic for noise; bits run down, so that damage always grows to the right."""
    import altair as alt

    doses = sorted({dose for curve in curves for dose in curve.doses})
    if curves[0].unit == "bits":
        return alt.Scale(reverse=True, zero=False), alt.Axis(values=doses, format="~g", grid=False)
    wide = bool(doses) and doses[0] > 0 and doses[-1] / doses[0] > 5
    if wide and not instrument.linear:
        axis = alt.Axis(values=log_ticks(doses[0], doses[-1]), format="~g", grid=False, labelOverlap=True)
        return alt.Scale(type="log", nice=False), axis
    return alt.Scale(zero=False), alt.Axis(format="~g", tickCount=5, grid=False)


def log_ticks(low: float, high: float) -> list[float]:
    """Ones, twos and fives between two doses; only ones where the range is wide."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if high / low < 300 else (1,)
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    return [tick for tick in ticks if low * 0.999 <= tick <= high * 1.001]


def curve_chart(instrument: Instrument, curves: Sequence[Curve], looks: dict[str, Style]) -> "alt.LayerChart | None":
    """Score against dose, all subjects of one instrument; bands, half-doses, controls thin and dashed.

    Nothing where no curve has a point to draw.
    """
    import altair as alt

    able = [curve for curve in curves if any(dose > 0 for dose in curve.doses)]
    if not able:
        return None
    scale, axis = _x_scale(instrument, able)
    ratios = scale.to_dict().get("type") == "log"
    title = words.plain(instrument.axis) or f"dose ({words.plain(able[0].unit)})"
    ends = [end for curve in able for end in (*curve.score, *curve.low, *curve.high) if end is not None]
    share = min(ends) >= -0.01 and max(ends) <= 1.01  # as shares of right answers are
    domain = alt.Scale(domain=[0, 1]) if share else alt.Scale(zero=False)
    x: Any = partial(alt.X, scale=scale, axis=axis, title=title)
    y: Any = partial(alt.Y, scale=domain, title=words.plain(able[0].measure), axis=alt.Axis(tickCount=5))
    layers: list[Any] = []
    if share:
        chance: Any = alt.Chart(figures.data([{"score": able[0].chance}]))
        layers.append(chance.mark_rule(color=figures.MUTED, strokeDash=[2, 4], strokeWidth=1).encode(y=y("score:Q")))
    subjects = [(curve, looks[curve.subject]) for curve in able if curve.role == "subject"]
    for curve, look in subjects:
        bounded = [row for row in _points(curve) if row["low"] is not None and row["high"] is not None]
        band: Any = alt.Chart(figures.data(bounded)).mark_area(color=look.colour, opacity=0.13)
        layers.append(band.encode(x=x("dose:Q"), y=y("low:Q"), y2="high:Q"))
    # Controls last: thin dashes stay visible on the wide line of the subject they follow.
    controls = [(curve, Style(colour=figures.CONTROL_COLOURS[curve.role], shape="circle"))
                for curve in able if curve.role != "subject"]  # fmt: skip
    for curve, look in (*subjects, *controls):
        base: Any = alt.Chart(figures.data(_points(curve)))
        line = base.mark_line(color=look.colour, strokeWidth=look.width, strokeDash=figures.DASHES[curve.role])
        layers.append(line.encode(x=x("dose:Q"), y=y("score:Q")))
        if curve.role == "subject":
            marks = base.mark_point(stroke=look.colour, shape=look.shape, size=38, strokeWidth=1.4)
            layers.append(marks.encode(x=x("dose:Q"), y=y("score:Q")))
    for curve, look in subjects:
        layers += _half(curve, look, x, y, ratios=ratios)
    return figures.finish(layers, height=270)


def _points(curve: Curve) -> list[dict[str, Any]]:
    rows = zip(curve.doses, curve.score, curve.low, curve.high, strict=True)
    return [{"dose": d, "score": s, "low": low, "high": high} for d, s, low, high in rows if d > 0]


def _half(curve: Curve, look: Style, x: Any, y: Any, *, ratios: bool) -> list[Any]:
    """The half-dose on its curve: a filled mark with a whisker as long as its interval."""
    import altair as alt

    half = curve.half
    if half is None or half.value is None or half.value <= 0:
        return []
    row: dict[str, Any] = {"dose": half.value, "score": _between(curve, half.value, ratios=ratios)}
    if half.low is not None and half.high is not None and half.low > 0:
        row |= {"from": half.low, "to": half.high}
    base: Any = alt.Chart(figures.data([row]))
    mark = base.mark_point(shape=look.shape, color=look.colour, filled=True, size=120, opacity=1)
    layers = [mark.encode(x=x("dose:Q"), y=y("score:Q"))]
    if "from" in row:
        rule = base.mark_rule(color=look.colour, strokeWidth=3)
        layers.insert(0, rule.encode(x=x("from:Q"), x2="to:Q", y=y("score:Q")))
    return layers


def _between(curve: Curve, dose: float, *, ratios: bool) -> float:
    """The score of the drawn line at ``dose``, so that the mark sits on the line."""
    points = [(row["dose"], row["score"]) for row in _points(curve)]
    for (left, above), (right, below) in itertools.pairwise(points):
        if left <= dose <= right:
            at, start, end = (math.log(one) if ratios else one for one in (dose, left, right))
            return above + (below - above) * (at - start) / (end - start)
    return points[0][1] if dose < points[0][0] else points[-1][1]


# ---- what survives, at matched size of the change ---------------------------------------------------------------


def sized(record: ReportRecord, subject: str) -> list[Curve]:
    """A subject's curves whose sizes are known, by code; the one that a verdict is about first."""
    mine = [
        c
        for c in record.curves
        if words.plain(c.subject) == words.plain(subject)
        and c.role == "subject"
        and any(norm is not None for norm in c.norms)
    ]
    return sorted(mine, key=lambda curve: (curve.code, bool(curve.variant)))


def label(record: ReportRecord, curve: Curve) -> str:
    """The instrument and which way of it."""
    name = view.name_of(record, curve.code)
    return f"{name}: {words.plain(curve.variant)}" if curve.variant else name


def half(curve: Curve) -> str:
    """The dose at which half of the above-chance score is lost."""
    return "not measured" if curve.half is None else words.interval(curve.half)


def steps(curve: Curve) -> str:
    """Dose, score with its interval and size of the change, mildest first."""
    order = list(range(len(curve.doses)))
    made: list[str] = []
    for at in order[::-1] if curve.unit == "bits" else order:  # fewer bits are more damage
        norm, ends = curve.norms[at] if curve.norms else None, (curve.low[at], curve.high[at])
        low, high = (words.OPEN if end is None else words.number(end, like=ends) for end in ends)
        size = "" if norm is None else f", size {norm:.2g}"
        made.append(f"{curve.doses[at]:.3g}: {words.number(curve.score[at], like=ends)} [{low}, {high}]{size}")
    return "; ".join(made)


def norm_at_half(curve: Curve) -> float | None:
    """||change|| / ||weights|| at the half dose, between the doses tried (linear on both log axes)."""
    half = None if curve.half is None else curve.half.value
    if half is None or half <= 0 or not curve.norms:
        return None
    for (left, one), (right, two) in itertools.pairwise(zip(curve.doses, curve.norms, strict=True)):
        if one and two and 0 < left <= half <= right:
            share = (math.log(half) - math.log(left)) / (math.log(right) - math.log(left))
            return math.exp(math.log(one) + share * (math.log(two) - math.log(one)))
    return None


def worst(curves: Sequence[Curve]) -> list[Curve]:
    """The curves that fit one chart, in their order: those that lose half of the score at the smallest change."""
    known = [norm_at_half(curve) for curve in curves]
    order = sorted(range(len(curves)), key=lambda at: (known[at] is None, known[at] or 0.0, not _sizes(curves[at])))
    return [curves[at] for at in sorted(order[:MOST_LINES])]


def matched_chart(curves: Sequence[Curve], looks: Sequence[figures.Style]) -> "alt.LayerChart | None":
    """Score of one subject against the size of the change, a line for each way of making one; nothing of no size."""
    import altair as alt

    shown = [(curve, look) for curve, look in zip(curves, looks, strict=True) if _sizes(curve)]
    if not shown:
        return None
    norms = [point["norm"] for curve, _ in shown for point in _sizes(curve)]
    x = alt.X(
        "norm:Q",
        scale=alt.Scale(type="log", nice=False),
        title="size of the change, ||change|| / ||weights||",
        axis=alt.Axis(values=log_ticks(min(norms), max(norms)), format="~g", grid=False, labelOverlap="greedy"),
    )
    y = alt.Y("score:Q", title=words.plain(shown[0][0].measure), axis=alt.Axis(tickCount=5))
    chance: Any = alt.Chart(figures.data([{"score": shown[0][0].chance}]))
    layers: list[Any] = [chance.mark_rule(color=figures.MUTED, strokeDash=[2, 4]).encode(y=y)]
    for curve, look in shown:
        base: Any = alt.Chart(figures.data(_sizes(curve)))
        layers.append(base.mark_line(color=look.colour, strokeWidth=1.6).encode(x=x, y=y))
        marks = base.mark_point(stroke=look.colour, shape=look.shape, size=36, strokeWidth=1.4)
        layers.append(marks.encode(x=x, y=y))
    return figures.finish(layers, height=300, width=_WIDTH)


def _sizes(curve: Curve) -> list[dict[str, float]]:
    rows = zip(curve.norms, curve.score, strict=True) if curve.norms else ()
    return sorted(({"norm": n, "score": s} for n, s in rows if n), key=lambda row: row["norm"])
