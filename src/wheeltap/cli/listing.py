"""``wheeltap list``."""

from importlib import resources
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from cyclopts import Parameter

from wheeltap.cli.options import documented

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

Kind = Literal["audits", "studies", "recipes", "schemes", "perturbations", "readings", "measures", "models", "data"]


def list_(
    kind: Annotated[Kind | None, Parameter(help="What to list; everything if not given.")] = None,
    name: Annotated[str | None, Parameter(help="Of one audit (or its code), study or recipe: its settings.")] = None,
    *,
    invariances: Annotated[
        bool, Parameter(help="For perturbations: which function-preserving copies each is silent on, as measured.")
    ] = False,
) -> int:
    """Lists audits, studies, recipes, deployment schemes, perturbations and so on; those of plug-ins too.

    Try it:

      wheeltap list audits
      wheeltap list studies pictures
      wheeltap list schemes
      wheeltap list perturbations --invariances
    """
    from wheeltap.core.errors import UsageError
    from wheeltap.report.lines import terminal

    if invariances and kind not in (None, "perturbations"):
        raise UsageError(
            "Only perturbations have invariances.",
            expected="wheeltap list perturbations --invariances",
            got=f"wheeltap list {kind} --invariances",
            do="Leave the flag out, or list perturbations.",
        )
    console = terminal()
    if name is not None:
        return _explain(kind, name, console)
    tables = {
        "audits": _audits,
        "studies": _studies,
        "recipes": _recipes,
        "schemes": _schemes,
        "perturbations": _perturbations,
        "readings": _readings,
        "measures": _measures,
        "models": _models,
        "data": _data,
    }
    for one in (kind,) if kind else tables:
        if one == "perturbations" and invariances:
            print_invariances(console)
        else:
            console.print(_table(one, tables[one]()))
    return 0


def _explain(kind: str | None, name: str, console: "Console") -> int:
    """Prints what one audit, study or recipe does, and its settings with their defaults, a line each."""
    from rich.text import Text

    from wheeltap.core.errors import UsageError

    if kind not in ("audits", "studies", "recipes"):
        raise UsageError(
            "Only an audit, a study or a recipe can be explained by name.",
            expected="wheeltap list audits NAME, wheeltap list studies NAME or wheeltap list recipes NAME",
            got=f"wheeltap list {kind} {name}",
        )
    title, reads, settings = _explained(kind, name)
    console.print(Text(title, style="bold"))
    console.print(Text(reads))
    said = documented(settings)
    rows = [(f.name, _default(f.default), said.get(f.name, "")) for f in msgspec.structs.fields(settings)]
    if rows:
        console.print(_table("settings", rows))
    return 0


def _explained(kind: str, name: str) -> tuple[str, str, type[msgspec.Struct]]:
    """Heading, a sentence and the class of the settings."""
    from wheeltap.audits.base import audits, named, studies

    if kind == "recipes":
        from wheeltap.recipes.base import recipes

        made = recipes.get(name)
        return f"{made.name}: {made.title}", _first_line(made), made.settings_type
    found = audits.get(named(name)) if kind == "audits" else studies.get(name)
    code = f" ({found.code})" if kind == "audits" else ""
    return f"{found.name}{code}: {found.title}", found.reads or _first_line(found), found.settings_type


def _first_line(found: type) -> str:
    return (found.__doc__ or "").partition("\n")[0]


def _schemes() -> list[tuple[str, ...]]:
    from wheeltap.audits.schemes import ALSO, READY, scheme

    rows: list[tuple[str, ...]] = [(name, scheme(name).label) for name in READY]
    return [*rows, *((name, f"another name of {ours}") for name, ours in ALSO.items())]


def _table(title: str, rows: list[tuple[str, ...]]) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    for column in range(len(rows[0])):
        table.add_column(no_wrap=column == 0)
    for row in rows:
        table.add_row(*map(Text, row))  # brackets in a plug-in's words are no markup
    return table


