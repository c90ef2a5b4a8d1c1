"""Record of a run of retests, stored as one JSON file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from wheeltap.core.bounded import decoded, document
from wheeltap.core.records import Estimate, FindingStatus, Scalar
from wheeltap.core.settings import ChoiceRecord
from wheeltap.core.study import Direction
from wheeltap.studies.base import Size
from wheeltap.suites.claims.ledger import KnownEffect, RuleUse

Verdict = Literal["supports", "refutes", "undecided", "not run"]
Needs = Literal["all", "any"]


class RuleResult(ChoiceRecord, frozen=True, kw_only=True):
    """What one rule of a retest says of its claim; an effect of ``detectable`` is found four times out of five."""

    title: str
    about: str  # cohorts
    fixed: str  # beforehand: statistic, direction, margin, and what supports the claim
    answer: Verdict
    status: FindingStatus
    direction: Direction
    null: float  # the effect that is none: 0, 1 of a ratio, .5 of an AUC
    margin: float  # the smallest effect of interest, as a distance from that
    effect: Estimate | None = None
    detectable: float | None = None


class RetestResult(ChoiceRecord, frozen=True, kw_only=True):
    """One retest of a claim: what it says and why, and the run behind it."""

    name: str
    question: str
    answer: Verdict
    because: str
    study: str  # registered name or file
    settings: dict[str, Scalar] = msgspec.field(default_factory=dict[str, Scalar])
    rules: tuple[RuleResult, ...] = ()
    needs: Needs = "all"
    expected: KnownEffect | None = None
    nets: int = 0
    store: str = ""  # file that holds every outcome, in the folder of the run
    plan: str = ""  # key of the plan: rules, level, settings and seed are part of it
    seconds: float = 0.0  # of computing, all runs into the store together


class ClaimResult(ChoiceRecord, frozen=True, kw_only=True):
    """One claim: what the literature says, by the ledger, and what its retests say, taken together."""

    id: str
    statement: str
    literature: str
    date: str
    answer: Verdict
    because: str
    retests: tuple[RetestResult, ...] = ()


class ClaimsRecord(ChoiceRecord, frozen=True, kw_only=True):
    """What a run of retests found; ``alpha`` is that of each retest: the ledger's level, shared among all of them."""

    schema: Literal["wheeltap.claims/1"] = "wheeltap.claims/1"
    size: Size
    seed: int
    alpha: float
    claims: tuple[ClaimResult, ...]
    wheeltap: str


def as_json(record: ClaimsRecord) -> bytes:
    """Return a record as indented JSON, in the form that ``read`` takes."""
    return msgspec.json.format(msgspec.json.encode(record), indent=1) + b"\n"


def read(path: Path) -> ClaimsRecord:
    """The record in a file.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If it is no record of claims.
    """
    do = "Give the claims.json that this wrote: wheeltap claims retest ... --out DIR"
    what, expected = "The file is no record of claims.", "JSON of schema wheeltap.claims/1"
    return decoded(document(path, "record of claims", do=do), ClaimsRecord, path, what, expected=expected, do=do)


def answer_of(status: FindingStatus, rule: RuleUse) -> Verdict:
    """What the finding of a rule says of a claim."""
    said: Verdict = "supports" if status == rule.supports else "refutes"
    return said if status in ("found", "excluded") and rule.decides in ("both", said) else "undecided"


def together(answers: Sequence[Verdict], needs: Needs, decides: Sequence[str] = ()) -> Verdict:
    """What several answers say taken together.

    Of ``all``, one that refutes is enough, and every one must support; of ``any`` it is the other way around. One that
    decides one way only (``decides``, as of ``RuleUse``) need not say what it cannot.
    """
    one, every = _ENOUGH[needs]
    able = [a for a, way in zip(answers, decides or ["both"] * len(answers), strict=True) if way in ("both", every)]
    return one if one in answers else every if able and set(able) == {every} else "undecided"


_ENOUGH: Final[dict[Needs, tuple[Verdict, Verdict]]] = {"all": ("refutes", "supports"), "any": ("supports", "refutes")}
"""The verdict for which one answer is enough, and the one for which it takes every one."""
