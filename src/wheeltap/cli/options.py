"""Options that several verbs share, and what they all do with a report."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number

from wheeltap.audits.base import expanded
from wheeltap.cli.whole import Whole
from wheeltap.core.errors import FileFormatError, MissingFile, UnknownName, UsageError
from wheeltap.core.records import Finding
from wheeltap.plans.plan import AuditSpec, Effort
from wheeltap.report.report import Report
from wheeltap.report.unfinished import missing_trials

FailOn = Literal["found", "inconclusive", "never"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Measuring:
    """What to measure and how hard."""

    audits: Annotated[str | None, Parameter(help="Names, separated by commas (see: wheeltap list audits).")] = None
    data: Annotated[
        Path | None,
        Parameter(
            help="Examples: .npz with inputs, targets; or .jsonl with context, choices, answer. Some audits need more: "
            "decodable needs factor_NAME [example] (in .jsonl factors), symmetry needs symmetry [element, example], "
            "and fine-tuning and relearning look at groups [example] (in .jsonl group)."
        ),
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
            validator=Number(gt=0, lt=1), help="Chance of any false alarm, all findings together. [default: .05]"
        ),
    ] = None
    config: Annotated[
        Path | None, Parameter(help="TOML file with any of these, and a table of settings per audit.")
    ] = None

    def settled(self) -> "Settled":
        """Flags over file over defaults."""
        file = _File() if self.config is None else _File.read(self.config)
        given = None if self.audits is None else tuple(n.strip() for n in self.audits.split(",") if n.strip())
        names = file.audits if given is None else given
        if names == ():
            raise UsageError(
                "No audit is named.",
                where="--audits" if given is not None else str(self.config),
                expected="one name or more, separated by commas",
                got="none",
                do="Leave it out for the usual audits, or see: wheeltap list audits",
            )
        return Settled(
            audits=None if names is None else tuple(dict.fromkeys(names)),
            draws=self.draws if self.draws is not None else file.draws,
            budget=self.budget if self.budget is not None else file.budget,
            seed=next((s for s in (self.seed, file.seed) if s is not None), 0),
            alpha=next((a for a in (self.alpha, file.alpha) if a is not None), 0.05),
            settings=file.settings,
        )


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Flags and file together."""

    audits: tuple[str, ...] | None
    draws: int | None
    budget: str | None
    seed: int
    alpha: float
    settings: dict[str, dict[str, Any]]

    def specs(self, default: Iterable[str]) -> tuple[AuditSpec, ...]:
        """The audits asked for, each with its settings."""
        names = expanded(self.audits or default)
        unused = next((name for name in self.settings if name not in names), None)
        if unused is not None:
            raise UnknownName("audit in this run", unused, names)
        return tuple(AuditSpec(name=name, settings=self.settings.get(name, {})) for name in names)

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
    alpha: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    settings: dict[str, dict[str, Any]] = {}

    @classmethod
    def read(cls, path: Path) -> "_File":
        if not path.is_file():
            raise MissingFile("There is no settings file at this path.", where=str(path))
        try:
            table = msgspec.toml.decode(path.read_bytes(), type=dict[str, Any])
            known = {f.name for f in msgspec.structs.fields(cls)} - {"settings"}
            plain = {key: value for key, value in table.items() if key in known}
            tables = {key: cast("dict[str, Any]", value) for key, value in table.items() if isinstance(value, dict)}
            audits = {key: {name: _named(one) for name, one in value.items()} for key, value in tables.items()}
            unknown = next((key for key in table if key not in plain and key not in audits), None)
            if unknown is not None:
                raise UnknownName("setting", unknown, known)
            return msgspec.convert({**plain, "settings": audits}, cls)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise FileFormatError(
                "The settings file cannot be read.",
                where=str(path),
                expected="TOML with audits, draws, budget, seed, alpha, and a table per audit",
                got=str(error),
            ) from error


