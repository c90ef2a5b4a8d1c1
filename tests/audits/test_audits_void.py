"""A sound run is hardly ever void, and an instrument that is blind hardly ever passes: the whole rules, simulated."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from worlds import subject

from wheeltap.audits.controls import (
    AGAIN,
    AGAIN_DRAWS,
    Null,
    Plants,
    found_planted,
    plant_level,
    silent_twice,
)
from wheeltap.core.records import Control
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.missing import missed_again, missed_by

MARGIN, MIN_EFFECT, LEVEL = 0.05, 0.1, 0.95
STRENGTHS = 3
RARE, REASSURED = 0.001, 0.01  # of sound runs that are void; of blind instruments that pass
PLANTED = subject("planted", role="planted")
Table = NDArray[np.float64]


@dataclass
class Net:
    """Curve areas ``[draw, example]`` of a net: examples differ, draws hit more or less hard, and cells are noisy."""

    rng: np.random.Generator
    draw_sd: float
    examples: int = 40
    cell_sd: float = 0.3

    def __post_init__(self) -> None:
        self.easy = self.rng.normal(0.7, 0.2, size=self.examples)

    def areas(self, draws: int, *, lost: float = 0.0, calm: float = 1.0) -> Table:
        """Draws of a copy that loses so much, and of which draws differ by a share ``calm`` of the net's."""
        rows = self.rng.normal(0.0, self.draw_sd * calm, size=(draws, 1))
        return self.easy - lost + rows + self.rng.normal(0.0, self.cell_sd, size=(draws, self.examples))


def planted(net: Net, draws: int, *, lost: tuple[float, ...], calm: float) -> Control:
    """The planted control of a noise audit: its own draws, strength by strength, and other draws of the strongest."""
    level, own = plant_level(STRENGTHS), net.areas(draws)
    plants = Plants(effect=mean_effect(own - own, unit="u"), copy=PLANTED)
    for weaker, effect in enumerate(lost):
        gap = mean_effect(own - net.areas(draws, lost=effect, calm=calm), level=level, margin=MARGIN, unit="u")
        plants = Plants(effect=gap, copy=PLANTED, weaker=weaker)
        if plants.found:
            return found_planted("n", plants, because="")
    missed = missed_again(own, net.areas(draws, lost=lost[-1], calm=calm), level=level)
    return found_planted("n", Plants(effect=plants.effect, copy=PLANTED, weaker=2, missed=missed), because="")


@pytest.mark.parametrize("draws", [2, 24])
def test_a_sound_run_is_hardly_ever_void_for_its_plants(draws: int) -> None:
    """Whatever the strongest plant costs, from nothing to all, and however its draws differ."""
    rng, runs = np.random.default_rng(draws), 25
    voids = []
    for lost in (0.0, 0.03, 0.08, 0.15, 0.25, 0.5):
        for calm in (0.1, 1.0):
            some = [planted(Net(rng, 0.12), draws, lost=(lost / 4, lost / 2, lost), calm=calm) for _ in range(runs)]
            voids += [control.status == "failed" for control in some]
    assert np.mean(voids) <= RARE + 3 * (RARE / len(voids)) ** 0.5


@pytest.mark.parametrize("draws", [2, 24])
def test_an_instrument_that_sees_no_plant_hardly_ever_passes_and_never_fails(draws: int) -> None:
    rng, runs = np.random.default_rng(draws), 150
    blind = [planted(Net(rng, 0.12), draws, lost=(0.0, 0.0, 0.0), calm=1.0).status for _ in range(runs)]
    assert set(blind) <= {"passed", "skipped"}
    assert np.mean([status == "passed" for status in blind]) <= REASSURED + 3 * (REASSURED / runs) ** 0.5


def test_a_plant_that_any_sound_audit_sees_is_found_with_few_draws() -> None:
    rng = np.random.default_rng(5)
    some = [planted(Net(rng, 0.04), 4, lost=(0.1, 0.3, 0.5), calm=0.5).status for _ in range(100)]
    assert np.mean([status == "passed" for status in some]) >= 0.98


