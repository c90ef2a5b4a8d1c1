"""Blocks that reports make of what they hold, beside those of ``core.section``: drawings, and findings in full."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wheeltap.core.section import Block, Cell, Place, Tone
from wheeltap.report import figures, words

if TYPE_CHECKING:
    from rich.console import Console

CHART_COLOURS: dict[str, str] = {
    **{colour: f"series-{i}" for i, colour in enumerate(figures.SERIES)},
    **{colour: "muted" if tone == "quiet" else tone for tone, colour in figures.TONES.items()},
    figures.TWIN: "muted",
    figures.PLANTED: "muted",
    figures.INK: "ink",
    figures.MUTED: "muted",
    figures.GRID: "grid",
    figures.BAND: "band",
    figures.CARD: "card",
}
"""Drawn colour to the page's custom property. The stylesheet maps fills and strokes of a chart by these."""

# Outlines of the marks in a box of 16 by 16, for the legend.
_OUTLINES = {
    "circle": "M8 4.2a3.8 3.8 0 1 0 0 7.6a3.8 3.8 0 1 0 0-7.6z",
    "square": "M4.6 4.6h6.8v6.8h-6.8z",
    "triangle-up": "M8 3.8L12.4 11.6H3.6z",
    "diamond": "M8 3.2L12 8L8 12.8L4 8z",
    "cross": "M6.4 3.2h3.2v3.2h3.2v3.2h-3.2v3.2h-3.2v-3.2h-3.2v-3.2h3.2z",
    "triangle-down": "M8 12.2L3.6 4.4H12.4z",
    "triangle-right": "M12.2 8L4.4 12.4V3.6z",
    "triangle-left": "M3.8 8L11.6 3.6V12.4z",
}


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """One subject (or kind of control) in the legend of the charts."""

    label: str
    outline: str
    colour: str
    width: float = 1.4
    dash: str = ""

    @classmethod
    def of(cls, label: str, look: figures.Style, *, width: float = 1.6) -> "LegendEntry":
        """The entry of something drawn in this way."""
        colour = CHART_COLOURS[look.colour]
        return cls(label=words.plain(label), outline=_OUTLINES[look.shape], colour=colour, width=width)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A chart that is made when it is shown.

    Attributes:
        alt: What it shows, to whoever cannot see it.
        draw: Gives the chart; one of a page and one of a phone, where they differ.
        code: Of its findings.
        chip: A verdict beside the title.
        note: How to read it.
        printed: Prints it in a terminal, where that can show it.
    """

    alt: str
    draw: Callable[[], tuple[Any, ...]]
    title: str = ""
    code: str = ""
    chip: Cell | None = None
    legend: tuple[LegendEntry, ...] = ()
    note: str = ""
    printed: "Callable[[Console], None] | None" = None
    place: Place = "page"


@dataclass(frozen=True, kw_only=True)
class FindingView:
    """One finding in words. ``loud`` ones are given in full everywhere; ``answer`` is what ``word`` leaves unsaid."""

    code: str
    name: str
    title: str
    word: str
    tone: Tone
    estimates: tuple[tuple[str, str, str], ...]
    detectable: str
    because: tuple[str, ...]
    loud: bool
    answer: str


@dataclass(frozen=True, kw_only=True)
class FindingList:
    """All findings about one subject or pair; ``chips`` count their verdicts, the gravest first."""

    label: str
    findings: tuple[FindingView, ...]
    chips: tuple[Cell, ...]
    place: Place = "folded"


@dataclass(frozen=True, kw_only=True)
class ReportPart:
    """A ``Section`` that may also hold drawings and findings; ``note`` stands beside the title of a folded one."""

    title: str = ""
    says: str = ""
    blocks: tuple[Block | Drawing | FindingList, ...] = ()
    folded: bool = False
    note: str = ""


def markup(text: str) -> Any:
    """For a template: SVG that vl-convert wrote: names in it are escaped already, as the text of an SVG."""
    from markupsafe import Markup

    text = text.replace('xmlns:xlink="http://www.w3.org/1999/xlink" ', "")
    # The figure around it has the words; a screen reader would otherwise read the axis labels as loose text.
    return Markup(text.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1))  # noqa: S704 (drawn by vl-convert, which escapes)
