"""The deployment table drawn: a dot a row, the largest effect first, its interval, and the margin."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from wheeltap.core.records import Estimate
from wheeltap.core.section import Cell
from wheeltap.report import figures
from wheeltap.report.figures import Rows, Style

if TYPE_CHECKING:
    import altair as alt
    from rich.console import Console

WIDE, NARROW = 900, 364
"""Widths of the two drawings of a table: of a page, and of a phone."""

_WIDE_STEP, _NARROW_STEP = 25, 17
_SHARE = 0.38
"""Of a wide drawing that names may take."""

_SLOT = 12
"""Pixels for each of several marks in a row."""

_COMPRESSED = 8.0
"""Margins from which an axis is compressed beyond the margin: small effects would lie on each other on an even one."""

_STEPS = (1.0, 2.0, 5.0)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One scheme of one model, or of one pair.

    Attributes:
        label: What was done to the weights.
        cells: One a column, between the label and the verdict.
        verdict: In words, with what would decide it, where it is open.
        effect: What a picture draws; ``None`` where nothing was measured.
        margin: In the unit of the effect.
    """

    label: str
    cells: tuple[str | Cell, ...]
    verdict: Cell
    effect: Estimate | None = None
    margin: float = 0.0


@dataclass(frozen=True, kw_only=True)
class DeploymentTable:
    """Rows with their headings.

    Attributes:
        title: The model or pair it is about; empty where it is about several.
        headings: Of label, cells and verdict.
        hidden: How many rows without a shown difference were left out.
        scale: What effects are multiplied by to be shown: 100 for points.
        paired: Whether effects are differences of two models.
    """

    title: str
    headings: tuple[str, ...]
    lines: tuple[Line, ...]
    hidden: int = 0
    scale: float = 1.0
    paired: bool = False


@dataclass(frozen=True, kw_only=True)
class DotScale:
    """The axis of effects, shared by all drawings of one table.

    Attributes:
        margin: The largest of the rows, multiplied.
        title: What is on it, in lines.
        paired: Whether effects have a margin on either side.
        compressed: Whether steps grow beyond the margin.
    """

    factor: float
    margin: float
    ends: tuple[float, float]
    title: tuple[str, ...]
    paired: bool
    compressed: bool

    @classmethod
    def of(cls, lines: Sequence[Line], *, factor: float, title: tuple[str, ...], paired: bool) -> "DotScale":
        """The scale on which every row is seen, with zero and the margin."""
        margin = factor * max((line.margin for line in lines), default=0.0)
        effects = [times(line.effect, factor) for line in lines if line.effect is not None]
        shown = (1.3 * margin, -1.3 * margin if paired else 0.0)
        low, high = figures.ends_of(effects, *shown)
        compressed = margin > 0.0 and max(-low, high) > _COMPRESSED * margin
        if compressed:
            # Room at an end grows with it: what is little beyond the margin is much within it.
            low, high = figures.span_of(effects, *shown)
            low, high = 1.06 * low - 0.2 * margin, 1.06 * high + 0.2 * margin
        return cls(
            factor=factor, margin=margin, ends=(low, high), title=title, paired=paired, compressed=compressed
        )  # fmt: skip

    @property
    def x(self) -> dict[str, Any]:
        """Encoding of the axis."""
        import altair as alt

        (low, high), stated = self.ends, "format(datum.value, '.4~r')"
        if not self.compressed:
            scale = alt.Scale(domain=[low, high], nice=False)
            axis = alt.Axis(tickCount=5, grid=False, labelExpr=stated)
            return {"scale": scale, "title": list(self.title), "axis": axis}
        # Zero, the margin, then ones, twos and fives beyond it.
        ladder = [float(f"{step:g}e{power}") for power in range(-9, 13) for step in _STEPS]
        above = [self.margin, *(tick for tick in ladder if tick > 1.6 * self.margin)]
        ticks = sorted(tick for tick in (0.0, *above, *(-tick for tick in above)) if low <= tick <= high)
        scale = alt.Scale(type="symlog", constant=self.margin, domain=[low, high], nice=False)
        axis = alt.Axis(values=ticks, grid=False, labelExpr=stated, labelOverlap=True)
        return {"scale": scale, "title": list(self.title), "axis": axis}