@pytest.mark.parametrize("draws", [4, 24])
def test_the_chance_of_missing_a_plant_is_told_right_and_never_too_small(draws: int) -> None:
    """What is predicted from one set of draws comes true in others, averaged over sets; few draws promise little."""
    rng, level = np.random.default_rng(draws), plant_level(STRENGTHS)
    told, missed = list[float](), list[bool]()
    for _ in range(300):
        net, lost = Net(rng, 0.12), float(rng.uniform(0.0, 0.4))
        own = net.areas(draws)
        chance = missed_again(own, net.areas(draws, lost=lost), level=level)
        assert chance is not None
        told.append(chance)
        low = mean_effect(own - net.areas(draws, lost=lost), level=level, unit="u").low
        missed.append(low is None or low <= 0.0)
    assert np.mean(told) == pytest.approx(np.mean(missed), abs=0.09)
    sure = [miss for chance, miss in zip(told, missed, strict=True) if chance < 0.05]
    assert len(sure) < 30 or np.mean(sure) <= 0.1
    for one, two in ((1, 8), (8, 1)):  # a single draw promises nothing
        assert missed_again(net.areas(one), net.areas(two, lost=0.5), level=0.99) is None


def test_a_reading_is_missed_as_often_as_is_said() -> None:
    """On average over effects from none to large."""
    rng, level, count = np.random.default_rng(2), 0.98, 60
    predicted, missed = list[float](), list[bool]()
    for effect in rng.uniform(-1.0, 2.0, size=1500):
        one, two = (rng.normal(effect, 1.2, size=count) for _ in range(2))
        predicted.append(missed_by(one.mean(), one.std(ddof=1) / count**0.5, df=count - 1, level=level))
        missed.append((mean_effect(two[None, :], level=level, unit="u").low or 0.0) <= 0.0)
    assert np.mean(predicted) == pytest.approx(np.mean(missed), abs=0.03)


# ---- copies that must show nothing ---------------------------------------------------------------------------------


def twin(net: Net, draws: int, *, lost: float = 0.0) -> tuple[bool, Control]:
    """Whether the first look at a twin seemed to differ, and what its control says."""
    gap = mean_effect(net.areas(draws) - net.areas(draws, lost=lost), level=LEVEL, margin=MARGIN, unit="u")
    null, many = Null(gap=gap, margin=MARGIN, min_effect=MIN_EFFECT, df=draws - 1), AGAIN_DRAWS * draws
    if null.apart:
        again = mean_effect(net.areas(many) - net.areas(many, lost=lost), level=AGAIN, margin=MARGIN, unit="u")
        null = Null(gap=gap, again=again, margin=MARGIN, min_effect=MIN_EFFECT)
    return null.apart, silent_twice("n", null, because="")


@pytest.mark.parametrize("draws", [2, 8])
def test_a_copy_of_the_same_function_hardly_ever_makes_a_run_void(draws: int) -> None:
    """Draws that differ far more than the margin: there the margin does not help."""
    rng, runs = np.random.default_rng(draws), 800
    looks = [twin(Net(rng, 0.5), draws) for _ in range(runs)]
    assert np.mean([seemed for seemed, _ in looks]) <= 0.06
    assert sum(control.status == "failed" for _, control in looks) <= 1


def test_a_copy_that_differs_by_what_is_of_interest_is_confirmed() -> None:
    """Of the widest tables that pass, 4 in 5 fail where the effect is there; two looks lose little to one."""
    rng, runs, draws = np.random.default_rng(1), 300, 24
    nets = [Net(rng, 0.015, examples=60, cell_sd=0.2) for _ in range(runs)]
    assert np.mean([twin(net, draws)[1].status == "passed" for net in nets[:100]]) >= 0.9
    first, both = zip(*(twin(net, draws, lost=MIN_EFFECT) for net in nets), strict=True)
    failed = np.mean([control.status == "failed" for control in both])
    assert failed >= 0.8 - 2.6 * (0.16 / runs) ** 0.5
    assert np.mean(first) - failed <= 0.04
