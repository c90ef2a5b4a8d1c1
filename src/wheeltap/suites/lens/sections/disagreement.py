"""Disagreement of people, in the terminal and on the page: closeness, what one label hides, bands of agreement."""

from typing import TYPE_CHECKING, Any, Final

from wheeltap.core.plain import fixed
from wheeltap.report import figures, words
from wheeltap.report.drawn import markup
from wheeltap.report.lines import wrapped
from wheeltap.suites.lens.record import AgreementBand, FarItem, LensRecord, People, SystemScore, Threshold

if TYPE_CHECKING:
    import altair as alt
    from rich.console import Console

_HALF: Final = 0.5
_MOST_ROWS: Final = 8
_HEIGHT: Final = 250
_SOME: Final = 0.5
_OTHERS: Final = "half of the people"

Rows = list[tuple[str, list[str]]]


def tables(lens: LensRecord, console: "Console") -> None:
    """Print how close each system is to people, and what is left of a benchmark that keeps clear items."""
    if lens.closeness:
        _grid(console, ["to the votes of people", "JS, all votes", "JS, half of them", "soft accuracy"], _close(lens))
        console.print()
    for people in lens.people:
        heads, rows = _kept(people)
        if people.systems:
            caption = scored(lens, people)
            wrapped(console, f"{caption[0].upper()}{caption[1:]}:", style="dim")
        _grid(console, heads, rows)
        wrapped(console, _hides(people))


def _grid(console: "Console", heads: list[str], rows: Rows) -> None:
    from rich.table import Table

    grid = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_edge=False, header_style="bold")
    grid.add_column(heads[0], overflow="fold")
    for heading in heads[1:]:
        grid.add_column(heading, justify="right", overflow="fold")
    for name, cells in rows[:_MOST_ROWS] if len(rows) <= _MOST_ROWS else [*rows[: _MOST_ROWS - 1], rows[-1]]:
        grid.add_row(name, *cells)
    console.print(grid, highlight=False)


def _close(lens: LensRecord) -> Rows:
    """A row for each system; people last, as the ceiling."""
    return [
        (
            words.plain(one.subject) if one.distance is not None else _OTHERS,
            ["" if one.distance is None else _around(one.distance), _around(one.half), _around(one.soft)],
        )
        for one in lens.closeness
    ]


def _around(one: SystemScore) -> str:
    if one.low is None or one.high is None:
        return fixed(one.value, 3)
    return f"{fixed(one.value, 3)} ± {fixed((one.high - one.low) / 2.0, 3)}"


def _kept(people: People) -> tuple[list[str], Rows]:
    """What each threshold keeps, and the scores on that."""
    systems = [words.plain(name) for name in people.systems[:4]]
    heads = ["items kept if they must agree", "items", *systems]
    return heads, [
        (threshold(one), [_share(one.items, people.items), *(fixed(score, 3) for score in one.scores[: len(systems)])])
        for one in people.thresholds
    ]


def threshold(one: Threshold) -> str:
    """How far people must agree, in words."""
    if one.share in (0.0, 1.0):
        return "all of them" if one.share else "not at all"
    return "more than half" if one.share == _HALF else "two thirds or more"


def scored(lens: LensRecord, people: People) -> str:
    """What the columns of systems hold: of those without probabilities, the score that was recorded."""
    known = {one.subject for one in lens.closeness}
    recorded = [words.plain(name) for name in people.systems if name not in known]
    if len(recorded) == len(people.systems):
        return "score on the items kept, as it was recorded"
    right = "share of right answers on the items kept, the label that most people chose being right"
    return f"{right}; of {', '.join(recorded)}, the score as it was recorded" if recorded else right


def _share(some: int, whole: int) -> str:
    return f"{some:,} ({100 * some / whole:.0f} %)"


def _hides(people: People) -> str:
    said = (
        f"One label an item: other people would change {100 * people.redrawn:.0f} % of the labels; two halves of these "
        f"people differ on {100 * people.halves:.0f} %."
    )
    if len({round(score, 9) for score in people.thresholds[0].scores}) == 1:
        return said if len(people.systems) < 2 else f"{said} All systems score the same."
    if people.order is not None:
        moved = 100 * people.order
        said += f" So {f'{moved:.0f} %' if moved >= _SOME else 'none'} of the pairs of systems would change places."
    return said


