"""Options that several verbs share: what is asked, where outcomes are kept, where the report goes."""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import msgspec
from cyclopts import ArgumentCollection, Parameter, Token
from cyclopts.validators import Number

from wheeltap.core.bounded import contents, parsing, toml
from wheeltap.core.errors import FileError, UnknownName, UsageError
from wheeltap.core.files import ODD_PATH
from wheeltap.core.report import FailOn, ReportRecord
from wheeltap.core.settings import comma_separated
from wheeltap.core.stages import profile
from wheeltap.plans.plan import ALPHA, ERROR_MARGIN, HIGHEST, LOWEST, MARGIN, AuditSpec, Effort
from wheeltap.runs.request import Request, only_files, said_of

if TYPE_CHECKING:
    from wheeltap.core.subject import Subject
    from wheeltap.report.report import Report
    from wheeltap.runs.ray_cluster import RayCluster

STDOUT: Final = Path("-")
"""A path that stands for standard output."""


def _whole(_: object, tokens: Sequence[Token]) -> int:
    """The number as it is written: left to itself, cyclopts takes 2.5 for 2."""
    text, source = tokens[0].value, tokens[0].source
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"expected a whole number, got {text}{'' if source == 'cli' else f' in {source}'}.") from error


Whole = Annotated[int, Parameter(converter=_whole)]
"""A whole number; part of one is refused."""

_SAID: Final = said_of(Request)

Seed = Annotated[Whole, Parameter(help=_SAID["seed"])]

AllowCode = Annotated[
    bool, Parameter(negative="", help="Run the code that the file names (module:callable): look at it first.")
]

Alpha = Annotated[float, Parameter(validator=Number(gte=LOWEST, lte=HIGHEST), help=_SAID["alpha"])]

NoFlag = Annotated[Effort | None, Parameter(parse=False)]
"""A field of a request that the command line gives by another flag."""


NoText = Annotated[str | None, Parameter(parse=False)]
NoPath = Annotated[Path | None, Parameter(parse=False)]
"""Fields of an execution that one verb alone has a flag for."""


