"""Charts as data (altair), drawn offline to SVG. Colours are the light theme's; the page maps them to its own."""

import io
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

from wheeltap.core.records import BlockMap, Estimate, Finding
from wheeltap.report import words
from wheeltap.report.words import Tone

if TYPE_CHECKING:
    import altair as alt

SERIES = ("#2457a6", "#c4520a", "#2a7a4b", "#8a3b9c", "#0b7c8c", "#b0283c", "#76670a", "#5b5b6e")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
TWIN, PLANTED = "#4f5964", "#4f5965"
INK, MUTED, GRID, BAND, CARD = "#1c2330", "#5a6472", "#dfe3e8", "#c9d0d8", "#ffffff"
CONTROL_COLOURS = {"twin": TWIN, "planted": PLANTED}
DASHES: dict[str, list[float]] = {"subject": [1, 0], "twin": [6, 3], "planted": [1.5, 2.5]}
TONES: dict[Tone, str] = {"alarm": "#a3182b", "warn": "#8a5200", "calm": "#1d6238", "quiet": "#5a6473"}
TONE_SHAPES: dict[Tone, str] = {"alarm": "diamond", "warn": "triangle-up", "calm": "circle", "quiet": "square"}
"""A tone is never shown by colour alone."""

WIDTH = 380
_THIN = 1.3
_ROW = 17
_CHAR = 6.6
"""Pixels of a letter of a row's name, on the wide side."""

_PAD = 9
"""Pixels between a name and the axis: a mark at the least value lies half beside it."""

_LINE = 14
"""Pixels between two lines of a name."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How one subject is drawn in every chart."""

    colour: str
    shape: str
    width: float = _THIN


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


def data(rows: Sequence[dict[str, Any]]) -> Any:
    """Rows as a chart takes them."""
    import altair as alt

    return alt.Data(values=list(rows))


