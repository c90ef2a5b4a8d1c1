"""A budget is kept, cuts what costs most first, and says what it cannot see."""

import math
from typing import Any

import pytest

import wheeltap as wt
from wheeltap.budget import Budget, most_passes, sight, within
from wheeltap.errors import UsageError
from wheeltap.models.mlp import mlp
from wheeltap.sources import digits
from wheeltap.subject import Subject
from wheeltap.testing.planted import planted


@pytest.fixture(scope="module")
def plan() -> wt.Plan:
    case = planted("mlp")
    return wt.plan(case.subject, case.probe)


@pytest.mark.parametrize(
    ("text", "forwards", "seconds"),
    [("200f", 200, None), (" 1.5 f", 1.5, None), ("90s", None, 90), ("10m", None, 600), ("2h", None, 7200)],
)
def test_budgets_are_read(text: str, forwards: float | None, seconds: float | None) -> None:
    assert Budget.parse(text) == Budget(forwards=forwards, seconds=seconds)


@pytest.mark.parametrize("text", ["", "200", "f", "-3f", "0f", "3 weeks", "1e9f", "10 m 5 s"])
def test_what_is_no_budget_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        Budget.parse(text)


def test_seconds_become_passes() -> None:
    assert Budget(seconds=60).passes(0.5) == 120
    assert Budget(forwards=7).passes(math.inf) == 7


def test_a_plan_stays_within_its_budget_and_spends_what_it_may(plan: wt.Plan) -> None:
    whole = most_passes(plan)
    assert within(plan, whole) == plan
    cut = within(plan, whole - 1)
    assert cut.effort == plan.effort and not cut.graded  # the copies that tell detection power go first
    for passes in (500, 350, 250):
        cut = within(plan, passes)
        assert most_passes(cut) <= passes
        assert 2 <= cut.effort.draws < plan.effort.draws
    assert within(plan, 500).effort.draws > within(plan, 350).effort.draws > within(plan, 250).effort.draws


def test_a_budget_too_small_names_what_would_do(plan: wt.Plan) -> None:
    with pytest.raises(UsageError, match="too small for these audits") as caught:
        within(plan, 10)
    least = int(str(caught.value).split("at least ")[1].split()[0])
    assert most_passes(within(plan, least)) <= least
    with pytest.raises(UsageError):
        within(plan, least - 1)


def test_a_comparison_that_could_see_nothing_is_refused() -> None:
    probe = digits.probe()
    two = [Subject(mlp((64, 32, 10)).eval(), name=name) for name in ("a", "b")]
    plan = wt.plan(two, probe, audits=["score", "relative-noise"])
    with pytest.raises(UsageError, match="worth telling") as caught:
        within(plan, 120)
    passes = int(str(caught.value).split("from about ")[1].split()[0])
    assert within(plan, passes).effort.draws < plan.effort.draws
    assert "difference of curve area" in sight(plan)


@pytest.mark.parametrize(
    ("names", "at_a_dose", "drawn"),
    [
        (("score",), False, False),
        (("score", "decodable"), False, False),
        (("single-point", "entanglement", "symmetry"), False, False),
        (("score", "relative-noise"), False, True),
        (("score", "quantization"), True, False),
        (("relative-noise", "pruning"), True, True),
    ],
)
def test_doses_are_told_of_audits_that_have_them(names: tuple[str, ...], at_a_dose: bool, drawn: bool) -> None:
    case = planted("mlp")
    plan = wt.plan(case.subject, case.probe, audits=names)
    assert ("at one dose" in sight(plan)) == at_a_dose
    assert ("not known beforehand" in sight(plan)) != at_a_dose
    with pytest.raises(UsageError, match="too small for these audits") as caught:
        within(plan, 1)
    assert ("draws a dose" in str(caught.value)) == drawn
    left_out = str(caught.value).partition("leave out what costs most: ")[2].removesuffix(".")
    assert left_out in names if len(names) > 1 else "do: Give more." in str(caught.value)


def test_a_run_under_a_budget_costs_no_more() -> None:
    case = planted("mlp")
    report = wt.audit(case.subject, case.probe, audits=["score", "relative-noise"], budget="150f")
    assert report.cost.forwards <= 150
    timed = wt.plan(case.subject, case.probe, audits=["score", "relative-noise"], budget="2h")
    assert timed.effort.draws == 32


@pytest.mark.parametrize("name", ["quantization", "pruning", "bit-flips"])
def test_what_a_modification_reads_first_is_within_the_bound(name: str) -> None:
    case = planted("mlp")
    made = wt.plan(case.subject, case.probe, audits=["score", name])
    report = wt.run(made, case.subject, case.probe)
    assert most_passes(made) - 2 <= report.cost.forwards <= most_passes(made)


@pytest.mark.parametrize(("name", "settings"), [("fine-tuning", {}), ("relearning", {"group": 1})])
def test_what_training_takes_is_within_the_bound(name: str, settings: dict[str, Any]) -> None:
    subject, probe = digits.subject(name="digits"), digits.probe()
    made = wt.plan(subject, probe, audits=["score", wt.AuditSpec(name=name, settings=settings)])
    report = wt.run(made, subject, probe)
    # The last batch of each round through the examples is a smaller one.
    assert 0.95 * most_passes(made) <= report.cost.forwards <= most_passes(made)


def test_a_budget_takes_draws_from_modifications_too() -> None:
    case = planted("mlp")
    whole = wt.plan(case.subject, case.probe, audits=["score", "bit-flips"])
    cut = wt.plan(case.subject, case.probe, audits=["score", "bit-flips"], budget=f"{most_passes(whole) / 2:.0f}f")
    draws = next(audit.settings["draws"] for audit in cut.audits if audit.name == "bit-flips")
    assert isinstance(draws, int) and 4 <= draws < 64 and most_passes(cut) <= most_passes(whole) / 2
    report = wt.run(cut, case.subject, case.probe)
    assert report.cost.forwards <= most_passes(cut)
