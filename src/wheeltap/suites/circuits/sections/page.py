"""Circuits on the page: an interactive graph, losses by definition with their nulls, loss against size."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any, Final

import msgspec

from wheeltap.core.plain import fixed
from wheeltap.report import figures, words
from wheeltap.report.drawn import LegendEntry, markup
from wheeltap.suites.circuits.record import CircuitView, DefinedLoss, Tried

if TYPE_CHECKING:
    import altair as alt

_MOST_LINES: Final = 6
_MOST_UNITS: Final = 1000
"""Units of a drawing: of a larger circuit, those alone that a weight that is drawn leads to or from."""

_LISTED: Final = 40
"""Numbers of units of a site that a table lists."""

_HEIGHT: Final = 280

_HIGHEST: Final = 1.6
"""End of the axis of losses, in losses of a guess: what is worse is not drawn."""


def context(circuits: Sequence[CircuitView]) -> dict[str, Any]:
    """What the template of the page needs of them; empty where there are none."""
    return {
        "circuits": [_part(view) for view in circuits],
        "circuit_script": markup(_script()) if circuits else "",
        "circuit_hash": script_hash() if circuits else "",
    }


def script_hash() -> str:
    """The graph's script, as a source of a content security policy (``script-src``)."""
    return "sha256-" + base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode()


def _script() -> str:
    from importlib import resources

    return resources.files("wheeltap.suites.circuits.sections").joinpath("templates/circuit.js").read_text("utf-8")


def _part(view: CircuitView) -> dict[str, Any]:
    name = words.plain(view.subject)
    data = words.plain(msgspec.json.encode(_data(view)).decode())
    return {
        "title": f"{name}, {words.plain(view.task)}", "counts": view.size, "parts": view.parts,
        # No "<" may stand in the data: it could end the element it stands in.
        "data": markup(data.replace("<", "\\u003c")) if view.units else "",
        "hidden": f"{view.edges - len(view.weights):,}" if view.edges > len(view.weights) else "",
        "drawn": f"{len(view.weights):,}", "sites": _sites(view), "rows": [_row(one) for one in view.losses],
        "frontier": markup(figures.svg(_frontier(view))), "alt": _spoken(view), "legend": _legend(view),
        "found": [_found(one) for one in view.tried],
    }  # fmt: skip


# ---- graph ----------------------------------------------------------------------------------------------------


def _data(view: CircuitView) -> dict[str, Any]:
    """What the script draws: units by place, weights between places."""
    linked = {end for one in view.weights for end in (one.source, one.target)}
    every = range(len(view.units))
    drawn = [at for at in every if len(view.units) <= _MOST_UNITS or at in linked]
    place = {at: number for number, at in enumerate(drawn)}
    return {
        "name": f"{words.plain(view.subject)}, {words.plain(view.task)}", "parts": view.parts,
        "sites": [words.plain(site) for site in view.sites],
        "units": [[one.site, one.unit, one.mean, one.spread, one.held] for one in (view.units[at] for at in drawn)],
        "weights": [[place[one.source], place[one.target], one.weight] for one in view.weights],
        "examples": [
            {"context": one.text or " ".join(map(str, one.tokens)), "answer": words.plain(one.says or str(one.answer)),
             "gap": one.gap}
            for one in view.examples
        ],
    }  # fmt: skip


def _sites(view: CircuitView) -> list[tuple[str, str]]:
    """Numbers of the units of each site, those of a large one cut."""
    found: list[tuple[str, str]] = []
    for at, name in enumerate(view.sites):
        units = [one.unit for one in view.units if one.site == at]
        more = f" and {len(units) - _LISTED:,} more" if len(units) > _LISTED else ""
        if units:
            found.append((words.plain(name), f"{', '.join(map(str, units[:_LISTED]))}{more}"))
    return found


# ---- numbers --------------------------------------------------------------------------------------------------


def _row(one: DefinedLoss) -> tuple[str, str, str]:
    """A definition, its loss, and what the same is where nothing is known."""
    if not one.beside:
        return words.plain(one.name), words.interval(one.loss), ""
    low, middle, high = (fixed(of(one.beside), 3) for of in (min, median, max))
    beside = f"{words.plain(one.null)}: median {middle}, {low} to {high} ({len(one.beside)} draws)"
    return words.plain(one.name), words.interval(one.loss), beside


