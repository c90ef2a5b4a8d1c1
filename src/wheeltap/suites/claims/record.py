"""What a run of retests found, as one JSON file; and what differs between two of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec

from wheeltap.core.bounded import decoded, document
from wheeltap.core.records import Estimate, FindingStatus, Scalar
from wheeltap.core.settings import ChoiceRecord
from wheeltap.core.study import Direction
from wheeltap.studies.base import Size
from wheeltap.studies.declared import Declaration
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
    study: str  # registered name or file; rows of a derived number
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


def as_json(value: Any) -> bytes:
    """Of a record, and of what holds one; a file by its name alone."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=lambda file: file.name), indent=1) + b"\n"


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


class Change(NamedTuple):
    """One difference between two runs: of which claim, retest and rule, and how it was and is."""

    claim: str
    retest: str
    rule: str
    what: Literal["verdict", "effect", "rules", "run", "new", "gone"]
    old: str
    new: str


def diff(old: ClaimsRecord, new: ClaimsRecord) -> tuple[Change, ...]:
    """What changed from one run to another: verdicts; effects beyond the other's interval; rules; what is new or gone.

    Of a run and of a rule, only what differs is said. Seconds and files do not count.
    """
    was, now, found = dict(_rows(old)), dict(_rows(new)), list[Change]()
    for key in dict.fromkeys([*now, *was]):
        if key not in was or key not in now:
            found.append(Change(*key, "gone", was[key][0], "") if key in was else Change(*key, "new", "", now[key][0]))
            continue
        (before, fixed, one), (after, now_fixed, two) = was[key], now[key]
        if fixed != now_fixed:
            sides = ((fixed, now_fixed), (now_fixed, fixed))
            differing = (", ".join(part for part in own if part not in other) for own, other in sides)
            found.append(Change(*key, "rules" if key[2] else "run", *differing))
        if before != after:
            found.append(Change(*key, "verdict", before, after))
        if _beyond(one, two) or _beyond(two, one):
            found.append(Change(*key, "effect", str(one), str(two)))
    return tuple(found)


def _rows(record: ClaimsRecord) -> Iterator[tuple[tuple[str, str, str], tuple[str, list[str], Estimate | None]]]:
    """Verdict, what was fixed beforehand part by part, and effect; of each claim, retest and rule."""
    for claim in record.claims:
        yield (claim.id, "", ""), (claim.answer, [], None)
        for retest in claim.retests:
            how = f"{retest.study}, {record.size}, seed {record.seed}, alpha {record.alpha:.2g}, needs {retest.needs}"
            fixed = [*how.split(", "), *_settings("", retest.settings)]
            yield (claim.id, retest.name, ""), (retest.answer, fixed, None)
            for rule in retest.rules:
                fixed = rule.fixed.replace(";", ",").split(", ")
                yield (claim.id, retest.name, f"{rule.title} ({rule.about})"), (rule.answer, fixed, rule.effect)


def _settings(name: str, value: Any) -> Iterator[str]:
    """A setting, part by part where it has several: that of a study in a file is the whole file, as JSON."""
    if name == "declaration":
        what, expected = "The settings of a study cannot be read.", "a study in a file, as JSON"
        value = msgspec.to_builtins(decoded(str(value).encode(), Declaration, name, what, expected=expected))
    if isinstance(value, list):
        value = dict(enumerate(cast("list[Any]", value), 1))
    if not isinstance(value, dict):
        yield f"{name.removeprefix('declaration ')} {value}"
        return
    for key, one in sorted(cast("dict[Any, Any]", value).items()):
        yield from _settings(f"{name} {key}".strip(), one)


def _beyond(one: Estimate | None, other: Estimate | None) -> bool:
    """Whether an effect lies outside of another one's interval."""
    if one is None or other is None or one.value is None:
        return False
    return (other.low is not None and one.value < other.low) or (other.high is not None and one.value > other.high)
