"""``wheeltap study`` and ``wheeltap plan study``: each study is a command, its settings are the flags of that."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec
from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from wheeltap.audits.base import studies
from wheeltap.cli.options import AllowCode, Alpha, ExecutionFlags, NoFlag, Output, Seed, Whole, documented
from wheeltap.core.errors import UsageError, WheeltapError
from wheeltap.plans.plan import ALPHA, Effort
from wheeltap.report import files
from wheeltap.runs.request import StudyRequest
from wheeltap.studies.base import Study

if TYPE_CHECKING:
    from wheeltap.runs.studying import PlannedStudy

Size = Annotated[Literal["small", "full"], Parameter(help="Small takes minutes on two cores.")]

_SETTINGS: Final = Group("Settings of this study", sort_key=0)

_HELP: Final = """Makes and measures kinds of nets, and decides by rules that were fixed beforehand.

Nets that were made and numbers that were measured are kept: the same command resumes.

Try it:

  wheeltap study pictures --picture flower
  wheeltap study pictures --help
  wheeltap study my_study.toml --store my.wheeltap --out my/
"""


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StudyFlags(StudyRequest):
    """What all studies have beside their settings."""

    effort: NoFlag = None
    draws: Annotated[
        Whole | None,
        Parameter(validator=Number(gte=2), help="Draws of noise per dose, where an audit is a metric. [default: 32]"),
    ] = None
    seed: Annotated[Seed, Parameter(validator=Number(gte=0, lt=2**63))] = 0
    alpha: Alpha = ALPHA
    allow_code: AllowCode = False


def _require_budget(_: Any, given: str | None) -> None:
    from wheeltap.runs.request import Budget

    if given is not None:
        Budget.parse(given)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StudyRun(ExecutionFlags):
    """Where a study's outcomes are kept, who computes them, and for how long."""

    budget: Annotated[
        str | None,
        Parameter(
            validator=_require_budget,
            help="Stop after so much: 90s, 10m, 2h or 2000f (passes over the examples). Nets and rules are fixed, so "
            "nothing is cut; the same command resumes.",
        ),
    ] = None


_OPTIONS, _RUN, _OUTPUT = StudyFlags(), StudyRun(), Output()

PlanFile = Annotated[
    Path | None, Parameter(name=["--file", "-o"], help="Where to write the plan. [default: NAME.plan.json]")
]

_TAKEN: Final = {"size", *(field.name for kind in (StudyFlags, StudyRun, Output) for field in fields(kind))}


def flag(study: str, setting: str) -> str:
    """The flag of a setting: its name, with that of the study before it where every study has such an option."""
    return f"--{f'{study}-{setting}' if setting in _TAKEN else setting}".replace("_", "-")


def named(name: str, given: Mapping[str, Any] | None = None, *, size: str = "small", seed: int = 0) -> Study:
    """The study of this name.

    A text that is given stands for what its field is, where that is no text; ``size`` says what is not given.

    Raises:
        UnknownName: If there is no study of this name.
        UsageError: If a setting cannot be used.
    """
    from wheeltap.runs import studying

    kind = studies.get(name)
    assert issubclass(kind, Study), "the registry holds nothing else"
    types = {field.name: field.type for field in msgspec.structs.fields(kind.settings_type)}
    settings: dict[str, Any] = {**kind.sized(size), **({"seed": seed} if "seed" in types else {})}  # pyright: ignore[reportArgumentType]
    for setting, value in (given or {}).items():
        settings[setting] = value
        with suppress(msgspec.ValidationError, KeyError):  # the study says what it expects
            settings[setting] = msgspec.convert(value, types[setting], strict=False)
    return studying.create(name, settings)


def in_file(name: str, *, allow_code: bool = False) -> Study:
    """The study in a TOML file.

    Raises:
        UnknownName: If this is neither a file nor the name of a study.
        UsageError: If it is the name of a study, which comes first: its settings follow it.
        MissingFile: If there is no such file.
    """
    from wheeltap.runs import studying
    from wheeltap.studies import declared

    if Path(name).suffix == ".toml" or Path(name).name != name or Path(name).is_file():
        return declared.read(Path(name), allow_code=allow_code)
    raise UsageError(
        "The name of the study does not come first.",
        where=name,
        expected=f"wheeltap study {studying.create(name).name} [OPTIONS]",
        got="options before it",
        do="Name the study, and then its settings.",
    )


def plan_of(found: Study, command: str, options: StudyFlags = _OPTIONS) -> "PlannedStudy":
    """The plan of a study, as this command made it."""
    from wheeltap.cli.progress import step_progress
    from wheeltap.runs import studying

    draws = options.draws
    effort = None if draws is None else Effort(draws=draws, control_draws=draws)
    with step_progress(f"planning {command}") as watch:
        made = studying.planned(found, replace(options, effort=effort), watch=watch)
    return replace(made, plan=msgspec.structs.replace(made.plan, command=command))


