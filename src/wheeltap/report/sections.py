"""Sections as the page, the terminal and Markdown show them: any block of any suite."""

import base64
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from wheeltap.core.registry import Registry
from wheeltap.core.section import Axis, Block, Chart, Graph, Pictures, Section, Series, Table, Text, Widget
from wheeltap.report import figures, words
from wheeltap.report.drawn import LegendEntry, markup
from wheeltap.report.lines import wrapped

if TYPE_CHECKING:
    from collections.abc import Mapping

    import altair as alt
    from rich.console import Console

T = TypeVar("T")

_MOST_ROWS: Final = 8
"""Rows of a table on the first screen; of more, the last one is kept too."""

_HEIGHT: Final = 260
_LONGEST: Final = 26
"""Letters of a cell that still is a number."""


class WidgetDrawing(ABC):
    """How a plug-in draws its widgets on the page; registered in the group ``wheeltap.widgets``."""

    @abstractmethod
    def markup(self, data: Any) -> Any:
        """From the data of a widget to markup, in which names are escaped; a script that it needs stands inside."""

    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """What a content security policy must allow of scripts for it, each as it stands in ``script-src``."""


widgets: Final = Registry("widget", "wheeltap.widgets", {}, WidgetDrawing)


# ---- the page ---------------------------------------------------------------------------------------------------


def page(sections: Sequence[Section]) -> dict[str, Any]:
    """What the templates show of them, the scripts that they need, and what a policy must allow for these."""
    blocks = [block for section in sections for block in section.blocks]
    graphs = any(isinstance(block, Graph) for block in blocks)
    script = _script() if graphs else ""
    sources = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"] if graphs else []
    for name in dict.fromkeys(block.name for block in blocks if isinstance(block, Widget)):
        sources += widgets.get(name)().sources() if name in set(widgets) else ()
    return {
        "sections": [_section(f"section-{at + 1}", one) for at, one in enumerate(sections)],
        "script": markup(script),
        "sources": " ".join(sources),
    }


def _section(name: str, section: Section) -> dict[str, Any]:
    """A section, with charts that follow each other in one group."""
    groups: list[dict[str, Any]] = []
    for block in section.blocks:
        shown = {"kind": str(type(block).__struct_config__.tag), "place": block.place, **_PAGE[type(block)](block)}
        grid = isinstance(block, Chart) and block.place != "folded"
        if grid and groups and groups[-1]["grid"]:
            groups[-1]["blocks"].append(shown)
        else:
            groups.append({"grid": grid, "blocks": [shown]})
    return {
        "id": name, "title": words.plain(section.title), "says": words.paragraphs(section.says), "groups": groups,
        "folded": section.folded, "first": any(block.place == "first" for block in section.blocks),
        "wide": any(isinstance(block, Widget) for block in section.blocks),
    }  # fmt: skip


def _script() -> str:
    return resources.files("wheeltap.report").joinpath("templates/graph.js").read_text("utf-8")


def _page_text(block: Text) -> dict[str, Any]:
    return {"text": words.paragraphs(block.text)}


def _page_table(block: Table) -> dict[str, Any]:
    return {
        "title": words.plain(block.title), "heads": list(map(words.plain, block.heads)),
        "rows": _cells(block), "right": _numeric(block),
    }  # fmt: skip


