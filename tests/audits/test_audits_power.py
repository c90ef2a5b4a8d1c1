"""Detection power in a report: what it says of graded copies, and that it says what happens."""

import math

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray
from reports import control, run

from wheeltap import api, gauge
from wheeltap.audits.power import Gap, powers_of, smallest_found
from wheeltap.core.subject import Subject
from wheeltap.plans.plan import AuditSpec, Effort, Plan
from wheeltap.runs import planning
from wheeltap.testing import planted


@pytest.mark.parametrize(("margin", "told_found"), [(0.02, True), (0.5, False)])
@pytest.mark.full
def test_power_told_agrees_with_comparisons_made(margin: float, told_found: bool) -> None:
    case = planted.clusters()
    effort = Effort(draws=32, control_draws=32, block_draws=0)
    audits = (AuditSpec(name="relative-noise", settings={"margin": margin}),)
    report = api.audit(case.subject, case.task, audits=audits, effort=effort)
    power = control(report, "WT101 detection power")
    told = next(one.value or 0.0 for one in power.estimates if one.name == "found with pairs for 50% of a layer")
    assert power.status == ("passed" if told_found else "skipped"), "what finds none of them vouches for nothing"
    assert ("None of these is found" in power.because) != told_found
    family = gauge.find(case.subject.model)
    assert isinstance(family, gauge.Family)
    found = 0
    for seed in range(4):
        made = gauge.describe(family, "cancel", seed=100 + seed, pairs=0.5, layers=1)
        rival = Subject(gauge.twin(case.subject.model, made), name="rival")
        verdict = run([case.subject, rival], case.task, *audits, effort=effort, seed=seed)
        found += next(f for f in verdict.findings if " vs " in f.subject).status == "found"
    assert (told > 0.9) == told_found
    assert found == (4 if told_found else 0)


class Line:
    """Copies whose effect is ``slope`` times the strength, with a spread and draws of known size."""

    def __init__(
        self, rng: np.random.Generator, *, slope: float = 0.5, spread: float = 0.3, error: float = 0.02
    ) -> None:
        self.rng, self.slope, self.spread, self.error = rng, slope, spread, error

    def effect(self, strength: float, *, plants: int, reference: float) -> NDArray[np.float64]:
        """Of so many plants; the reference's draws are the same for all."""
        own = self.rng.normal(0.0, self.error / 2**0.5, size=plants)
        return self.slope * strength * (1 + self.spread * self.rng.normal(size=plants)) + own + reference

    def gaps(self) -> list[Gap]:
        """What a report has: three copies of each strength, and one reference."""
        reference = float(self.rng.normal(0.0, self.error / 2**0.5))
        return [
            Gap(strength, float(value), self.error, self.reach)
            for strength in (1 / 16, 1 / 8, 1 / 4, 1 / 2)
            for value in self.effect(strength, plants=3, reference=reference)
        ]

    def reach(self, alpha: float) -> float:
        return 2.4 * self.error

    def found(self, strength: float, margin: float) -> float:
        """Share of repetitions in which a plant is found."""
        reference = self.rng.normal(0.0, self.error / 2**0.5, size=4000)
        effects = self.slope * strength * (1 + self.spread * self.rng.normal(size=4000))
        own = self.rng.normal(0.0, self.error / 2**0.5, size=4000)
        return float(np.mean(effects + own + reference > margin + self.reach(0.05)))


@pytest.mark.parametrize(("spread", "error"), [(0.3, 0.02), (0.05, 0.04), (0.6, 0.01)])
def test_power_told_is_what_happens_on_average_and_its_interval_covers(spread: float, error: float) -> None:
    rng = np.random.default_rng(4)
    line = Line(rng, spread=spread, error=error)
    reports = [powers_of(line.gaps(), alpha=0.05, margin=0.02) for _ in range(200)]
    true = [line.found(strength, 0.02) for strength in (1 / 16, 1 / 8, 1 / 4, 1 / 2)]
    told = np.mean([[power for power, _, _ in powers.values()] for powers in reports], axis=0)
    assert told == pytest.approx(true, abs=0.1)
    each = [(*ends, t) for powers in reports for ends, t in zip(powers.values(), true, strict=True)]
    assert np.mean([low - 0.02 <= t <= high + 0.02 for _, low, high, t in each]) >= 0.9
    assert all(low <= power + 0.1 and power <= high + 0.1 for power, low, high, _ in each)


def test_a_reading_without_an_interval_finds_nothing_and_the_smallest_strength_is_between_its_neighbours() -> None:
    none = [Gap(strength, 0.5, math.inf, lambda _: math.inf) for strength in (0.1, 0.2)]
    assert [power for power, _, _ in powers_of(none, alpha=0.05, margin=0.1).values()] == [0.0, 0.0]
    exact = [Gap(strength, value, 0.0, lambda _: 0.0) for strength, value in ((0.1, 0.05), (0.2, 0.15))]
    assert [power for power, _, _ in powers_of(exact, alpha=0.05, margin=0.1).values()] == [0.0, 1.0]
    assert smallest_found([(1, 0.0), (2, 0.4), (8, 0.9)]) == pytest.approx(2 * 4**0.8)
    assert smallest_found([(1, 0.85), (2, 0.4)]) == 1 and smallest_found([(1, 0.1), (2, 0.4)]) is None


def test_graded_copies_are_plants_in_one_layer_and_a_plan_of_before_is_read() -> None:
    case = planted.clusters()
    plan = planning.plan(case.subject, case.task, audits=("relative-noise",))
    assert {copy.made.settings["layers"] for copy in plan.graded if copy.made} == {1}
    scales = [copy.made.settings["scale"] for copy in plan.plants if copy.made]
    assert scales == list(planning.PLANTED_SCALES) and scales == sorted(scales)
    assert len({copy.fingerprint for copy in plan.controls}) == len(plan.controls)
    before = msgspec.json.decode(plan.to_bytes())
    del before["stronger"]
    read = Plan.from_bytes(msgspec.json.encode(before), where="a store of before")
    assert read == msgspec.structs.replace(plan, stronger=()) and read.plants == (plan.planted,)
    effort = Effort(draws=4, control_draws=4, block_draws=0)
    report = run(case.subject, case.task, "relative-noise", keep=("twin", "planted", "stronger"), effort=effort)
    power = control(report, "WT101 detection power")
    assert power.status == "skipped" and "doctor --plant" in power.because  # as of a large model
