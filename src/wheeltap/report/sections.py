"""Sections as the page, the terminal and Markdown show them: any block of any suite."""

import base64
import hashlib
import re
import textwrap
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from wheeltap.core.records import Estimate
from wheeltap.core.registry import Registry
from wheeltap.core.section import Axis, Cell, Chart, Graph, Pictures, Section, Series, Table, Text, Tone, Widget
from wheeltap.report import figures, words
from wheeltap.report.blocks import Drawing, FindingList, LegendEntry, ReportPart, markup
from wheeltap.report.words import wrapped

if TYPE_CHECKING:
    import altair as alt
    from rich.console import Console
    from rich.text import Text as Words

T = TypeVar("T")

_PAGE_ROWS, _MOST_COLUMNS = 15, 6
"""Rows of a table on the page that are not folded away; columns side by side, where each holds several parts."""

_LABEL, _SHORT_LABEL, _NARROW = 28, 16, 76
"""Columns of a terminal for what a row is called, in one line or at least; those below which a screen is narrow."""

_HEIGHT: Final = 260
_LONGEST: Final = 26
"""Letters of a cell that still is a number."""


class WidgetRenderer(ABC):
    """How a plug-in draws its widgets on the page; registered in the group ``wheeltap.widgets``."""

    @abstractmethod
    def markup(self, data: Any) -> Any:
        """From the data of a widget to markup, in which names are escaped; a script that it needs stands inside."""

    @abstractmethod
    def sources(self) -> tuple[str, ...]:
        """What a content security policy must allow of scripts for it, each as it stands in ``script-src``."""


widgets: Final = Registry("widget", "wheeltap.widgets", {}, WidgetRenderer)


# ---- the page ---------------------------------------------------------------------------------------------------