def _cells(table: Table) -> list[list[str]]:
    return [
        [words.plain(cell) if isinstance(cell, str) else words.interval(cell) for cell in row] for row in table.rows
    ]


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers and no sentences."""
    columns = ([row[at] for row in _cells(table)] for at in range(len(table.heads)))
    return [all(len(cell) <= _LONGEST for cell in column) for column in columns]


def _page_chart(block: Chart) -> dict[str, Any]:
    looks = _looks(block)
    legend = [LegendEntry.of(name, look, width=look.width) for name, look in looks.items()] if len(looks) > 1 else []
    return {
        "title": words.plain(block.title), "svg": markup(figures.svg(draw(block))), "alt": words.plain(block.alt),
        "legend": legend, "note": words.plain(block.note),
    }  # fmt: skip


def _page_graph(block: Graph) -> dict[str, Any]:
    # No "<" may stand in the data: it could end the element it stands in.
    data = words.plain(msgspec.json.encode(block).decode()).replace("<", "\\u003c")
    return {"title": words.plain(block.title), "data": markup(data), "note": words.plain(block.note)}


def _page_pictures(block: Pictures) -> dict[str, Any]:
    pictures = [
        {"address": "data:image/png;base64," + base64.b64encode(one.png).decode(), "alt": words.plain(one.alt),
         "name": words.plain(one.name), "says": words.plain(one.says)}
        for one in block.pictures
    ]  # fmt: skip
    return {"title": words.plain(block.title), "note": words.plain(block.note), "wide": block.wide, "each": pictures}


def _page_widget(block: Widget) -> dict[str, Any]:
    known = block.name in set(widgets)
    return {"drawn": widgets.get(block.name)().markup(block.data) if known else "", "alt": words.plain(block.alt)}


_PAGE: "Final[Mapping[type, Callable[[Any], dict[str, Any]]]]" = {
    Text: _page_text, Table: _page_table, Chart: _page_chart, Graph: _page_graph, Pictures: _page_pictures,
    Widget: _page_widget,
}  # fmt: skip


# ---- charts -----------------------------------------------------------------------------------------------------


def _looks(chart: Chart) -> dict[str, figures.Style]:
    return figures.styles(one.name for one in chart.series if one.look in ("line", "points", "null"))


def draw(block: Chart) -> "alt.LayerChart":
    """A chart of the house look."""
    import altair as alt

    looks, layers = _looks(block), list[Any]()
    x, y = alt.X("x:Q", **_axis(block.x, grid=not block.x.log)), alt.Y("y:Q", **_axis(block.y))
    if block.spans:
        shades: Any = alt.Chart(figures.data([{"x": low, "to": high} for low, high in block.spans]))
        layers.append(shades.mark_rect(color=figures.BAND, opacity=0.35).encode(x=x, x2="to:Q"))
    for level, word in block.levels:
        line: Any = alt.Chart(figures.data([{"y": level, "x": block.x.low, "text": words.plain(word)}]))
        layers.append(line.mark_rule(color=figures.MUTED, strokeDash=[4, 3]).encode(y=y))
        if word:
            text = line.mark_text(align="left", dx=3, dy=-6, color=figures.MUTED, fontSize=11)
            layers.append(text.encode(x=x, y=y, text="text:N"))
    for one in block.series:
        layers += _layers(one, looks.get(one.name), x, y)
    return figures.finish(layers, height=_HEIGHT)


def _axis(axis: Axis, *, grid: bool = True) -> dict[str, Any]:
    import altair as alt

    scale: dict[str, Any] = {"nice": False, "type": "log"} if axis.log else {"nice": False}
    if axis.low is not None and axis.high is not None:
        scale["domain"] = [axis.low, axis.high]
    elif not axis.log:
        scale["zero"] = False
    ticks: dict[str, Any] = {"values": list(axis.ticks), "format": "~g"} if axis.ticks else {"tickCount": 5}
    if axis.log and not axis.ticks:
        ticks["format"] = "~s"
    return {"title": words.plain(axis.title), "scale": alt.Scale(**scale), "axis": alt.Axis(grid=grid, **ticks)}


def _layers(one: Series, look: figures.Style | None, x: Any, y: Any) -> Iterator[Any]:
    import altair as alt

    none = [None] * len(one.x)
    numbers = zip(one.x, one.y, one.low or none, one.high or none, strict=True)
    rows = [{"x": at, "y": value, "low": low, "high": high} for at, value, low, high in numbers]
    base: Any = alt.Chart(figures.data(rows)).encode(x=x)
    known: Any = alt.Chart(figures.data([row for row in rows if None not in (row["low"], row["high"])]))
    ends = known.encode(x=x, y=alt.Y("low:Q"), y2="high:Q")
    if look is None:
        marks = {
            "reference": lambda: base.mark_line(color=figures.MUTED, strokeDash=[4, 3]).encode(y=y),
            "range": lambda: ends.mark_rule(color=figures.BAND, strokeWidth=6),
            "mark": lambda: base.mark_point(
                filled=True, shape="diamond", size=130, color=figures.INK, opacity=1
            ).encode(y=y),
        }
        yield marks[one.look]()
        return
    if one.low:
        yield (
            ends.mark_area(opacity=0.2, color=look.colour)
            if one.look == "line"
            else ends.mark_rule(color=look.colour, opacity=0.5)
        )
    width = {"line": look.width, "points": 2.2, "null": 1.3}[one.look]
    dash = [5, 3] if one.look == "null" else [1, 0]
    yield base.mark_line(color=look.colour, strokeWidth=width, strokeDash=dash).encode(y=y)
    if one.look != "line":
        filled = one.look == "points"
        yield base.mark_point(color=look.colour, shape=look.shape, filled=filled, size=30, opacity=1).encode(y=y)


# ---- the terminal -----------------------------------------------------------------------------------------------


def terminal(sections: Sequence[Section], console: "Console", *, full: bool = False) -> None:
    """Print the first blocks of every section; with ``full``, all that text can show.

    Args:
        sections: What to print.
        console: Where to.
        full: Whether everything is printed, each section with its title.
    """
    for at, section in enumerate(sections):
        blocks = [block for block in section.blocks if full or block.place == "first"]
        if not (blocks or section.says):
            continue
        if at:
            console.print()
        if full or section.folded:
            wrapped(console, f"{section.title}{'' if full else ':'}", style="bold")
        for text in words.paragraphs(section.says):
            wrapped(console, text)
        for block in blocks:
            _print(block, console, full=full)


def _print(block: Block, console: "Console", *, full: bool) -> None:
    match block:
        case Text():
            for text in words.paragraphs(block.text):
                wrapped(console, text)
        case Table():
            _grid(block, console, full=full)
        case Chart():
            wrapped(console, f"{block.title}: {block.alt}", style="dim")
        case Graph():
            wrapped(
                console,
                f"{block.title}: {len(block.nodes):,} {block.noun}s, {len(block.links):,} lines. Drawn on the page.",
                style="dim",
            )
        case Pictures():
            wrapped(console, f"{block.title or 'Pictures'}: {len(block.pictures):,}, on the page.", style="dim")
        case Widget():
            wrapped(console, block.alt, style="dim")


def _grid(table: Table, console: "Console", *, full: bool) -> None:
    """Columns in as many tables as the width needs, so that no number is ever broken."""
    from rich.table import Table as Grid
    from rich.text import Text as Words

    if table.title:
        wrapped(console, f"{table.title}:", style="dim")
    rows = _cells(table)
    if not full and len(rows) > _MOST_ROWS:
        rows = [*rows[: _MOST_ROWS - 1], rows[-1]]
    longest, right = max(map(len, (*(row[0] for row in rows), table.heads[0]))), _numeric(table)
    label = min(longest, max(console.width // 3, 12))
    widths = [max(map(len, (*(row[at] for row in rows), *head.split(), ""))) for at, head in enumerate(table.heads)]
    room, gap = console.width - label, 2 if sum(widths[1:]) + 2 * len(widths) + label <= console.width else 1
    for chunk in fitting(range(1, len(table.heads)), lambda at: widths[at] + gap, room=room - gap):
        grid = Grid(box=None, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
        spare = console.width - sum(widths[at] + gap for at in chunk) - gap
        grid.add_column(Words(table.heads[0]), max_width=max(label, min(longest, spare)), overflow="fold")
        for at in chunk:
            side = "right" if right[at] else "left"
            grid.add_column(Words(table.heads[at]), justify=side, min_width=min(widths[at], room), overflow="fold")
        for row in rows:
            grid.add_row(Words(row[0]), *(Words(row[at]) for at in chunk))
        console.print(grid, highlight=False)
    if len(rows) < len(table.rows):
        wrapped(console, f"and {len(table.rows) - len(rows)} more: --full", style="dim")


def fitting(several: Sequence[T], width: Callable[[T], int], *, room: int) -> list[list[T]]:
    """What fits side by side, in as many parts as are needed."""
    found: list[list[T]] = [[]]
    used = 0
    for one in several:
        own = width(one)
        if used + own > room and found[-1]:
            found.append([])
            used = 0
        found[-1].append(one)
        used += own
    return found