def finish(layers: Sequence[Any], *, height: int, width: int = WIDTH, rows: "Rows | None" = None) -> "alt.LayerChart":
    """Layers as one chart of the house look.

    Args:
        layers: From the back to the front.
        height: Of the whole drawing; of its rows alone, where it has rows.
        width: Of the whole drawing.
        rows: Named rows, whose names need room on the left.
    """
    import altair as alt

    chart: Any = alt.layer(*layers).properties(
        width=width,
        height=height,
        autosize=alt.AutoSizeParams(type="fit" if rows is None else "fit-x", contains="padding"),
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


class Rows:
    """Rows of a chart from the top: their names stand beside them or, where one is long, above them, and are never cut.

    Args:
        names: One a row.
        width: Of the whole drawing.
        step: Pixels for one mark of a row.
        slots: Marks of a row, one below the other.
        words: What stands at the right of each row; nothing where empty.
        share: Of the drawing that names may take at its left; 0 puts them above.

    Attributes:
        height: Pixels of all rows.
    """

    def __init__(
        self,
        names: Sequence[str],
        *,
        width: int = WIDTH,
        step: int = _ROW,
        slots: int = 1,
        words: Sequence[str] = (),
        share: float = 0.38,
    ) -> None:
        most = max(int(share * width / _CHAR), 1)
        lines = [textwrap.wrap(name, most, break_long_words=False) or [""] for name in names]
        self.beside = all(len(stated) <= 2 and max(map(len, stated)) <= most for stated in lines)
        if not self.beside:
            lines = [textwrap.wrap(name, int((width - 24) / _CHAR)) or [""] for name in names]
        tallest = max((len(stated) for stated in lines), default=1)
        self._lines, self._words = lines, words
        self._step = max(step, _LINE * tallest) if self.beside and slots == 1 else step
        self._marks = self._step * slots + (0 if slots == 1 else step // 2)
        sizes = [self._marks + (0 if self.beside else _LINE * len(stated) + 4) for stated in lines]
        self._tops = [0, *accumulate(sizes)]
        self.height = self._tops[-1]

    def span(self, row: int) -> dict[str, float]:
        """Top and bottom of a row, its name with it."""
        return {"top": self._tops[row], "bottom": self._tops[row + 1]}

    def at(self, row: int, slot: int = 0) -> float:
        """Where the mark of a row stands."""
        spare = self._marks - self._step * (self._marks // self._step)
        return self._tops[row + 1] - self._marks + spare / 2 + self._step * (slot + 0.5)

    @property
    def y(self) -> Any:
        """The encoding of rows with a field ``at``."""
        return self.down("at")

    def down(self, field: str) -> Any:
        """The encoding of rows with a field of this name."""
        import altair as alt

        scale = alt.Scale(domain=[0, max(self.height, 1)], reverse=True, nice=False)
        return alt.Y(f"{field}:Q", axis=None, scale=scale)

    @property
    def layers(self) -> list[Any]:
        """The names, and the words at the right."""
        import altair as alt

        middles = [self._tops[row + 1] - self._marks / 2 for row in range(len(self._lines))]
        ends = [{"at": at, "text": word} for at, word in zip(middles, self._words, strict=False)]
        text: dict[str, Any] = {"fontSize": 11.5, "color": INK, "baseline": "middle"}
        stated = [
            {"at": (middle - _LINE * len(lines) / 2 if self.beside else top + 4) + _LINE * (i + 0.5), "text": line}
            for middle, top, lines in zip(middles, self._tops, self._lines, strict=False)
            for i, line in enumerate(lines)
        ]
        names: Any = alt.Chart(data(stated))
        where = {"align": "right", "dx": -_PAD} if self.beside else {"align": "left", "dx": 0}
        marks = [names.mark_text(**text, **where)]
        if not self.beside:  # names stand inside the plot: a halo keeps its lines from running through the letters
            marks.insert(0, names.mark_text(**text, **where, stroke=CARD, strokeWidth=5, strokeJoin="round"))
        layers = [mark.encode(x=alt.value(0), y=self.y, text="text:N") for mark in marks]
        if ends:
            words_: Any = alt.Chart(data(ends)).mark_text(**text, align="left", dx=_PAD)
            layers.append(words_.encode(x=alt.value("width"), y=self.y, text="text:N"))
        return layers


def _effects(scale: Any, title: str) -> dict[str, Any]:
    """Encoding of an axis of effects."""
    import altair as alt

    return {"scale": scale, "title": title, "axis": alt.Axis(tickCount=5)}


def _marks(stated: Sequence[dict[str, Any]], flag: str, same: dict[str, Any], y: Any, *, size: int) -> list[Any]:
    """Values with their intervals, as diamonds where the flag is set, else as dots."""
    import altair as alt

    bounded = alt.Chart(data([row for row in stated if row["low"] is not None and row["high"] is not None]))
    known = alt.Chart(data([row for row in stated if row["value"] is not None]))
    shape = alt.condition(f"datum.{flag}", alt.value("diamond"), alt.value("circle"))
    fill = alt.condition(f"datum.{flag}", alt.value(SERIES[1]), alt.value(INK))
    point = known.mark_point(filled=True, size=size, opacity=1)
    return [
        bounded.mark_rule(strokeWidth=2.2, color=INK).encode(x=alt.X("low:Q", **same), x2="high:Q", y=y),
        point.encode(x=alt.X("value:Q", **same), y=y, shape=shape, fill=fill),
    ]


def block_chart(blocks: BlockMap, colour: str, *, ends: tuple[float, float]) -> "alt.LayerChart":
    """Loss of score: a bar a block, with its interval; the maps of one instrument share the ``ends`` of their axis."""
    import altair as alt

    rows = Rows([words.plain(name) for name in blocks.blocks])
    bars = [
        {"at": rows.at(i), "zero": 0.0, "drop": drop.value, "low": drop.low, "high": drop.high}
        for i, drop in enumerate(blocks.drops)
    ]
    same = _effects(alt.Scale(domain=list(ends)), "loss of score")
    known = alt.Chart(data([bar for bar in bars if bar["drop"] is not None]))
    bounded = alt.Chart(data([bar for bar in bars if bar["low"] is not None and bar["high"] is not None]))
    bar = known.mark_rule(color=colour, opacity=0.62, strokeWidth=9)
    layers = [
        bar.encode(x=alt.X("zero:Q", **same), x2="drop:Q", y=rows.y),
        bounded.mark_rule(color=INK, strokeWidth=1.4).encode(x=alt.X("low:Q", **same), x2="high:Q", y=rows.y),
        *rows.layers,
    ]
    return finish(layers, height=rows.height, rows=rows)


def forest_chart(findings: Sequence[Finding], names: Sequence[str], *, ends: tuple[float, float]) -> "alt.LayerChart":
    """What differs in one pair: an effect with its interval a row, and in grey what could not have been seen.

    The first estimates of all ``findings`` are in one unit; ``ends`` are those of the axis of effects.
    """
    import altair as alt

    rows = Rows(names, step=24)
    stated: list[dict[str, Any]] = []
    for i, finding in enumerate(findings):
        first, least = finding.estimates[0], finding.smallest_detectable
        row = {"at": rows.at(i), "value": first.value, "low": first.low, "high": first.high}
        unseen = {} if least is None else {"from": -least, "to": least}
        stated.append({**row, "found": finding.status == "found", **unseen})
    unit = words.plain(findings[0].estimates[0].unit)
    same = _effects(alt.Scale(domain=list(ends)), f"difference ({unit})")
    unseen = alt.Chart(data([row for row in stated if "from" in row])).mark_rule(color=BAND, strokeWidth=11)
    zero = alt.Chart(data([{"zero": 0}])).mark_rule(color=MUTED, strokeWidth=1)
    layers = [
        unseen.encode(x=alt.X("from:Q", **same), x2="to:Q", y=rows.y),
        zero.encode(x=alt.X("zero:Q", **same)),
        *_marks(stated, "found", same, rows.y, size=95),
        *rows.layers,
    ]
    return finish(layers, height=rows.height, rows=rows)


def span_of(estimates: Iterable[Estimate], *others: float) -> tuple[float, float]:
    """Least and largest of every estimate with its interval, zero, and some other values."""
    known = [0.0, *others, *(end for e in estimates for end in (e.value, e.low, e.high) if end is not None)]
    return min(known), max(known)


def ends_of(estimates: Iterable[Estimate], *others: float) -> tuple[float, float]:
    """Ends of an axis that shows all of ``span_of``, with a little room."""
    low, high = span_of(estimates, *others)
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def net_chart(
    labels: Sequence[str], means: Sequence[dict[str, Any]], nets: Sequence[dict[str, Any]], *, unit: str
) -> "alt.LayerChart":
    """One number of nets of several cohorts: a row for each, a ring for each net, the mean with its interval.

    Args:
        labels: Cohorts, from the top.
        means: For each ``row`` its ``value`` with ``low`` and ``high`` (either may be missing), and whether the nets
            are those ``studied``: a diamond.
        nets: ``row`` and ``value`` of each net.
        unit: Of the number.
    """
    import altair as alt

    rows = Rows([words.plain(label) for label in labels], step=24)
    means, nets = ([{**row, "at": rows.at(row["row"])} for row in each] for each in (means, nets))
    numbers = {row[key] for row in (*means, *nets) for key in ("value", "low", "high") if row.get(key) is not None}
    # One number alone spans nothing: its axis starts at 0, so that it has ticks.
    scale = (
        alt.Scale(zero=False, nice=True)
        if len(numbers) > 1
        else alt.Scale(domain=sorted([0.0, max(numbers, default=0.0) or 1.0]))
    )
    same = _effects(scale, unit)
    rings = alt.Chart(data(nets)).mark_point(stroke=SERIES[0], size=60, strokeWidth=1.5)
    layers = [
        rings.encode(x=alt.X("value:Q", **same), y=rows.y),
        *_marks(means, "studied", same, rows.y, size=85),
        *rows.layers,
    ]
    return finish(layers, height=rows.height, rows=rows)
