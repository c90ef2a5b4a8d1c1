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
    effect = Estimate(name=name, value=value, low=low, high=high, level=0.95, n=400, unit="accuracy", method="m")
    filled = {"title": "A question", "subject": "a", "because": "So it is. And more.", "margin": 0.02, **more}
    return Finding(code=code, status=status, estimates=(effect,), **filled)


def shipped(label: str, status: FindingStatus, **more: Any) -> Finding:
    leans = {"effect": MAY, "leaning": True} if more.pop("leaning", False) else {}
    return finding("WT100", status, name=label, title=label, **{**leans, **more})


def score(status: FindingStatus = "measured", **more: Any) -> Finding:
    return finding("WT001", status, title="Benchmark score", effect=(0.9, 0.8, 0.95), because="a scores .9.", **more)


def told(*findings: Finding, names: tuple[str, ...] = ("a",), void: bool = False, **more: Any) -> str:
    text = headline(plan_of(*names, **more), findings, WORDS, void=void)
    assert not NEVER.search(text), text
    return text


def paired(*findings: Finding, names: tuple[str, ...] = ("a", "b"), **more: Any) -> str:
    return told(*findings, names=names, **more)


def gap(status: FindingStatus, **more: Any) -> Finding:
    filled = {"subject": "a vs b", "title": "Difference of benchmark scores", **more}
    return finding("WT001", status, name="score_difference", **filled)


def differ(label: str, status: FindingStatus, value: float | None = None, **more: Any) -> Finding:
    effect = {} if value is None else {"effect": (value, value - 0.01, value + 0.01)}
    return shipped(label, status, **{"subject": "a vs b", **effect, **more})


def unanswered(row: Finding, because: str = "Out of memory.") -> Finding:
    return replace(row, estimates=(), because=because)


def enough(examples: int | None, **more: Any) -> dict[str, Power]:
    """What would decide an open row."""
    return {"power": Power(**{"found": 0.1, "excluded": 0.2, "examples": examples, **more})}


# ---- one model -----------------------------------------------------------------------------------------------------

CHANCE = score("found", verdict="at chance")
NOTHING = unanswered(shipped("int4", "not_applicable"), "There is nothing to lose.")
FAILED = unanswered(shipped("int4", "error"))
WORST = finding("WT105", "found", name="loss without 0.weight[1, 2]", title="Single-point fragility")
SIX = [shipped(f"int{bits}", "excluded") for bits in range(3, 9)]
FIVE = ("int8", "int6", "int5", "int4", "int3")
UNTOLD = [
    shipped(name, "not_applicable", coverage=0.2, verdict=UNCOVERED, because="Only 20%.", partly=True) for name in "xy"
]
MOST = shipped("int8", "excluded", coverage=0.6)
OPEN = shipped("int4", "inconclusive", **enough(970))
FORTY = replace(OPEN, estimates=tuple(replace(one, n=40) for one in OPEN.estimates))
TEN_GROUPS, MANY_GROUPS = (
    replace(OPEN, estimates=tuple(replace(one, n=n) for one in OPEN.estimates), **enough(20 * 970, groups=970))
    for n in (200, 4_000)
)