# ---- what is asked ------------------------------------------------------------------------------------------------


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class RequestFlags(Request):
    """What to measure and how hard, as flags and keys of a settings file; and which examples."""

    schemes: Annotated[
        str | None,
        Parameter(
            name="--for",
            help="How it will be shipped: schemes with commas between, such as nf4,int4-g32,int8,prune30 (see: "
            "wheeltap list schemes); and files that were made from it: gguf:FILE, hf:FOLDER, onnx:FILE, tflite:FILE, "
            "module:callable.",
        ),
    ] = None
    slices: Annotated[
        str | None,
        Parameter(
            name="--slice",
            help="Verdicts of every scheme on parts of the examples too: class (the right label), behavior, or factors "
            "of the data by name, with commas between.",
        ),
    ] = None
    margin: Annotated[
        float | None,
        Parameter(
            help="Smallest loss that you care about: .01 is one point of a share of right answers, or 1 % more of an "
            f"error without a bound (squared error, nll). [default: {MARGIN:g}, of an error {ERROR_MARGIN:g}]"
        ),
    ] = None
    cap: Annotated[
        float | None,
        Parameter(
            help="Largest loss per example that counts (squared error, nll): verdicts then need no more examples "
            "for a long tail."
        ),
    ] = None
    audits: Annotated[
        str | None, Parameter(help="Names, codes or groups, separated by commas (see: wheeltap list audits).")
    ] = None
    data: Annotated[
        tuple[Path, ...],
        Parameter(
            help="Examples, again for each further test set: .npz with inputs (or named arrays, such as input_ids and "
            "attention_mask) and targets; .jsonl with context, choices, answer; prompt, answer; text, label; .txt for "
            "perplexity. Some audits need more: decodable needs factor_NAME [example] (in .jsonl factors), symmetry "
            "needs symmetry [element, example], and fine-tuning and relearning look at behaviors [example] (in .jsonl "
            "behavior). Examples that share something have the same number or name in groups [example] (.jsonl: "
            "group); see --groups."
        ),
    ] = ()
    groups: Annotated[
        str,
        Parameter(
            help="Array of the .npz or field of the .jsonl that tells which examples share something, such as patient. "
            "[default: groups, in .jsonl group, or what is called like an id]"
        ),
    ] = ""
    task: Annotated[
        tuple[str, ...],
        Parameter(
            help="Instead of --data, examples by name (see: wheeltap list data), such as pairs:quote or, of lm-eval "
            "and perhaps with settings, lm_eval:arc_easy,metric=acc_norm,limit=200,fewshot=5. Again for each further."
        ),
    ] = ()
    include_path: Annotated[
        Path | None, Parameter(help="With --task lm_eval:NAME: a folder of YAML files of tasks of your own.")
    ] = None
    draws: Annotated[
        Whole | None,
        Parameter(
            validator=Number(gte=2),
            help="Draws of noise per dose, and first draws of random deployment rows; by default chosen by the model's "
            "size. Of other audits (flipped bits, fine-tuning) set draws in --config, such as in the table "
            "[bit-flips].",
        ),
    ] = None
    effort: NoFlag = None
    budget: Annotated[
        str | None, Parameter(help="What it may cost: 200f (passes over the examples), 90s, 10m or 2h; draws are cut.")
    ] = None
    seed: Seed = 0
    alpha: Alpha = ALPHA
    partial: Annotated[
        bool, Parameter(negative="", help="Conclude although less than 90 % of the weights could be disturbed.")
    ] = False
    measure: Annotated[str | None, Parameter(help=_SAID["measure"])] = None
    output: Annotated[
        str | None,
        Parameter(
            help="Which part of what the models return are their scores: a key or attribute, such as logits; of a "
            "tuple its number, from 0 on. By default the first of logits, scores, output, out, prediction, sample, or "
            "the only tensor with a row for each example."
        ),
    ] = None
    name: Annotated[
        str, Parameter(help="What the report calls the models, separated by commas; by default taken from their specs.")
    ] = ""
    config: Annotated[
        Path | None, Parameter(help="TOML file with any of these, and a table of settings per audit.")
    ] = None

    @property
    def examples(self) -> str | None:
        """The examples by their name or path, as ``sources`` takes them; ``None`` for the model's own.

        Raises:
            UsageError: If they are given twice, or the folder of tasks without a task.
            WheeltapError: See ``LmEvalSpec.parse``.
        """
        from wheeltap.sources.base import AND, GROUPED_BY, addressed
        from wheeltap.sources.lm_eval import PREFIX, LmEvalSpec

        if self.groups and (self.task or not self.data):
            raise UsageError(
                "A column of groups needs a file of examples.", where=f"--groups {self.groups}",
                expected="--data FILE.npz or FILE.jsonl", got="no --data",
                do="Give --data FILE, or leave out --groups.",
            )  # fmt: skip
        if not self.task and self.include_path is None:
            column = f"{GROUPED_BY}{self.groups}" if self.groups else ""
            return AND.join(f"{path}{column}" for path in self.data) or None
        if not self.task or self.data:
            without = not self.data
            raise UsageError(
                "A folder of tasks needs the name of one." if without else "Examples are given in two ways.",
                where="--include-path" if without else "--data",
                expected="--task lm_eval:NAME --include-path DIR" if without else "--data or --task",
                got="no --task" if without else "--data and --task",
            )
        return AND.join(
            one if self.include_path is None and not one.startswith(PREFIX) and addressed(one) is not None
            else str(LmEvalSpec.parse(one, include=self.include_path)) for one in self.task
        )  # fmt: skip

    def specs(self, default: Iterable[str]) -> list[AuditSpec]:
        """The audits asked for, each with its table of settings.

        Args:
            default: Those that are run where none are named.

        Raises:
            UsageError: If none is named, or a setting of a table cannot be used, of any audit.
            UnknownName: If there is no such audit or scheme.
        """
        from wheeltap.audits import base
        from wheeltap.audits.census import ALWAYS
        from wheeltap.audits.schemes import schemes as require_schemes

        given = None if self.audits is None else comma_separated(self.audits)
        if given == ():
            raise UsageError(
                "No audit is named.",
                where="--audits" if self.config is None else f"--audits, or {self.config}",
                expected="one name or more, separated by commas",
                got="none",
                do="Leave it out for the usual audits, or see: wheeltap list audits",
            )
        if self.schemes is not None:
            require_schemes(self.schemes)
        if self.schemes is not None or self.slices is not None:
            given = given if only_files(given or ()) else (*(given or ("score",)), "deployment")
        tables = {} if self.config is None else _tables(self.config)
        if self.draws is not None:
            tables = {**tables, "deployment": {"draws": self.draws, **tables.get("deployment", {})}}
        asked = base.expanded(map(base.named, given or default))
        names = dict.fromkeys((*asked, *(() if only_files(asked) else ALWAYS)))
        for name in {**tables, **names}:
            base.create(name, tables.get(name, {}))
        return [AuditSpec(name=name, settings=tables.get(name, {})) for name in names]

    def asked(self, subjects: "Sequence[Subject]", task: object) -> Request:
        """The request for these models and examples: audits with settings, and draws by the largest model's size."""
        from wheeltap.runs.planning import default_audits, effort_of

        effort = effort_of(self.draws, max(subject.record.parameters for subject in subjects))
        return replace(self, audits=self.specs(default_audits(subjects, task)), effort=effort)  # pyright: ignore[reportArgumentType]