def page(sections: Sequence[Section | ReportPart]) -> dict[str, Any]:
    """What the templates show of them, the scripts that they need, and what a policy must allow for these."""
    blocks = [block for section in sections for block in section.blocks]
    sources, script = list[str](), ""
    if any(isinstance(block, Graph) for block in blocks):
        script = resources.files("wheeltap.report").joinpath("templates/graph.js").read_text("utf-8")
        sources = [f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"]
    for name in dict.fromkeys(block.name for block in blocks if isinstance(block, Widget)):
        sources += widgets.get(name)().sources() if name in set(widgets) else ()
    seen = Counter[str]()
    shown: list[dict[str, Any]] = []
    for section in sections:
        name = re.sub(r"[^a-z]+", "-", section.title.lower()).strip("-") or "section"
        seen[name] += 1
        shown.append(_section(name if seen[name] == 1 else f"{name}-{seen[name]}", section))
    return {"sections": shown, "script": markup(script), "sources": " ".join(sources)}


def _section(name: str, section: Section | ReportPart) -> dict[str, Any]:
    """A section, with charts that follow each other in one group."""
    groups: list[dict[str, Any]] = []
    for block in section.blocks:
        shown = {"kind": type(block).__name__.lower(), "place": block.place, **_view(block)}
        grid = isinstance(block, Chart | Drawing) and block.place != "folded" and not shown.get("slim")
        if grid and groups and groups[-1]["grid"]:
            groups[-1]["blocks"].append(shown)
        else:
            groups.append({"grid": grid, "blocks": [shown]})
    return {
        "id": f"s-{name}", "title": words.plain(section.title), "says": words.paragraphs(section.says),
        "groups": groups, "folded": section.folded,
        "note": section.note if isinstance(section, ReportPart) else "",
        "first": any(one.place == "first" for one in section.blocks),
        "wide": any(isinstance(block, Widget) for block in section.blocks),
    }  # fmt: skip


def table_view(block: Table) -> dict[str, Any]:
    """A table as templates show it: without empty columns, in parts that fit side by side, long ones folded."""
    right, rows = _numeric(block), [[_cell(cell) for cell in row] for row in block.rows]
    kept = [at for at in range(1, len(block.heads)) if any(any(row[at].values()) for row in rows)]
    several = any(isinstance(cell, Cell) for row in block.rows for cell in row[1:])
    most = _MOST_COLUMNS if several and not (block.narrow and block.heads[-1]) else max(len(kept), 1)
    parts = [[0, *kept[start : start + most]] for start in range(0, len(kept), most)] or [[0]]
    style = "shipped" if block.narrow else "score" if several else ""
    limit = max(block.most, _PAGE_ROWS)
    return {
        "title": words.plain(block.title), "style": style, "lone": several and len(kept) == 1,
        "parts": [
            {
                "heads": [words.plain(block.heads[at]) for at in part],
                "right": [right[at] and bool(at) for at in part],
                "rows": [[row[at] for at in part] for row in rows[:limit]],
                "rest": [[row[at] for at in part] for row in rows[limit:]],
            }
            for part in parts
        ],
    }  # fmt: skip


def _cell(cell: str | Estimate | Cell) -> dict[str, str]:
    if not isinstance(cell, Cell):
        text = words.plain(cell) if isinstance(cell, str) else words.interval(cell)
        return {"text": text, "value": "", "bracket": "", "word": "", "note": ""}
    value, mark, bracket = words.plain(cell.number).partition(" [")
    return {"text": "", "value": value, "bracket": mark[1:] + bracket, "word": words.plain(cell.word),
            "tone": cell.tone, "note": words.plain(cell.note)} if cell != Cell() else {}  # fmt: skip


def _numeric(table: Table) -> list[bool]:
    """Which columns hold numbers and no sentences, so that they end at one line."""
    found: list[bool] = []
    for at in range(len(table.heads)):
        texts = [printed(row[at]).plain for row in table.rows]
        own = any(isinstance(row[at], Cell) for row in table.rows) and not table.narrow
        found.append(not own and all(len(text) <= _LONGEST and _NUMBER.match(text) for text in texts if text))
    return found


_NUMBER: Final = re.compile(r"x |-?\d")


def _view(block: Any) -> dict[str, Any]:
    """A block as templates show it."""
    match block:
        case Text():
            return {"text": words.paragraphs(block.text), "title": "More"}
        case Table():
            return table_view(block)
        case FindingList():
            return vars(block)
        case Widget():
            known = block.name in set(widgets)
            drawn = widgets.get(block.name)().markup(block.data) if known else ""
            return {"drawn": drawn, "alt": words.plain(block.alt)}
        case _:
            pass
    shown = {"title": words.plain(block.title), "note": words.plain(block.note)}
    match block:
        case Chart():
            looks = _looks(block)
            legend = [LegendEntry.of(name, look, width=look.width) for name, look in looks.items()]
            svg, alt = markup(figures.svg(draw(block))), words.plain(block.alt)
            legend = legend if len(legend) > 1 else []
            return {**shown, "svg": svg, "alt": alt, "legend": legend, "slim": "", "code": "", "chip": None}
        case Drawing():
            wide, *slim = (markup(figures.svg(chart)) for chart in block.draw())
            shown |= {"svg": wide, "slim": slim[0] if slim else "", "alt": block.alt, "legend": block.legend}
            return {**shown, "code": words.plain(block.code), "chip": block.chip}
        case Graph():
            # No "<" may stand in the data: it could end the element it stands in.
            data = words.plain(msgspec.json.encode(block).decode()).replace("<", "\\u003c")
            return {**shown, "data": markup(data)}
        case _:
            pictures = [
                {"address": "data:image/png;base64," + base64.b64encode(one.png).decode(), "alt": words.plain(one.alt),
                 "name": words.plain(one.name), "says": words.plain(one.says)}
                for one in block.pictures
            ]  # fmt: skip
            return {**shown, "wide": block.wide, "each": pictures}


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

STYLES: Final[dict[Tone, str]] = {"alarm": "bold red", "warn": "yellow", "calm": "green", "quiet": "dim"}
"""By tone."""


def terminal(sections: Sequence[Section | ReportPart], console: "Console", *, full: bool = False) -> None:
    """Print the first blocks of every section; with ``full``, all that text can show, each section with its title."""
    begun = False
    for section in sections:
        blocks = [block for block in section.blocks if full or block.place == "first"]
        if not (blocks or section.says):
            continue
        if begun:
            console.print()
        begun = True
        if section.title and (full or section.folded):
            wrapped(console, f"{section.title}{'' if full else ':'}", style="bold")
        for text in words.paragraphs(section.says):
            wrapped(console, text)
        for at, block in enumerate(blocks):
            if at and isinstance(block, Table):
                console.print()
            _print(block, console, full=full)


def _print(block: Any, console: "Console", *, full: bool) -> None:
    match block:
        case Text():
            for text in words.paragraphs(block.text):
                wrapped(console, text, hang=2 if text.startswith("- ") else 0)
        case Table():
            _grid(block, console, full=full)
        case Chart():
            wrapped(console, f"{block.title}: {block.alt}", style="dim")
        case Drawing():
            if block.printed is not None:
                block.printed(console)
        case Graph():
            wrapped(
                console,
                f"{block.title}: {len(block.nodes):,} {block.noun}s, {len(block.links):,} lines. Drawn on the page.",
                style="dim",
            )
        case Pictures():
            wrapped(console, f"{block.title or 'Pictures'}: {len(block.pictures):,}, on the page.", style="dim")
        case FindingList():
            _findings(block, console)
        case _:
            wrapped(console, block.alt, style="dim")


_TELL: Final = re.compile(r"(?:^|(?<=; ))([^;]+?)(?: examples)? would tell$")


def printed(cell: str | Estimate | Cell) -> "Words":
    """A cell as the terminal shows it, in one line."""
    from rich.text import Text as Words

    if not isinstance(cell, Cell):
        return Words(words.plain(cell) if isinstance(cell, str) else words.interval(cell))
    parts = [Words(words.plain(cell.number))] if cell.number else []
    if cell.word:
        parts.append(Words(words.plain(cell.word), style="" if cell.tone == "quiet" else STYLES[cell.tone]))
    if cell.note:  # in short: a row is one line
        note = _TELL.sub(r"needs \1", words.plain(cell.note))
        parts.append(Words(f"({note})"))
    return Words(" ").join(parts)


def _grid(table: Table, console: "Console", *, full: bool) -> None:
    """Columns in as many tables as the width needs, so that no number is ever broken."""
    from rich.table import Table as Grid
    from rich.text import Text as Words

    if table.title and not table.narrow:
        wrapped(console, f"{table.title.removesuffix('.')}:", style="dim")
    rows = table.rows if full or len(table.rows) <= table.most else (*table.rows[: table.most - 1], table.rows[-1])
    cells, right = [[printed(cell) for cell in row] for row in rows], _numeric(table)
    heads = [words.plain(head) for head in table.heads]
    kept = [at for at in range(1, len(heads)) if any(row[at].plain for row in cells)]
    if table.narrow and console.width < _NARROW:
        kept = [at for at in kept if at in table.narrow]
    whole = [max(map(len, (*(row[at].plain for row in cells), *head.split(), ""))) for at, head in enumerate(heads)]
    parts = [max(map(len, (*(_unbroken(row[at]) for row in rows), *head.split(), ""))) for at, head in enumerate(heads)]
    third = console.width // 3
    shared = third if sum(parts[at] + 1 for at in kept) + third < console.width else console.width // 5
    label = min(whole[0], _SHORT_LABEL if table.narrow else max(shared, 12))
    gap = 2 if not table.narrow and sum(whole[at] + 2 for at in kept) + label <= console.width else 1
    for chunk in fitting(kept, lambda at: parts[at] + gap, room=console.width - label):
        # Room for whole cells comes before that for the first column, and last is that for headings in one line.
        wide, spare = {0: label, **{at: parts[at] for at in chunk}}, console.width - label
        spare -= sum(parts[at] + gap for at in chunk)
        wanted = [*((at, whole[at]) for at in (*chunk, 0)), *((at, len(heads[at])) for at in reversed(chunk))]
        for at, most in wanted:
            more = min(max(most - wide[at], 0), spare)
            wide[at], spare = wide[at] + more, spare - more
        cut = bool(table.narrow) and wide[0] >= min(whole[0], _LABEL)
        grid = Grid(box=None, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False, show_header=any(heads),
                    header_style="bold")  # fmt: skip
        grid.add_column(Words(heads[0]), width=wide[0], no_wrap=cut, overflow="ellipsis" if cut else "fold")
        for at in chunk:
            side = "right" if right[at] else "left"
            grid.add_column(Words(heads[at]), justify=side, width=wide[at], overflow="fold")
        for row, given in zip(cells, rows, strict=True):
            texts = (row[at] if isinstance(given[at], Cell) else _folded(row[at], wide[at]) for at in chunk)
            grid.add_row(row[0], *texts)
        console.print(grid, highlight=False)
    if len(rows) < len(table.rows):
        wrapped(console, f"and {len(table.rows) - len(rows)} more: --full", style="dim")


def _unbroken(cell: str | Estimate | Cell) -> str:
    """The longest part of a cell that stands in one line at any width."""
    if isinstance(cell, Cell):
        return max((cell.number, cell.word, *cell.note.split()), key=len)
    text = printed(cell).plain
    return text if len(text) <= _LONGEST else max(words.hold(text).split(" "), key=len)[:_LONGEST]


def _folded(cell: "Words", width: int) -> "Words":
    """A text in lines of its column, none of which ends within an interval that fits into it."""
    from rich.text import Text as Words

    held = words.hold(cell.plain)
    if len(held) <= width or max(map(len, held.split(" "))) > width:
        return cell
    return Words("\n".join(textwrap.wrap(held, width, break_on_hyphens=False)).replace("\u00a0", " "))


def _findings(block: FindingList, console: "Console") -> None:
    """Findings in full; in one line for each verdict those that need no reading."""
    wrapped(console, block.label, style="bold", indent=1)
    for one in block.findings:
        if one.loud:
            wrapped(console, f"{one.word}: {one.title} ({one.code})", style=STYLES[one.tone], indent=3, hang=2)
            for name, value, _ in one.estimates:
                wrapped(console, f"{name}: {value}", indent=5)
            if one.detectable:
                wrapped(console, f"smallest detectable effect: {one.detectable}", style="dim", indent=5)
            for text in one.because:
                wrapped(console, text, indent=5)
    quiet = [one for one in block.findings if not one.loud]
    codes = [one.code for one in quiet]
    for word in dict.fromkeys(one.word for one in quiet):
        said = list[str]()
        for one in quiet:
            if one.word == word:
                least = f"smallest detectable {one.detectable}" if one.detectable else ""
                name = one.title if codes.count(one.code) > 1 or one.answer else one.name
                said.append(f"{name} ({'; '.join(part for part in (one.answer, one.code, least) if part)})")
        wrapped(console, f"{word}: {'; '.join(said)}", indent=3, hang=2)


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
