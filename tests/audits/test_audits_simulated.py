"""Audits against worlds whose truth is known: no model is touched, and none could be."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from worlds import CHANCE, Curve, Simulated, World, falling, finding, flat

import wheeltap as wt
from wheeltap.audits.base import Case, NoAnswer
from wheeltap.audits.noise import Ladder
from wheeltap.core.report import ReportRecord

SOUND = {"relative": falling(0.7), "function": falling(0.2)}
FRAGILE = {"relative": falling(0.2), "function": falling(0.2)}
BREAKS_SOON = {"relative": falling(0.01), "function": falling(0.001)}
MANY = wt.Effort(draws=24, control_draws=16, block_draws=0)
TELLING: dict[str, Any] = {
    "examples": 400, "effort": wt.Effort(draws=48, control_draws=16, block_draws=0), "margin": 0.1,
}  # fmt: skip
"""Draws, examples and a margin with which every question is decided."""


# ---- the walk to half ----------------------------------------------------------------------------------------------

STEP = 2**0.5


def walk(kept: Callable[[int], bool], *, octaves: int = 12) -> tuple[int, list[int]]:
    """The whole walk, and that each part of it leads to the next."""
    ladder, known = Ladder(start=1.0, walk=octaves), dict[int, bool]()
    for _ in range(octaves + 2):
        centre, walked = ladder.bracket(known.get)
        if centre is not None:
            return centre, walked
        assert set(walked) - set(known) == {walked[-1]}, "one new rung at a time"
        known[walked[-1]] = kept(walked[-1])
    raise AssertionError("the walk never ends")


@pytest.mark.parametrize("half", [-23, -8, -3, -1, 0, 1, 2, 5, 11, 23])
def test_the_walk_ends_at_the_last_octave_that_kept_half(half: int) -> None:
    centre, walked = walk(lambda rung: rung < half)
    assert centre < half <= centre + 2
    assert {centre, centre + 2} <= set(walked)
    assert walked[0] == 0 and len(walked) == len(set(walked)) <= abs(half) // 2 + 3


def test_a_walk_that_never_crosses_ends_at_the_end_of_the_ladder() -> None:
    for kept, end in ((True, 24), (False, -24)):
        centre, walked = walk(lambda _, kept=kept: kept)
        assert abs(centre) == 24 and math.copysign(1, centre) == math.copysign(1, end)
        assert walked == list(range(0, end + (2 if kept else -2), 2 if kept else -2))


@pytest.mark.parametrize(("rung", "kept"), [(2, True), (-2, False)])
def test_the_walk_turns_at_the_first_crossing(rung: int, kept: bool) -> None:
    """Crossed at the very first step."""
    centre, walked = walk(lambda at: at <= 0 if kept else at < 0)
    assert walked == [0, rung] and centre == (0 if kept else -2)


def test_a_curve_that_is_not_monotone_is_bracketed_where_it_first_falls() -> None:
    kept = {0: True, 2: True, 4: False, 6: True, 8: False}
    centre, walked = walk(lambda rung: kept.get(rung, False))
    assert (centre, walked) == (2, [0, 2, 4])
    back = {0: False, -2: True, -4: False}
    assert walk(lambda rung: back.get(rung, True)) == (-2, [0, -2])


@pytest.mark.parametrize("half", [1e-4, 0.01, 0.125, 0.7, 30.0])
def test_the_curve_lies_around_the_true_half_wherever_the_walk_starts(half: float) -> None:
    world = World({"net": Simulated({"relative": falling(half)})}, audits=("relative-noise",), effort=MANY)
    [curve] = world.run().curves
    assert curve.doses[0] < half < curve.doses[-1]
    assert curve.half is not None and curve.half.low is not None and curve.half.high is not None
    assert curve.half.low * 0.8 < half < curve.half.high * 1.25
    # Isotonic, noisy, but near: the world's draws shift logits, which moves the half a little.
    assert curve.half.value == pytest.approx(half, rel=0.3)


def test_a_subject_that_never_falls_has_no_half_dose_and_is_not_called_fragile() -> None:
    world = World({"net": Simulated({"relative": flat()})}, audits=("relative-noise",))
    report = world.run()
    found = finding(report, "WT101", "net")
    half = found.estimates[0]
    assert found.status == "excluded"
    assert half.value is None and half.high is None and half.low is not None and half.low > 1.0
    assert "above" in found.because


def test_a_subject_at_chance_everywhere_has_no_half_dose_but_is_called_fragile() -> None:
    world = World({"net": Simulated({"relative": flat(CHANCE)})}, audits=("relative-noise",), effort=MANY)
    found = finding(world.run(), "WT101", "net")
    assert found.status == "found" and found.estimates[0].value is None
    assert "below" in found.because


def test_nothing_to_lose_is_not_applicable_and_asks_for_nothing() -> None:
    world = World({"net": Simulated({}, clean=CHANCE)}, examples=4000)
    report = world.run()
    found = finding(report, "WT101", "net")
    assert found.status == "not_applicable" and "nothing to lose" in found.because
    assert {trial.perturbation for trial in world.asked} == {"none"}


def test_trials_are_asked_once_and_never_more_than_promised() -> None:
    for curves in (SOUND, BREAKS_SOON, {"relative": flat(), "function": flat(CHANCE)}):
        world = World(
            {
                "a": Simulated(curves),
                "b": Simulated(SOUND),
                "twin": Simulated(curves),
                "planted": Simulated(BREAKS_SOON),
            },
            audits=("score", "relative-noise", "function-noise", "quantization", "pruning"),
            effort=wt.Effort(draws=6, control_draws=4, block_draws=3),
        )
        world.run()
        keys = [trial.key for trial in world.asked]
        assert len(keys) == len(set(keys))
        from wheeltap.runs.budget import most_trials

        assert len(keys) <= most_trials(world.plan())
        before = len(keys)
        world.run()
        assert len(world.asked) == before, "a second run asks for nothing"


# ---- statuses ------------------------------------------------------------------------------------------------------


PAIRS = ("WT001", "WT101", "WT102")


def compared(one: dict[str, Curve], two: dict[str, Curve], **world: Any) -> ReportRecord:
    """A world of two subjects whose differences of a tenth are of interest, with draws enough to tell them."""
    return World({"a": Simulated(one), "b": Simulated(two)}, **{**TELLING, **world}).run()


def test_found_excluded_and_inconclusive() -> None:
    pair = "a vs b"
    same, other = compared(SOUND, SOUND), compared(SOUND, FRAGILE)
    few = compared(SOUND, SOUND, examples=12, effort=wt.Effort(draws=2, block_draws=0))
    fine = compared(SOUND, SOUND, margin=0.02)
    assert [finding(same, code, pair).verdict for code in PAIRS] == ["equivalent"] * 3
    assert [finding(other, code, pair).verdict for code in PAIRS] == ["equivalent", "differ", "equivalent"]
    for report in (few, fine):
        assert [finding(report, code, pair).verdict for code in PAIRS] == ["cannot tell"] * 3
    for report in (same, other, few, fine):
        for code in PAIRS:
            told = finding(report, code, pair)
            assert told.margin == (0.02 if report is fine else 0.1) and told.power is not None
            if told.status == "inconclusive":
                assert told.power.draws is None or told.power.draws > TELLING["effort"].draws or report is few
                assert told.power.excluded is not None and told.power.excluded < 0.8
    gap = finding(other, "WT101", pair).estimates[0]
    assert (
        gap.value is not None
        and gap.value > 0.1
        and "b is more fragile than a" in finding(other, "WT101", pair).because
    )
    back = World({"b": Simulated(FRAGILE), "a": Simulated(SOUND)}, examples=400, effort=MANY).run()
    assert "b is more fragile than a" in finding(back, "WT101", "b vs a").because


def test_the_fragile_are_found_and_the_sound_are_not() -> None:
    report = World({"a": Simulated(BREAKS_SOON), "b": Simulated(SOUND)}, examples=300, effort=MANY).run()
    assert [finding(report, code, "a").status for code in ("WT101", "WT102")] == ["found", "found"]
    # The doses are the reference's; all they can say of b is that its half lies beyond the last.
    assert finding(report, "WT101", "b").status in ("excluded", "inconclusive")
    assert finding(report, "WT101", "b").estimates[0].value is None


def test_headlines_say_what_was_found() -> None:
    assert compared(SOUND, SOUND).headline == (
        "a vs b: scores are equivalent (0.8 points [-2.0, 3.5]); "
        "EQUIVALENT at relative noise in the weights; function-space noise."
    )
    other = compared(SOUND, FRAGILE).headline
    assert other.startswith(
        "a vs b: scores are equivalent (0.8 points [-2.0, 3.5]); DIFFER: Under relative noise in the"
    )
    assert "b keeps 0.318 [" in other and other.endswith("less of the score. Equivalent at function-space noise.")
    worse = World({"a": Simulated(SOUND), "b": Simulated(FRAGILE, clean=0.6)}, **TELLING).run()
    assert worse.headline.startswith(
        "a vs b: scores differ (33.8 points [28.5, 38.6]; the first is better); DIFFER: Under relative noise"
    )
    few = compared(SOUND, SOUND, examples=12, effort=wt.Effort(draws=2, block_draws=0)).headline
    assert few.startswith(
        "a vs b: cannot tell whether scores differ (8.3 points [-20.3, 34.5]); CANNOT TELL at relative"
    )
    alone = World({"a": Simulated(SOUND)}, examples=400, effort=MANY).run()
    broken = World({"a": Simulated(BREAKS_SOON)}, examples=400, effort=MANY).run()
    assert alone.headline == "No effect above the margin: relative noise in the weights, function-space noise."
    assert broken.headline.startswith(
        "FOUND: Relative noise in the weights. Half of a's above-chance score is lost at a"
    )
    assert "FOUND: Function-space noise." in broken.headline


def test_what_was_found_comes_first_among_several_rivals() -> None:
    report = World({"a": Simulated(SOUND), "b": Simulated(SOUND), "c": Simulated(FRAGILE)}, **TELLING).run()
    first, second = report.headline.splitlines()
    assert first.startswith("a vs c: ") and "DIFFER: Under relative noise in the weights, c keeps" in first
    assert second.startswith("a vs b: ") and "DIFFER" not in second


@pytest.mark.parametrize(("status", "told"), [("failed", "error"), ("skipped", "not_applicable")])
def test_an_instrument_that_cannot_be_used_says_why_and_the_others_go_on(status: str, told: str) -> None:
    member = Simulated(SOUND, status={"function": status})  # pyright: ignore[reportArgumentType]
    report = World({"a": member}, examples=300, effort=MANY).run()
    found = finding(report, "WT102", "a")
    assert (found.status, found.because) == (told, f"simulated {status}")
    assert finding(report, "WT101", "a").status == "excluded"
    assert not report.void


def test_a_diverged_trial_counts_as_chance_on_every_example() -> None:
    report = World({"a": Simulated(SOUND, status={"function": "diverged"})}, examples=50).run()
    [curve] = [curve for curve in report.curves if curve.code == "WT102"]
    assert curve.score == pytest.approx([CHANCE] * len(curve.doses))
    found = finding(report, "WT102", "a")
    assert "gave no finite answer and count as chance" in found.because and found.status == "found"
    count = len(found.trials)
    assert f"{count} of {count} disturbed runs" in found.because


def test_a_run_cut_short_is_an_error_never_a_verdict() -> None:
    world = World({"a": Simulated(SOUND)})
    plan = world.plan()
    case = Case(plan, lambda _: None)
    with pytest.raises(NoAnswer):
        _ = case.chance
    from wheeltap.audits.settle import judge
    from wheeltap.core.records import Cost

    report = judge(plan, lambda _: None, cost=Cost(forwards=0, seconds=0), provenance={})
    assert {f.status for f in report.findings} <= {"error", "void", "not_applicable"}


# ---- the family ----------------------------------------------------------------------------------------------------


STRICT = ("score", *(wt.AuditSpec(name=f"{kind}-noise", settings={"margin": 0.0}) for kind in ("relative", "function")))
SMALL = wt.Effort(draws=6, control_draws=4, block_draws=0)


def alarms(members: dict[str, Simulated], count: int, effort: wt.Effort = SMALL) -> int:
    """Of ``count`` worlds, those in which any comparison finds something."""
    found = 0
    for seed in range(count):
        report = World(members, seed=seed, examples=80, audits=STRICT, effort=effort).run()
        found += any(f.status == "found" for f in report.findings if " vs " in f.subject)
    return found


@pytest.mark.full
def test_any_false_alarm_is_as_rare_as_alpha_says() -> None:
    """Two rivals with the same curves as the reference: six tests a report, margins of zero."""
    same = Simulated(SOUND)
    count = 250
    rate = alarms({"a": same, "b": same, "c": same}, count) / count
    assert rate <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / count)


def test_a_planted_difference_is_found_with_draws_enough() -> None:
    """Six draws may all have been unlucky ones."""
    count = 10
    fragile = Simulated({"relative": falling(0.14), "function": falling(0.2)})
    members = {"a": Simulated(SOUND), "b": Simulated(SOUND), "c": fragile}
    assert alarms(members, count, MANY) == count and alarms(members, count) < count / 2
