"""Controls in simulated worlds: what voids a run, what does not, and what is asked for only where it is needed."""

import msgspec
import numpy as np
import pytest
from reports import control, finding
from worlds import FRESH, Simulated, World, falling

import wheeltap as wt
from wheeltap.audits.controls import AGAIN_DRAWS
from wheeltap.audits.settle import usable
from wheeltap.core.records import Control, Outcome
from wheeltap.core.report import ReportRecord

SOUND = {"relative": falling(0.7), "function": falling(0.2)}
FRAGILE = {"relative": falling(0.2), "function": falling(0.2)}
BREAKS_SOON = {"relative": falling(0.01), "function": falling(0.001)}
MANY = wt.Effort(draws=24, control_draws=16, block_draws=0)
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
        (Simulated({**SOUND, "function": falling(0.03)}), None, "null"),
        (None, Simulated(SOUND, fresh=BREAKS_SOON), "planted"),
        (None, Simulated({**SOUND, "relative": falling(4.0)}), "planted"),
    ],
    ids=["relative null", "function null", "planted and missed", "planted and called sounder"],
)
def test_a_failed_control_makes_everything_void(twin: Simulated | None, planted: Simulated | None, kind: str) -> None:
    report = with_controls(twin=twin, planted=planted)
    assert report.void
    assert [one.kind for one in report.controls if one.status == "failed"] == [kind]
    assert {f.status for f in report.findings} == {"void"}
    assert all(f.because.startswith("A control failed, so nothing is concluded.") for f in report.findings)
    assert {f.verdict for f in report.findings} == {"void"} and not any(f.leaning for f in report.findings)
    assert report.headline == "VOID: a control failed, so this run proves nothing about the model."


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
    assert hidden.status == "skipped" and "No power" in hidden.because and "nor were weaker ones" in hidden.because
    [_, missed] = hidden.estimates
    assert missed.name == "missed by a sound audit" and (missed.value or 0.0) > 0.9
    fresh = [trial for trial in world.asked if trial.seed >= FRESH]
    assert {trial.subject for trial in fresh} == {"fingerprint of a (stronger)"}


def test_stronger_plants_are_asked_for_only_where_the_first_is_not_found_or_no_exact_copy() -> None:
    strong = Simulated(BREAKS_SOON)
    for first, gates in ((strong, ["passed"]), (Simulated(BREAKS_SOON, gap=0.1), ["skipped", "passed"])):
        members = {"a": Simulated(SOUND), "planted": first, "stronger": strong}
        world = World(members, examples=300, effort=EVEN, draw_sd=0.2)
        report = world.run()
        asked = any(trial.subject == "fingerprint of a (stronger)" for trial in world.asked)
        assert asked == (first is not strong)
        assert [one.status for one in report.controls if one.kind == "gate"] == gates
        assert [one.status for one in report.controls if one.kind == "planted"][:1] == ["passed"]


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
    assert twin.status == "passed" and "not with fresh draws" in twin.because and len(twin.estimates) == 1
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


@pytest.mark.parametrize("which", ["twin", "planted"])
@pytest.mark.parametrize("gap", [2e-3, 0.5, 3.0])
def test_a_copy_that_is_not_exact_is_dropped_and_said_so(which: str, gap: float) -> None:
    """Though its noise curve would have voided (twin) or served (planted): a wrong gauge is never used."""
    wrong = Simulated({**SOUND, "relative": falling(0.05), "function": falling(0.01)}, gap=gap)
    report = with_controls(**{which: wrong})  # pyright: ignore[reportArgumentType]
    assert not report.void
    kind = {"twin": "null", "planted": "planted"}[which]
    assert {one.status for one in controls_of(report, kind)} == {"skipped"}
    [gate] = [one for one in controls_of(report, "gate") if one.status == "skipped"]
    assert "not used as a control" in gate.because
    assert all(curve.role != which for curve in report.curves)
    assert finding(report, "WT101", "a vs b").status == "found"
    world = World({"a": Simulated(SOUND), which: wrong}, examples=300, effort=MANY)
    world.run()
    copy = f"fingerprint of a ({which})"
    assert {trial.perturbation for trial in world.asked if trial.subject == copy} == {"none"}
    assert getattr(usable(world.plan(), world.known.get), which) is None


@pytest.mark.slow
@pytest.mark.full
def test_sound_controls_are_rarely_void_and_broken_ones_nearly_always() -> None:
    count = 40
    assert sum(with_controls(seed=seed).void for seed in range(count)) == 0
    broken = Simulated({**SOUND, "relative": falling(0.1)})
    assert sum(with_controls(twin=broken, seed=seed).void for seed in range(10)) == 10
