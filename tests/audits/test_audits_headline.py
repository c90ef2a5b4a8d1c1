"""The headline is the answer: what it costs to ship, what may, what could not be told; never "nothing found"."""

import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from msgspec.structs import replace
from torch import nn

import wheeltap as wt
from wheeltap.audits import base
from wheeltap.audits.headline import headline, own_lines
from wheeltap.core.records import UNCOVERED, Estimate, Finding, FindingStatus, Instrument, Power, SubjectRecord
from wheeltap.plans.plan import Plan

WORDS = [base.audits.get(name).instrument() for name in base.BUILTIN]
NEVER = re.compile(r"\bsame\b|no difference|nothing (was )?found|no alarm|not found", re.IGNORECASE)
"""What a test that did not reject never shows."""

CLEAR = {"found": (0.05, 0.04, 0.06), "excluded": (0.001, -0.002, 0.004), "inconclusive": (0.01, -0.01, 0.03)}
MAY = (0.03, 0.01, 0.05)


def plan_of(*names: str, measure: wt.measure.Measure = wt.measure.accuracy) -> Plan:
    task = wt.Task(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64), measure=measure)
    return wt.plan([wt.Subject(nn.Linear(2, 2).eval(), name=name) for name in names], task, audits=["score"])


def finding(code: str, status: FindingStatus, *, name: str = "e", **more: Any) -> Finding:
    """A finding of a model "a", with numbers that fit its status."""
    value, low, high = more.pop("effect", None) or CLEAR.get(status, CLEAR["excluded"])
    effect = Estimate(name=name, value=value, low=low, high=high, level=0.95, n=9, unit="accuracy", method="m")
    filled = {"title": "A question", "subject": "a", "because": "So it is. And more.", "margin": 0.02, **more}
    return Finding(code=code, status=status, estimates=(effect,), **filled)


def shipped(label: str, status: FindingStatus, **more: Any) -> Finding:
    """One row of the deployment table."""
    leans = {"effect": MAY, "leaning": True} if more.pop("leaning", False) else {}
    return finding("WT100", status, name=label, title=label, **{**leans, **more})


def score(status: FindingStatus = "measured", **more: Any) -> Finding:
    return finding("WT001", status, title="Benchmark score", effect=(0.9, 0.8, 0.95), because="a scores .9.", **more)


def told(*findings: Finding, void: bool = False, **more: Any) -> str:
    text = headline(plan_of("a", **more), findings, WORDS, void=void)
    assert not NEVER.search(text), text
    return text


# ---- one model -----------------------------------------------------------------------------------------------------


def test_what_costs_comes_first_with_how_much_and_the_rest_after_it() -> None:
    rows = [
        shipped("int8", "excluded"), shipped("int4", "inconclusive", leaning=True), shipped("int3", "found"),
        shipped("prune50", "inconclusive", power=Power(found=0.1, excluded=0.2, examples=1234)),
        shipped("int2", "found", effect=(0.5, 0.4, 0.6)),
    ]  # fmt: skip
    assert told(score(), *rows) == (
        "COSTS WHEN SHIPPED: loses 5.0 points at int3; 50.0 points at int2. May cost at int4. "
        "Cannot tell at prune50 (1,300 examples would tell). Safe at int8."
    )


def test_what_may_cost_is_said_as_that() -> None:
    text = told(score(), shipped("int4", "inconclusive", leaning=True), shipped("int8", "excluded"))
    assert text == (
        "MAY COST WHEN SHIPPED: loses 3.0 points at int4, not shown to be above or below the margin. Safe at int8."
    )


def test_what_cannot_be_told_is_said_with_what_would_tell() -> None:
    rows = [
        shipped(name, "inconclusive", power=Power(found=0.1, excluded=0.2, examples=examples))
        for name, examples in (("int4", 900), ("prune50", 2100))
    ]
    assert told(score(), *rows) == "CANNOT TELL at int4; prune50 (2,100 examples would tell)."
    near = shipped("int3", "inconclusive", power=Power(found=0.9, excluded=0.9, examples=9))
    assert told(score(), near) == "CANNOT TELL at int3.", "as many examples are there already"
    unknown = replace(rows[0], power=Power(found=0.1, excluded=0.2, examples=None, draws=900))
    assert told(score(), unknown, rows[1]) == "CANNOT TELL at int4; prune50."