def times(effect: Estimate, factor: float) -> Estimate:
    """An estimate in another unit."""
    import msgspec

    value, low, high = (None if end is None else factor * end for end in (effect.value, effect.low, effect.high))
    return msgspec.structs.replace(effect, value=value, low=low, high=high)


def ranked(lines: Sequence[Line], *, paired: bool) -> list[Line]:
    """Rows with an effect: the largest loss first, or the largest difference on either side."""
    known = [(line.effect.value, line) for line in lines if line.effect is not None and line.effect.value is not None]
    known.sort(key=lambda one: -abs(one[0]) if paired else -one[0])
    return [line for _, line in known]


def one(lines: Sequence[Line], scale: DotScale, *, width: int) -> "alt.LayerChart":
    """Rows of one model or pair, their verdicts in words beside them or, where it is narrow, after their names."""
    wide = width == WIDE
    names = [line.label if wide else f"{line.label}: {line.verdict.word}" for line in lines]
    words = [line.verdict.word for line in lines] if wide else []
    rows = Rows(
        names, width=width, step=_WIDE_STEP if wide else _NARROW_STEP, words=words, share=_SHARE if wide else 0.0
    )
    marks = [_mark(line, scale, rows.at(i)) for i, line in enumerate(lines)]
    layers = [*_ground(lines, scale, rows)]
    for tone in figures.TONES:
        same = [mark for line, mark in zip(lines, marks, strict=True) if line.verdict.tone == tone]
        style = Style(colour=figures.TONES[tone], shape=figures.TONE_SHAPES[tone], width=2.2)
        layers += _dots(same, style, scale, rows)
    return figures.finish([*layers, *rows.layers], height=rows.height, width=width, rows=rows)


def several(
    labels: Sequence[str], series: Sequence[tuple[Style, Sequence[Line]]], scale: DotScale, *, width: int
) -> "alt.LayerChart":
    """Rows of several pairs: in each row a dot for each pair of ``series``, filled where the two differ."""
    import altair as alt

    rows = Rows(labels, width=width, step=_SLOT, slots=len(series), share=_SHARE if width == WIDE else 0.0)
    by_label = {line.label: line for _, lines in series for line in lines}
    edges: Any = alt.Chart(figures.data([rows.span(row) for row in range(1, len(labels))]))
    edges = edges.mark_rule(color=figures.BAND, strokeWidth=0.7).encode(y=rows.down("top"))
    layers = [*_ground([by_label[label] for label in labels], scale, rows), edges]
    for slot, (style, lines) in enumerate(series):
        mine = {line.label: line for line in lines}
        places = [(mine[label], rows.at(i, slot)) for i, label in enumerate(labels) if label in mine]
        for found in (True, False):
            same = [_mark(line, scale, at) for line, at in places if (line.verdict.tone == "alarm") == found]
            layers += _dots(same, style, scale, rows, filled=found)
    return figures.finish([*layers, *rows.layers], height=rows.height, width=width, rows=rows)


def _mark(line: Line, scale: DotScale, at: float) -> dict[str, float]:
    """An effect at its place; an open end reaches the end of the axis."""
    assert line.effect is not None, "only rows with an effect are drawn"
    effect = times(line.effect, scale.factor)
    value = effect.value or 0.0
    bare = effect.low is None and effect.high is None
    low = value if bare else scale.ends[0] if effect.low is None else effect.low
    high = value if bare else scale.ends[1] if effect.high is None else effect.high
    return {"at": at, "value": value, "low": low, "high": high}


