"""A budget is kept, cuts what costs most first, and says what it cannot see."""

from typing import Any

import pytest

import wheeltap as wt
from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.models.mlp import mlp
from wheeltap.plans.plan import CUT
from wheeltap.runs.budget import Prices, most_passes, most_trials, within
from wheeltap.runs.request import Budget
from wheeltap.sources import digits
from wheeltap.testing.planted import planted

EVERY_KIND = (
    "score", "relative-noise", "function-noise", "quantization", "pruning", "single-point", "redundancy",
    "entanglement",
)  # fmt: skip
"""Noise, modifications and readings together: what can be cut of each."""

SMALL = planted("mlp")


def small(*audits: str | wt.AuditSpec) -> wt.Plan:
    return wt.plan(SMALL.subject, SMALL.task, audits=audits or None)


@pytest.fixture(scope="module")
def plan() -> wt.Plan:
    return small(*EVERY_KIND)


def test_budgets_are_read_and_what_is_none_is_refused() -> None:
    for text, forwards, seconds in (
        ("200f", 200, None), (" 1.5 f", 1.5, None), ("90s", None, 90), ("10m", None, 600), ("2h", None, 7200),
    ):  # fmt: skip
        assert Budget.parse(text) == Budget(forwards=forwards, seconds=seconds)
    for text in ("", "200", "f", "-3f", "0f", "3 weeks", "1e9f", "10 m 5 s"):
        with pytest.raises(UsageError, match="cannot be read"):
            Budget.parse(text)


def test_a_plan_stays_within_its_budget_and_spends_what_it_may(plan: wt.Plan) -> None:
    whole = most_passes(plan)
    assert within(plan, whole) == plan and not plan.cut
    cut = within(plan, whole - 1)
    assert cut.effort == plan.effort and not cut.graded  # the copies that tell detection power go first
    assert cut.cut == "detection power is not measured"
    draws: list[int] = []
    for passes in (700, 450, 300):
        cut = within(plan, passes)
        assert 0.8 * passes <= most_passes(cut) <= passes
        draws.append(cut.effort.draws)
    assert 32 > draws[0] > draws[1] > draws[2] >= 4


def test_the_usual_audits_are_cut_by_draws_of_schemes_and_of_weights_in_proportion() -> None:
    usual = small()
    whole = most_passes(usual)
    assert within(usual, whole) == usual and not usual.cut
    draws: list[int] = []
    for passes in (300, 150, 80):
        cut = within(usual, passes)
        assert 0.9 * passes <= most_passes(cut) <= passes
        told = _settings(cut)
        draws.append(told["deployment"]["most_draws"])
        assert 4 <= told["deployment"]["draws"] < 16 and 5 <= told["single-point"]["nulls"] < 20
    assert 128 > draws[0] > draws[1] > draws[2] >= 4
    with pytest.raises(UsageError, match="too small for these audits") as caught:
        within(usual, 1)
    least = _settings(within(usual, _least(caught.value)))
    assert least["deployment"] == {"draws": 4, "most_draws": 4}
    assert least["single-point"] == {"nulls": 5, "confirm": 1, "states": 1}


def test_a_budget_too_small_names_what_would_do_and_other_ways_of_modifying_are_left_out_last(plan: wt.Plan) -> None:
    with pytest.raises(UsageError, match="too small for these audits") as caught:
        within(plan, 10)
    cut = within(plan, least := _least(caught.value))
    assert most_passes(cut) <= least
    assert cut.effort.block_draws == 0 and _settings(cut)["quantization"]["others"] is False
    with pytest.raises(UsageError):
        within(plan, least - 1)


def _settings(plan: wt.Plan) -> dict[str, dict[str, Any]]:
    return {spec.name: dict(spec.settings) for spec in plan.audits}


def _least(error: UsageError) -> int:
    return int(str(error).split("at least ")[1].split()[0])


def test_a_comparison_that_could_see_nothing_is_refused() -> None:
    task = digits.task()
    two = [Subject(mlp((64, 32, 10)).eval(), name=name) for name in ("a", "b")]
    plan = wt.plan(two, task, audits=["score", "relative-noise"])
    with pytest.raises(UsageError, match="too small to find anything of interest") as caught:
        within(plan, 120)
    passes = int(str(caught.value).split("from about ")[1].split()[0])
    assert within(plan, passes).effort.draws < plan.effort.draws


@pytest.mark.parametrize(
    ("audits", "budget", "least"),
    [
        (EVERY_KIND, 300, 200), (None, 60, 40),
    ],
)  # fmt: skip
def test_a_run_makes_no_more_passes(audits: tuple[str, ...] | None, budget: int, least: int) -> None:
    subject, task = digits.subject(name="digits"), digits.task()
    report = wt.audit(subject, task, audits=audits, budget=f"{budget}f")
    assert least <= report.cost.forwards <= budget and not report.void
    cut = wt.plan(subject, task, audits=audits, budget=f"{budget}f").cut
    assert report.record.provenance[CUT] == cut
    assert ("detection power is not measured" if audits else "deployment: most_draws") in cut
    with pytest.raises(UsageError, match="at least 45 passes"):
        wt.plan(subject, task, budget="40f")


def test_a_time_budget_counts_what_goes_with_passes() -> None:
    plan = small("score", "relative-noise")
    whole, trials = most_passes(plan), most_trials(plan)
    clean, beside = Prices(clean=1.0), Prices(clean=1.0, beside={"relative-noise": 3.0}, kept=0.5, copy=10.0, spent=7.0)
    reserve = clean.seconds(plan) / whole
    assert 1.0 < reserve < 1.25
    more = 3.0 * (trials - len(plan.baselines())) + 0.5 * trials + 10.0 * len(plan.controls)
    assert clean.seconds(plan) + more + 7.0 < beside.seconds(plan) < clean.seconds(plan) + 1.25 * more + 7.0
    few, many = within(plan, 600.0, beside), within(plan, 600.0, clean)
    assert beside.seconds(few) <= 600.0 and most_passes(few) < most_passes(many)
    with pytest.raises(UsageError, match=r"at least \d+ s \(4 draws a dose\)"):
        within(plan, 20.0, beside)
    ample = wt.plan(SMALL.subject, SMALL.task, audits=["score", "relative-noise"], budget="2h")
    assert ample.effort.draws == 32 and not ample.cut
