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
from wheeltap.audits.sample_sizes import enough_for, enough_for_each
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


def test_the_number_of_slices_is_that_of_their_rows() -> None:
    rows = [
        finding("WT113", "inconclusive", title=f"int4 on class {at}", **enough(n)) for at, n in enumerate((1400, 3200))
    ]
    assert enough_for_each(rows[:1], "examples") == enough_for(rows[:1], "examples") == "1,400 examples"
    assert enough_for_each(rows, "examples of each") == "1,400 to 3,200 examples of each"
    few = [replace(row, estimates=(replace(row.estimates[0], n=60),)) for row in rows[:1]]
    assert enough_for_each([*few, rows[1]], "examples") == "at least 1,400 to 3,200 examples", "one rests on 60"
    assert enough_for_each([*rows, replace(rows[0], power=enough(None)["power"])], "examples") == ""
    assert enough_for_each([], "examples") == ""


# ---- one model -----------------------------------------------------------------------------------------------------

CHANCE = score("found", verdict="at chance")
NOTHING = unanswered(shipped("int4", "not_applicable"), "There is nothing to lose.")
FAILED = unanswered(shipped("int4", "error"))
OPEN = shipped("int4", "inconclusive", **enough(970))
MAY_COST, SAFE = shipped("int3", "inconclusive", leaning=True), shipped("int8", "excluded")
UNTOLD = shipped("x", "not_applicable", coverage=0.2, verdict=UNCOVERED, because="Only 20%.", partly=True)

ONE: list[tuple[list[Finding], list[str]]] = [
    ([SAFE, MAY_COST, shipped("int2", "found"), OPEN], ["COSTS", "May cost at int3", "Cannot tell", "Safe at int8"]),
    ([SAFE, MAY_COST, OPEN], ["MAY COST", "at int3", "Cannot tell at int4 (970", "Safe at int8"]),
    ([OPEN, SAFE], ["CANNOT TELL at int4 (970", "Safe at int8"]),
    ([SAFE], ["SAFE at int8", "2.0 points"]),
    ([CHANCE, NOTHING], ["AT CHANCE"]),
    ([NOTHING], ["NO ANSWER at int4", "There is nothing to lose."]),
    ([FAILED, SAFE], ["NO ANSWER at int4", "Safe at int8"]),  # what failed is never called safe
    ([shipped("int3", "found"), FAILED], ["COSTS", "at int3", "No answer at int4"]),
    ([UNTOLD, shipped("int8", "excluded", coverage=0.6)], ["ONLY 20 %", "SAFE at int8", "No answer at x"]),
    ([], ["a: nothing else was asked."]),
]
"""What was found, and what is said in this order; the first at the start."""


def require_order(text: str, words: list[str]) -> None:
    places = [text.find(word) for word in words]
    assert places[0] == 0 and places == sorted(places), (text, words)


def test_of_one_model_the_worst_is_said_first() -> None:
    for rows, words in ONE:
        require_order(told(*rows), words)


@pytest.mark.parametrize(("share", "said"), [(1.0, ""), (0.9, "80"), (0.899, "79")])
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


# ---- pairs ---------------------------------------------------------------------------------------------------------

OPEN = differ("int4", "inconclusive")
ALIKE = differ("int8", "excluded")

TWO: list[tuple[list[Finding], list[str]]] = [
    ([gap("excluded"), differ("int3", "found", 0.05), ALIKE, OPEN], ["a vs b", "DIFFER: b", "Cannot", "Equivalent"]),
    ([differ("nf4", "inconclusive", -0.03, leaning=True), ALIKE, OPEN], ["a vs b: MAY DIFFER: a", "Cannot", "Equi"]),
    ([gap("inconclusive"), ALIKE, OPEN], ["a vs b: cannot tell whether", "CANNOT TELL at int4", "Equivalent at int8"]),
    ([ALIKE], ["a vs b: EQUIVALENT (within 2.0 points) at int8"]),
    ([unanswered(differ("int8", "not_applicable"), "b is at chance.")], ["a vs b: NOT COMPARED: b is at chance."]),
    ([unanswered(differ("int4", "error")), ALIKE], ["a vs b: CANNOT TELL at int4", "Equivalent at int8"]),
    # Two that lose as much are equivalent, and neither should be shipped so.
    ([differ("int3", "excluded"), shipped("int3", "found")], ["a vs b: EQUIVALENT", "By itself, a costs at int3"]),
    ([differ("int8", "excluded", coverage=0.6, partly=True)], ["ONLY 60 %", "a vs b: EQUIVALENT"]),
]


def test_of_two_models_where_they_differ() -> None:
    for rows, words in TWO:
        require_order(paired(*rows), words)


def test_of_several_rivals_the_most_alarming_comes_first() -> None:
    rows = {"b": [ALIKE], "c": [differ("int8", "inconclusive")], "d": [differ("int8", "found", 0.05)],
            "e": [differ("int8", "inconclusive", 0.03, leaning=True)], "f": []}  # fmt: skip
    some = [replace(row, subject=f"a vs {name}") for name, own in rows.items() for row in own]
    lines = [line.split(" at ")[0] for line in paired(*some, names=("a", *rows)).splitlines()]
    assert [line.split(":")[0] for line in lines] == ["a vs d", "a vs e", "a vs c", "a vs f", "a vs b"]
    assert [line.split(": ")[1] for line in lines] == [
        "DIFFER", "MAY DIFFER", "CANNOT TELL", "nothing else was compared.", "EQUIVALENT (within 2.0 points)",
    ]  # fmt: skip
