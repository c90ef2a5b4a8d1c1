"""Audits against worlds whose truth is known: no model is touched, and none could be."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from reports import finding
from worlds import CHANCE, Curve, Simulated, World, falling, flat

import wheeltap as wt
from wheeltap.audits.base import Case, NoAnswer
from wheeltap.audits.noise import Ladder
from wheeltap.audits.settle import judge
from wheeltap.core.records import Cost
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


def test_the_walk_ends_at_the_last_octave_that_kept_half() -> None:
    for half in (-23, -8, -3, -1, 0, 1, 2, 5, 11, 23):
        centre, walked = walk(lambda rung, half=half: rung < half)
        assert centre < half <= centre + 2
        assert {centre, centre + 2} <= set(walked)
        assert walked[0] == 0 and len(walked) == len(set(walked)) <= abs(half) // 2 + 3
    # Where it never crosses it ends at the end of the ladder.
    assert walk(lambda _: True) == (24, list(range(0, 26, 2)))
    assert walk(lambda _: False) == (-24, list(range(0, -26, -2)))


@pytest.mark.parametrize(
    ("kept", "centre", "walked"),
    [
        ({0: True, 2: False}, 0, [0, 2]),
        ({0: False, -2: True}, -2, [0, -2]),
        ({0: True, 2: True, 4: False, 6: True, 8: False}, 2, [0, 2, 4]),  # where it first falls
        ({0: False, -2: True, -4: False}, -2, [0, -2]),
    ],
)
def test_the_walk_turns_at_the_first_crossing(kept: dict[int, bool], centre: int, walked: list[int]) -> None:
    assert walk(lambda rung: kept[rung]) == (centre, walked)


@pytest.mark.parametrize("half", [1e-4, 0.01, 0.125, 0.7, 30.0])
def test_the_curve_lies_around_the_true_half_wherever_the_walk_starts(half: float) -> None:
    world = World({"net": Simulated({"relative": falling(half)})}, audits=("relative-noise",), effort=MANY)
    [curve] = world.run().curves
    assert curve.doses[0] < half < curve.doses[-1]
    assert curve.half is not None and curve.half.low is not None and curve.half.high is not None
    assert curve.half.low * 0.8 < half < curve.half.high * 1.25
    # Isotonic, noisy, but near: the world's draws shift logits, which moves the half a little.
    assert curve.half.value == pytest.approx(half, rel=0.3)


@pytest.mark.parametrize(("score", "status", "side"), [(0.95, "excluded", "above"), (CHANCE, "found", "below")])
def test_a_subject_that_never_falls_or_is_at_chance_everywhere_has_no_half_dose(
    score: float, status: str, side: str
) -> None:
    found = finding(
        World({"net": Simulated({"relative": flat(score)})}, audits=("relative-noise",)).run(), "WT101", "net"
    )
    half = found.estimates[0]
    assert found.status == status and half.value is None and side in found.because
    assert side == "below" or (half.high is None and (half.low or 0.0) > 1.0)


def test_nothing_to_lose_is_not_applicable_and_asks_for_nothing() -> None:
    world = World({"net": Simulated({}, clean=CHANCE)}, examples=4000)
    report = world.run()
    found = finding(report, "WT101", "net")
    assert found.status == "not_applicable" and "nothing to lose" in found.because
    assert {trial.perturbation for trial in world.asked} == {"none"}


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
    back = World({"b": Simulated(FRAGILE), "a": Simulated(SOUND)}, examples=400, effort=MANY).run()
    for report, name, sign in ((other, pair, 1.0), (back, "b vs a", -1.0)):
        found = finding(report, "WT101", name)
        assert sign * (found.estimates[0].value or 0.0) > 0.1 and "b is more fragile than a" in found.because
    assert "DIFFER: Under relative noise in the weights, b keeps 0.318 [" in other.headline


def test_the_fragile_are_found_and_the_sound_are_not() -> None:
    report = World({"a": Simulated(BREAKS_SOON), "b": Simulated(SOUND)}, examples=300, effort=MANY).run()
    assert [finding(report, code, "a").status for code in ("WT101", "WT102")] == ["found", "found"]
    # The doses are the reference's; all they can say of b is that its half lies beyond the last.
    sound = finding(report, "WT101", "b")
    assert sound.status in ("excluded", "inconclusive") and sound.estimates[0].value is None
    alone = World({"a": Simulated(BREAKS_SOON)}, examples=400, effort=MANY).run().headline
    assert alone.startswith("FOUND: Relative noise in the weights. Half of a's above-chance score is lost at a")
    assert "FOUND: Function-space noise." in alone


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
    plan = World({"a": Simulated(SOUND)}).plan()
    with pytest.raises(NoAnswer):
        _ = Case(plan, lambda _: None).chance
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
