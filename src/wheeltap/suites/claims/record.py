"""What a run of retests found, as one JSON file; and what differs between two of them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from wheeltap.core.bounded import decoded, document
from wheeltap.core.records import Estimate, FindingStatus, Scalar
from wheeltap.core.settings import ChoiceRecord
from wheeltap.core.study import Direction
from wheeltap.report import files
from wheeltap.studies.base import Size
from wheeltap.suites.claims.ledger import Expected, RuleUse

Verdict = Literal["supports", "refutes", "undecided"]
Needs = Literal["all", "any"]
Decides = Literal["both", "supports", "refutes"]


class RuleResult(ChoiceRecord, frozen=True, kw_only=True):
    """What one rule of a retest says of its claim.

    Attributes:
        title: Of the rule.
        about: Which cohorts.
        fixed: What was fixed beforehand: statistic, direction, margin, and what supports the claim.
        answer: What its finding says of the claim.
        status: Of the finding.
        direction: Which effect counts.
        null: The effect that is none: 0, 1 of a ratio, .5 of an AUC.
        margin: Smallest effect of interest, a distance from ``null``.
        effect: With its interval; ``None`` where there is no number.
        detectable: Effect that such a study finds four times out of five, a distance from ``null``.
        because: The finding in words.
    """

    title: str
    about: str
    fixed: str
    answer: Verdict
    status: FindingStatus
    direction: Direction
    null: float
    margin: float
    effect: Estimate | None = None
    detectable: float | None = None
    because: str = ""


class RetestResult(ChoiceRecord, frozen=True, kw_only=True):
    """One retest of a claim.

    Attributes:
        name: Of the retest.
        question: It asks.
        answer: What it says of the claim.
        because: Why, in a sentence or two.
        study: Registered name or file; ``rows`` of a derived number.
        settings: Of the study, those of its size included.
        rules: How each came out.
        needs: Whether all of its rules, or any of them, must support the claim.
        expected: The literature's effect.
        planned: Effect that the retest was planned to find.
        nets: How many were measured.
        store: File that holds every outcome, in the folder of the run.
        plan: Key of the plan: rules, level, settings and seed are part of it.
        seconds: Of computing, all runs into the store together.
    """

    name: str
    question: str
    answer: Verdict
    because: str
    study: str
    settings: dict[str, Scalar] = msgspec.field(default_factory=dict[str, Scalar])
    rules: tuple[RuleResult, ...] = ()
    needs: Needs = "all"
    expected: Expected | None = None
    planned: float | None = None
    nets: int = 0
    store: str = ""
    plan: str = ""
    seconds: float = 0.0


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
    """What a run of retests found.

    Attributes:
        size: Of the studies.
        seed: Root of every draw.
        alpha: Of the rules of one retest, all together: the level of the ledger shared among its retests.
        claims: Those that were run, in the ledger's order.
        wheeltap: Version that ran them.
    """

    schema: Literal["wheeltap.claims/1"] = "wheeltap.claims/1"
    size: Size
    seed: int
    alpha: float
    claims: tuple[ClaimResult, ...]
    wheeltap: str

    def write(self, path: Path) -> Path:
        """Writes it as JSON, whole or not at all."""
        return files.write(path, msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")


def read(path: Path) -> ClaimsRecord:
    """The record in a file.

    Raises:
        MissingFile: If there is none.
        FileFormatError: If it is no record of claims.
    """
    do = "Give the claims.json that this wrote: wheeltap claims retest ... --out DIR"
    what, expected = "The file is no record of claims.", "JSON of schema wheeltap.claims/1"
    return decoded(document(path, "record of claims", do=do), ClaimsRecord, path, what, expected=expected, do=do)


# ---- verdicts ---------------------------------------------------------------------------------------------------


def answer_of(status: FindingStatus, rule: RuleUse) -> Verdict:
    """What the finding of a rule says of a claim."""
    said: Verdict = "supports" if status == rule.supports else "refutes"
    return said if status in ("found", "excluded") and rule.decides in ("both", said) else "undecided"


def together(answers: Sequence[Verdict], needs: Needs, decides: Sequence[Decides] = ()) -> Verdict:
    """What several answers say taken together.

    Args:
        answers: One for each rule, or each retest.
        needs: Of ``all``, one answer that refutes is enough, and all must support; of ``any`` the other way around.
        decides: Which way each can decide; both, where not given. One that cannot support need not, and vice versa.
    """
    one, every = _ENOUGH[needs]
    able = [a for a, way in zip(answers, decides or ["both"] * len(answers), strict=True) if way in ("both", every)]
    return one if one in answers else every if able and set(able) == {every} else "undecided"


_ENOUGH: Final[dict[Needs, tuple[Verdict, Verdict]]] = {"all": ("refutes", "supports"), "any": ("supports", "refutes")}
"""The verdict for which one answer is enough, and the one for which it takes every one."""


# ---- two runs ---------------------------------------------------------------------------------------------------


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference between two runs: of which claim, retest and rule, and how it was and is."""

    claim: str
    retest: str
    rule: str
    what: Literal["verdict", "effect", "rules", "run", "new", "gone"]
    old: str
    new: str


class _Row(NamedTuple):
    """What can differ: the verdict, what was fixed beforehand, the effect."""

    answer: str
    fixed: str = ""
    effect: Estimate | None = None


def diff(old: ClaimsRecord, new: ClaimsRecord) -> tuple[Change, ...]:
    """What changed from one run to another: verdicts; effects beyond the other's interval; rules; what is new or gone.

    Seconds and files do not count.
    """
    was, now = _rows(old), _rows(new)
    return tuple(
        Change(claim=key[0], retest=key[1], rule=key[2], what=what, old=before, new=after)
        for key in dict.fromkeys([*now, *was])
        for what, before, after in _changes(was.get(key), now.get(key), of_rule=bool(key[2]))
    )


def _changes(was: _Row | None, now: _Row | None, *, of_rule: bool) -> Iterator[tuple[Any, str, str]]:
    if was is None or now is None:
        yield ("new", "", now.answer) if now is not None else ("gone", was.answer if was is not None else "", "")
        return
    if was.fixed != now.fixed:
        yield "rules" if of_rule else "run", was.fixed, now.fixed
    if was.answer != now.answer:
        yield "verdict", was.answer, now.answer
    if _beyond(was.effect, now.effect) or _beyond(now.effect, was.effect):
        yield "effect", str(was.effect), str(now.effect)


def _rows(record: ClaimsRecord) -> dict[tuple[str, str, str], _Row]:
    found = dict[tuple[str, str, str], _Row]()
    for claim in record.claims:
        found[claim.id, "", ""] = _Row(claim.answer)
        for retest in claim.retests:
            settings = "".join(f", {name} {value}" for name, value in sorted(retest.settings.items()))
            how = f"{retest.study}, {record.size}, seed {record.seed}, alpha {record.alpha:.2g}{settings}"
            found[claim.id, retest.name, ""] = _Row(retest.answer, f"{how}, needs {retest.needs}")
            for rule in retest.rules:
                row = _Row(rule.answer, rule.fixed, rule.effect)
                found[claim.id, retest.name, f"{rule.title} ({rule.about})"] = row
    return found


def _beyond(one: Estimate | None, other: Estimate | None) -> bool:
    """Whether an effect lies outside of another one's interval."""
    if one is None or other is None or one.value is None:
        return False
    return (other.low is not None and one.value < other.low) or (other.high is not None and one.value > other.high)
