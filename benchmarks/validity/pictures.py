"""Charts of the page: what is silent on which copy, what is found at which strength, what weights add."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import altair as alt
import vl_convert as vlc

INK, MUTED, CALM, ALARM = "#1c2330", "#5a6472", "#dfe3e8", "#a3182b"
SERIES: Final = ("#2457a6", "#c4520a", "#2a7a4b", "#8a3b9c", "#0b7c8c", "#76670a")

Rows = Sequence[Mapping[str, Any]]


def save(chart: Any, path: Path) -> None:
    """Writes a chart as a PNG file."""
    path.write_bytes(vlc.vegalite_to_png(chart.to_json(), scale=1.2))


def heat(rows: Rows, *, margin: float) -> Any:
    """Shift of curve area, disturbance by copy, one panel for each net; frames where silence is declared."""
    held = [{**row, "size": 0.0 if row["silent"] else abs(row["shift"]), "word": _number(row)} for row in rows]
    kinds = dict.fromkeys(row["net"] for row in rows)
    return alt.vconcat(*(_panel([row for row in held if row["net"] == kind], kind, margin) for kind in kinds))


def _panel(held: Rows, kind: str, margin: float) -> Any:
    base = alt.Chart(alt.Data(values=list(held)), title=kind).encode(
        x=alt.X("perturbation:N", title=None, sort=None, axis=alt.Axis(labelAngle=-30, orient="top")),
        y=alt.Y("gauge:N", title=None, sort=None),
    )
    color = alt.Color(
        "size:Q", title=f"shift beyond +-{margin:g}", scale=alt.Scale(domain=[0, 0.5], range=[CALM, ALARM], clamp=True)
    )
    cells = base.mark_rect(stroke="white").encode(color=color)
    frames = base.mark_rect(fillOpacity=0, stroke=INK, strokeWidth=1.5).transform_filter("datum.declared")
    numbers = base.mark_text(fontSize=9).encode(
        text="word:N", color=alt.condition("datum.size > 0.25", alt.value("white"), alt.value(INK))
    )
    return alt.layer(cells, frames, numbers).properties(width=alt.Step(50), height=alt.Step(17))


def _number(row: Mapping[str, Any]) -> str:
    return "" if row["silent"] else f"{row['shift']:+.2f}".replace("0.", ".")


def powers(rows: Rows) -> Any:
    """Share of planted copies that were found, by strength, one panel for each defect and net, a line for each code."""
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        x=alt.X("strength:O", title="strength", sort=None),
        y=alt.Y("found:Q", title="share found", scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("code:N", title=None, scale=alt.Scale(range=list(SERIES))),
        shape=alt.Shape("code:N", title=None),
    )
    lines = base.mark_line(point=alt.OverlayMarkDef(size=50, filled=True), strokeWidth=2)
    panel = lines.properties(width=170, height=110)
    return panel.facet(facet=alt.Facet("panel:N", title=None, sort=None), columns=4).resolve_scale(x="independent")


def dots(rows: Rows, *, title: str, at: Sequence[float] = (0.0,)) -> Any:
    """Numbers with their intervals, one a line; ``at`` are values to compare them with."""
    base = alt.Chart(alt.Data(values=list(rows))).encode(
        y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=420))
    )
    marks = base.mark_point(filled=True, size=60, color=SERIES[0]).encode(x=alt.X("value:Q", title=title))
    lines = base.mark_rule(color=SERIES[0], strokeWidth=2).encode(x="low:Q", x2="high:Q")
    ends = alt.Chart(alt.Data(values=[{"x": x} for x in at])).mark_rule(color=MUTED, strokeDash=[4, 3]).encode(x="x:Q")
    return alt.layer(ends, lines, marks).properties(width=420, height=alt.Step(20))
