"""A user's own study, declared in a TOML file: cohorts of checkpoints or recipes, audits as metrics, rules.

question = "Are nets trained with SAM safer at 4 bits?"
examples = "test.npz"                       # or digits, or module:callable
train = "train.npz"                         # for recipes that bring no examples; or held_out = 0.33, of the examples

[cohorts.sam]
members = ["hf:runs/sam-*"]                 # or: recipe = "classifier", settings = {rho = 0.05}, seeds = 10

[cohorts.plain]
members = ["hf:runs/plain-*"]
role = "compared"

[metrics.loss4]
audit = "deployment"
settings = {schemes = "nf4"}
scheme = "nf4"

[[rules]]
metric = "loss4"
cohorts = ["sam", "plain"]
statistic = "difference"                    # one_of, paired, difference, mean, association, auc, added, exact
direction = "less"
margin = 0.01
supports = "Nets trained with SAM lose less at 4 bits."
refutes = "Nets trained with SAM do not lose less at 4 bits, by a point or more."
"""

import glob
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, final

import msgspec

from wheeltap.audits.base import audits, named
from wheeltap.audits.case import Case
from wheeltap.audits.schemes import schemes as require_schemes
from wheeltap.core.bounded import contents, parsing, toml
from wheeltap.core.errors import FileFormatError, MissingFile, UnknownName, UsageError
from wheeltap.core.records import Finding, Scalar
from wheeltap.core.settings import Settings, unknown_word
from wheeltap.core.study import CohortRole, CohortSpec, MemberSpec, Metric, Rule, Side
from wheeltap.sources.base import require_no_code
from wheeltap.studies import rules
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.measures import AuditMetric, score_after, score_before
from wheeltap.studies.table import MemberTable

LARGEST = 2**20
"""Bytes that such a file may have."""

MOST_MEMBERS = 1000
"""Nets of one cohort."""


