"""The table of ``wheeltap list perturbations --invariances``."""

from importlib import resources
from typing import TYPE_CHECKING

import msgspec
from rich.table import Table

from wheeltap.gauge.base import GAUGES
from wheeltap.perturb import perturbations

if TYPE_CHECKING:
    from rich.console import Console

ACROSS = 5
"""Disturbances in one table: as many as a terminal of 80 columns holds."""

WIDTH = 9
"""Characters of the widest cell, "unclear*", and one between two."""


class Row(msgspec.Struct, frozen=True):
    """One disturbance on twins of one gauge of one network.

    Attributes:
        shift: Curve area of the twins minus that of the original, with a 95 % interval.
        silent: Whether the whole interval lies within the margin.
    """

    net: str
    perturbation: str
    gauge: str
    declared: bool
    shift: float
    low: float
    high: float
    silent: bool


class Measured(msgspec.Struct, frozen=True):
    """All of them, and the margin."""

    margin: float
    rows: tuple[Row, ...]


def measured() -> Measured:
    """The packaged measurement."""
    data = resources.files("wheeltap.perturb").joinpath("invariances.json").read_bytes()
    return msgspec.json.decode(data, type=Measured)


def print_invariances(console: "Console") -> None:
    """Gauges down, disturbances across: silent, or by how much it shifts."""
    known = measured()
    names = list(dict.fromkeys(row.perturbation for row in known.rows))
    for start in range(0, len(names), ACROSS):
        console.print(_table(known, names[start : start + ACROSS], first=start == 0))
    nets = ", ".join(dict.fromkeys(row.net for row in known.rows))
    console.print(
        f"silent: on {nets} (where the copy exists) the area under the curve differs by less than {known.margin:g},\n"
        "with 95 % confidence; a number: the largest shift shown; unclear: neither.\n"
        "*: declared invariant (one comparison in twenty of those shows a small shift by chance).\n"
        "Measured by: python -m benchmarks.validity --only invariances",
        style="dim",
    )
    own = [name for name in perturbations if name not in names and name != "none"]
    for name in own:
        declared = ", ".join(sorted(perturbations.get(name).invariant_to)) or "nothing"
        console.print(f"{name}: not measured here; declares to be silent on {declared}")


def _table(known: Measured, names: list[str], *, first: bool) -> Table:
    title = "perturbations on copies that compute the same function" if first else None
    table = Table(title=title, title_justify="left", box=None)
    table.add_column("copy made by")
    for name in names:
        table.add_column(name, justify="right", min_width=WIDTH)
    for gauge in GAUGES:
        cells = [_cell([r for r in known.rows if (r.gauge, r.perturbation) == (gauge, name)], name) for name in names]
        if any(cells):
            table.add_row(gauge, *cells)
    return table


def _cell(rows: list[Row], name: str) -> str:
    if not rows:
        return ""
    star = "*" if rows[0].gauge in perturbations.get(name).invariant_to else ""
    if all(row.silent for row in rows):
        return f"silent{star}"
    shifted = [row.shift for row in rows if row.low > 0 or row.high < 0]
    return f"{max(shifted, key=abs):+.2f}{star}" if shifted else f"unclear{star}"