def _run(name: str, found: Study, options: StudyFlags, execution: StudyRun, output: Output) -> int:
    from wheeltap.cli.execution import STUDY, run_study
    from wheeltap.runs.request import Budget

    output.prepare()
    budget = None if execution.budget is None else Budget.parse(execution.budget)
    made = plan_of(found, f"{STUDY}{name}", options)
    return output.give(run_study(made, execution=execution, output=output, budget=budget))


def _write(name: str, found: Study, options: StudyFlags, file: Path | None) -> int:
    from wheeltap.cli.execution import STUDY
    from wheeltap.cli.run import described

    path = file or Path(f"{Path(name).stem}.plan.json")
    files.require_writable(path)
    made = plan_of(found, f"{STUDY}{name}", options).plan
    files.write(path, made.to_bytes())
    allowed = " --allow-code" if options.allow_code else ""
    print(f"{path}: {described(made)}.\nRun it: wheeltap run {path}{allowed}")
    return 0


def _hint(kind: Any) -> Any:
    """What the flag of a setting takes: a whole number, a number, yes or no, one of some words, or text."""
    if get_origin(kind) is Annotated:
        return _hint(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return _hint(next(part for part in get_args(kind) if part is not NoneType))
    return kind if get_origin(kind) is Literal else {int: Whole, float: float, bool: bool}.get(kind, str)


def _flags(kind: type[Study]) -> Iterator[inspect.Parameter]:
    """A keyword for each setting of a study, but for its seed, which every study has."""
    said, small = documented(kind.settings_type), kind.sized("small")
    for field in msgspec.structs.fields(kind.settings_type):
        if field.name != "seed":
            usual = [str(field.default)] if field.default not in ("", None, msgspec.NODEFAULT) else []
            usual += [f"of a small study {small[field.name]}"] if field.name in small else []
            default = f" [default: {', '.join(usual)}]" if usual else ""
            asked = Parameter(
                name=flag(kind.name, field.name), group=_SETTINGS, help=f"{said.get(field.name, '')}{default}"
            )
            yield _keyword(f"set_{field.encode_name}", Annotated[_hint(field.type) | None, asked], None)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _command(name: str, *, plan: bool) -> Callable[..., int]:
    """The command of one study: its settings are its flags, beside the options of all studies."""
    kind = studies.get(name)
    assert issubclass(kind, Study), f"{name} is registered as a study"

    def command(**given: Any) -> int:
        settings = {key.removeprefix("set_"): one for key, one in given.items() if key.startswith("set_")}
        options: StudyFlags = given.get("options", _OPTIONS)
        found = named(name, settings, size=given.get("size", "small"), seed=options.seed)
        if plan:
            return _write(name, found, options, given.get("file"))
        return _run(name, found, options, given.get("execution", _RUN), given.get("output", _OUTPUT))

    shared = [_keyword("size", Size, "small"), _keyword("options", StudyFlags, _OPTIONS)]
    more = [_keyword("execution", StudyRun, _RUN), _keyword("output", Output, _OUTPUT)]
    parameters = [*_flags(kind), *shared, *([_keyword("file", PlanFile, None)] if plan else more)]
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
    about = kind.reads or (kind.__doc__ or "").partition("\n")[0]
    command.__doc__ = f"{kind.title}\n\n{about}\n\nTry it:\n\n  wheeltap {'plan ' * plan}study {name}"
    return command


def _unusable(name: str, error: WheeltapError) -> Callable[[], int]:
    """The command of a study that another package declares and that cannot be loaded: others are shown all the same."""

    def command() -> int:
        raise error

    command.__doc__ = f"Cannot be loaded: {error.in_line()}"
    return command


Named = Annotated[str, Parameter(help="A TOML file that holds a study; or the name of one, and then its settings.")]


def _run_file(
    name: Named, *, options: StudyFlags = _OPTIONS, execution: StudyRun = _RUN, output: Output = _OUTPUT
) -> int:
    return _run(name, in_file(name, allow_code=options.allow_code), options, execution, output)


def _write_file(name: Named, *, options: StudyFlags = _OPTIONS, file: PlanFile = None) -> int:
    return _write(name, in_file(name, allow_code=options.allow_code), options, file)


def __getattr__(name: str) -> App:
    """``study``, all studies as commands, and studies in files; ``planned``, the same to write their plans."""
    if name not in ("study", "planned"):
        raise AttributeError(name)
    app, plan = App(name="study", group="Ask", help=_HELP, help_format="plaintext"), name == "planned"
    app.default(_write_file if plan else _run_file)
    for each in studies:
        if each != "declared":
            try:
                app.command(_command(each, plan=plan), name=each)
            except WheeltapError as error:
                app.command(_unusable(each, error), name=each)
    return app
