"""The first screen in the terminal: models in one line each, the deployment table, and its bars."""

from typing import TYPE_CHECKING, Final

from wheeltap.audits.headline import TELL
from wheeltap.core.report import ReportRecord
from wheeltap.report import deployment, view
from wheeltap.report.deployment import DeploymentTable, Line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

STYLES: Final[dict[str, str]] = {"alarm": "bold red", "warn": "yellow", "calm": "green", "quiet": "dim"}
"""By tone."""

_LABEL = 28
_NARROW_LABEL = 16

_WIDE, _NARROW = 90, 76
"""Columns of a terminal from which labels have room for a line each, and rows for everything."""

_MOST_BARS = 15

_CUT = 6.0
"""Margins at which an axis ends."""


def heads(record: ReportRecord, console: "Console") -> None:
    """Print each model's name, score and coverage; then what they were tested on."""
    from rich.text import Text

    found = deployment.heads(record)
    room = max(console.width - 40, 12)
    width = min(max(len(head.name) for head in found), room)
    for head in found:
        text = Text(f"{_cut(head.name, width):<{width}}  {head.score:<10}  ", style="bold")
        text.append(head.covered, style=STYLES["alarm"] if head.partly else "")
        console.print(text, highlight=False)
    console.print(Text(f"{view.examples(record)}; {deployment.controls_line(record)}"), highlight=False)


def table(shown: DeploymentTable, console: "Console") -> None:
    """Print a deployment table and, above it, a bar for each row against the margin."""
    from rich.text import Text

    if not shown.lines:
        return
    console.print()
    bars(shown, console)
    grid = _grid(shown, console)
    kept = _kept(shown, console)
    for line in shown.lines:
        cells = (Text(line.cells[at], style=_style(line.tones[at])) for at in kept)
        grid.add_row(Text(line.label), *cells, _verdict(line))
    console.print(grid, highlight=False)
    if shown.more:
        console.print(Text(f"and {shown.more} more: --full", style="dim"), highlight=False)


def _kept(shown: DeploymentTable, console: "Console") -> list[int]:
    """Which cells have something in a row, and room: on a very narrow terminal, the loss alone."""
    every = [at for at in range(len(shown.headings) - 2) if any(line.cells[at] for line in shown.lines)]
    if console.width >= _NARROW or not shown.title:
        return every
    # A verdict and its number are what a row is for.
    return [at for at in every if "95 %" in shown.headings[at + 1]]


def _grid(shown: DeploymentTable, console: "Console") -> "Grid":
    from rich.table import Table as Grid

    grid = Grid(box=None, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    longest = max(len(line.label) for line in shown.lines)
    verdicts = max((len(_verdict(line)) for line in shown.lines), default=0)
    # A line each, where the numbers leave that much room; else what is words folds.
    cells = sum(1 + _wide(shown, at) for at in _kept(shown, console))
    room = console.width - cells - 1 - max(verdicts, len(shown.headings[-1]))
    flat = console.width >= _WIDE and room >= min(longest, _LABEL)
    label = min(longest, room) if flat else min(_LABEL if console.width >= _WIDE else _NARROW_LABEL, longest)
    grid.add_column(
        shown.headings[0], min_width=label, max_width=label if flat else None, no_wrap=flat,
        overflow="ellipsis" if flat else "fold",
    )  # fmt: skip
    for at in _kept(shown, console):
        # A number is never broken; a cell of words may be.
        number = "95 %" in shown.headings[at + 1]
        widest = max((len(line.cells[at]) for line in shown.lines), default=0)
        least = widest if number else min(widest, 11)
        heading = shown.headings[at + 1].replace(" loses more", "\nloses more")
        grid.add_column(heading, justify="right", min_width=least, no_wrap=number, overflow="fold")
    least = verdicts if flat else max((len(line.verdict) for line in shown.lines), default=0)
    grid.add_column(shown.headings[-1], min_width=least, overflow="fold")
    return grid


def _wide(shown: DeploymentTable, at: int) -> int:
    """Columns that a cell takes, its heading included, which is in two lines where it says who loses more."""
    heading = shown.headings[at + 1].replace(" loses more", "\nloses more")
    return max(map(len, (*(line.cells[at] for line in shown.lines), *heading.split("\n"))))


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _style(tone: str) -> str:
    return "" if tone == "quiet" else STYLES[tone]


def _verdict(line: Line) -> "Text":
    from rich.text import Text

    text = Text(line.verdict, style=_style(line.tone))
    count = line.note.removesuffix(f" {TELL}")  # in short: a row is one line
    note = line.note if count == line.note else f"needs {count.removesuffix(' examples')}"
    note = "needs more" if line.note == deployment.MORE else note
    return text.append(f" ({note})", style="") if note else text


def bars(shown: DeploymentTable, console: "Console") -> None:
    """Print a bar for each row: the effect, its interval, and the margin as a line. Not for several pairs at once."""
    from rich.text import Text

    drawn = [line for line in shown.lines if line.effect is not None and line.effect.value is not None]
    if not drawn or not shown.title or len(drawn) > _MOST_BARS:
        return
    label = _LABEL if console.width >= _NARROW else _NARROW_LABEL
    axis = _Axis(drawn, paired=shown.paired, width=min(max(console.width - label - 2, 20), 60))
    what = "difference" if shown.paired else "lost"
    caption = f"{what}: #, with its 95 % interval; {axis.mark} is the margin ({shown.scale * drawn[0].margin:.3g})"
    console.print(Text(caption, style="dim"), highlight=False)
    for line in drawn:
        text = Text(f"{_cut(line.label, label):<{label}} ")
        text.append(axis.bar(line), style=_style(line.tone))
        console.print(text, highlight=False, no_wrap=True)
    console.print()


class _Axis:
    """Where a value falls among the columns of a bar chart.

    Args:
        lines: What is drawn.
        paired: Whether effects may point either way.
        width: Columns.
    """

    mark = "|"

    def __init__(self, lines: list[Line], *, paired: bool, width: int) -> None:
        ends = [end for line in lines if line.effect for end in (line.effect.value, line.effect.low, line.effect.high)]
        known = [end for end in ends if end is not None]
        most = max(line.margin for line in lines)
        # Cut: one broken row must not squeeze those that the margin decides.
        self.high = min(max([*known, 1.5 * most]), _CUT * most)
        self.low = max(min([*known, -1.5 * most if paired else 0.0]), -_CUT * most)
        self.paired, self.width = paired, width

    def place(self, value: float) -> int:
        """Column of a value."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return round(min(max(share, 0.0), 1.0) * (self.width - 1))

    def bar(self, line: Line) -> str:
        """One row: interval, bar over it, zero and margin marked."""
        effect = line.effect
        assert effect is not None and effect.value is not None, "only drawn rows have bars"
        cells = [" "] * self.width
        low = self.low if effect.low is None else effect.low
        high = self.high if effect.high is None else effect.high
        self._fill(cells, low, high, "-")
        self._fill(cells, min(0.0, effect.value), max(0.0, effect.value), "=")
        cells[self.place(0.0)] = ":"
        for margin in (line.margin, -line.margin) if self.paired else (line.margin,):
            cells[self.place(margin)] = self.mark
        cells[self.place(effect.value)] = ">" if effect.value > self.high else "<" if effect.value < self.low else "#"
        return "".join(cells).rstrip()

    def _fill(self, cells: list[str], low: float, high: float, mark: str) -> None:
        for at in range(self.place(low), self.place(high) + 1):
            cells[at] = mark
