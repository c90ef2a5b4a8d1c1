"""The ledger: claims of the literature, each with graded sources, a dated verdict and the studies that re-test it.

A file holds one claim, or several as ``[[claims]]``; a ledger is such a file, or a folder of them. Unknown keys are
refused. What can be wrong with a claim that is well formed, an ID without a grade say, is for the linter (``lint``).
"""

import datetime
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, final, get_args

import msgspec

from wheeltap.audits.base import studies
from wheeltap.core.bounded import contents, parsing, toml
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.files import ODD_PATH
from wheeltap.core.settings import Settings, unknown_word
from wheeltap.plans.plan import ALPHA
from wheeltap.runs.request import StudyRequest
from wheeltap.studies import declared
from wheeltap.studies.base import Size, Study
from wheeltap.studies.rules import require_sound

Grade = Literal["grounded", "secondary", "ungrounded", "pilot", "inference", "absence"]
Kind = Literal["dense", "sparse", "diffusion", "reasoning chain", "RL-trained", "instruction-tuned"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

GRADES: Final[dict[str, str]] = {
    "grounded": "the page, abstract, text or repository of the source was read",
    "secondary": "only a summary of it was read: check the source before quoting it",
    "ungrounded": "from memory, not checked: do not quote it",
    "pilot": "an own small measurement",
    "inference": "reasoning that no source states",
    "absence": "no such work is known, which does not prove that there is none",
}

LARGEST, MOST = 2**18, 500  # bytes that a file of claims may have, and claims of one ledger
_EXAMPLE: Final = "See the example in docs/claims.md."

Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}\Z")]
"""What an identifier may be: it names files, too."""


class Source(Settings, frozen=True, kw_only=True):
    """A work that speaks for or against a claim, and what was read of it; of grade ``absence``, that none is known."""

    says: str
    arxiv: str = ""
    url: str = ""
    title: str = ""
    year: int = 0  # not known
    grade: Grade | None = None
    side: Literal["for", "against", "context"] = "context"

    @property
    def name(self) -> str:
        """As it is cited: its ID, address or title; one that nobody checked says so."""
        named = self.arxiv or self.url or self.title or "without a source"
        return f"{named} [ungrounded]" if self.grade == "ungrounded" else named


class LiteratureVerdict(Settings, frozen=True, kw_only=True):
    """What the literature says of a claim, at a date."""

    word: Literal["durable", "strengthened", "relaxed", "overturned", "contested"]
    because: str
    date: datetime.date | None = None

    def __str__(self) -> str:
        return f"{self.word}, {self.date or 'without a date'}"


class ScopeRow(Settings, frozen=True, kw_only=True):
    """One kind of model at one scale: what the literature shows, what a retest runs, what nobody has shown."""

    kind: Kind
    scale: str = ""
    shown: str = ""
    ran: str = ""
    open: str = ""


class RuleUse(Settings, frozen=True, kw_only=True):
    """A rule of the study, by its title."""

    title: str
    supports: Literal["found", "excluded"] = "found"  # the outcome that supports the claim; the other one refutes it
    # Whether both outcomes decide, or one alone: the other one leaves the claim undecided.
    decides: Literal["both", "supports", "refutes"] = "both"


class KnownEffect(Settings, frozen=True, kw_only=True):
    """The effect that the literature has, in the rule's unit, and the ID, address or grade that it is taken from."""

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    source: str = ""


class NeededFile(Settings, frozen=True, kw_only=True):
    """A file that a study reads (its setting ``data``) and that no package has: its name, and where to get it."""

    file: str
    get: str


