"""Options that several verbs share, and what they all do with a report."""

import dataclasses
import os
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from wheeltap.audits.base import expanded
from wheeltap.audits.schemes import schemes as require_schemes
from wheeltap.cli.whole import Whole
from wheeltap.core.bounded import contents, parsing
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.settings import unknown_word
from wheeltap.plans.plan import HIGHEST, AuditSpec, Effort
from wheeltap.report.gate import FailOn
from wheeltap.sources.base import is_code_of_examples
from wheeltap.sources.lm_eval import LmEvalSpec

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Flags = TypeVar("Flags", bound="DataclassInstance")


AllowCode = Annotated[
    bool, Parameter(negative="", help="Run the code that the file names (module:callable): look at it first.")
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What to measure and how hard."""

    for_: Annotated[
        str | None,
        Parameter(
            name="--for",
            help="How it will be shipped: schemes with commas between, such as nf4,int4-g32,int8,prune30 (see: "
            "wheeltap list schemes).",
        ),
    ] = None
    margin: Annotated[
        float | None,
        Parameter(
            help="Smallest loss that you care about: .01 is one point of a share of right answers, or 1 % more of an "
            "error without a bound (squared error, nll). [default: .02, of an error .1]"
        ),
    ] = None
    audits: Annotated[
        str | None, Parameter(help="Names, codes or groups, separated by commas (see: wheeltap list audits).")
    ] = None
    data: Annotated[
        Path | None,
        Parameter(
            help="Examples: .npz with inputs (or named arrays, such as input_ids and attention_mask) and targets; or "
            ".jsonl with context, choices, answer, or with text, label. Some audits need more: "
            "decodable needs factor_NAME [example] (in .jsonl factors), symmetry needs symmetry [element, example], "
            "and fine-tuning and relearning look at behaviors [example] (in .jsonl behavior). Examples that share "
            "something have the same number or name in groups [example] (in .jsonl group)."
        ),
    ] = None
    task: Annotated[
        str | None,
        Parameter(
            help="Instead of --data, a task of lm-eval: lm_eval:NAME, perhaps with settings, such as "
            "lm_eval:arc_easy,metric=acc_norm,limit=200,fewshot=5."
        ),
    ] = None
    include_path: Annotated[
        Path | None, Parameter(help="With --task: a folder of YAML files of tasks of your own.")
    ] = None
    draws: Annotated[
        Whole | None,
        Parameter(
            validator=Number(gte=2),
            help="Draws of noise per dose; by default chosen by the model's size. Of noise alone: flipped bits, "
            "fine-tuning and whatever else is drawn have a setting of their own in --config, such as draws in the "
            "table [bit-flips].",
        ),
    ] = None
    budget: Annotated[
        str | None, Parameter(help="What it may cost: 200f (passes over the examples), 90s, 10m or 2h; draws are cut.")
    ] = None
    seed: Annotated[Whole | None, Parameter(help="Root of every draw. [default: 0]")] = None
    alpha: Annotated[
        float | None,
        Parameter(
            validator=Number(gt=0, lte=HIGHEST), help="Chance of any false alarm, all findings together. [default: .05]"
        ),
    ] = None
    partial: Annotated[
        bool | None, Parameter(negative="", help="Conclude although less than 90 % of the weights could be disturbed.")
    ] = None
    name: Annotated[
        str | None,
        Parameter(help="What the report calls the models, separated by commas; by default taken from their specs."),
    ] = None
    config: Annotated[
        Path | None, Parameter(help="TOML file with any of these, and a table of settings per audit.")
    ] = None

    @property
    def file(self) -> "_File":
        """What the settings file says."""
        return _File() if self.config is None else _File.read(self.config)

    def completed(self, flags: Flags) -> Flags:
        """Flags of another kind, those that were not given taken from the settings file."""
        file, changes = self.file, dict[str, Any]()
        for field in dataclasses.fields(flags):
            said = getattr(file, field.name, None)
            if said is not None and getattr(flags, field.name) in (None, False):
                changes[field.name] = Path(said) if field.name in _PATHS else said
        return dataclasses.replace(flags, **changes)

    def settled(self) -> "Settled":
        """Flags over file over defaults."""
        file = self.file
        given = None if self.audits is None else _listed(self.audits)
        names = file.audits if given is None else given
        if names == ():
            raise UsageError(
                "No audit is named.",
                where="--audits" if given is not None else str(self.config),
                expected="one name or more, separated by commas",
                got="none",
                do="Leave it out for the usual audits, or see: wheeltap list audits",
            )
        schemes = _first(self.for_, file.for_)
        if schemes is not None:
            require_schemes(schemes)  # a mistyped name is said plainly, before anything is loaded
        return Settled(
            audits=_asked(names, schemes),
            schemes=schemes,
            margin=file.margin if self.margin is None else self.margin,
            partial=_first(self.partial, file.partial, default=False),
            names=_listed(_first(self.name, file.name, default="")),
            data=_examples(
                _first(self.data and str(self.data), None if self.task is not None else file.data),
                _first(self.task, None if self.data is not None else file.task),
                self.include_path,
            ),
            draws=_first(self.draws, file.draws),
            budget=_first(self.budget, file.budget),
            seed=_first(self.seed, file.seed, default=0),
            alpha=_first(self.alpha, file.alpha, default=0.05),
            settings=file.settings,
        )


_PATHS = ("store", "out", "html", "json", "markdown", "junit")


def _examples(data: str | None, task: str | None, include: Path | None) -> str | None:
    """The file of examples, or the task of lm-eval as ``sources`` takes it.

    Raises:
        UsageError: If both are given, or the folder without a task.
        WheeltapError: See ``LmEvalSpec.parse``.
    """
    if task is None and include is None:
        return data
    if task is None or data is not None:
        raise UsageError(
            "A folder of tasks needs the name of one." if data is None else "Examples are given in two ways.",
            where="--include-path" if data is None else "--data",
            expected="--task lm_eval:NAME --include-path DIR" if data is None else "--data or --task",
            got="no --task" if data is None else "--data and a task of lm-eval",
        )
    return str(LmEvalSpec.parse(task, include=include))


def _listed(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def _first(*values: Any, default: Any = None) -> Any:
    """The first value that was given."""
    return next((value for value in values if value is not None), default)


def _asked(names: tuple[str, ...] | None, schemes: str | None) -> tuple[str, ...] | None:
    """Names of audits, codes among them taken for names; with schemes, the audit that has them."""
    from wheeltap.audits.base import named

    known = None if names is None else tuple(dict.fromkeys(map(named, names)))
    if schemes is None:
        return known
    return ("score", "deployment") if known is None else tuple(dict.fromkeys((*known, "deployment")))


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Flags and file together."""

    audits: tuple[str, ...] | None
    schemes: str | None
    margin: float | None
    partial: bool
    names: tuple[str, ...]
    data: str | None
    draws: int | None
    budget: str | None
    seed: int
    alpha: float
    settings: dict[str, dict[str, Any]]

    def specs(self, default: Iterable[str]) -> tuple[AuditSpec, ...]:
        """The audits asked for, each with its settings; tables of audits that are not asked for are left aside.

        Raises:
            UnknownName: If a table is that of no audit.
        """
        from wheeltap.audits.base import audits
        from wheeltap.audits.census import ALWAYS

        names = dict.fromkeys((*expanded(self.audits or default), *ALWAYS))
        unknown = next((name for name in self.settings if name not in audits), None)
        if unknown is not None:
            raise UnknownName("audit", unknown, audits)
        shipped = {} if self.schemes is None else {"deployment": {"schemes": self.schemes}}
        return tuple(
            AuditSpec(name=name, settings={**self.settings.get(name, {}), **shipped.get(name, {})}) for name in names
        )

    def effort(self, parameters: int) -> Effort:
        """Draws: those asked for, or by the model's size."""
        from wheeltap.runs.planning import default_effort

        default = default_effort(parameters)
        if self.draws is None:
            return default
        return msgspec.structs.replace(default, draws=self.draws, control_draws=min(self.draws, default.control_draws))


class _File(msgspec.Struct, frozen=True, kw_only=True):
    audits: tuple[str, ...] | None = None
    draws: Annotated[int, msgspec.Meta(ge=2)] | None = None
    budget: str | None = None
    seed: int | None = None
    alpha: Annotated[float, msgspec.Meta(gt=0, le=HIGHEST)] | None = None
    for_: str | None = msgspec.field(default=None, name="for")
    margin: float | None = None
    partial: bool | None = None
    name: str | None = None
    data: str | None = None
    task: str | None = None
    store: str | None = None
    workers: Annotated[int, msgspec.Meta(ge=1)] | None = None
    memory: str | None = None
    out: str | None = None
    html: str | None = None
    json: str | None = None
    markdown: str | None = None
    junit: str | None = None
    fail_on: FailOn | None = None
    full: bool | None = None
    quiet: bool | None = None
    settings: dict[str, dict[str, Any]] = {}

    @classmethod
    def read(cls, path: Path) -> "_File":
        known = {f.encode_name for f in msgspec.structs.fields(cls)} - {"settings"}
        data = contents(path, "settings file", limit=2**20)
        expected = f"TOML with {', '.join(sorted(known))}, and a table per audit"
        with parsing(path, "The settings file cannot be read.", expected=expected):
            table = msgspec.toml.decode(data, type=dict[str, Any])
            lists = {key: _named(value) if key in ("for", "name") else value for key, value in table.items()}
            if isinstance(lists.get("audits"), str):
                lists["audits"] = list(_listed(lists["audits"]))
            plain = {key: value for key, value in lists.items() if key in known}
            tables = {key: cast("dict[str, Any]", value) for key, value in table.items() if isinstance(value, dict)}
            audits = {key: {name: _named(one) for name, one in value.items()} for key, value in tables.items()}
            unknown = next((key for key in table if key not in plain and key not in audits), None)
            if unknown is not None:
                raise UnknownName("setting", unknown, known)
            try:
                made = msgspec.convert({**plain, "settings": audits}, cls)
            except msgspec.ValidationError as error:
                raise (unknown_word(error, cls) or error) from error
        folder = next((text for text in (made.data, made.task) if text and is_code_of_examples(text)), "")
        if folder:
            raise UsageError(
                "The settings file names a folder of tasks, which may run code.",
                where=str(path),
                expected="a folder of tasks on the command line alone",
                got=folder,
                do="Look at the tasks. If you trust them: --include-path FOLDER.",
            )
        return made


def _named(value: Any) -> Any:
    """A list of names as settings have them, a text with commas; anything else as it is."""
    if not isinstance(value, list):
        return value
    names = cast("list[Any]", value)
    return ",".join(names) if names and all(isinstance(name, str) for name in names) else names


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


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Running:
    """Where outcomes are kept and who computes them."""

    store: Annotated[
        Path | None,
        Parameter(help="File that keeps every outcome; the same command resumes. [default: NAME.wheeltap, here]"),
    ] = None
    workers: Annotated[
        Whole | None,
        Parameter(help="Processes; 1 computes in this one. [default: 1; for circuits 2, if there are two processors]"),
    ] = None
    memory: Annotated[
        str | None,
        Parameter(
            validator=_require_size,
            help="Memory to use beside the models, such as 500MB or 4GB; less of it takes longer.",
        ),
    ] = None

    @property
    def memory_bytes(self) -> int | None:
        """The memory in bytes; ``UsageError`` if it is no size."""
        return None if self.memory is None else bytes_of(self.memory)


MOST = 8
"""Processes that are used by default, at most."""


def processes() -> int:
    """As many as there are processors that may be used, but not many."""
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(usable, MOST)


def slug(*names: str) -> str:
    """Names of subjects or pictures as part of a file's name."""
    return "-vs-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model" for name in names)[:80]


def default_store(*names: str) -> Path:
    """A file in this folder named after the subjects."""
    return Path(f"{slug(*names)}.wheeltap")
