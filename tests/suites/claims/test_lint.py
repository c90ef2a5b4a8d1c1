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

PLANTED = (
    ("2505.11581v1", "2513.11581v1", "no arXiv ID"),
    ('"2505.11581v1"', '"2505.115811"', "no arXiv ID"),
    ('"2505.11581v1"', '"2505.1158"', "5 digits"),
    ('"2505.11581v1"', '"2612.11581"', "would be of 2026-12"),
    ('"2505.11581v1"', '"arXiv:2505.11581"', "no arXiv ID"),
    ("year = 2025", "year = 2024", "source of 2024"),
    ('arxiv = "2505.11581v1"', 'url = "arxiv/2505.11581"', "no address"),
    ('grade = "grounded"\n', "", "no grade"),
    ("(2505.11581)", "(2505.11580)", "2505.11580 is among no sources"),
    ('arxiv = "2505.11581v1"\nyear = 2025\n', "", "of no source"),
    ('"grounded"', '"ungrounded"', "2505.11581 [ungrounded]"),
    ('"grounded"', '"ungrounded"', "effect is from 2505.11581v1, which is ungrounded"),
    ("date = 2026-11-01\n", "", "no date"),
    ("date = 2026-11-01", "date = 2025-11-01", "392 days ago"),
    ("date = 2026-11-01", "date = 2027-11-01", "to come"),
    ('side = "against"\n', "", "no source against"),
    ('name = "second"', 'name = "first"', "Two retests"),
    ('study = "decodable-shift"', 'study = "decodable-shfit"', "Did you mean 'decodable-shift'"),
    ('study = "mine.toml"', 'study = "other.toml"', "no study at this path"),
    ("seeds = 12", "seedz = 12", "seedz"),
    ("seeds = 12", 'seeds = "many"', "'many'"),
    ("Other score", "Other scores", "called 'Other scores'"),
    ('rules = [{ title = "loss: a vs b" }]', "", "names no rule"),
    (', source = "2505.11581v1" }', " }", "from nowhere"),
    ('source = "2505.11581v1" }', 'source = "2505.11582" }', "none of the claim's sources"),
)  # fmt: skip
"""What is replaced, by what, and what is said of it."""


def _said(file: Path) -> list[str]:
    return [fault.what for fault in faults(read(file), today=TODAY)]


def test_each_planted_fault_is_found_and_a_sound_claim_has_none(tmp_path: Path) -> None:
    file = tmp_path / "claim.toml"
    (tmp_path / "mine.toml").write_text(STUDY)
    file.write_text(SOUND)
    assert _said(file) == []
    for old, new, expected in PLANTED:
        assert old in SOUND
        file.write_text(SOUND.replace(old, new, 1))
        assert any(expected in one for one in _said(file)), (new, _said(file))
    file.write_text(SOUND)
    (tmp_path / "again.toml").write_text(SOUND)
    (tmp_path / "mine.toml").write_text(STUDY.replace("margin = 0.01", "margin = 0.01\ndirection = 'less'"))
    assert _said(tmp_path) == ["Two claims have this id."]
    exact = (
        STUDY.replace("seeds = 6", "seeds = 2").replace("[6, 7, 8, 9, 10, 11]", "[6, 7]").replace("difference", "exact")
    )
    (tmp_path / "mine.toml").write_text(STUDY.replace('metric = "loss"', 'metric = "lost"'))
    assert any("There is no metric called 'lost'" in one for one in _said(file))
    for dead in (STUDY.replace("margin = 0.01", "margin = 2.0"), exact):  # no loss exceeds 1; four nets show no share
        (tmp_path / "mine.toml").write_text(dead)
        assert any("could not be decided" in one for one in _said(file))
    points = STUDY.replace("margin = 0.01", "margin = 1.2").replace("least = -1.0\nmost = 1.0\n", "")
    (tmp_path / "mine.toml").write_text(points)
    for other, found in ((points, 1), (points.replace('"digits"', '"wheeltap.sources.digits:task"', 1), 0)):
        (tmp_path / "mine.toml").write_text(other)  # code is not run, so what it measures is not known
        assert sum("Did you mean 0.012? A point is 0.01." in one for one in _said(file)) == found, _said(file)
    with pytest.raises(UsageError, match=r"Did you mean 0\.012"):
        (tmp_path / "mine.toml").write_text(points)
        studying.planned(declared.read(tmp_path / "mine.toml"))


def test_our_ledger_has_no_fault_and_grows_old() -> None:
    ledger = read()
    assert faults(ledger, today=TODAY) == []
    old = faults(ledger, today=TODAY + datetime.timedelta(days=400))
    assert [fault.claim for fault in old] == [claim.id for claim in ledger.claims]
