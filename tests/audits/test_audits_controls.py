"""A control that could not have failed is skipped, and says why; detection power by graded copies."""

import math

import msgspec
import numpy as np
import pytest
import reports
import torch
from numpy.typing import NDArray
from torch import nn
from worlds import subject

import wheeltap as wt
from wheeltap.audits.controls import Null, Plants, destroyed, found_planted, silent, silent_twice, surely
from wheeltap.audits.power import Gap, powers_of, smallest_found
from wheeltap.core.records import Estimate
from wheeltap.report.report import Report


def interval(low: float | None, high: float | None, *, level: float = 0.99) -> Estimate:
    value = None if low is None or high is None else (low + high) / 2
    return Estimate(name="e", value=value, low=low, high=high, level=level, n=9, unit="u", method="m")


# ---- the rule ------------------------------------------------------------------------------------------------------


NULLS = [
    (interval(-0.01, 0.01), 0.05, "passed"),
    (interval(-0.3, 0.3), 0.05, "skipped"),  # nothing short of .4 would have failed it
    (interval(-0.01, 0.01), 2.0, "skipped"),  # no share of answers differs by 2
    (interval(None, None), 0.05, "skipped"),
    (interval(0.06, 0.08), 0.05, "failed"),
    (interval(-0.5, -0.06), 0.05, "failed"),
]


def test_what_must_show_nothing_or_may_only_err_upwards() -> None:
    for gap, margin, status in NULLS:
        control = silent("name", gap, margin=margin, min_effect=0.1, because="Why.")
        assert (control.kind, control.status, control.estimates) == ("null", status, (gap,))
    for gap, status in ((interval(-0.5, -0.4), "passed"), (interval(0.4, 0.5), "failed")):
        assert silent("n", gap, margin=0.05, min_effect=0.3, because="", one_sided=True).status == status


def test_what_is_looked_at_once_must_differ_surely() -> None:
    for p, status in ((0.0009, "failed"), (0.01, "skipped")):
        gap = msgspec.structs.replace(interval(0.06, 0.08, level=0.95), p=p)
        control = surely(silent("name", gap, margin=0.05, min_effect=0.1, because="Why."), gap)
        assert control.status == status


AGAIN = [
    (None, "failed"),
    (interval(0.06, 0.09), "failed"),
    (interval(-0.01, 0.01), "passed"),  # it was chance, and fresh draws would have shown a difference of interest
    (interval(-0.3, 0.4), "skipped"),  # fresh draws show nothing
    (interval(-0.09, -0.06), "skipped"),  # nor do they where they point to the other side
]


def test_what_seems_to_differ_fails_only_if_fresh_draws_say_so_too() -> None:
    for again, status in AGAIN:
        null = Null(gap=interval(0.06, 0.08), again=again, margin=0.05, min_effect=0.1)
        control = silent_twice("name", null, because="Why.")
        assert (control.kind, control.status) == ("null", status)
        assert null.confirmed == (status == "failed")
    nothing = Null(gap=interval(-0.01, 0.01), again=interval(0.06, 0.09), margin=0.05, min_effect=0.1)
    assert not nothing.apart and not nothing.confirmed, "a second look changes nothing where the first showed nothing"


FOUND = [
    (interval(0.02, 0.5), None, "passed"),
    (interval(-0.02, 0.05), None, "skipped"),
    (interval(-0.02, 0.05), 0.4, "skipped"),
    (interval(-0.02, 0.05), 0.0009, "failed"),
    (interval(None, None), None, "skipped"),
    (msgspec.structs.replace(interval(-0.3, -0.2), p=0.0009), 0.4, "failed"),
    (msgspec.structs.replace(interval(-0.3, -0.2), p=0.01), 0.4, "skipped"),
]
LARGE = [
    (interval(0.3, 0.5), None, "passed"),
    (interval(0.02, 0.1), interval(0.01, 0.15), "failed"),
    (interval(0.02, 0.1), interval(0.0, 0.3), "skipped"),
    (interval(0.02, 0.1), None, "skipped"),
    (interval(0.1, 0.4), interval(0.0, 0.5), "skipped"),
]


def test_what_must_be_found_and_what_must_be_large() -> None:
    """Noise that destroys the weights and costs a tenth of the score has not destroyed them."""
    for effect, missed, status in FOUND:
        plants = Plants(effect=effect, copy=subject("planted", role="planted"), missed=missed)
        control = found_planted("name", plants, because="Why.")
        assert (control.kind, control.status) == ("planted", status)
        assert plants.found == (status == "passed")
    for effect, sure, status in LARGE:
        assert destroyed("name", effect, least=0.2, surely=sure, because="Why.").status == status


# ---- where it is used ----------------------------------------------------------------------------------------------


# ---- on real nets --------------------------------------------------------------------------------------------------


def net(outputs: int, *, scale: float = 1.0, width: int = 8) -> nn.Sequential:
    torch.manual_seed(4)
    made = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))
    with torch.no_grad():
        last = made[-1]
        assert isinstance(last, nn.Linear) and last.bias is not None
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    return made.eval()


def points(count: int = 40) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(8))


def measured(model: nn.Module, task: wt.Task, *audits: str | wt.AuditSpec) -> Report:
    subject = wt.Subject(model, name="net")
    effort = wt.Effort(draws=4, control_draws=4, block_draws=0)
    return reports.run(subject, task, *audits, keep=("twin", "planted", "stronger"), effort=effort)


def test_a_model_that_says_the_same_of_everything_passes_nothing() -> None:
    model = net(3)
    with torch.no_grad():
        model[-1].weight.zero_()
    report = measured(model, wt.Task(points(), torch.arange(40) % 3), "score", "relative-noise")
    clean = reports.control(report, "two clean passes agree")
    twin = reports.control(report, "reparametrized copy computes the same function")
    assert clean.status == twin.status == "skipped"


def test_a_copy_of_a_model_with_one_large_output_is_measured_in_its_own_scale() -> None:
    """Rounding of numbers in the millions is larger than 1e-4, and no difference."""
    task = wt.Task(points(), 1e6 * torch.randn(40, 1, generator=torch.Generator().manual_seed(9)), name="wanted")
    report = measured(net(1, scale=1e7), task, "score", "relative-noise")
    twin = reports.control(report, "reparametrized copy computes the same function")
    assert twin.status == "passed" and 0.0 < (twin.estimates[0].value or 0.0) < 1e-5


NEEDED: list[tuple[tuple[str, ...], tuple[str, ...] | None, bool]] = [
    (("score",), None, False),
    (("score", "single-point"), ("permute", "rescale"), False),
    (("score", "deployment"), ("permute",), False),
    (("score", "relative-noise"), ("permute", "rescale"), True),
    (("redundancy",), ("permute", "rescale"), True),
]


def test_copies_are_made_for_the_audits_that_need_them_and_of_what_they_need() -> None:
    """Rounding sees how large a unit is written: its copy has its units in another order and no more."""
    for audits, gauges, defects in NEEDED:
        plan = wt.plan(wt.Subject(net(3), name="net"), wt.Task(points(), torch.arange(40) % 3), audits=audits)
        made = None if plan.twin is None else plan.twin.made
        assert (None if made is None else made.operations) == gauges
        assert (plan.planted is not None) == (bool(plan.graded)) == defects


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


@pytest.mark.parametrize(("spread", "error"), [(0.3, 0.02), (0.6, 0.01)])
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