def test_safe_is_said_of_all_that_was_tried_and_within_what() -> None:
    assert told(score(), shipped("int8", "excluded")) == "SAFE at int8: loses no more than 2.0 points."
    rows = [shipped(f"int{bits}", "excluded") for bits in range(3, 9)]
    assert told(score(), *rows) == "SAFE AT ALL 6 SCHEMES TRIED: loses no more than 2.0 points."
    wider = [replace(row, margin=0.05) for row in rows]
    assert told(score(), *wider).endswith("loses no more than 5.0 points.")


def test_of_many_the_first_three_are_named_and_the_others_counted() -> None:
    names = ("int8", "int6", "int5", "int4", "int3")
    assert told(*(shipped(name, "inconclusive") for name in names)) == "CANNOT TELL at int8; int6; int5; 2 more."
    assert told(*(shipped(name, "found") for name in names)) == (
        "COSTS WHEN SHIPPED: loses 5.0 points at int8; 5.0 points at int6; 5.0 points at int5; and at 2 more."
    )


def test_a_weight_that_was_removed_is_no_place_to_be_at() -> None:
    worst = finding("WT105", "found", name="loss without 0.weight[1, 2]", title="Single-point fragility")
    assert told(worst) == "COSTS WHEN SHIPPED: loses 5.0 points without 0.weight[1, 2]."
    safe = replace(worst, status="excluded")
    assert told(safe, shipped("int4", "found")).endswith("Safe without 0.weight[1, 2].")
    both = told(safe, shipped("int8", "excluded"), shipped("int4", "found"))
    assert both.endswith("Safe at int8; without 0.weight[1, 2].")


def test_losses_without_a_bound_are_told_in_their_own_unit() -> None:
    text = told(shipped("int4", "found", effect=(1.25, 1.0, 1.5)), measure=wt.measure.nll)
    assert text == "COSTS WHEN SHIPPED: loses 1.25 nll at int4."


def test_a_model_at_chance_has_no_other_answer() -> None:
    chance = score("found", verdict="at chance")
    rows = [replace(shipped("int4", "not_applicable"), estimates=(), because="There is nothing to lose.")]
    assert told(chance, *rows) == "AT CHANCE: a scores .9."
    assert told(score(), *rows) == "NO ANSWER at int4: There is nothing to lose."


@pytest.mark.parametrize(("share", "said"), [(1.0, ""), (0.95, "85"), (0.9, "80"), (0.899, "79"), (0.6, "50")])
def test_what_share_of_the_weights_was_disturbed_comes_first_where_it_is_not_nearly_all(
    share: float, said: str
) -> None:
    """The least that a scheme reached, with its name where others reached nearly all."""
    both = {"int8": share - 0.1, "int4": share}
    text = told(score(), *(shipped(name, "excluded", coverage=one, partly=one < 0.9) for name, one in both.items()))
    where = " at int8" if share >= 0.9 else ""
    start = f"ONLY {said} % OF THE WEIGHTS WERE DISTURBED{where}. " if said else ""
    assert text == f"{start}SAFE AT BOTH SCHEMES TRIED: loses no more than 2.0 points."


def test_with_too_few_weights_disturbed_there_is_no_answer() -> None:
    rows = [
        shipped(name, "not_applicable", coverage=0.2, verdict=UNCOVERED, because="Only 20%.", partly=True)
        for name in "xy"
    ]
    assert told(score(), *rows) == "ONLY 20 % OF THE WEIGHTS WERE DISTURBED. NO ANSWER at x; y: Only 20%."
    beside = told(score(), shipped("int8", "excluded", coverage=0.6))
    assert beside.startswith("Left alone: 40 % of the weights, less than a tenth without biases and norms. SAFE at")
    mixed = told(score(), rows[0], shipped("int8", "excluded", coverage=0.6))
    assert mixed.endswith("SAFE at int8: loses no more than 2.0 points. No answer at x.")


