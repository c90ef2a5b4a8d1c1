"""The linter finds what is planted, and nothing in our own ledger."""

import datetime
from pathlib import Path

import pytest

from wheeltap.core.errors import UsageError
from wheeltap.runs import studying
from wheeltap.studies import declared
from wheeltap.suites.claims.ledger import read
from wheeltap.suites.claims.lint import faults

TODAY = datetime.date(2026, 11, 28)

SOUND = """
id = "mine"
statement = "Nets of mine are safe."
scope = "Mine."
change = "One that is not."
[verdict]
word = "durable"
date = 2026-11-01
because = "They were so far (2505.11581)."
[[sources]]
arxiv = "2505.11581v1"
year = 2025
grade = "grounded"
side = "against"
says = "They are not."
[[scopes]]
kind = "dense"
shown = "safe"
[[retests]]
name = "first"
question = "Are they?"
study = "decodable-shift"
settings = { seeds = 12 }
rules = [{ title = "Other score", supports = "excluded" }]
expected = { value = 0.1, source = "2505.11581v1" }
[[retests]]
name = "second"
question = "Are these?"
study = "mine.toml"
rules = [{ title = "loss: a vs b" }]
"""

STUDY = """
question = "Are they?"
examples = "digits"
[cohorts.a]
recipe = "digits"
seeds = 6
[cohorts.b]
recipe = "digits"
seeds = [6, 7, 8, 9, 10, 11]
[metrics.loss]
audit = "deployment"
settings = { schemes = "nf4" }
scheme = "nf4"
least = -1.0
most = 1.0
[[rules]]
metric = "loss"
cohorts = ["a", "b"]
statistic = "difference"
margin = 0.01
"""

LOST = ["a text", "retest first"]
"""Where the ID of the source is named: faults too, once the source has another one."""

PLANTED = (
    ("2505.11581v1", "2513.11581v1", ["source 1 (2513.11581v1)", *LOST]),
    ('"2505.11581v1"', '"2612.11581"', ["source 1 (2612.11581)", *LOST]),  # a month to come
    ("year = 2025", "year = 2024", ["source 1 (2505.11581v1)"]),
    ('arxiv = "2505.11581v1"', 'url = "arxiv/2505.11581"', ["source 1 (arxiv/2505.11581)", *LOST]),
    ('grade = "grounded"\n', "", ["source 1 (2505.11581v1)"]),
    ('arxiv = "2505.11581v1"\nyear = 2025\n', "", ["source 1 (grounded)", *LOST]),
    ("(2505.11581)", "(2505.11580)", ["a text"]),
    ('"grounded"', '"ungrounded"', ["a text", "retest first"]),
    ("date = 2026-11-01\n", "", ["verdict"]),
    ("date = 2026-11-01", "date = 2025-11-01", ["verdict"]),  # over a year ago
    ('side = "against"\n', "", ["sources"]),
    ('name = "second"', 'name = "first"', ["retest first"]),
    ('study = "decodable-shift"', 'study = "decodable-shfit"', ["retest first"]),
    ("seeds = 12", "seedz = 12", ["retest first"]),
    ('rules = [{ title = "loss: a vs b" }]', "", ["retest second"]),
    ('source = "2505.11581v1" }', 'source = "2505.11582" }', ["retest first"]),
)
"""A replacement in ``SOUND``, and where the faults are that it makes."""

DEAD = (
    STUDY.replace('metric = "loss"', 'metric = "lost"'),
    STUDY.replace("margin = 0.01", "margin = 2.0"),  # no loss exceeds 1
    STUDY.replace("seeds = 6", "seeds = 2").replace("[6, 7, 8, 9, 10, 11]", "[6, 7]").replace("difference", "exact"),
)
"""Studies with a rule that no outcome could decide."""

POINTS = STUDY.replace("margin = 0.01", "margin = 1.2").replace("least = -1.0\nmost = 1.0\n", "")
"""A margin on a share of right answers that was meant in points."""


def _where(file: Path) -> list[str]:
    return [fault.where for fault in faults(read(file), today=TODAY)]


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    (tmp_path / "mine.toml").write_text(STUDY)
    (tmp_path / "claim.toml").write_text(SOUND)
    return tmp_path / "claim.toml"


def test_each_planted_fault_is_found_and_a_sound_claim_has_none(claim: Path) -> None:
    assert _where(claim) == []
    for old, new, where in PLANTED:
        assert old in SOUND
        claim.write_text(SOUND.replace(old, new, 1))
        assert _where(claim) == where, new
    claim.write_text(SOUND)
    claim.with_name("again.toml").write_text(SOUND)
    assert _where(claim.parent) == ["id"]


def test_studies_that_could_not_be_decided_or_run_are_faults(claim: Path) -> None:
    study = claim.with_name("mine.toml")
    for text in (*DEAD, POINTS):
        study.write_text(text)
        assert _where(claim) == ["retest second"], text
    with pytest.raises(UsageError):  # as the run itself says
        studying.planned(declared.read(study))
    study.write_text(POINTS.replace('"digits"', '"wheeltap.sources.digits:task"', 1))
    assert _where(claim) == []  # code is not run, so that its measure is not known


def test_our_ledger_has_no_fault_and_grows_old() -> None:
    ledger = read()
    assert faults(ledger, today=TODAY) == []
    old = faults(ledger, today=TODAY + datetime.timedelta(days=400))
    assert [fault.claim for fault in old] == [claim.id for claim in ledger.claims]