# ---- where outcomes are kept --------------------------------------------------------------------------------------


def bytes_of(text: str) -> int:
    """A size such as ``500MB`` or ``4GB`` in bytes.

    Raises:
        UsageError: If it is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)i?B\s*", text, re.IGNORECASE)
    if found is None:
        raise UsageError("The memory cannot be read.", expected="a size such as 500MB or 4GB", got=text)
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


def _require_size(_: object, text: str | None) -> None:
    if text is not None:
        bytes_of(text)


def _require_address(_: object, given: list[str] | None) -> None:
    if given and not re.fullmatch(r"auto|(ray://)?[^\s/]+:\d+", given[0]):
        raise UsageError("The address cannot be read.", where="--ray", expected="10.0.0.1:6379, say", got=given[0])


RayAddress = Annotated[
    list[str] | None,
    Parameter(
        negative="",
        consume_multiple=(0, 1),
        validator=_require_address,
        help="Workers on a Ray cluster in the place of processes, --workers at most. Its address, such as "
        "10.0.0.1:6379; without one, the cluster of RAY_ADDRESS or of this machine, started if there is none.",
    ),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ExecutionFlags:
    """Where outcomes are kept and who computes them."""

    store: Annotated[
        Path | None,
        Parameter(help="File that keeps every outcome; the same command resumes. [default: NAME.wheeltap, here]"),
    ] = None
    workers: Annotated[
        Whole | None,
        Parameter(
            validator=Number(gte=1),
            help="Processes; 1 computes in this one. [default: 1; 2 for long searches, if there are two processors]",
        ),
    ] = None
    ray: RayAddress = None
    memory: Annotated[
        str | None,
        Parameter(
            validator=_require_size,
            help="Memory to use beside the models, such as 500MB or 4GB; less of it takes longer.",
        ),
    ] = None

    shard: NoText = None
    base: NoPath = None
    made: NoPath = None

    @property
    def executor(self) -> "int | RayCluster":
        """Who computes them, as ``loop.run`` takes it."""
        if self.ray is None:
            return self.workers or 1
        from wheeltap.runs.ray_cluster import RayCluster

        return RayCluster("".join(self.ray), workers=self.workers)

    @property
    def memory_bytes(self) -> int | None:
        """The memory in bytes; ``UsageError`` if it is no size."""
        return None if self.memory is None else bytes_of(self.memory)


def default_store(*names: str) -> Path:
    """A file in this folder named after the subjects."""
    slug = "-vs-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model" for name in names)[:80]
    return Path(f"{slug}.wheeltap")


# ---- where the report goes ----------------------------------------------------------------------------------------


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the report goes."""

    out: Annotated[
        Path | None,
        Parameter(help="Folder for report.html and report.json, and what else a report brings, such as explorer.html."),
    ] = None
    html: Annotated[Path | None, Parameter(help="Write the page to this file.")] = None
    json: Annotated[
        Path | None,
        Parameter(allow_leading_hyphen=True, help="Write the report as JSON to this file; - for the output."),
    ] = None
    markdown: Annotated[Path | None, Parameter(help="Write a summary for a pull request to this file.")] = None
    junit: Annotated[Path | None, Parameter(help="Write the verdicts as JUnit XML to this file.")] = None
    fail_on: Annotated[FailOn | None, Parameter(help="Exit with 1 if a verdict is this or worse. [default: costs]")] = (
        None
    )
    full: Annotated[bool, Parameter(negative="", help="Print everything: findings, controls, cost.")] = False
    quiet: Annotated[bool, Parameter(negative="", help="Print the answer alone, and no progress.")] = False
    profile: Annotated[bool, Parameter(negative="", help="Print where the time went.")] = False

    @property
    def pages(self) -> list[Path]:
        """Where the page goes."""
        return [p for p in (self.html, self.out and self.out / "report.html") if p]

    @property
    def files(self) -> list[Path]:
        """Where the report goes as JSON."""
        return [p for p in (self.json, self.out and self.out / "report.json") if p and p != STDOUT]

    def prepare(self, store: Path | None = None) -> None:
        """Makes the folders asked for and proves that the files can be written: better an error now than after the run.

        Args:
            store: A file that none of them may be.

        Raises:
            FileError: If the folder cannot be made, or a file cannot be written.
            UsageError: If two of them are one.
        """
        from wheeltap.report import files

        if self.out is not None:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except (OSError, *ODD_PATH) as error:
                what, do = "The folder for the report cannot be made.", "Give another folder with --out."
                raise FileError.of(error, self.out, what=what, do=do) from error
        asked = [*self.pages, *self.files, *(p for p in (self.markdown, self.junit) if p)]
        for path in asked:
            files.require_writable(path)
        seen: set[Path] = set() if store is None else {store.resolve()}
        for path in asked:
            if path.resolve() in seen:
                raise UsageError(
                    "Two files are to be written to one path.",
                    where=str(path),
                    expected="a path of its own for the store, the page and the JSON file",
                    got=f"{path} twice",
                    do="Give another path to --store, --html or --json.",
                )
            seen.add(path.resolve())

    def give(self, report: "Report") -> int:
        """Write the files asked for, print the report, and return the exit code."""
        from wheeltap.core.plain import plain
        from wheeltap.report.gate import FAILED, exit_code, failing

        self.show(report)
        code = exit_code(report.record, self.level)
        if code == FAILED:
            found = failing(report.record, self.level)
            named = [f"{one.code} {one.scheme or one.subject}: {one.verdict or one.status}" for one in found[:_NAMED]]
            more = [f"{len(found) - _NAMED:,} more"] if len(found) > _NAMED else []
            print(f"wheeltap: exit code {code}: {plain('; '.join(named + more))}", file=sys.stderr)
        elif self.fail_on == "never" and exit_code(report.record, "costs") == FAILED:
            print("wheeltap: the gate is off (--fail-on never): a verdict fails at the default level.", file=sys.stderr)
        return code

    @property
    def level(self) -> FailOn:
        """Mildest verdict that fails."""
        return self.fail_on or "costs"

    def show(self, report: "Report") -> None:
        """Write the files asked for and print the report."""
        written = list[Path]()
        try:
            self._write(report, written)
        finally:
            self._print(report)  # after the files, so that a reader that goes away (head, a pager) costs none of them
        if written and not self.quiet and self.json != STDOUT:
            print("Written: " + ", ".join(str(path) for path in written))
        if self.profile:
            print(*profile(), sep="\n", file=sys.stderr)

    def _print(self, report: "Report") -> None:
        if self.json == STDOUT:
            from wheeltap.report.jsonfile import to_json

            print(to_json(report.record).decode())
        elif self.quiet:
            from wheeltap.core.plain import terminal
            from wheeltap.report.origin import origin
            from wheeltap.report.words import wrapped

            for line in report.headline.splitlines():
                wrapped(terminal(), line)
            for line in origin(report.record):
                print(line, file=sys.stderr)
        else:
            report.print(full=self.full)

    def _write(self, report: "Report", written: list[Path]) -> None:
        from wheeltap.report import files

        written += [*map(report.html, self.pages), *map(report.json, self.files)]
        if self.out is not None:
            written += [files.write(self.out / name, text.encode()) for name, text in _more(report.record)]
        if self.markdown is not None:
            written.append(files.write(self.markdown, report.markdown().encode()))
        if self.junit is not None:
            written.append(report.junit(self.junit, fail_on=self.level))


