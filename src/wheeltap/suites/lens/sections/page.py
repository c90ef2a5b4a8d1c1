"""What recorded answers show on the page: pass@k with bands, the undecided region, items that decide the difference."""

from typing import TYPE_CHECKING, Any, Final

from wheeltap.core.plain import fixed
from wheeltap.report import figures, words
from wheeltap.report.drawn import markup
from wheeltap.suites.lens.record import LensRecord, TryCurve, TryGap
from wheeltap.suites.lens.sections import ambiguity as lens_ambiguity
from wheeltap.suites.lens.sections import disagreement as lens_disagreement
from wheeltap.suites.lens.sections.terminal import decided, shown

if TYPE_CHECKING:
    import altair as alt

_MOST_LINES: Final = 6
_HEIGHT: Final = 250


def context(lens: LensRecord | None) -> dict[str, Any]:
    """What the template of the page needs of it; empty lists where nothing is known."""
    if lens is None:
        return {
            "tries": [],
            "answers": [],
            "supports": [],
            **lens_disagreement.context(None),
            **lens_ambiguity.context(None),
        }
    groups = list(dict.fromkeys(curve.group for curve in lens.curves))
    return {
        "tries": [_part(lens, group) for group in groups],
        "answers": [words.plain(note) for note in lens.notes],
        "supports": [
            {
                "pair": words.plain(one.subject), "first": words.plain(one.subject.partition(" vs ")[0]),
                "second": words.plain(one.subject.partition(" vs ")[2]), "of": one,
                "items": [(words.plain(item.id) or f"item {item.item + 1}", item) for item in one.items],
            }
            for one in lens.supports
        ],
        **lens_disagreement.context(lens),
        **lens_ambiguity.context(lens),
    }  # fmt: skip


def _part(lens: LensRecord, group: str) -> dict[str, Any]:
    """One part of the benchmark: charts, and the numbers behind them."""
    curves = [curve for curve in lens.curves if curve.group == group][:_MOST_LINES]
    gaps = [gap for gap in lens.gaps if gap.group == group][:_MOST_LINES]
    places = shown(curves[0].ks)
    drawings = [
        {"said": decided(gap), "pair": words.plain(gap.subject), "drawing": markup(figures.svg(_gap(gap)))}
        for gap in gaps
    ]
    rows = [(words.plain(curve.subject), [fixed(curve.solved[at], 3) for at in places]) for curve in curves]
    rows += [(f"{words.plain(gap.subject)}: gain", [fixed(gap.gap[at], 3, sign=True) for at in places]) for gap in gaps]
    return {
        "title": words.plain(group) or "all items", "count": f"{curves[0].items:,}", "gaps": drawings,
        "solved": markup(figures.svg(_solved(curves))), "ks": [f"{curves[0].ks[at]:,}" for at in places], "rows": rows,
    }  # fmt: skip


def _solved(curves: list[TryCurve]) -> "alt.LayerChart":
    import altair as alt

    looks = figures.styles(curve.subject for curve in curves)
    layers: list[Any] = []
    for curve in curves:
        rows = [
            {"k": k, "mean": mean, "low": low, "high": high, "name": words.plain(curve.subject)}
            for k, mean, low, high in zip(curve.ks, curve.solved, curve.low, curve.high, strict=True)
        ]
        base = alt.Chart(figures.data(rows)).encode(x=_tries(curve.ks))
        look = looks[curve.subject]
        if curve.low[0] is not None:
            layers.append(base.mark_area(opacity=0.18, color=look.colour).encode(y="low:Q", y2="high:Q"))
        layers.append(
            base.mark_line(color=look.colour, strokeWidth=look.width).encode(
                y=alt.Y("mean:Q", title="pass@k", scale=alt.Scale(domain=[0, 1]))
            )
        )
        # Names at the first try, where the lines are farthest from each other.
        first = alt.Chart(figures.data(rows[:1])).mark_text(align="left", dx=4, dy=-12, color=look.colour)
        layers.append(first.encode(x="k:Q", y="mean:Q", text="name:N"))
    return figures.finish(layers, height=_HEIGHT)


def _gap(gap: TryGap) -> "alt.LayerChart":
    """The difference with its band; tries at which the order is undecided are shaded."""
    import altair as alt

    rows = [
        {"k": k, "mean": mean, "low": low, "high": high}
        for k, mean, low, high in zip(gap.ks, gap.gap, gap.low, gap.high, strict=True)
    ]
    shades = [{"from": low, "to": high} for low, high in gap.undecided]
    base = alt.Chart(figures.data(rows)).encode(x=_tries(gap.ks))
    layers: list[Any] = [
        alt.Chart(figures.data(shades)).mark_rect(color=figures.BAND, opacity=0.35).encode(x="from:Q", x2="to:Q")
    ]
    if gap.low[0] is not None:
        layers.append(base.mark_area(opacity=0.25, color=figures.SERIES[0]).encode(y="low:Q", y2="high:Q"))
    layers += [
        alt.Chart(figures.data([{"y": 0.0}])).mark_rule(color=figures.MUTED, strokeDash=[4, 3]).encode(y="y:Q"),
        base.mark_line(color=figures.SERIES[0], strokeWidth=2).encode(y=alt.Y("mean:Q", title="gain in pass@k")),
    ]
    return figures.finish(layers, height=_HEIGHT)


def _tries(ks: tuple[int, ...]) -> Any:
    import altair as alt

    ticks = [ks[at] for at in shown(ks)]
    scale = alt.Scale(type="log", nice=False) if ks[-1] > 1 else alt.Scale(zero=False)
    return alt.X("k:Q", title="tries k", scale=scale, axis=alt.Axis(values=ticks, format="~g", grid=False))
