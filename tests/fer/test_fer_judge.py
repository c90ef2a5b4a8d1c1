"""Planted numbers are judged as they were planted; nets of one recipe are seldom told apart."""

import numpy as np
import pytest

from wheeltap.fer import judge
from wheeltap.fer.controls import leave_one_out
from wheeltap.fer.judge import TRAINED, Measured
from wheeltap.stats.cohorts import Scale, Single, next_net

RUNS = 300


def nets(
    rng: np.random.Generator, count: int, *, symmetry: float, maps: float, error: float = 4e-4
) -> list[dict[str, float]]:
    return [
        {
            "error": error,
            "response_symmetry": float(rng.normal(symmetry, 0.02)),
            "feature_symmetry": float(rng.normal(symmetry, 0.03)),
            "distinct_maps": float(rng.normal(maps, 8.0)),
            "noise_symmetry": float(rng.normal(symmetry, 0.03)),
            "noise_dose": float(rng.normal(0.02, 0.002)),
        }
        for _ in range(count)
    ]


def planted(seed: int, *, own: dict[str, float], trained: int = 5, error: float = 4e-4) -> Measured:
    rng = np.random.default_rng(seed)
    return Measured(
        name="plant",
        own={key: Single(value) for key, value in own.items()},
        cohorts={
            TRAINED: nets(rng, trained, symmetry=0.58, maps=220, error=error),
            "untrained": nets(rng, 5, symmetry=0.54, maps=140),
            "abs-x": nets(rng, 3, symmetry=0.99, maps=190),
        },
    )


UNIFIED = {
    "response_symmetry": 0.75,
    "feature_symmetry": 0.95,
    "distinct_maps": 16.0,
    "noise_symmetry": 0.72,
    "noise_dose": 0.004,
}


def judged(measured: Measured) -> tuple[dict[str, str], str, tuple[str, ...]]:
    table = judge.rows(measured)
    found = judge.findings(measured, table, alpha=0.05)
    status = {finding.title: finding.status for finding in found if finding.code != "WT001"}
    return status, judge.headline(measured, table, found), judge.fooled(measured, table)


def test_a_unified_net_is_told_from_five_trained_ones() -> None:
    status, headline, _ = judged(planted(0, own=UNIFIED))
    assert status.pop("Parts of the picture one weight moves") == "not_applicable"
    assert set(status.values()) == {"found"}
    assert headline.startswith("Pictures matched to 34.0 dB (PSNR), different wiring")
    assert "4 of 4 tests" in headline


def test_pictures_that_are_far_apart_are_said_to_be() -> None:
    _, headline, _ = judged(planted(0, own=UNIFIED, error=0.02))
    assert headline.startswith("Pictures matched to 17.0 dB (PSNR) (that is far apart: train longer), different wiring")


def test_what_lies_outside_but_not_after_the_correction_stays_open() -> None:
    measured = planted(0, own={**UNIFIED, "response_symmetry": 0.6, "feature_symmetry": 0.6, "distinct_maps": 220.0})
    values = [net["noise_symmetry"] for net in measured.cohorts[TRAINED]]
    low, high = next_net(values, scale=Scale("share"))
    own = {**measured.own, "noise_symmetry": Single(high + 0.02 * (high - low))}
    edge = Measured(name="plant", own=own, cohorts=measured.cohorts)
    table = judge.rows(edge)
    found = {finding.title: finding for finding in judge.findings(edge, table, alpha=0.05)}
    finding = found["Symmetry under function-space noise"]
    assert finding.status == "inconclusive"
    assert "not shown after the correction" in finding.because
    assert "could be one more" not in finding.because
    assert "not enough to decide" in judge.headline(edge, table, list(found.values()))


def test_what_the_picture_does_not_allow_is_said() -> None:
    status, headline, _ = judged(planted(0, own={key: v for key, v in UNIFIED.items() if "symmetry" not in key}))
    assert status["Symmetry of response"] == "not_applicable"
    assert "(1 of 1 tests)" in headline


def test_one_more_net_of_the_recipe_is_seldom_told_apart() -> None:
    false = 0
    for seed in range(RUNS):
        (own,) = nets(np.random.default_rng(10_000 + seed), 1, symmetry=0.58, maps=220)
        status, headline, _ = judged(planted(seed, own=own))
        alarm = "found" in status.values()
        assert ("different wiring" in headline) == alarm
        false += alarm
    assert false <= 0.05 * RUNS + 3 * np.sqrt(0.05 * 0.95 * RUNS)