_NAMED: Final = 3
"""Findings that are named as the reason of an exit code."""


def _more(record: ReportRecord) -> Iterator[tuple[str, str]]:
    """Name and text of each further file that a package brings to this report; one that fails costs no other."""
    for point in entry_points(group="wheeltap.files"):
        try:
            make: Callable[[ReportRecord], str | None] = point.load()
            text = make(record)
        except Exception as error:  # whatever a plug-in raises: what was measured is shown all the same
            print(f"wheeltap: {point.name} was not written: {type(error).__name__}: {error}", file=sys.stderr)
            continue
        if text is not None:
            yield point.name, text


# ---- the settings file --------------------------------------------------------------------------------------------


_FLAGS: Final = {
    name: f"--{name.replace('_', '-')}"
    for kind in (RequestFlags, ExecutionFlags, Output)
    for name in ({"schemes": "for", "slices": "slice"}.get(field.name, field.name) for field in fields(kind))
    if name not in ("config", "include_path", "effort")
}
"""What a settings file may set, and the flag that sets the same; one that the verb does not have is left aside."""


def take_settings(arguments: ArgumentCollection) -> None:
    """Gives a verb with ``--config`` what that file says, where the command line says nothing else.

    Raises:
        UnknownName: If it sets what there is not.
        UsageError: If it names a folder of tasks, which may run code.
        WheeltapError: If it cannot be read.
    """
    known = {argument.name: argument for argument in arguments}
    if "--config" not in known or not known["--config"].tokens:
        return
    path = Path(known["--config"].tokens[0].value)
    for name, value in settings_in(path).items():
        argument = known.get(_FLAGS[name])
        other = known.get({"data": "--task", "task": "--data"}.get(name, ""))
        if argument is None or argument.tokens or (other and any(token.source == "cli" for token in other.tokens)):
            continue
        text = str(value).lower() if isinstance(value, bool) else "" if value == [] else str(value)
        for one in text.split(" + ") if name in ("data", "task") else (text,):
            argument.append(Token(keyword=_FLAGS[name], value=one, source=str(path)))