class CohortToml(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A cohort: checkpoints by their specs, or nets of one recipe with a seed each."""

    members: list[str] = []
    recipe: str = ""
    settings: dict[str, Scalar] = {}
    seeds: int | list[int] = 0
    on_task: bool = False
    role: CohortRole = "studied"
    about: str = ""


class MetricToml(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A metric: what an audit finds of each member."""

    audit: str
    settings: dict[str, Scalar | list[int | float]] = {}
    scheme: str = ""
    estimate: str = ""
    title: str = ""
    unit: str = ""
    toward: Side = ""
    least: float | None = None
    most: float | None = None


class RuleToml(Rule, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule as a file has it: with a margin, its code that of its metric, and a title where it needs none."""

    code: str = ""
    title: str = ""
    margin: Annotated[float, msgspec.Meta(ge=0.0)]  # pyright: ignore[reportGeneralTypeIssues] - must be given
    share: Annotated[float, msgspec.Meta(ge=0.0, le=1.0)] = 0.5


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole file."""

    question: str
    cohorts: dict[str, CohortToml]
    metrics: dict[str, MetricToml]
    rules: list[RuleToml]
    examples: str = ""
    train: str = ""
    held_out: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.0


class DeclaredSettings(Settings, frozen=True):
    """The file's content, as JSON, with the names of files made absolute."""

    declaration: str = ""


def read(path: Path, *, allow_code: bool = False) -> "DeclaredStudy":
    """The study in a TOML file; names of files in it are relative to its folder.

    Args:
        path: Of the file.
        allow_code: Whether it may name code, as ``module:callable``, which is run when the study is.

    Raises:
        UsageError: If it names code that is not allowed.
        MissingFile: If there is no such file, or a pattern fits no checkpoint.
        FileFormatError: If it is not TOML, or a field is wrong.
    """
    data = contents(path, "study", limit=LARGEST, do="wheeltap list studies")
    with parsing(
        path, "The file is not a study.", do="See the example in docs/studies.md.",
        expected="TOML with question, [cohorts.NAME], [metrics.NAME] and [[rules]]",
    ):  # fmt: skip
        try:
            found = msgspec.convert(toml(data, where=path), Declaration)
        except msgspec.ValidationError as error:
            raise (unknown_word(error, Declaration) or error) from error
    if not allow_code:
        members = [member for cohort in found.cohorts.values() for member in cohort.members]
        require_no_code(members, examples=(found.examples, found.train), where=str(path))
    folder = path.absolute().parent
    cohorts = {name: _found(cohort, folder, f"{path}: cohort {name}") for name, cohort in found.cohorts.items()}
    files = {"examples": _file(found.examples, folder), "train": _file(found.train, folder)}
    whole = msgspec.structs.replace(found, cohorts=cohorts, **files)
    return DeclaredStudy({"declaration": msgspec.json.encode(whole).decode()})


def _found(cohort: CohortToml, folder: Path, where: str) -> CohortToml:
    """The cohort with its patterns replaced by the checkpoints that fit them."""
    if bool(cohort.members) == bool(cohort.recipe):
        raise UsageError(
            "A cohort is of checkpoints or of nets of one recipe.",
            where=where,
            expected='members = ["hf:runs/*"], or recipe = "NAME" and seeds = 10',
            got="both" if cohort.members else "neither",
        )
    found: list[str] = []
    for member in cohort.members:
        kind, mark, rest = member.partition(":")
        if not mark or kind not in ("hf", "gguf"):
            found.append(member)
            continue
        pattern = str(folder / Path(rest).expanduser())
        several = sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        if not several:
            raise MissingFile("No checkpoint fits the pattern.", where=where, got=member)
        found += [f"{kind}:{one}" for one in several]
    if len(found) > MOST_MEMBERS:
        raise UsageError(
            "The cohort is too large.", where=where, expected=f"at most {MOST_MEMBERS:,} members", got=str(len(found))
        )
    return msgspec.structs.replace(cohort, members=found)


def _file(spec: str, folder: Path) -> str:
    """Examples by an absolute path, where they are a file."""
    return str(folder / spec) if Path(spec).suffix in (".npz", ".jsonl", ".txt") else spec


@final
class DeclaredStudy(Study):
    """A study of the user's own: every metric is an audit's number of a member."""

    name = "declared"
    code = "WT001"
    title = "a study of your own, from a TOML file"
    settings_type = DeclaredSettings
    settings: DeclaredSettings

    def __init__(self, settings: dict[str, Any] | None = None) -> None:
        super().__init__(settings)
        if not self.settings.declaration:
            raise UsageError(
                "A study of your own is named by its file.",
                expected="wheeltap study FILE.toml",
                got="declared",
                do="See the example in docs/studies.md.",
            )
        try:
            self._held = msgspec.json.decode(self.settings.declaration, type=Declaration)
        except msgspec.MsgspecError as error:
            raise FileFormatError(
                "The declaration is not a study.", where="declaration", expected="JSON of a study's file",
                got=str(error), do="Give the TOML file: wheeltap study FILE.toml.",
            ) from error  # fmt: skip
        for key, one in self._held.metrics.items():
            schemes = str(one.settings.get("schemes", ""))
            if "," in schemes and not one.scheme:
                raise UsageError(
                    "A metric of several schemes does not say which one it is.", where=f"metric {key}",
                    expected=f"scheme = one of {schemes}", got="no scheme",
                    do="Add scheme to the metric, or name a single one in its settings.",
                )  # fmt: skip
            known = [each.name for each in require_schemes(schemes)] if schemes else []
            if one.scheme and known and one.scheme not in known:
                raise UnknownName(f"scheme of the metric {key}", one.scheme, known)

    @property
    def question(self) -> str:
        """See ``Study``."""
        return self._held.question

    @property
    def examples(self) -> str:
        """See ``Study``."""
        return self._held.examples

    @property
    def training(self) -> str:
        """See ``Study``."""
        return self._held.train

    @property
    def held_out(self) -> float:
        """See ``Study``."""
        return self._held.held_out

    def cast(self) -> tuple[CohortSpec, ...]:
        """See ``Study``."""
        return tuple(
            CohortSpec(name=name, members=tuple(_members(name, one)), role=one.role, about=one.about)
            for name, one in self._held.cohorts.items()
        )

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study``; after each loss, the score before and after it."""
        found: list[Metric] = []
        for key, one in self._held.metrics.items():
            audit, which = audits.get(named(one.audit)), one.scheme or key
            metric = Metric(
                key=key, title=one.title or f"{audit.title} ({which})", unit=one.unit, toward=one.toward,
                reads=audit.reads, code=audit.code, ends=(one.least, one.most),
                of_score=bool(audit.number) and not one.estimate,
            )  # fmt: skip
            found.append(metric)
            if audit.number == "loss" and not one.estimate:
                for made, when in ((score_before(key), "before"), (score_after(key), "after")):
                    title = f"Score {when} ({which})"
                    found.append(Metric(key=made, title=title, unit="", code="WT001", of_score=True))
        return tuple(found)

    def rules(self) -> tuple[Rule, ...]:
        """See ``Study``."""
        codes = {metric.key: metric.code for metric in self.metrics()}
        short, made = Counter(_short(one) for one in self._held.rules), list[Rule]()
        for one in self._held.rules:
            title = one.title or _short(one)
            if not one.title and short[title] > 1:  # several rules about one metric of the same cohorts
                title = f"{title}, {one.statistic}, {one.direction}, margin {one.margin:g}"
            given: dict[str, Any] = msgspec.structs.asdict(one)
            given |= {"title": title, "code": codes.get(one.metric, self.code)}
            made.append(Rule(**given))
        return tuple(made)

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study``; where the cohort that loses less is worse all along, that too."""
        worse = rules.worse(table.rows(), self.rules(), case.plan.task.sign)
        said = super().said(case, table, findings)
        return replace(said, headline=" ".join([said.headline, *worse]))

    def measures(self) -> tuple[AuditMetric, ...]:
        """See ``Study``."""
        return tuple(
            AuditMetric(key, named(one.audit), dict(one.settings), scheme=one.scheme, estimate=one.estimate)
            for key, one in self._held.metrics.items()
        )


def _short(one: RuleToml) -> str:
    """What a rule without a title is called."""
    return f"{one.metric}: {' vs '.join(one.cohorts)}"


def _members(cohort: str, one: CohortToml) -> list[MemberSpec]:
    if one.members:
        names = _names(one.members)
        return [MemberSpec(name=name, source=source) for name, source in zip(names, one.members, strict=True)]
    if one.on_task:
        raise UsageError(
            "Nets of a recipe would be trained on the examples that they are measured on.", where=f"cohort {cohort}",
            expected='other examples to train on, train = "train.npz", or a share that is held out, held_out = 0.33',
            got="on_task = true", do="Remove on_task.",
        )  # fmt: skip
    if not 1 <= (one.seeds if isinstance(one.seeds, int) else len(one.seeds)) <= MOST_MEMBERS:
        raise UsageError(
            "A cohort of a recipe needs seeds.",
            where=f"cohort {cohort}",
            expected=f"seeds = N from 1 to {MOST_MEMBERS:,}, or a list of them",
            got=str(one.seeds),
        )
    seeds = range(one.seeds) if isinstance(one.seeds, int) else one.seeds
    return [MemberSpec(name=f"{cohort} {seed}", recipe=one.recipe, settings=one.settings, seed=seed) for seed in seeds]


def _names(sources: list[str]) -> list[str]:
    """Short names of checkpoints: the last part of each path, with the one before it where that is not enough."""
    for parts in range(1, 8):
        names = ["/".join(source.partition(":")[2].rstrip("/").split("/")[-parts:]) for source in sources]
        if len(set(names)) == len(names):
            return names
    return sources