def _found(one: Tried) -> tuple[str, str, str, str]:
    """A search: what in, units, lowest loss."""
    size = f"{one.size:,}" if one.size else "none"
    return words.plain(one.name), "null" if one.null else "task", size, fixed(min(one.losses), 3)


# ---- loss against size ----------------------------------------------------------------------------------------


def _looks(view: CircuitView) -> dict[str, figures.Style]:
    """A style for the task, one for each kind of null."""
    return figures.styles(one.name for one in _drawn(view))


def _drawn(view: CircuitView) -> list[Tried]:
    return list(view.tried[:_MOST_LINES])


def _legend(view: CircuitView) -> list[LegendEntry]:
    return [LegendEntry.of(name, look, width=look.width) for name, look in _looks(view).items()]


def _frontier(view: CircuitView) -> "alt.LayerChart":
    import altair as alt

    looks, layers = _looks(view), list[Any]()
    sizes = [max(view.kept, 1), *(size for one in _drawn(view) for size in one.sizes)]
    x = alt.X("size:Q", title=f"{view.parts} kept", scale=alt.Scale(type="log", domain=[1, max(sizes)], nice=False),
              axis=alt.Axis(format="~s", grid=False, tickCount=5))  # fmt: skip
    scale = alt.Scale(domain=[0.0, _HIGHEST * view.chance], nice=False)
    y = alt.Y("loss:Q", title="loss (nats)", axis=alt.Axis(tickCount=5), scale=scale)
    levels = [(view.chance, "a guess"), *([] if view.target is None else [(view.target, "target")])]
    for at, (value, word) in enumerate(levels):
        line = alt.Chart(figures.data([{"loss": value, "size": 1, "text": word}]))
        layers.append(line.mark_rule(color=figures.MUTED, strokeDash=[4, 3] if at else [1, 0]).encode(y=y))
        layers.append(
            line.mark_text(align="left", dx=3, dy=-6, color=figures.MUTED, fontSize=11).encode(x=x, y=y, text="text:N")
        )
    for one in _drawn(view):
        look = looks[one.name]
        known = zip(one.sizes, one.losses, strict=True)
        rows = [{"size": size, "loss": loss} for size, loss in known if loss <= _HIGHEST * view.chance]
        base = alt.Chart(figures.data(rows)).encode(x=x, y=y)
        dash = [5, 3] if one.null else [1, 0]
        layers.append(base.mark_line(color=look.colour, strokeWidth=1.3 if one.null else 2.4, strokeDash=dash))
        layers.append(base.mark_point(color=look.colour, shape=look.shape, size=22))
    layers += _judged(view, x)
    return figures.finish(layers, height=_HEIGHT)


def _judged(view: CircuitView, x: Any) -> Iterator[Any]:
    """The circuit on held-out pairs, and random ones of its size."""
    import altair as alt

    own = next((one for one in view.losses if one.beside), None)
    if own is None or own.loss.value is None or not view.kept:
        return
    y: Any = alt.Y("loss:Q")
    # What lies outside the axis would push the whole drawing aside.
    top = _HIGHEST * view.chance
    if min(own.beside) <= top:
        random = [{"size": view.kept, "loss": min(own.beside), "high": min(max(own.beside), top)}]
        bar = alt.Chart(figures.data(random)).mark_rule(color=figures.BAND, strokeWidth=6)
        yield bar.encode(x=x, y=y, y2="high:Q")
    if own.loss.value > top:
        return
    point = alt.Chart(figures.data([{"size": view.kept, "loss": own.loss.value}]))
    yield point.mark_point(filled=True, shape="diamond", size=130, color=figures.INK, opacity=1).encode(x=x, y=y)


def _spoken(view: CircuitView) -> str:
    """The chart in words."""
    said: list[str] = []
    for one in _drawn(view):
        reached = f"reaches the target with {one.size:,} {view.parts}" if one.size else "does not reach the target"
        said.append(f"{words.plain(one.name)}: {reached}, lowest loss {fixed(min(one.losses), 3)}")
    target = "" if view.target is None else f", the target is {view.target:.3g}"
    return f"Loss against {view.parts} kept; a guess has {fixed(view.chance, 3)}{target}. {'; '.join(said)}."