def test_what_failed_is_never_called_safe() -> None:
    failed = replace(shipped("int4", "error"), estimates=(), because="Out of memory.")
    assert told(failed) == "NO ANSWER at int4: Out of memory."
    assert told(shipped("int8", "excluded"), failed) == "NO ANSWER at int4: Out of memory. Safe at int8."
    assert told(shipped("int3", "found"), failed).endswith("loses 5.0 points at int3. No answer at int4.")


def test_a_failed_control_leaves_nothing() -> None:
    text = "VOID: a control failed, so this run proves nothing about the model."
    assert told(score(), shipped("int8", "excluded"), void=True) == text
    assert headline(plan_of("a", "b"), [], WORDS, void=True) == text


def test_a_score_alone_is_told_with_that_nothing_else_was_asked() -> None:
    assert told(score()) == "a scores 0.900 [0.800, 0.950]: nothing else was asked."
    assert told() == "a: nothing else was asked."


RESEARCH: list[tuple[list[tuple[str, FindingStatus, bool]], str]] = [
    ([("WT101", "found", True)], "FOUND: Wt101. So it is."),
    ([("WT203", "found", False), ("WT204", "not_applicable", True)], "Shown: wt203."),
    ([("WT203", "found", False), ("WT201", "inconclusive", True)], "Shown: wt203. Cannot tell: wt201."),
    ([("WT201", "found", True), ("WT101", "error", True)], "FOUND: Wt201. So it is. Cannot tell: wt101."),
    ([("WT101", "excluded", True), ("WT201", "excluded", True)], "No effect above the margin: wt101, wt201."),
    (
        [("WT110", "found", False), ("WT101", "excluded", True)],
        "No effect above the margin: wt101. Only measured: wt110.",
    ),
    ([("WT101", "not_applicable", True)], "No answer: wt101."),
]


@pytest.mark.parametrize(("asked", "text"), RESEARCH)
def test_research_measures_are_told_by_title(asked: list[tuple[str, FindingStatus, bool]], text: str) -> None:
    found = [finding(code, status, title=code.capitalize(), alarm=alarm) for code, status, alarm in asked]
    assert told(score(), *found) == text
    shipping = shipped("int8", "excluded")
    assert told(score(), shipping, *found) == f"SAFE at int8: loses no more than 2.0 points. {text}"


@pytest.mark.parametrize("asks", ["benchmark", "structure"])
def test_an_audit_with_lines_of_its_own_answers_once_for_all_that_share_them(asks: Any) -> None:
    plan, rows = plan_of("a"), [finding("ZZ001", "found"), finding("ZZ002", "excluded"), shipped("int8", "excluded")]
    words = [*WORDS, *(Instrument(code=code, name=code, asks=asks) for code in ("ZZ001", "ZZ002"))]

    def answer(subjects: Sequence[SubjectRecord], findings: Sequence[Finding], sections: Sequence[Any]) -> list[str]:
        return [f"{one.name}: {len(findings)} of {sections[0]}." for one in subjects]

    own = own_lines(plan, rows, words, {"ZZ001": answer, "ZZ002": answer, "ZZ003": answer}, ["three"])
    lines = headline(plan, rows, words, void=False, own=own).splitlines()
    assert lines[0 if asks == "structure" else -1] == "a: 2 of three." and len(lines) == 2
    assert "SAFE at int8" in lines[-1 if asks == "structure" else 0]
    assert headline(plan, rows, words, void=True, own=own).startswith("VOID")


def test_recorded_answers_are_answered_by_their_own_audits_alone() -> None:
    plan = replace(plan_of("a"), subjects=(replace(plan_of("a").reference, role="recorded"),))
    assert headline(plan, [score()], WORDS, void=False) == "Nothing was asked of a."
    assert headline(plan, [score()], WORDS, void=False, own=(["a scores .9."], [])) == "a scores .9."
    assert base.named("wt001") == "score" == base.judging("score", recorded=False)