def _named(value: Any) -> Any:
    """A list of names as settings have them, a text with commas; anything else as it is."""
    if not isinstance(value, list):
        return value
    names = cast("list[Any]", value)
    return ",".join(names) if names and all(isinstance(name, str) for name in names) else names


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Running:
    """Where outcomes are kept and who computes them."""

    store: Annotated[
        Path | None,
        Parameter(help="File that keeps every outcome; the same command resumes. [default: NAME.wheeltap, here]"),
    ] = None
    workers: Annotated[Whole, Parameter(help="Processes; 1 computes in this one.")] = 1
    memory: Annotated[
        str | None, Parameter(help="Memory to use beside the models, such as 500MB or 4GB; less of it takes longer.")
    ] = None

    @property
    def memory_bytes(self) -> int | None:
        """The memory in bytes.

        Raises:
            UsageError: If it is no size.
        """
        if self.memory is None:
            return None
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kMGT]?)i?B\s*", self.memory, re.IGNORECASE)
        if found is None:
            raise UsageError("The memory cannot be read.", expected="a size such as 500MB or 4GB", got=self.memory)
        return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Telling:
    """Where the report goes."""

    out: Annotated[Path | None, Parameter(help="Folder for report.html and report.json.")] = None
    html: Annotated[Path | None, Parameter(help="Write the page to this file.")] = None
    json: Annotated[Path | None, Parameter(help="Write the report as JSON to this file.")] = None
    fail_on: Annotated[FailOn, Parameter(help="Exit with 1 if any finding is this or worse.")] = "found"

    @property
    def pages(self) -> list[Path]:
        """Where the page goes."""
        return [p for p in (self.html, self.out and self.out / "report.html") if p]

    @property
    def files(self) -> list[Path]:
        """Where the report goes as JSON."""
        return [p for p in (self.json, self.out and self.out / "report.json") if p]

    def prepare(self) -> None:
        """Makes the folders asked for and proves that the files can be written: better an error now than after the run.

        Raises:
            MissingFile: If the folder cannot be made.
            ReportFileError: If a file cannot be written.
            UsageError: If two of them are one.
        """
        from wheeltap.report.files import require_writable

        if self.out is not None:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise MissingFile(
                    "The folder for the report cannot be made.",
                    where=str(self.out),
                    got=str(error),
                    do="Give another folder with --out.",
                ) from error
        for path in (*self.pages, *self.files):
            require_writable(path)
        self.require_apart()

    def require_apart(self, store: Path | None = None) -> None:
        """Raises ``UsageError`` if two of the files, or one of them and the store, are the same."""
        seen: set[Path] = set() if store is None else {store.resolve()}
        for path in (*self.pages, *self.files):
            if path.resolve() in seen:
                raise UsageError(
                    "Two files are to be written to one path.",
                    where=str(path),
                    expected="a path of its own for the store, the page and the JSON file",
                    got=f"{path} twice",
                    do="Give another path to --store, --html or --json.",
                )
            seen.add(path.resolve())

    def tell(self, report: Report) -> int:
        """Writes the files asked for, prints the report, gives the exit code."""
        try:
            written = self.write(report)
        finally:
            report.text()  # after the files, so that a reader that goes away (head, a pager) costs none of them
        if written:
            print(written)
        return exit_code(report, self.fail_on)

    def write(self, report: Report) -> str:
        """Writes the files asked for; gives a line that names them, empty where there are none."""
        written = [*(report.html(page) for page in self.pages), *(report.json(file) for file in self.files)]
        return "Written: " + ", ".join(str(path) for path in written) if written else ""


def exit_code(report: Report, fail_on: FailOn) -> int:
    """0, 1 or 3, as the help says; 2 where the run is not over, for then there is no result to go by."""
    if missing_trials(report.record):
        return 2
    if report.void:
        return 3
    worst = {"found": ("found", "error"), "inconclusive": ("found", "inconclusive", "error"), "never": ()}[fail_on]
    failing: list[Finding] = [
        finding
        for finding in report.findings
        if finding.status in worst and (finding.alarm or finding.status != "found")
    ]
    return 1 if failing else 0


def slug(*names: str) -> str:
    """Names of subjects or pictures as part of a file's name."""
    return "-vs-".join(re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model" for name in names)[:80]


def default_store(*names: str) -> Path:
    """A file in this folder named after the subjects."""
    return Path(f"{slug(*names)}.wheeltap")
