"""Races by betting: seldom told of equals, quick where there is a gap; the doses they pick and the chunks they plan."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequential_cases import ALPHA, WEIGHTS, slack

from benchmarks.verdict.replay import replay
from wheeltap.core.errors import DataError, UsageError
from wheeltap.stats.sequential import Doses, Race, Rules, dose_shares
from wheeltap.stats.waudbysmith2023 import Bets, Capital


@pytest.mark.slow
@pytest.mark.parametrize("mean", [-0.02, 0.02, 0.0])
def test_a_difference_that_is_not_worth_telling_is_not_told(mean: float) -> None:
    rng = np.random.default_rng(22)
    x = rng.choice([-1.0, 0.0, 1.0], p=[0.15 - mean / 2, 0.7, 0.15 + mean / 2], size=(2000, 800))
    found = replay(x, Rules(margin=0.02))
    assert float(np.isin(found.verdict, (1.0, -1.0)).mean()) <= ALPHA + slack(2000)


@pytest.mark.slow
@pytest.mark.parametrize("mean", [-0.1, 0.1])
def test_even_is_not_said_of_a_difference_min_effect_telling(mean: float) -> None:
    rng = np.random.default_rng(23)
    x = rng.choice([-1.0, 0.0, 1.0], p=[0.15 - mean / 2, 0.7, 0.15 + mean / 2], size=(2000, 800))
    found = replay(x, Rules(margin=0.0, min_effect=0.1))
    assert float((found.verdict == 0.0).mean()) <= ALPHA + slack(2000)
    assert float((found.verdict == np.sign(mean)).mean()) >= 0.9
    assert float((found.verdict == -np.sign(mean)).mean()) <= 0.005


def test_equals_are_called_even() -> None:
    rng = np.random.default_rng(24)
    x = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.8, 0.1], size=(200, 1500))
    found = replay(x, Rules(margin=0.02, min_effect=0.1))
    assert float((found.verdict == 0.0).mean()) >= 0.9
    assert float(np.median(found.rounds)) < 400


def test_the_interval_narrows_to_the_mean_and_says_what_the_test_says() -> None:
    rng = np.random.default_rng(26)
    race = Race(Rules(margin=0.02))
    for seen in rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=3000):
        race.feed(float(seen))
        if race.n % 50 == 0:
            told_of = race.estimate(unit="accuracy")
            assert told_of.low is not None
            assert told_of.high is not None
            assert told_of.p is not None
            assert (told_of.p <= ALPHA) == (told_of.low >= 0.02 or told_of.high <= -0.02)
    found = race.estimate(unit="accuracy")
    assert found.low is not None
    assert found.high is not None
    assert found.value is not None
    assert found.low < 0.2 < found.high
    assert found.high - found.low < 0.1
    assert found.value == pytest.approx(0.2, abs=0.05)
    assert (found.n, race.decided) == (3000, "first")
    assert "every stopping time" in found.method


@pytest.mark.parametrize("mean", [0.15, -0.15, 0.0])
def test_a_race_fed_one_by_one_stops_where_the_replay_does(mean: float) -> None:
    rng = np.random.default_rng(27)
    x = np.clip(rng.normal(mean, 0.4, size=(20, 400)), -1.0, 1.0)
    names = {1.0: "first", -1.0: "second", 0.0: "even", 2.0: None}
    whole = replay(x)
    for row, rounds, verdict in zip(x, whole.rounds, whole.verdict, strict=True):
        race = Race()
        for seen in row:
            if race.feed(float(seen)) is not None:
                break
        assert (race.n, race.decided) == (int(rounds), names[float(verdict)])


def test_the_first_verdict_stands_whatever_is_fed_later() -> None:
    race = Race(Rules(margin=0.0))
    while race.feed(0.5) is None:
        pass
    for _ in range(500):
        race.feed(-0.5)
    assert race.decided == "first"


def test_subjects_that_swap_places_swap_the_verdict() -> None:
    rng = np.random.default_rng(28)
    x = np.clip(rng.normal(0.1, 0.4, size=(50, 600)), -1.0, 1.0)
    one, other = replay(x), replay(-x)
    assert np.array_equal(one.rounds, other.rounds)
    decided = np.abs(one.verdict) == 1.0
    assert decided.any()
    assert np.array_equal(one.verdict[decided], -other.verdict[decided])


def test_the_loss_of_one_subject_at_one_dose_is_a_race_too() -> None:
    rng = np.random.default_rng(29)
    race = Race(Rules(margin=0.02))
    while race.decided is None:
        clean, disturbed = rng.random() < 0.97, rng.random() < 0.77
        race.feed(float(clean) - float(disturbed))
    assert race.decided == "first"
    assert race.n < 150


# ---- doses and designs -----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    raw=st.lists(st.floats(0.05, 1.0), min_size=2, max_size=8),
    squares=st.lists(st.floats(0.0, 1.0), min_size=8, max_size=8),
    most=st.floats(1.0, 4.0),
)
def test_shares_of_doses_are_bounded_and_no_worse_than_the_weights(
    raw: list[float], squares: list[float], most: float
) -> None:
    weights, s = np.array(raw) / sum(raw), np.array(squares[: len(raw)])
    shares = dose_shares(weights, s, most=most)
    assert shares.sum() == pytest.approx(1.0)
    assert float((weights / shares).max()) <= most + 1e-9
    assert float((weights**2 / shares * s).sum()) <= float((weights * s).sum()) + 1e-9


def test_without_a_bound_the_shares_are_those_of_least_variance() -> None:
    weights, squares = np.array([0.2, 0.5, 0.3]), np.array([0.04, 0.16, 0.36])
    expected = weights * np.sqrt(squares) / (weights * np.sqrt(squares)).sum()
    assert dose_shares(weights, squares, most=100.0) == pytest.approx(expected)
    assert dose_shares(weights, squares, most=1.0) == pytest.approx(weights)
    assert dose_shares(weights, np.zeros(3)) == pytest.approx(weights)


def test_observations_at_doses_picked_on_the_way_have_the_mean_of_the_area() -> None:
    # At every step: over the next dose, the expected observation is the area difference, whatever was seen before.
    rng, gaps = np.random.default_rng(32), np.array([0.05, 0.3, 0.1])
    doses = Doses(WEIGHTS)
    for _ in range(200):
        expected = sum(
            share * gap * weight / share for share, gap, weight in zip(doses.shares, gaps, WEIGHTS, strict=True)
        )
        assert expected == pytest.approx(float(WEIGHTS @ gaps))
        dose, before = doses.pick(float(rng.random())), doses.shares.copy()
        difference = float(rng.random() < gaps[dose])
        assert doses.observe(dose, difference) == pytest.approx(difference * WEIGHTS[dose] / before[dose])
    wanted = dose_shares(WEIGHTS, gaps)
    assert doses.shares == pytest.approx(wanted, abs=0.1)


def test_doses_are_picked_as_often_as_their_shares_say() -> None:
    doses = Doses(WEIGHTS, most=3.0)
    grid = (np.arange(10_000) + 0.5) / 10_000
    picked = np.bincount([doses.pick(float(u)) for u in grid], minlength=3) / 10_000
    assert picked == pytest.approx(doses.shares, abs=1e-3)
    assert doses.pick(0.0) == 0
    assert doses.pick(np.nextafter(1.0, 0.0)) == 2


def test_a_race_over_picked_doses_finds_the_sounder() -> None:
    rng, gaps = np.random.default_rng(33), np.array([0.05, 0.3, 0.1])
    doses, race = Doses(WEIGHTS), Race(Rules(margin=0.02, bounds=(-1.5, 1.5)))
    while race.decided is None and race.n < 2000:
        dose = doses.pick(float(rng.random()))
        difference = float(rng.random() < 0.5) - float(rng.random() < 0.5 - gaps[dose])
        race.feed(doses.observe(dose, difference))
    assert race.decided == "first"


def test_no_race_is_won_in_fewer_rounds_than_any_exact_test_needs() -> None:
    # Had every round been .1, chance could have done it: .1 with probability 10/11, else -1, has mean 0.
    found = replay(np.full((1, 200), 0.1), Rules(margin=0.0, min_effect=0.1))
    least = math.log(2 / ALPHA) / math.log(1.1)
    assert least <= found.rounds[0] <= 1.25 * least
    assert found.verdict[0] == 1.0


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("x", [1.5, -1.1, math.nan, math.inf])
def test_an_observation_outside_the_bounds_is_refused(x: float) -> None:
    race = Race()
    with pytest.raises(DataError, match="cannot be fed"):
        race.feed(x)
    assert race.n == 0


def test_rounding_at_the_bound_is_not_refused() -> None:
    race = Race(Rules(bounds=(-1.5, 1.5)))
    race.feed(1.5 + 1e-12)
    assert race.n == 1


def test_rules_means_and_bets_that_cannot_be_used_are_refused() -> None:
    for rules in (
        Rules(margin=0.2, min_effect=0.1),
        Rules(margin=-0.1),
        Rules(min_effect=1.0),
        Rules(bounds=(0.0, 1.0)),
    ):
        with pytest.raises(UsageError, match="rules of a race"):
            Race(rules)
    with pytest.raises(UsageError, match="confidence level"):
        Race(Rules(alpha=0.0))
    with pytest.raises(UsageError, match="cannot be bet against"):
        Capital(np.array([1.2]))
    with pytest.raises(UsageError, match="bets cannot be used"):
        Capital(np.zeros(1), bets=Bets(effects=(0.1,), weights=(0.5,)))
    with pytest.raises(DataError, match="shared out"):
        dose_shares(np.array([0.5, 0.5]), np.array([1.0]))


pytestmark = pytest.mark.slow  # simulations
