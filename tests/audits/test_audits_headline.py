"""The headline leaves nothing out: what stays open, what was shown, what does not apply."""

import pytest
from msgspec.structs import replace
from torch import nn

import wheeltap as wt
from wheeltap.audits import base
from wheeltap.audits.headline import headline
from wheeltap.cli.options import exit_code
from wheeltap.core.records import Cost, Estimate, Finding, FindingStatus, ReportRecord
from wheeltap.plans.plan import Plan
from wheeltap.report.report import Report

WORDS = [base.audits.get(name).instrument() for name in base.BUILTIN]


def plan_of(*names: str) -> Plan:
    import torch

    task = wt.Task(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64), measure=wt.measure.accuracy)
    return wt.plan([wt.Subject(nn.Linear(2, 2).eval(), name=name) for name in names], task, audits=["score"])


def said(code: str, status: FindingStatus, *, title: str = "A question", alarm: bool = False) -> Finding:
    return Finding(code=code, title=title, status=status, subject="a", because="So it is.", alarm=alarm)


def test_what_stays_open_is_said_also_where_an_answer_would_be_no_alarm() -> None:
    found = [said("WT001", "found"), said("WT203", "inconclusive"), said("WT204", "inconclusive")]
    assert headline(plan_of("a"), found, WORDS, void=False).endswith("2 of 3 questions stay open.")


def test_what_was_shown_is_said_beside_what_does_not_apply() -> None:
    found = [said("WT203", "found", title="Decodable but unused"), said("WT203", "not_applicable")]
    text = headline(plan_of("a"), found, WORDS, void=False)
    assert text.endswith("no alarm. Shown: decodable but unused. 1 of 2 questions do not apply.")


def test_questions_that_compare_nothing_were_asked_all_the_same() -> None:
    plan = plan_of("a", "b")
    text = headline(plan, [said("WT203", "found")], WORDS, void=False)
    assert text.startswith("No other question compares the two")
    assert headline(plan, [said("WT001", "found")], WORDS, void=False).startswith("Nothing else was asked")


MERGED: list[tuple[FindingStatus, str]] = [
    ("found", "Same score, merging the two loses score: a vs b. So it is."),
    ("excluded", "Same score, nothing found that keeps the two from being merged: a vs b."),
    ("inconclusive", "a vs b: too few examples to tell whether the two can be merged. So it is."),
    ("not_applicable", "a vs b: the two could not be merged. So it is."),
]


def compared(code: str, status: FindingStatus, *, title: str = "A question: difference") -> Finding:
    effect = Estimate(name="e", value=0.2, low=0.1, high=0.3, level=0.95, n=9, unit="accuracy", method="m")
    return Finding(
        code=code, title=title, status=status, subject="a vs b", because="So it is.",
        estimates=(effect,) if code != "WT001" or status == "found" else (),
    )  # fmt: skip


@pytest.mark.parametrize(("status", "text"), MERGED)
def test_merging_alone_says_nothing_of_the_insides(status: FindingStatus, text: str) -> None:
    """Copies of one function with their units in another order cannot be averaged, and do not differ inside."""
    score = replace(compared("WT001", "excluded"), estimates=(compared("WT111", "found").estimates[0],))
    told = headline(plan_of("a", "b"), [score, compared("WT111", status)], WORDS, void=False)
    assert told == text.replace("a vs b", "a vs b (scores differ by 0.200 [0.100, 0.300])")


def test_a_barrier_is_told_beside_insides_that_do_not_differ() -> None:
    found = [compared("WT001", "excluded"), compared("WT101", "excluded"), compared("WT111", "found")]
    told = headline(plan_of("a", "b"), found, WORDS, void=False)
    assert told == "No difference found inside: a vs b. But merging the two loses score. So it is."
    found[1] = compared("WT101", "found")
    told = headline(plan_of("a", "b"), found, WORDS, void=False)
    assert told.startswith("Different inside: a vs b.") and told.endswith("So it is.")


@pytest.mark.parametrize(
    ("status", "alarm", "code"),
    [
        ("inconclusive", False, 1),
        ("inconclusive", True, 1),
        ("found", False, 0),
        ("found", True, 1),
        ("error", False, 1),
    ],
)
def test_a_question_that_stays_open_counts_where_it_is_asked_to(status: FindingStatus, alarm: bool, code: int) -> None:
    record = ReportRecord(
        command="audit", headline="", subjects=(), task=None, findings=(said("WT203", status, alarm=alarm),),
        controls=(), cost=Cost(forwards=0.0, seconds=0.0), provenance={},
    )  # fmt: skip
    assert exit_code(Report(record), "inconclusive") == code