class Retest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A study that tests a claim again, with the rules that decide."""

    name: Name
    question: str
    study: str  # registered name, or a study in a .toml file in the folder of the claim's file
    settings: dict[str, Scalar] = {}  # of the study, not its defaults; at the small size `small` too
    small: dict[str, Scalar] = {}
    rules: tuple[RuleUse, ...] = ()
    needs: Literal["all", "any"] = "all"
    expected: KnownEffect | None = None  # in the unit of the first rule
    detectable: float | None = None  # the smallest effect that is planned to be found, in the same unit
    data: NeededFile | None = None  # without this file it is not run


class ClaimToml(Settings, frozen=True, kw_only=True):
    """A claim as a file has it: in one sentence, of which models it speaks, and what would change the verdict."""

    id: Name
    statement: str
    verdict: LiteratureVerdict
    scope: str = ""
    change: str = ""
    sources: tuple[Source, ...] = ()
    scopes: tuple[ScopeRow, ...] = ()
    retests: tuple[Retest, ...] = ()


@final
class Claim(ClaimToml, frozen=True, kw_only=True):
    """A claim of a ledger, with the file that it was read from."""

    file: Path

    def study(
        self, retest: Retest, request: StudyRequest, *, size: Size = "small", allow_code: bool = False
    ) -> Study:  # fmt: skip
        """The study of a retest, sound and with its rules; one in a file has one size and its own seeds.

        Raises:
            UnknownName: If no study is registered by this name, or it has no such rule.
            UsageError: If it lacks a setting, or a rule is dead.
            WheeltapError: If the file of a study cannot be used.
        """
        settings = {**retest.settings, **(retest.small if size == "small" else {})}
        if not retest.study.endswith(".toml"):
            kind = studies.get(retest.study)
            assert issubclass(kind, Study), "the registry holds nothing else"
            own = {"seed": request.seed} if "seed" in kind.settings_type.__struct_fields__ else {}
            study = kind({**kind.sized(size), **own, **settings})
        elif settings:
            where, do = f"{self.file}: {self.id}, retest {retest.name}", f"Write them into {retest.study}."
            raise UsageError("A study in a file has no settings.", where=where, expected="no settings and no small",
                             got=", ".join(settings), do=do)  # fmt: skip
        else:
            study = declared.read(self.file.parent / retest.study, allow_code=allow_code)
        spec = study.spec()
        require_sound(spec, alpha=request.alpha)
        titles = Counter(rule.title for rule in spec.rules)
        for use in retest.rules:
            if titles[use.title] != 1:
                raise UnknownName(f"single rule of the study {spec.name}", use.title, titles)
        return study


@final
class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Claims in order."""

    claims: tuple[Claim, ...]

    def chosen(self, ids: Sequence[str] = ()) -> tuple[Claim, ...]:
        """The claims with these ids, in the order of the ledger; all where none is given.

        Raises:
            UnknownName: If there is no such claim.
        """
        known = [claim.id for claim in self.claims]
        for one in ids:
            if one not in known:
                raise UnknownName("claim", one, known)
        return tuple(claim for claim in self.claims if not ids or claim.id in ids)

    @property
    def alpha(self) -> float:
        """The level of each study: all retests of the ledger share one, whichever of them are run."""
        return ALPHA / max(1, sum(len(claim.retests) for claim in self.claims))


def read(path: Path | None = None) -> Ledger:
    """The claims in a file, or in the ``.toml`` files of a folder that are no studies; ours where none is given.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If one is no file of claims, or has a key that there is not.
        DataError: If a folder has no claim, or too many.
    """
    place = Path(__file__).with_name("ledger") if path is None else path
    try:
        files = [*place.glob("*.toml")] if place.is_dir() else [place]
    except ODD_PATH:
        files = [place]  # reading it says what is wrong with the path
    # Names with numbers in their order: C2 before C10.
    parts = {file: re.split(r"(\d+)", file.stem) for file in files}
    files.sort(key=lambda file: [(int(part), "") if part.isdecimal() else (-1, part) for part in parts[file]])
    claims: list[Claim] = []
    for file in files[: MOST + 1]:
        data = contents(file, "file of claims", limit=LARGEST, do="wheeltap claims list")
        with parsing(
            file, "The file holds no claims.", do=_EXAMPLE,
            expected="TOML with id, statement, [verdict], [[sources]] and [[retests]]; or [[claims]] with these",
        ):  # fmt: skip
            held = toml(data, where=file)
            if len(files) == 1 or not {"cohorts", "metrics"} <= held.keys():  # a study that a claim beside it names
                claims += [_claim(one, file) for one in (held["claims"] if list(held) == ["claims"] else [held])]
    if not 0 < len(claims) <= MOST:
        what, expected = f"There are {'too many' if claims else 'no'} claims.", f"1 to {MOST} in a .toml file or folder"
        raise DataError(what, where=str(place), expected=expected, got=f"{len(claims):,}", do=_EXAMPLE)
    return Ledger(claims=tuple(claims))


def _claim(held: dict[str, Any], file: Path) -> Claim:
    """A claim, with a row for each kind of models: where a file has none, nothing is shown."""
    try:
        found: dict[str, Any] = msgspec.structs.asdict(msgspec.convert(held, ClaimToml))
    except msgspec.ValidationError as error:
        if (unknown := unknown_word(error, ClaimToml)) is not None:
            raise unknown.at(f"{file}, claim {held.get('id', '')}") from error
        raise ValueError(f"{error}, of the claim {dict(held).get('id', '')}") from error
    kinds = {row.kind for row in found["scopes"]}
    found["scopes"] += tuple(ScopeRow(kind=kind, open="all of it") for kind in KINDS if kind not in kinds)
    return Claim(**found, file=file)
