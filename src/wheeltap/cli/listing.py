"""``wheeltap list``."""

from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast, get_args

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
    from wheeltap.core.plain import terminal

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
    for one in (kind,) if kind else get_args(Kind):
        if one == "perturbations" and invariances:
            print_invariances(console)
        else:
            console.print(_table(one, _listed(one)))
    return 0


def _listed(kind: Kind) -> list[tuple[str, ...]]:
    """What there is of a kind, a row each."""
    from wheeltap.audits.base import audits, studies
    from wheeltap.audits.schemes import OTHER_NAMES, READY, scheme
    from wheeltap.core.measure import BY_NAME
    from wheeltap.engine.readings import readings
    from wheeltap.perturb import perturbations
    from wheeltap.recipes.base import recipes
    from wheeltap.sources.base import data, models

    match kind:
        case "audits":
            found = map(audits.get, audits)
            return [(one.name, one.code, _with_settings(one.title, one.settings_type)) for one in found]
        case "studies" | "recipes":
            several = [(name, (studies if kind == "studies" else recipes).get(name)) for name in
                       (studies if kind == "studies" else recipes)]  # fmt: skip
            return [(name, _with_settings(one.title, one.settings_type)) for name, one in several]
        case "schemes":
            also = {name: f"; also: {', '.join(others)}" for name, others in OTHER_NAMES.items()}
            return [(name, f"{scheme(name).label}{also.get(name, '')}") for name in dict.fromkeys((*READY, *also))]
        case "perturbations":
            each = [(name, perturbations.get(name)) for name in perturbations]
            return [(name, one.title, f"dose {one.lowest:g} to {one.highest:g} {one.unit}") for name, one in each]
        case "readings":
            rows: list[tuple[str, ...]] = []
            for name in readings:
                spec = readings.get(name).spec
                rows.append((name, spec.title))
                rows += [("", f"{array} [{of.axes}]: {of.says.replace('``', '')}") for array, of in spec.arrays.items()]
            return rows
        case "measures":
            return [(name, (type(one).__doc__ or "").splitlines()[0]) for name, one in BY_NAME.items()]
        case "models":
            return [(one.form, one.title) for one in map(models.get, models)]
        case "data":
            return [(one.form, one.title) for one in map(data.get, data)]


def _explain(kind: str | None, name: str, console: "Console") -> int:
    """Prints what one audit, study or recipe does, and its settings with their defaults, a line each."""
    from rich.text import Text

    from wheeltap.audits.base import audits, named, studies
    from wheeltap.core.errors import UsageError
    from wheeltap.recipes.base import recipes

    if kind not in ("audits", "studies", "recipes"):
        raise UsageError(
            "Only an audit, a study or a recipe can be explained by name.",
            expected="wheeltap list audits NAME, wheeltap list studies NAME or wheeltap list recipes NAME",
            got=f"wheeltap list {kind} {name}",
        )
    reads, code = "", ""
    if kind == "recipes":
        found = recipes.get(name)
    else:
        found = audits.get(named(name)) if kind == "audits" else studies.get(name)
        reads, code = found.reads, f" ({found.code})" if kind == "audits" else ""
    console.print(Text(f"{found.name}{code}: {found.title}", style="bold"))
    console.print(Text(reads or (found.__doc__ or "").partition("\n")[0]))
    said = documented(found.settings_type)
    rows: list[tuple[str, ...]] = []
    for field in msgspec.structs.fields(found.settings_type):
        usual: Any = field.default
        each = cast("tuple[Any, ...]", usual if isinstance(usual, tuple) else (usual,))
        listed = ",".join(f"{v:g}" if isinstance(v, float) and isinstance(usual, tuple) else str(v) for v in each)
        rows.append((field.name, "by the plan" if usual is None else listed, said.get(field.name, "")))
    if rows:
        console.print(_table("settings", rows))
    return 0


def _table(title: str, rows: list[tuple[str, ...]]) -> object:
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, show_header=False)
    for column in range(len(rows[0])):
        table.add_column(no_wrap=column == 0, overflow="fold")  # a default of several words is shown whole
    for row in rows:
        table.add_row(*map(Text, row))  # brackets in a plug-in's words are no markup
    return table


def _with_settings(title: str, settings: type[msgspec.Struct]) -> str:
    names = ", ".join(field.name for field in msgspec.structs.fields(settings))
    stop = "" if title.endswith((".", "?")) else "."
    return f"{title}{stop}{f' Settings: {names}' if names else ''}"


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
