"""Audits and their controls in worlds whose truth is known: no model is touched, and none could be."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from reports import control, finding
from worlds import CHANCE, FRESH, Curve, Simulated, World, falling, flat

import wheeltap as wt
from wheeltap.audits.base import Case, NoAnswer
from wheeltap.audits.controls import AGAIN_DRAWS
from wheeltap.audits.noise import Ladder
from wheeltap.audits.settle import judge, usable
from wheeltap.core.records import Control, Cost, Outcome
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


def walk(kept: Callable[[int], bool]) -> tuple[int, list[int]]:
    """The whole walk, and that each part of it leads to the next."""
    ladder, known = Ladder(start=1.0, walk=12), dict[int, bool]()
    for _ in range(14):
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


@pytest.mark.parametrize("half", [1e-4, 30.0])
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
    assert found.status == "not_applicable"
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
        assert sign * (found.estimates[0].value or 0.0) > 0.1


def test_the_fragile_are_found_and_the_sound_are_not() -> None:
    report = World({"a": Simulated(BREAKS_SOON), "b": Simulated(SOUND)}, examples=300, effort=MANY).run()
    assert [finding(report, code, "a").status for code in ("WT101", "WT102")] == ["found", "found"]
    # The doses are the reference's; all they can say of b is that its half lies beyond the last.
    sound = finding(report, "WT101", "b")
    assert sound.status in ("excluded", "inconclusive") and sound.estimates[0].value is None


def test_a_diverged_trial_counts_as_chance_on_every_example() -> None:
    report = World({"a": Simulated(SOUND, status={"function": "diverged"})}, examples=50).run()
    [curve] = [curve for curve in report.curves if curve.code == "WT102"]
    assert curve.score == pytest.approx([CHANCE] * len(curve.doses))
    found = finding(report, "WT102", "a")
    assert found.status == "found"


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


def test_a_planted_difference_is_found_with_draws_enough() -> None:
    """Six draws may all have been unlucky ones."""
    count = 6
    fragile = Simulated({"relative": falling(0.14), "function": falling(0.2)})
    members = {"a": Simulated(SOUND), "b": Simulated(SOUND), "c": fragile}
    assert alarms(members, count, MANY) == count and alarms(members, count) < count / 2


EVEN = wt.Effort(draws=24, control_draws=24, block_draws=0)


def controls_of(report: ReportRecord, kind: str) -> list[Control]:
    return [one for one in report.controls if one.kind == kind]


def with_controls(*, twin: Simulated | None = None, planted: Simulated | None = None, seed: int = 0) -> ReportRecord:
    members = {
        "a": Simulated(SOUND), "b": Simulated(FRAGILE),
        "twin": twin or Simulated(SOUND), "planted": planted or Simulated(BREAKS_SOON),
        **({"stronger": planted} if planted is not None and planted.gap == 0.0 else {}),
    }  # fmt: skip
    # Draws that vary less than in the other worlds: as many as a control needs to have power would be slow.
    return World(members, examples=300, effort=EVEN, seed=seed, draw_sd=0.2).run()


def test_sound_controls_pass_and_the_verdicts_stand() -> None:
    for report in (with_controls(), with_controls(twin=Simulated(SOUND, gap=1e-5))):
        assert not report.void
        assert {one.status for one in report.controls if not one.name.endswith("power")} == {"passed"}
        assert [len(controls_of(report, kind)) for kind in ("baseline", "gate", "null", "planted")] == [1, 2, 2, 2]
        assert finding(report, "WT101", "a vs b").status == "found"


@pytest.mark.parametrize(
    ("twin", "planted", "kind"),
    [
        (Simulated({**SOUND, "relative": falling(0.1)}), None, "null"),
        (None, Simulated(SOUND, fresh=BREAKS_SOON), "planted"),
        (None, Simulated({**SOUND, "relative": falling(4.0)}), "planted"),
    ],
    ids=["null", "planted and missed", "planted and called sounder"],
)
def test_a_failed_control_makes_everything_void(twin: Simulated | None, planted: Simulated | None, kind: str) -> None:
    report = with_controls(twin=twin, planted=planted)
    assert report.void
    assert [one.kind for one in report.controls if one.status == "failed"] == [kind]
    assert {f.status for f in report.findings} == {"void"}
    assert {f.verdict for f in report.findings} == {"void"} and not any(f.leaning for f in report.findings)


def test_a_plant_that_the_subject_hides_is_no_failure_and_a_stronger_one_is_found() -> None:
    """A weak plant says nothing of the instrument; nor does one that no audit could see."""
    weak, strong = Simulated(SOUND), Simulated(BREAKS_SOON)
    members = {"a": Simulated(SOUND), "twin": Simulated(SOUND), "planted": weak}

    def planted(stronger: Simulated) -> tuple[World, Control]:
        world = World({**members, "stronger": stronger}, examples=300, effort=EVEN, draw_sd=0.2)
        report = world.run()
        assert not report.void
        return world, control(report, "WT101 planted cancelling units")

    world, found = planted(strong)
    assert found.status == "passed"
    assert not [trial for trial in world.asked if trial.seed >= FRESH], "what is found is not looked at again"
    world, hidden = planted(weak)
    assert hidden.status == "skipped"
    [_, missed] = hidden.estimates
    assert missed.name == "missed by a sound audit" and (missed.value or 0.0) > 0.9
    fresh = [trial for trial in world.asked if trial.seed >= FRESH]
    assert {trial.subject for trial in fresh} == {"fingerprint of a (stronger)"}


def stored(dtype: str, gap: float) -> Control:
    """What the gate says of a copy in a world of models in some numerical type."""
    world = World({"a": Simulated(SOUND), "twin": Simulated(SOUND, gap=gap)}, audits=("relative-noise",))
    path, plan = {"path": f"plain/cpu/{dtype}"}, world.plan()
    assert plan.twin is not None
    subjects = tuple(msgspec.structs.replace(one, **path) for one in plan.subjects)
    plan = msgspec.structs.replace(plan, subjects=subjects, twin=msgspec.structs.replace(plan.twin, **path))
    [gate] = controls_of(world.run(plan), "gate")
    return gate


def test_a_copy_in_16_bits_is_one_up_to_their_rounding() -> None:
    for dtype, gap, status in (
        ("float32", 5e-5, "passed"), ("float32", 0.005, "skipped"), ("bfloat16", 0.005, "passed"),
        ("bfloat16", 0.01, "skipped"), ("float16", 0.005, "skipped"),
    ):  # fmt: skip
        assert stored(dtype, gap).status == status


def test_a_twin_that_seems_to_differ_is_looked_at_again_with_fresh_draws() -> None:
    """The first look fails, the second shows that it was the draws."""
    unlucky = Simulated({**SOUND, "relative": falling(0.2)}, fresh=SOUND)
    world = World({"a": Simulated(SOUND), "twin": unlucky}, examples=300, effort=EVEN, draw_sd=0.2)
    report = world.run()
    assert not report.void
    twin = control(report, "WT101 reparametrized copy")
    assert twin.status == "passed" and len(twin.estimates) == 1
    fresh = [trial.perturbation for trial in world.asked if trial.seed >= FRESH]
    assert fresh == ["relative"] * 2 * 2 * AGAIN_DRAWS * EVEN.control_draws


def test_two_clean_passes_that_differ_make_everything_void_and_no_copy_is_skipped() -> None:
    world = World({"a": Simulated(SOUND)}, examples=200, effort=MANY)
    sound, plan = world.run(), world.plan()
    assert [one.status for one in sound.controls if one.kind in ("null", "planted")] == ["skipped"] * 4
    assert not sound.void
    first = world.known[plan.clean(plan.reference, seed=1).key]
    scores = first.values["scores"] + np.float32(1e-3)
    world.known[first.key] = Outcome(key=first.key, status="done", values={**first.values, "scores": scores})
    report = world.run()
    assert report.void and [one.kind for one in report.controls if one.status == "failed"] == ["baseline"]


@pytest.mark.parametrize(("which", "gap"), [("twin", 2e-3), ("planted", 3.0)])
def test_a_copy_that_is_not_exact_is_dropped_and_said_so(which: str, gap: float) -> None:
    """Though its noise curve would have voided (twin) or served (planted): a wrong gauge is never used."""
    wrong = Simulated({**SOUND, "relative": falling(0.05), "function": falling(0.01)}, gap=gap)
    report = with_controls(**{which: wrong})  # pyright: ignore[reportArgumentType]
    assert not report.void
    kind = {"twin": "null", "planted": "planted"}[which]
    assert {one.status for one in controls_of(report, kind)} == {"skipped"}
    [gate] = [one for one in controls_of(report, "gate") if one.status == "skipped"]
    assert gate.because
    assert all(curve.role != which for curve in report.curves)
    assert finding(report, "WT101", "a vs b").status == "found"
    world = World({"a": Simulated(SOUND), which: wrong}, examples=300, effort=MANY)
    world.run()
    copy = f"fingerprint of a ({which})"
    assert {trial.perturbation for trial in world.asked if trial.subject == copy} == {"none"}
    assert getattr(usable(world.plan(), world.known.get), which) is None