# ---- pairs ---------------------------------------------------------------------------------------------------------


def paired(*findings: Finding, names: tuple[str, ...] = ("a", "b"), **more: Any) -> str:
    text = headline(plan_of(*names, **more), findings, WORDS, void=False)
    assert not NEVER.search(text), text
    return text


def gap(status: FindingStatus, **more: Any) -> Finding:
    filled = {"subject": "a vs b", "title": "Difference of benchmark scores", **more}
    return finding("WT001", status, name="score_difference", **filled)


def differ(label: str, status: FindingStatus, value: float | None = None, **more: Any) -> Finding:
    effect = (value, value - 0.01, value + 0.01) if value is not None else None
    return shipped(label, status, **{"subject": "a vs b", **({"effect": effect} if effect else {}), **more})


def test_who_loses_more_is_named_where_and_by_how_much() -> None:
    rows = [differ("int3", "found", 0.05), differ("int4", "found", -0.04), differ("int2", "found", 0.2)]
    assert paired(gap("excluded"), *rows) == (
        "a vs b: scores are equivalent (0.1 points [-0.2, 0.4]); DIFFER: b loses more: 20.0 points at int2; "
        "5.0 points at int3. a loses more: 4.0 points at int4."
    )


def test_what_is_undecided_or_alike_stands_beside_a_difference() -> None:
    rows = [differ("int3", "found", 0.05), differ("int8", "excluded"), differ("int4", "inconclusive")]
    assert paired(gap("excluded"), *rows).endswith(
        "DIFFER: b loses more: 5.0 points at int3. Cannot tell at int4. Equivalent at int8."
    )
    shown = [row for row in rows if row.status != "found"] + [differ("nf4", "inconclusive", -0.03, leaning=True)]
    assert paired(gap("excluded"), *shown).endswith(
        "MAY DIFFER: a loses more: 3.0 points at nf4. Cannot tell at int4. Equivalent at int8."
    )


def test_two_of_which_nothing_is_decided() -> None:
    rows = [
        differ("int8", "excluded"),
        differ("int4", "inconclusive", power=Power(found=0.1, excluded=0.2, examples=5000)),
    ]
    assert paired(gap("inconclusive"), *rows) == (
        "a vs b: cannot tell whether scores differ (1.0 points [-1.0, 3.0]); "
        "CANNOT TELL at int4 (5,000 examples would tell). Equivalent at int8."
    )


def test_equivalent_is_said_only_with_how_near() -> None:
    assert paired(gap("excluded"), differ("int8", "excluded"), differ("int4", "excluded")) == (
        "a vs b: scores are equivalent (0.1 points [-0.2, 0.4]); EQUIVALENT (within 2.0 points) at int8; int4."
    )
    noise = finding("WT101", "excluded", subject="a vs b", title="Relative noise: difference", name="area_difference")
    assert paired(noise) == "a vs b: EQUIVALENT at relative noise."


def test_what_could_not_be_compared_says_why() -> None:
    missing = replace(differ("int8", "not_applicable"), estimates=(), because="b scores as chance does.")
    assert paired(gap("found"), missing) == (
        "a vs b: scores differ (5.0 points [4.0, 6.0]; the first is better); NOT COMPARED: b scores as chance does."
    )
    assert paired(gap("inconclusive", effect=MAY, leaning=True)) == (
        "a vs b: scores may differ (3.0 points [1.0, 5.0]); nothing else was compared."
    )
    assert paired() == "a vs b: nothing else was compared."
    failed = replace(differ("int4", "error"), estimates=())
    assert paired(failed, differ("int8", "excluded")) == "a vs b: CANNOT TELL at int4. Equivalent at int8."