# ---- the page -----------------------------------------------------------------------------------------------------


def context(lens: LensRecord | None) -> dict[str, Any]:
    """What the template of the page needs of it; empty lists where nobody voted."""
    if lens is None or not lens.people:
        return {"panels": []}
    names = list(dict.fromkeys(band.subject for band in lens.bands))
    return {
        "panels": [{"hides": _hides(one), "kept": _kept(one), "scored": scored(lens, one) if one.systems else "",
                    "labels": ", ".join(map(words.plain, one.labels))} for one in lens.people],
        "close": _close(lens),
        "bands": [_banded([band for band in lens.bands if band.subject == name]) for name in names],
        "far": [(words.plain(name), [_far(one) for one in lens.far if one.subject == name])
                for name in dict.fromkeys(one.subject for one in lens.far)],
    }  # fmt: skip


BAND_HEADS: Final = (
    "half of the people", "items", "probability given", "share of the other half", "too sure by", "DistCE",
    "DistCE of people",
)  # fmt: skip


def _banded(bands: list[AgreementBand]) -> dict[str, Any]:
    rows = [
        (
            one.band,
            [f"{one.items:,.0f}", f"{one.confidence:.3f}", f"{one.share:.3f}", f"{one.gap.value:+.3f} "
             f"[{_end(one.gap.low)}, {_end(one.gap.high)}]", f"{one.variation:.3f}", f"{one.people:.3f}"],
        )
        for one in bands
    ]  # fmt: skip
    drawn = markup(figures.svg(_reliability(bands))) if any(one.points for one in bands) else ""
    return {"name": words.plain(bands[0].subject), "rows": rows, "heads": BAND_HEADS, "drawing": drawn}


def _end(number: float | None) -> str:
    return "open" if number is None else f"{number:+.3f}"


def _far(one: FarItem) -> tuple[str, list[str]]:
    return words.plain(one.id) or f"item {one.item + 1}", [
        " ".join(map(str, one.votes)),
        " ".join(f"{p:.2f}" for p in one.probability),
        f"{one.distance:.3f}",
        f"{one.low:.3f} to {one.high:.3f}",
    ]


def _reliability(bands: list[AgreementBand]) -> "alt.LayerChart":
    """Probability that a model gives its label, against the share of people who chose it."""
    import altair as alt

    scale = alt.Scale(domain=[0, 1])
    x = alt.X("level:Q", title="probability of the most likely label", scale=scale)
    looks = figures.styles(band.band for band in bands)
    ends = [{"level": 0.0, "share": 0.0}, {"level": 1.0, "share": 1.0}]
    line = alt.Chart(figures.data(ends)).mark_line(color=figures.MUTED, strokeDash=[4, 3])
    layers: list[Any] = [line.encode(x=x, y="share:Q")]
    for band in bands:
        rows = [
            {"level": level, "share": point.value, "low": point.low, "high": point.high, "name": band.band}
            for level, point in zip(band.levels, band.points, strict=True)
            if point.low is not None
        ]
        if not rows:
            continue
        look = looks[band.band]
        base = alt.Chart(figures.data(rows)).encode(x=x)
        y = alt.Y("share:Q", title="share of people who chose it", scale=scale)
        layers += [
            base.mark_rule(color=look.colour, opacity=0.5).encode(y="low:Q", y2="high:Q"),
            base.mark_line(color=look.colour, strokeWidth=1.3).encode(y=y),
            base.mark_point(color=look.colour, shape=look.shape, filled=True, size=55, opacity=1).encode(y=y),
            alt.Chart(figures.data(rows[:1])).mark_text(align="left", dx=6, dy=12, color=look.colour)
            .encode(x=x, y=y, text="name:N"),
        ]  # fmt: skip
    return figures.finish(layers, height=_HEIGHT)