def _ground(lines: Sequence[Line], scale: DotScale, rows: Rows) -> list[Any]:
    """What is behind the marks: in grey the effects within the margin, their ends, and zero."""
    import altair as alt

    zones: list[dict[str, float]] = []
    for i, line in enumerate(lines):
        margin = scale.factor * line.margin
        zones.append({**rows.span(i), "from": -margin if scale.paired else scale.ends[0], "to": margin})
    base, x = alt.Chart(figures.data(zones)), scale.x
    span: dict[str, Any] = {"y": rows.down("top"), "y2": "bottom:Q"}
    zone = base.mark_rect(color=figures.GRID, opacity=0.55)
    ends = base.mark_rule(color=figures.MUTED, strokeWidth=1.2, strokeDash=[5, 3])
    zero = base.transform_calculate(zero="0").mark_rule(color=figures.BAND, strokeWidth=1)
    layers: list[Any] = [
        zone.encode(x=alt.X("from:Q", **x), x2="to:Q", **span),
        zero.encode(x=alt.X("zero:Q", **x), **span),
        ends.encode(x=alt.X("to:Q", **x), **span),
    ]
    return [*layers, ends.encode(x=alt.X("from:Q", **x), **span)] if scale.paired else layers


def _dots(
    marks: Sequence[dict[str, float]], style: Style, scale: DotScale, rows: Rows, *, filled: bool = True
) -> list[Any]:
    import altair as alt

    base, x, y = alt.Chart(figures.data(marks)), scale.x, rows.y
    whisker = base.mark_rule(color=style.colour, strokeWidth=2.2 if filled else 1.4)
    shape, inside = cast("Any", style.shape), style.colour if filled else figures.CARD
    dot = base.mark_point(shape=shape, fill=inside, stroke=style.colour, size=85 if filled else 55, opacity=1)
    return [whisker.encode(x=alt.X("low:Q", **x), x2="high:Q", y=y), dot.encode(x=alt.X("value:Q", **x), y=y)]


# ---- in a terminal ----------------------------------------------------------------------------------------------

_BAR_LABEL, _NARROW_LABEL, _NARROW_SCREEN = 28, 16, 76
_MOST_BARS = 15
_CUT = 6.0
"""Margins at which an axis of bars ends."""


def bars(shown: DeploymentTable, console: "Console") -> None:
    """Print a bar for each row: the effect, its interval, and the margin as a line. Not for several pairs at once."""
    from rich.text import Text

    from wheeltap.report.sections import STYLES

    drawn = [line for line in shown.lines[:_MOST_BARS] if line.effect is not None and line.effect.value is not None]
    if not drawn or not shown.title:
        return
    label = _BAR_LABEL if console.width >= _NARROW_SCREEN else _NARROW_LABEL
    most = max(line.margin for line in drawn)
    low, high = figures.span_of(
        (line.effect for line in drawn if line.effect), 1.5 * most, -1.5 * most if shown.paired else 0.0
    )
    # Cut: one broken row must not squeeze those that the margin decides.
    ends, width = (max(low, -_CUT * most), min(high, _CUT * most)), min(max(console.width - label - 2, 20), 60)
    what = "difference" if shown.paired else "lost"
    caption = f"{what}: #, with its 95 % interval; | is the margin ({shown.scale * drawn[0].margin:.3g})"
    console.print(Text(caption, style="dim"), highlight=False)
    for line in drawn:
        text = Text(f"{line.label if len(line.label) <= label else f'{line.label[: label - 1]}…':<{label}} ")
        bar = _bar(line, ends, paired=shown.paired, width=width)
        text.append(bar, style="" if line.verdict.tone == "quiet" else STYLES[line.verdict.tone])
        console.print(text, highlight=False, no_wrap=True)


def _bar(line: Line, ends: tuple[float, float], *, paired: bool, width: int) -> str:
    """One row of so many columns: interval, bar over it, zero and margin marked."""
    effect, (least, most) = line.effect, ends
    assert effect is not None and effect.value is not None, "only drawn rows have bars"

    def place(value: float) -> int:
        share = (value - least) / ((most - least) or 1.0)
        return round(min(max(share, 0.0), 1.0) * (width - 1))

    cells, value = [" "] * width, effect.value
    interval = least if effect.low is None else effect.low, most if effect.high is None else effect.high
    for (start, end), mark in ((interval, "-"), ((min(0.0, value), max(0.0, value)), "=")):
        for at in range(place(start), place(end) + 1):
            cells[at] = mark
    cells[place(0.0)] = ":"
    for margin in (line.margin, -line.margin) if paired else (line.margin,):
        cells[place(margin)] = "|"
    cells[place(value)] = ">" if value > most else "<" if value < least else "#"
    return "".join(cells).rstrip()
