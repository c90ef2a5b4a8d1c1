"""Verdicts in every combination; files that are no records."""

from itertools import product
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from wheeltap.core.errors import FileFormatError, MissingFile
from wheeltap.core.records import Estimate, FindingStatus
from wheeltap.suites.claims.ledger import RuleUse
from wheeltap.suites.claims.record import (
    ClaimResult,
    ClaimsRecord,
    RetestResult,
    RuleResult,
    Verdict,
    answer_of,
    as_json,
    read,
    together,
)

ANSWERS: tuple[Verdict, ...] = get_args(Verdict)


def record() -> ClaimsRecord:
    effect = Estimate(name="score", value=0.3, low=0.2, high=0.4, level=0.95, n=10, unit="share", method="t")
    rule = RuleResult(
        title="more", about="a vs b", fixed="difference, more, margin 0.1", answer="supports", status="found",
        direction="more", null=0.0, margin=0.1, effect=effect,
    )  # fmt: skip
    retest = RetestResult(name="r", question="?", answer="supports", because="", study="s", rules=(rule,), seconds=1.5)
    claim = ClaimResult(
        id="C1", statement="It is so.", literature="durable", date="", answer="supports", because="", retests=(retest,)
    )
    return ClaimsRecord(size="small", seed=0, alpha=0.01, claims=(claim,), wheeltap="0")


def test_every_combination_of_three_answers() -> None:
    for several in product(ANSWERS, repeat=3):
        everyone = "supports" if set(several) == {"supports"} else "undecided"
        assert together(several, "all") == ("refutes" if "refutes" in several else everyone)
        nobody = "refutes" if set(several) == {"refutes"} else "undecided"
        assert together(several, "any") == ("supports" if "supports" in several else nobody)
    assert together([], "all") == together([], "any") == "undecided"


def test_what_a_rule_says() -> None:
    statuses: tuple[FindingStatus, ...] = get_args(FindingStatus)
    for status, supports, decides in product(statuses, ("found", "excluded"), ("both", "supports", "refutes")):
        use = msgspec.convert({"title": "more", "supports": supports, "decides": decides}, RuleUse)
        said = "supports" if status == supports else "refutes"
        decided = status in ("found", "excluded") and decides in ("both", said)
        assert answer_of(status, use) == (said if decided else "undecided")


def test_one_rule_supports_and_another_refutes() -> None:
    """A correlation above .1 supports, one shown to be below .05 refutes; between them nothing is decided."""
    high = RuleUse(title="above .1", decides="supports")
    low = RuleUse(title="above .05", decides="refutes")
    outcomes: dict[tuple[FindingStatus, FindingStatus], Verdict] = {
        ("found", "found"): "supports", ("excluded", "found"): "undecided", ("excluded", "excluded"): "refutes",
        ("excluded", "inconclusive"): "undecided", ("inconclusive", "inconclusive"): "undecided",
    }  # fmt: skip
    for (above, below), verdict in outcomes.items():
        answers = [answer_of(above, high), answer_of(below, low)]
        assert together(answers, "any", [high.decides, low.decides]) == verdict, (above, below)


def test_a_record_comes_back_from_its_file(tmp_path: Path) -> None:
    made = record()
    (tmp_path / "claims.json").write_bytes(as_json(made))
    assert read(tmp_path / "claims.json") == made


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "wheeltap.claims/9"}', '{"schema": "wheeltap.report/3"}'])
def test_what_is_no_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "claims.json").write_text(text)
    with pytest.raises(FileFormatError):
        read(tmp_path / "claims.json")
    with pytest.raises(MissingFile):
        read(tmp_path / "other.json")
