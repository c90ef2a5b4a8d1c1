"""Sections: what a report shows beside its findings, as typed blocks that one renderer a format draws.

A block whose parts do not fit each other raises ``ValueError`` when it is made, so that none comes out of a file.
"""

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import msgspec

from wheeltap.core.records import Estimate
from wheeltap.core.settings import ChoiceRecord

Place = Literal["first", "page", "folded"]
"""Where a block stands: in the first lines of the terminal and on the page; on the page; there behind its title.

In the terminal, what is not first is printed where all of a report is asked for.
"""

Tone = Literal["alarm", "warn", "calm", "quiet"]
"""Bad news; undecided, but leaning to it; shown to be no bad news; nothing to see."""

Look = Literal["line", "points", "null", "reference", "mark", "range"]


class Text(ChoiceRecord, frozen=True, kw_only=True, tag="text"):
    """A paragraph."""

    text: str
    place: Place = "first"


class Cell(NamedTuple):
    """A cell of several parts.

    Attributes:
        word: A verdict, or what a row is called.
        number: With its interval, as text.
        tone: Of the word.
        note: In small letters, or in brackets.
    """

    word: str = ""
    number: str = ""
    tone: Tone = "quiet"
    note: str = ""


class Table(ChoiceRecord, frozen=True, kw_only=True, tag="table"):
    """Named rows.

    Attributes:
        heads: One for each column; the first is that of the names.
        rows: A cell for each head: a text, a number with its interval, or several parts.
        title: What the numbers are.
        most: Rows on a first screen; of more, the last one is kept too.
        narrow: Columns that a narrow screen shows, by number, where a row is one line whose first cell may be cut;
            empty where first cells fold, and columns that do not fit go into another table.
    """

    heads: tuple[str, ...]
    rows: tuple[tuple[str | Estimate | Cell, ...], ...]
    title: str = ""
    most: int = 8
    narrow: tuple[int, ...] = ()
    place: Place = "page"

    def __post_init__(self) -> None:
        super().__post_init__()
        _equal("cells of a row", len(self.heads), (len(row) for row in self.rows))


class Axis(msgspec.Struct, frozen=True, kw_only=True):
    """An axis of a chart: linear or logarithmic; its ends, and where it has ticks, where those are not found."""

    title: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    ticks: tuple[float, ...] = ()


class Series(ChoiceRecord, frozen=True, kw_only=True):
    """Numbers that belong together.

    Attributes:
        x: Where they stand.
        y: The numbers.
        low: Ends of their intervals, with ``high``; empty where there are none.
        look: A line, with intervals as a band; a line through points, with intervals as bars; the same of a null, where
            nothing should be seen; a line to hold others against; a single mark; a range alone.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    look: Look = "line"

    def __post_init__(self) -> None:
        super().__post_init__()
        _equal("numbers of a series", len(self.x), (len(self.y), len(self.low or self.x), len(self.high or self.x)))


class Chart(ChoiceRecord, frozen=True, kw_only=True, tag="chart"):
    """Series on two axes.

    Attributes:
        alt: What it shows, for who cannot see it.
        levels: Horizontal lines, each with its name.
        spans: Stretches of the horizontal axis that are shaded.
        note: How to read it.
    """

    title: str
    alt: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    levels: tuple[tuple[float, str], ...] = ()
    spans: tuple[tuple[float, float], ...] = ()
    note: str = ""
    place: Place = "page"


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A point of a graph.

    Attributes:
        row: Its row, from 0.
        values: What it holds in each view.
        center: The value that is neither much nor little.
        spread: How far values lie from that.
    """

    row: int
    name: str
    values: tuple[float, ...] = ()
    center: float = 0.0
    spread: float = 1.0


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A line from one node to another, both counted from 0."""

    source: int
    target: int
    weight: float


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What the values of a graph are of: a name to choose it by, and a line to show then."""

    name: str
    says: str = ""


class Graph(ChoiceRecord, frozen=True, kw_only=True, tag="graph"):
    """Nodes in rows, with lines between them; on the page one moves among them.

    Attributes:
        noun: What a node is.
        says: Of a node's value, with ``{value}``, ``{center}`` and ``{spread}`` where these stand.
        key: How to read the nodes.
        note: How to read the lines.
        rows: Names, from the top.
        faint: Pairs of nodes with a line that has no weight.
        shared: Whether the values of all nodes are on one scale; else each node's are on its own.
    """

    title: str
    noun: str
    says: str
    key: str = ""
    note: str = ""
    rows: tuple[str, ...]
    nodes: tuple[Node, ...]
    links: tuple[Link, ...] = ()
    faint: tuple[tuple[int, int], ...] = ()
    views: tuple[View, ...] = ()
    shared: bool = False
    place: Place = "page"

    def __post_init__(self) -> None:
        super().__post_init__()
        _equal("values of a node", len(self.views), (len(node.values) for node in self.nodes))
        ends = [*self.faint, *((link.source, link.target) for link in self.links)]
        if any(not 0 <= at < len(self.nodes) for pair in ends for at in pair):
            raise ValueError("a link of a node that there is not")
        if any(not 0 <= node.row < len(self.rows) for node in self.nodes):
            raise ValueError("a node of a row that there is not")


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A PNG file with its words."""

    png: bytes
    alt: str
    name: str = ""
    says: str = ""


class Pictures(ChoiceRecord, frozen=True, kw_only=True, tag="pictures"):
    """Pictures side by side; strips and maps need more room than small ones."""

    pictures: tuple[Picture, ...]
    title: str = ""
    note: str = ""
    wide: bool = False
    place: Place = "page"


class Widget(ChoiceRecord, frozen=True, kw_only=True, tag="widget"):
    """What a plug-in draws on the page from data, by a script of its own.

    Attributes:
        name: Registered name of what draws it.
        data: Anything that JSON can hold.
        alt: What it shows, where it cannot be drawn.
    """

    name: str
    data: Any
    alt: str
    place: Place = "page"


Block = Text | Table | Chart | Graph | Pictures | Widget


class Section(ChoiceRecord, frozen=True, kw_only=True):
    """One thing to show: audits and studies make it, every renderer draws it.

    Attributes:
        title: Its heading.
        says: What it shows, in a sentence or two.
        subject: The model or pair that it is about; empty where it is about all.
        brief: How the answer names what it shows, in a few words; empty where the answer does not.
        blocks: What it is made of.
        folded: Whether it stands behind its title on the page.
    """

    title: str
    says: str = ""
    subject: str = ""
    brief: str = ""
    blocks: tuple[Block, ...] = ()
    folded: bool = False


def _equal(what: str, count: int, found: Iterable[int]) -> None:
    wrong = next((one for one in found if one != count), count)
    if wrong != count:
        raise ValueError(f"{wrong} {what} where there must be {count}")
