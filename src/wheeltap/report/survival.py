"""What survives: every kind of change of the weights on one page, dose by dose and at matched size of the change."""

from collections.abc import Sequence
from itertools import pairwise
from math import exp, log
from typing import TYPE_CHECKING, Any

from wheeltap.core.records import Curve
from wheeltap.core.report import ReportRecord
from wheeltap.report import figures, view, words
from wheeltap.report.curves import MOST_LINES, log_ticks

if TYPE_CHECKING:
    import altair as alt


_WIDTH = 460
"""Of the chart: its letters can be read on a phone too."""


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
    for (left, one), (right, two) in pairwise(zip(curve.doses, curve.norms, strict=True)):
        if one and two and 0 < left <= half <= right:
            share = (log(half) - log(left)) / (log(right) - log(left))
            return exp(log(one) + share * (log(two) - log(one)))
    return None


def worst(curves: Sequence[Curve]) -> list[Curve]:
    """The curves that fit one chart, in their order: those that lose half of the score at the smallest change."""
    known = [norm_at_half(curve) for curve in curves]
    order = sorted(range(len(curves)), key=lambda at: (known[at] is None, known[at] or 0.0, not _points(curves[at])))
    return [curves[at] for at in sorted(order[:MOST_LINES])]


def matched_chart(curves: Sequence[Curve], looks: Sequence[figures.Style]) -> "alt.LayerChart | None":
    """Score of one subject against the size of the change, a line for each way of making one; nothing of no size."""
    import altair as alt

    drawn = [(curve, look) for curve, look in zip(curves, looks, strict=True) if _points(curve)]
    if not drawn:
        return None
    norms = [point["norm"] for curve, _ in drawn for point in _points(curve)]
    x = alt.X(
        "norm:Q",
        scale=alt.Scale(type="log", nice=False),
        title="size of the change, ||change|| / ||weights||",
        axis=alt.Axis(values=log_ticks(min(norms), max(norms)), format="~g", grid=False, labelOverlap="greedy"),
    )
    y = alt.Y("score:Q", title=words.plain(drawn[0][0].measure), axis=alt.Axis(tickCount=5))
    chance: Any = alt.Chart(alt.Data(values=[{"score": drawn[0][0].chance}]))
    layers: list[Any] = [chance.mark_rule(color=figures.MUTED, strokeDash=[2, 4]).encode(y=y)]
    for curve, look in drawn:
        base: Any = alt.Chart(alt.Data(values=_points(curve)))
        layers.append(base.mark_line(color=look.colour, strokeWidth=1.6).encode(x=x, y=y))
        marks = base.mark_point(stroke=look.colour, shape=look.shape, size=36, strokeWidth=1.4)
        layers.append(marks.encode(x=x, y=y))
    return figures.finish(layers, height=300, width=_WIDTH)


def _points(curve: Curve) -> list[dict[str, float]]:
    rows = zip(curve.norms, curve.score, strict=True) if curve.norms else ()
    return sorted(({"norm": n, "score": s} for n, s in rows if n), key=lambda row: row["norm"])