@pytest.mark.parametrize(
    ("value", "measure", "better"),
    [(0.05, wt.measure.accuracy, "first"), (-0.05, wt.measure.accuracy, "second"), (0.05, wt.measure.nll, "second")],
)
def test_whose_score_is_better_is_said_also_where_less_is_better(
    value: float, measure: wt.measure.Measure, better: str
) -> None:
    text = paired(gap("found", effect=(value, value - 0.01, value + 0.01)), measure=measure)
    assert f"; the {better} is better); nothing else was compared." in text


def test_losses_that_either_has_by_itself_are_not_hidden_by_an_equal_one() -> None:
    """Two that lose as much at 3 bits are equivalent there, and neither should be shipped so."""
    own = [shipped("int3", "found", subject=name) for name in "ab"]
    text = paired(gap("excluded"), differ("int3", "excluded"), *own)
    assert text.endswith("EQUIVALENT (within 2.0 points) at int3. By itself, a costs at int3; b costs at int3.")


def test_a_difference_of_another_kind_is_told_in_its_own_sentence() -> None:
    noise = finding("WT101", "found", subject="a vs b", title="Relative noise: difference", brief="b keeps less.")
    assert paired(gap("excluded"), noise).endswith("; DIFFER: b keeps less.")
    assert paired(differ("int3", "found", 0.05), noise).endswith(
        "DIFFER: b loses more: 5.0 points at int3. b keeps less."
    )


MERGED: list[tuple[FindingStatus, bool, str]] = [
    ("found", False, "MERGING COSTS: So it is."),
    ("excluded", False, "Merging the two loses no more than 2.0 points."),
    ("inconclusive", True, "MERGING MAY COST: So it is."),
    ("inconclusive", False, "CANNOT TELL of merging: So it is."),
    ("not_applicable", False, "The two could not be merged: So it is."),
]


@pytest.mark.parametrize(("status", "leaning", "text"), MERGED)
def test_merging_says_nothing_of_how_the_two_ship(status: FindingStatus, leaning: bool, text: str) -> None:
    """Copies of one function with their units in another order cannot be averaged, and ship alike."""
    merging = finding("WT111", status, subject="a vs b", leaning=leaning)
    assert paired(merging) == f"a vs b: {text}"
    assert paired(gap("excluded"), merging) == f"a vs b: scores are equivalent (0.1 points [-0.2, 0.4]); {text}"
    both = paired(differ("int8", "excluded"), merging)
    assert both == f"a vs b: EQUIVALENT (within 2.0 points) at int8. {text}"


def test_of_several_rivals_the_most_alarming_comes_first() -> None:
    verdicts: dict[str, list[Finding]] = {
        "b": [differ("int8", "excluded")],
        "c": [differ("int8", "inconclusive")],
        "d": [differ("int8", "found", 0.05)],
        "e": [differ("int8", "inconclusive", 0.03, leaning=True)],
        "f": [],
    }
    rows = [replace(row, subject=f"a vs {name}") for name, some in verdicts.items() for row in some]
    lines = paired(*rows, names=("a", *verdicts)).splitlines()
    assert [line.split(":")[0] for line in lines] == ["a vs d", "a vs e", "a vs c", "a vs f", "a vs b"]
    words = [line.split(": ")[1].split(" at ")[0] for line in lines]
    assert words == [
        "DIFFER",
        "MAY DIFFER",
        "CANNOT TELL",
        "nothing else was compared.",
        "EQUIVALENT (within 2.0 points)",
    ]


def test_what_was_left_alone_of_either_is_said_first() -> None:
    rows = [differ("int8", "excluded", coverage=0.6, partly=True), shipped("int8", "excluded", coverage=0.7)]
    assert paired(*rows) == ("ONLY 60 % OF THE WEIGHTS WERE DISTURBED. a vs b: EQUIVALENT (within 2.0 points) at int8.")


def test_differences_without_a_bound_are_told_in_their_own_unit() -> None:
    text = paired(gap("excluded"), differ("int8", "excluded"), measure=wt.measure.nll)
    assert text.startswith(
        "a vs b: scores are equivalent (0.001 [-0.002, 0.004]); EQUIVALENT (within 0.02 nll) at int8"
    )