def of_maps(values: list[float], *, own: float = 17.0) -> Measured:
    """A study of one count alone."""
    cohorts = {TRAINED: [{"error": 4e-4, "distinct_maps": value} for value in values]}
    return Measured(name="plant", own={"distinct_maps": Single(own)}, cohorts=cohorts)


def test_a_small_count_less_in_one_net_does_not_make_the_study_void() -> None:
    """Near the largest count that there can be, all others have it: the test rejects, and it means nothing."""
    measured = of_maps([84.0] * 6 + [83.0, 76.0])
    assert leave_one_out(measured, judge.rows(measured), worst=0.001).status == "passed"
    foreign = of_maps([84.0] * 6 + [83.0, 17.0])
    assert leave_one_out(foreign, judge.rows(foreign), worst=0.001).status == "failed"


def test_nets_with_one_and_the_same_count_can_be_told_from_another() -> None:
    measured = of_maps([84.0, 84.0, 84.0])
    found = {finding.title: finding for finding in judge.findings(measured, judge.rows(measured), alpha=0.05)}
    assert found["Distinct feature maps"].status == "found"
    same = of_maps([84.0, 84.0, 84.0], own=84.0)
    found = {finding.title: finding for finding in judge.findings(same, judge.rows(same), alpha=0.05)}
    assert found["Distinct feature maps"].status == "excluded"


def test_noise_that_points_the_other_way_is_no_agreement() -> None:
    measured = planted(0, own={**UNIFIED, "noise_symmetry": 0.2})
    table = judge.rows(measured)
    ((_, answer),) = judge.noise_answer(table, judge.findings(measured, table, alpha=0.05))
    assert answer.startswith("Both do, in opposite directions")
    measured = planted(0, own=UNIFIED)
    table = judge.rows(measured)
    ((_, answer),) = judge.noise_answer(table, judge.findings(measured, table, alpha=0.05))
    assert answer.startswith("Yes. Both do.")


def test_a_single_trained_net_decides_nothing() -> None:
    status, headline, _ = judged(planted(0, own=UNIFIED, trained=1))
    assert set(status.values()) == {"inconclusive", "not_applicable"}
    assert "not enough to decide" in headline


def test_controls_are_said_to_fool_what_they_fool() -> None:
    _, _, lines = judged(planted(0, own=UNIFIED))
    folded = next(line for line in lines if line.startswith("abs-x"))
    assert folded.startswith("abs-x: Look unified by")
    passes, apart = folded.split("Shown to differ by")
    assert "symmetry of response" in passes
    assert "distinct feature maps" in apart
    untrained = next(line for line in lines if line.startswith("untrained"))
    assert untrained.startswith("untrained: Shown to differ by symmetry of response")
    assert "Look unified" not in untrained


@pytest.mark.parametrize(
    ("own", "words"), [(0.72, "Yes. Both do."), (0.6, "Weight sweeps do; for function-space noise it is not shown.")]
)
def test_the_question_about_noise_is_answered_by_the_numbers(own: float, words: str) -> None:
    measured = planted(0, own={**UNIFIED, "noise_symmetry": own})
    table = judge.rows(measured)
    ((_, answer),) = judge.noise_answer(table, judge.findings(measured, table, alpha=0.05))
    assert answer.startswith(words)


def test_nets_left_out_in_turn_are_not_told_apart_unless_one_is_foreign() -> None:
    measured = planted(0, own=UNIFIED, trained=8)
    control = leave_one_out(measured, judge.rows(measured), worst=0.001)
    assert control.status == "passed"
    foreign = dict(measured.cohorts[TRAINED][0]) | {"feature_symmetry": 0.97}
    mixed = Measured(name="plant", own=measured.own, cohorts={TRAINED: [foreign, *measured.cohorts[TRAINED][1:]]})
    assert leave_one_out(mixed, judge.rows(mixed), worst=0.001).status == "failed"
    few = planted(0, own=UNIFIED, trained=3)
    assert leave_one_out(few, judge.rows(few), worst=0.001).status == "skipped"


def test_nets_that_differ_so_much_that_no_foreign_one_would_show_vouch_for_nothing() -> None:
    wide = of_maps([20.0, 80.0, 45.0, 60.0, 35.0])
    control = leave_one_out(wide, judge.rows(wide), worst=0.001)
    assert control.status == "skipped" and "could hardly have failed" in control.because
    assert control.estimates[0].value is not None