def _audits() -> list[tuple[str, ...]]:
    from wheeltap.audits import audits

    rows: list[tuple[str, ...]] = []
    for name in audits:
        found = audits.get(name)
        rows.append((name, found.code, _with_settings(found.title, found.settings_type)))
    return rows


def _studies() -> list[tuple[str, ...]]:
    from wheeltap.audits.base import studies

    return [(name, _with_settings(studies.get(name).title, studies.get(name).settings_type)) for name in studies]


def _recipes() -> list[tuple[str, ...]]:
    from wheeltap.recipes.base import recipes

    return [(name, _with_settings(recipes.get(name).title, recipes.get(name).settings_type)) for name in recipes]


def _with_settings(title: str, settings: type[msgspec.Struct]) -> str:
    names = ", ".join(field.name for field in msgspec.structs.fields(settings))
    stop = "" if title.endswith((".", "?")) else "."
    return f"{title}{stop}{f' Settings: {names}' if names else ''}"


def _default(value: object) -> str:
    if value is None:
        return "by the plan"
    return ",".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)  # pyright: ignore


def _perturbations() -> list[tuple[str, ...]]:
    from wheeltap.perturb import perturbations

    rows: list[tuple[str, ...]] = []
    for name in perturbations:
        found = perturbations.get(name)
        rows.append((name, found.title, f"dose {found.lowest:g} to {found.highest:g} {found.unit}"))
    return rows


def _readings() -> list[tuple[str, ...]]:
    from wheeltap.engine.readings import readings

    rows: list[tuple[str, ...]] = []
    for name in readings:
        spec = readings.get(name).spec
        rows.append((name, spec.title))
        rows += [("", f"{array} [{of.axes}]: {of.says.replace('``', '')}") for array, of in spec.arrays.items()]
    return rows


def _measures() -> list[tuple[str, ...]]:
    from wheeltap.core.measure import BY_NAME

    return [(name, (type(found).__doc__ or "").splitlines()[0]) for name, found in BY_NAME.items()]


def _models() -> list[tuple[str, ...]]:
    from wheeltap.sources.base import models

    return [(found.form, found.title) for found in map(models.get, models)]


def _data() -> list[tuple[str, ...]]:
    from wheeltap.sources.base import data

    return [(found.form, found.title) for found in map(data.get, data)]


# ---- invariances, as they were measured -----------------------------------------------------------------------------

ACROSS: Final = 5
"""Disturbances in one table: as many as a terminal of 80 columns holds."""

WIDTH: Final = 9
"""Characters of the widest cell, "unclear*", and one between two."""


class InvarianceRow(msgspec.Struct, frozen=True):
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


class Invariances(msgspec.Struct, frozen=True):
    """All of them, and the margin."""

    margin: float
    rows: tuple[InvarianceRow, ...]


def measured_invariances() -> Invariances:
    """The packaged measurement."""
    data = resources.files("wheeltap.perturb").joinpath("invariances.json").read_bytes()
    return msgspec.json.decode(data, type=Invariances)


def print_invariances(console: "Console") -> None:
    """Gauges down, disturbances across: silent, or by how much it shifts."""
    from wheeltap.perturb import perturbations

    known = measured_invariances()
    names = list(dict.fromkeys(row.perturbation for row in known.rows))
    for start in range(0, len(names), ACROSS):
        console.print(_invariances(known, names[start : start + ACROSS], first=start == 0))
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


def _invariances(known: Invariances, names: list[str], *, first: bool) -> "Table":
    from rich.table import Table

    from wheeltap.gauge.base import GAUGES

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


def _cell(rows: list[InvarianceRow], name: str) -> str:
    from wheeltap.perturb import perturbations

    if not rows:
        return ""
    star = "*" if rows[0].gauge in perturbations.get(name).invariant_to else ""
    if all(row.silent for row in rows):
        return f"silent{star}"
    shifted = [row.shift for row in rows if row.low > 0 or row.high < 0]
    return f"{max(shifted, key=abs):+.2f}{star}" if shifted else f"unclear{star}"