ONE: list[tuple[list[Finding], str]] = [
    # What costs comes first, with how much, and the rest after it.
    (
        [
            score(),
            shipped("int8", "excluded"),
            shipped("int4", "inconclusive", leaning=True),
            shipped("int3", "found"),
            shipped("prune50", "inconclusive", **enough(1234)),
            shipped("int2", "found", effect=(0.5, 0.4, 0.6)),
        ],
        "COSTS WHEN SHIPPED: loses 5.0 points at int3; 50.0 points at int2. May cost at int4. "
        "Cannot tell at prune50 (1,300 examples would tell). Safe at int8.",
    ),
    (
        [score(), shipped("int4", "inconclusive", leaning=True), shipped("int8", "excluded")],
        "MAY COST WHEN SHIPPED: loses 3.0 points at int4, not shown to be above or below the margin. Safe at int8.",
    ),
    # What cannot be told is said with what would tell: the most that is needed, more than there is, of all of them.
    (
        [score(), *(shipped(name, "inconclusive", **enough(n)) for name, n in (("int4", 900), ("prune50", 2100)))],
        "CANNOT TELL at int4; prune50 (2,100 examples would tell).",
    ),
    # Of few examples it is a lower bound, as in the rows.
    ([score(), FORTY], "CANNOT TELL at int4 (at least 970 examples would tell)."),
    ([score(), TEN_GROUPS], "CANNOT TELL at int4 (at least 970 groups would tell)."),
    ([score(), MANY_GROUPS], "CANNOT TELL at int4 (970 groups would tell)."),
    ([score(), shipped("int3", "inconclusive", **enough(9, found=0.9, excluded=0.9))], "CANNOT TELL at int3."),
    (
        [
            score(),
            shipped("int4", "inconclusive", **enough(None, draws=900)),
            shipped("p", "inconclusive", **enough(9)),
        ],
        "CANNOT TELL at int4; p.",
    ),
    # Safe is said of all that was tried, and within what.
    ([score(), shipped("int8", "excluded")], "SAFE at int8: loses no more than 2.0 points."),
    ([score(), *SIX], "SAFE AT ALL 6 SCHEMES TRIED: loses no more than 2.0 points."),
    (
        [score(), *(replace(row, margin=0.05) for row in SIX)],
        "SAFE AT ALL 6 SCHEMES TRIED: loses no more than 5.0 points.",
    ),
    # Of many the first three are named and the others counted.
    ([shipped(name, "inconclusive") for name in FIVE], "CANNOT TELL at int8; int6; int5; 2 more."),
    (
        [shipped(name, "found") for name in FIVE],
        "COSTS WHEN SHIPPED: loses 5.0 points at int8; 5.0 points at int6; 5.0 points at int5; and at 2 more.",
    ),
    # A weight that was removed is no place to be at.
    ([WORST], "COSTS WHEN SHIPPED: loses 5.0 points without 0.weight[1, 2]."),
    (
        [replace(WORST, status="excluded"), shipped("int8", "excluded"), shipped("int4", "found")],
        "COSTS WHEN SHIPPED: loses 5.0 points at int4. Safe at int8; without 0.weight[1, 2].",
    ),
    # A model at chance has no other answer, and what failed is never called safe.
    ([CHANCE, NOTHING], "AT CHANCE: a scores .9."),
    ([score(), NOTHING], "NO ANSWER at int4: There is nothing to lose."),
    ([FAILED], "NO ANSWER at int4: Out of memory."),
    ([shipped("int8", "excluded"), FAILED], "NO ANSWER at int4: Out of memory. Safe at int8."),
    ([shipped("int3", "found"), FAILED], "COSTS WHEN SHIPPED: loses 5.0 points at int3. No answer at int4."),
    # With too few weights disturbed there is no answer.
    ([score(), *UNTOLD], "ONLY 20 % OF THE WEIGHTS WERE DISTURBED. NO ANSWER at x; y: Only 20%."),
    (
        [score(), MOST],
        "Left alone: 40 % of the weights, less than a tenth without biases and norms. SAFE at int8: loses no more "
        "than 2.0 points.",
    ),
    (
        [score(), UNTOLD[0], MOST],
        "ONLY 20 % OF THE WEIGHTS WERE DISTURBED. SAFE at int8: loses no more than 2.0 points. No answer at x.",
    ),
    # A score alone is told with that nothing else was asked.
    ([score()], "a scores 0.900 [0.800, 0.950]: nothing else was asked."),
    ([], "a: nothing else was asked."),
]


def test_of_one_model_what_it_costs_to_ship_it() -> None:
    for rows, text in ONE:
        assert told(*rows) == text
    in_nats = told(shipped("int4", "found", effect=(1.25, 1.0, 1.5)), measure=wt.measure.nll)
    assert in_nats == "COSTS WHEN SHIPPED: loses 1.25 nll at int4."


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


def test_a_failed_control_leaves_nothing() -> None:
    text = "VOID: a control failed, so this run proves nothing about the model."
    assert told(score(), shipped("int8", "excluded"), void=True) == told(names=("a", "b"), void=True) == text


RESEARCH: list[tuple[list[tuple[str, FindingStatus, bool]], str]] = [
    ([("WT101", "found", True)], "FOUND: Wt101. So it is."),
    ([("WT205", "found", False), ("WT204", "not_applicable", True)], "Shown: wt205."),
    ([("WT205", "found", False), ("WT201", "inconclusive", True)], "Shown: wt205. Cannot tell: wt201."),
    ([("WT201", "found", True), ("WT101", "error", True)], "FOUND: Wt201. So it is. Cannot tell: wt101."),
    ([("WT101", "excluded", True), ("WT201", "excluded", True)], "No effect above the margin: wt101, wt201."),
    (
        [("WT110", "found", False), ("WT101", "excluded", True)],
        "No effect above the margin: wt101. Only measured: wt110.",
    ),
    ([("WT101", "not_applicable", True)], "No answer: wt101."),
]


def test_research_measures_are_told_by_title() -> None:
    for asked, text in RESEARCH:
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

EQUAL = "a vs b: scores are equivalent (0.1 points [-0.2, 0.4]);"
OPEN = differ("int4", "inconclusive")
ALIKE = differ("int8", "excluded")
NOISE = {"subject": "a vs b", "title": "Relative noise: difference"}
LESS = finding("WT101", "found", brief="b keeps less.", **NOISE)