def _read(path: Path) -> dict[str, Any]:
    data = contents(path, "settings file", limit=2**20)
    expected = f"TOML with {', '.join(sorted(_FLAGS))}, and a table per audit"
    with parsing(path, "The settings file cannot be read.", expected=expected):
        return toml(data, where=path)


def settings_in(path: Path) -> dict[str, Any]:
    """What a settings file says beside its tables, lists of names as text with commas."""
    from wheeltap.sources.base import AND, is_code_of_examples

    several = ("data", "task")
    plain = ((name, value) for name, value in _read(path).items() if not isinstance(value, dict))
    found = {name: _joined(value, AND if name in several else ",") for name, value in plain}
    for name, value in found.items():
        if name not in _FLAGS:
            raise UnknownName("setting", name, _FLAGS)
        if name in several and is_code_of_examples(str(value)):
            raise UsageError(
                "The settings file names a folder of tasks, which may run code.",
                where=str(path),
                expected="a folder of tasks on the command line alone",
                got=str(value),
                do="Look at the tasks. If you trust them: --include-path FOLDER.",
            )
    return found


def _tables(path: Path) -> dict[str, dict[str, Any]]:
    """Its tables of settings, one an audit."""
    from wheeltap.audits import base

    tables = {name: cast("dict[str, Any]", table) for name, table in _read(path).items() if isinstance(table, dict)}
    unknown = next((name for name in tables if name not in base.audits), None)
    if unknown is not None:
        raise UnknownName("audit", unknown, base.audits)
    return {name: {key: _joined(value) for key, value in table.items()} for name, table in tables.items()}


def _joined(value: Any, between: str = ",") -> Any:
    """A list of names as settings have them, a text with commas; anything else as it is."""
    if not isinstance(value, list):
        return value
    names = cast("list[Any]", value)
    return between.join(names) if names and all(isinstance(name, str) for name in names) else names


def documented(settings: type[msgspec.Struct]) -> Mapping[str, str]:
    """What the docstrings of a class of settings, and of those it is built on, say of each."""
    return {name: text.replace("``", "") for name, text in said_of(settings).items()}
