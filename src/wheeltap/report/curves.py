"""Score against dose, drawn: a line for each network, its band, its half-dose; control copies thin and dashed."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from wheeltap.core.records import Curve, Instrument
from wheeltap.report import figures, words
from wheeltap.report.figures import Style

if TYPE_CHECKING:
    import altair as alt

MOST_LINES = 6
"""Lines of one chart: more cannot be distinguished."""


@dataclass(frozen=True, kw_only=True)
class _Frame:
    """Settings of the two axes, the same for every layer of a chart; whether equal steps of the dose are ratios."""

    x: dict[str, Any]
    y: dict[str, Any]
    ratios: bool


def drawn(curves: Sequence[Curve], *, sign: float) -> list[Curve]:
    """The curves that fit one chart: all, or those of networks alone, or the first network and those that lose most.

    Args:
        curves: Of one instrument.
        sign: 1 where more of the measure is better, -1 where less is.
    """
    if len(curves) <= MOST_LINES:
        return list(curves)
    subjects = [curve for curve in curves if curve.role == "subject"]
    if len(subjects) <= MOST_LINES:
        return subjects
    worst = sorted(subjects[1:], key=lambda curve: _kept(curve, sign))[: MOST_LINES - 1]
    return [curve for curve in subjects if curve is subjects[0] or curve in worst]


def _kept(curve: Curve, sign: float) -> float:
    return sign * sum(curve.score) / len(curve.score) if curve.score else math.inf


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

    Args:
        instrument: Whose doses they are.
        curves: Its curves.
        looks: Styles by subject name.

    Returns:
        The chart, or nothing where no curve has a point to draw.
    """
    import altair as alt

    able = [curve for curve in curves if any(dose > 0 for dose in curve.doses)]
    if not able:
        return None
    scale, axis = _x_scale(instrument, able)
    x: dict[str, Any] = {"scale": scale, "axis": axis, "title": _dose_title(instrument, able[0])}
    domain = alt.Scale(domain=[0, 1]) if _is_share(able) else alt.Scale(zero=False)
    y: dict[str, Any] = {"scale": domain, "title": words.plain(able[0].measure), "axis": alt.Axis(tickCount=5)}
    frame = _Frame(x=x, y=y, ratios=scale.to_dict().get("type") == "log")
    layers: list[Any] = [_chance(able[0], frame)] if _is_share(able) else []
    # Controls last: thin dashes stay visible on the wide line of the subject they follow.
    order = {"subject": 0, "twin": 1, "planted": 1}
    ranked = sorted(able, key=lambda curve: order[curve.role])
    layers += [_band(curve, _look(curve, looks), frame) for curve in ranked if curve.role == "subject"]
    for curve in ranked:
        layers += _line(curve, _look(curve, looks), frame)
    for curve in ranked:
        layers += _half(curve, _look(curve, looks), frame)
    return figures.finish(layers, height=270)


def _is_share(curves: Sequence[Curve]) -> bool:
    """Whether every score and band lies between 0 and 1, as shares of right answers do."""
    ends = [end for curve in curves for end in (*curve.score, *curve.low, *curve.high) if end is not None]
    return min(ends) >= -0.01 and max(ends) <= 1.01


def _dose_title(instrument: Instrument, curve: Curve) -> str:
    return words.plain(instrument.axis) or f"dose ({words.plain(curve.unit)})"


def _look(curve: Curve, looks: dict[str, Style]) -> Style:
    if curve.role == "subject":
        return looks[curve.subject]
    return Style(colour=figures.CONTROL_COLOURS[curve.role], shape="circle")


def _points(curve: Curve) -> list[dict[str, Any]]:
    rows = zip(curve.doses, curve.score, curve.low, curve.high, strict=True)
    return [{"dose": d, "score": s, "low": low, "high": high} for d, s, low, high in rows if d > 0]


def _band(curve: Curve, look: Style, frame: _Frame) -> Any:
    import altair as alt

    bounded = [row for row in _points(curve) if row["low"] is not None and row["high"] is not None]
    base = alt.Chart(figures.data(bounded)).mark_area(color=look.colour, opacity=0.13)
    return base.encode(x=alt.X("dose:Q", **frame.x), y=alt.Y("low:Q", **frame.y), y2="high:Q")


def _line(curve: Curve, look: Style, frame: _Frame) -> list[Any]:
    import altair as alt

    subject = curve.role == "subject"
    base = alt.Chart(figures.data(_points(curve)))
    x, y = alt.X("dose:Q", **frame.x), alt.Y("score:Q", **frame.y)
    dash = figures.DASHES[curve.role]
    line = base.mark_line(color=look.colour, strokeWidth=look.width, strokeDash=dash).encode(x=x, y=y)
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
    row: dict[str, Any] = {"dose": half.value, "score": _between(curve, half.value, ratios=frame.ratios)}
    if half.low is not None and half.high is not None and half.low > 0:
        row |= {"from": half.low, "to": half.high}
    base, shape = alt.Chart(figures.data([row])), cast("Any", look.shape)
    x, y = alt.X("dose:Q", **frame.x), alt.Y("score:Q", **frame.y)
    mark = base.mark_point(shape=shape, color=look.colour, filled=True, size=120, opacity=1).encode(x=x, y=y)
    if "from" not in row:
        return [mark]
    start = alt.X("from:Q", **frame.x)
    return [base.mark_rule(color=look.colour, strokeWidth=3).encode(x=start, x2="to:Q", y=y), mark]


def _between(curve: Curve, dose: float, *, ratios: bool) -> float:
    """The score of the drawn line at ``dose``, so that the mark sits on the line."""
    points = [(row["dose"], row["score"]) for row in _points(curve)]
    for (left, above), (right, below) in itertools.pairwise(points):
        if left <= dose <= right:
            at, start, end = (math.log(one) if ratios else one for one in (dose, left, right))
            return above + (below - above) * (at - start) / (end - start)
    return points[0][1] if dose < points[0][0] else points[-1][1]


def _chance(curve: Curve, frame: _Frame) -> Any:
    import altair as alt

    base = alt.Chart(figures.data([{"score": curve.chance}]))
    return base.mark_rule(color=figures.MUTED, strokeDash=[2, 4], strokeWidth=1).encode(y=alt.Y("score:Q", **frame.y))