TWO: list[tuple[list[Finding], str]] = [
    # Who loses more is named, where and by how much; what is undecided or alike stands beside a difference.
    (
        [gap("excluded"), differ("int3", "found", 0.05), differ("int4", "found", -0.04), differ("int2", "found", 0.2)],
        f"{EQUAL} DIFFER: b loses more: 20.0 points at int2; 5.0 points at int3. a loses more: 4.0 points at int4.",
    ),
    (
        [gap("excluded"), differ("int3", "found", 0.05), ALIKE, OPEN],
        f"{EQUAL} DIFFER: b loses more: 5.0 points at int3. Cannot tell at int4. Equivalent at int8.",
    ),
    (
        [gap("excluded"), ALIKE, OPEN, differ("nf4", "inconclusive", -0.03, leaning=True)],
        f"{EQUAL} MAY DIFFER: a loses more: 3.0 points at nf4. Cannot tell at int4. Equivalent at int8.",
    ),
    (
        [gap("inconclusive"), ALIKE, differ("int4", "inconclusive", **enough(5000))],
        "a vs b: cannot tell whether scores differ (1.0 points [-1.0, 3.0]); "
        "CANNOT TELL at int4 (5,000 examples would tell). Equivalent at int8.",
    ),
    # Equivalent is said only with how near.
    ([gap("excluded"), ALIKE, differ("int4", "excluded")], f"{EQUAL} EQUIVALENT (within 2.0 points) at int8; int4."),
    ([finding("WT101", "excluded", name="area_difference", **NOISE)], "a vs b: EQUIVALENT at relative noise."),
    # What could not be compared says why.
    (
        [gap("found"), unanswered(differ("int8", "not_applicable"), "b scores as chance does.")],
        "a vs b: scores differ (5.0 points [4.0, 6.0]; the first is better); NOT COMPARED: b scores as chance does.",
    ),
    (
        [gap("inconclusive", effect=MAY, leaning=True)],
        "a vs b: scores may differ (3.0 points [1.0, 5.0]); nothing else was compared.",
    ),
    ([], "a vs b: nothing else was compared."),
    ([unanswered(differ("int4", "error")), ALIKE], "a vs b: CANNOT TELL at int4. Equivalent at int8."),
    # Two that lose as much at 3 bits are equivalent there, and neither should be shipped so.
    (
        [gap("excluded"), differ("int3", "excluded"), *(shipped("int3", "found", subject=name) for name in "ab")],
        f"{EQUAL} EQUIVALENT (within 2.0 points) at int3. By itself, a costs at int3; b costs at int3.",
    ),
    # A difference of another kind is told in its own sentence.
    ([gap("excluded"), LESS], f"{EQUAL} DIFFER: b keeps less."),
    ([differ("int3", "found", 0.05), LESS], "a vs b: DIFFER: b loses more: 5.0 points at int3. b keeps less."),
    # What was left alone of either is said first.
    (
        [differ("int8", "excluded", coverage=0.6, partly=True), shipped("int8", "excluded", coverage=0.7)],
        "ONLY 60 % OF THE WEIGHTS WERE DISTURBED. a vs b: EQUIVALENT (within 2.0 points) at int8.",
    ),
]


def test_of_two_models_where_they_differ() -> None:
    for rows, text in TWO:
        assert paired(*rows) == text
    in_nats = paired(gap("excluded"), ALIKE, measure=wt.measure.nll)
    assert in_nats == "a vs b: scores are equivalent (0.001 [-0.002, 0.004]); EQUIVALENT (within 0.02 nll) at int8."


def test_whose_score_is_better_is_said_also_where_less_is_better() -> None:
    accuracy, nll = wt.measure.accuracy, wt.measure.nll
    for value, measure, better in ((0.05, accuracy, "first"), (-0.05, accuracy, "second"), (0.05, nll, "second")):
        text = paired(gap("found", effect=(value, value - 0.01, value + 0.01)), measure=measure)
        assert f"; the {better} is better); nothing else was compared." in text


MERGED: list[tuple[FindingStatus, bool, str]] = [
    ("found", False, "MERGING COSTS: So it is."),
    ("excluded", False, "Merging the two loses no more than 2.0 points."),
    ("inconclusive", True, "MERGING MAY COST: So it is."),
    ("inconclusive", False, "CANNOT TELL of merging: So it is."),
    ("not_applicable", False, "The two could not be merged: So it is."),
]


def test_merging_says_nothing_of_how_the_two_ship() -> None:
    """Copies of one function with their units in another order cannot be averaged, and ship alike."""
    for status, leaning, text in MERGED:
        merging = finding("WT111", status, subject="a vs b", leaning=leaning)
        assert paired(merging) == f"a vs b: {text}"
        assert paired(gap("excluded"), merging) == f"{EQUAL} {text}"
        assert paired(ALIKE, merging) == f"a vs b: EQUIVALENT (within 2.0 points) at int8. {text}"


def test_of_several_rivals_the_most_alarming_comes_first() -> None:
    rows = {"b": [ALIKE], "c": [differ("int8", "inconclusive")], "d": [differ("int8", "found", 0.05)],
            "e": [differ("int8", "inconclusive", 0.03, leaning=True)], "f": []}  # fmt: skip
    some = [replace(row, subject=f"a vs {name}") for name, own in rows.items() for row in own]
    lines = [line.split(" at ")[0] for line in paired(*some, names=("a", *rows)).splitlines()]
    assert [line.split(":")[0] for line in lines] == ["a vs d", "a vs e", "a vs c", "a vs f", "a vs b"]
    assert [line.split(": ")[1] for line in lines] == [
        "DIFFER", "MAY DIFFER", "CANNOT TELL", "nothing else was compared.", "EQUIVALENT (within 2.0 points)",
    ]  # fmt: skip
