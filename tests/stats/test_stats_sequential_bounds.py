"""Bounds by betting: valid whenever one looks, by exact enumeration and by simulation."""

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sequential_cases import ALPHA, WEIGHTS, slack

from wheeltap.stats.sequential import dose_shares
from wheeltap.stats.waudbysmith2023 import Bets, Capital, p_value

Generator = np.random.Generator


def slow_capital(x: list[float], m: float, bets: Bets) -> tuple[float, float]:
    """Last and largest capital against "the mean is at most m", one product at a time, on [-1, 1]."""
    capital, largest, squares, total = [1.0] * len(bets.effects), 1.0, 0.25, 0.0
    for n, seen in enumerate(x):
        variance = squares / (n + 1)
        for j, d in enumerate(bets.effects):
            stake = min(d / (variance + d * d), bets.most / (m + 1.0))
            capital[j] *= 1.0 + stake * (seen - m)
        total += seen
        squares += (seen - total / (n + 2)) ** 2
        largest = max(largest, sum(w * c for w, c in zip(bets.weights, capital, strict=True)))
    return sum(w * c for w, c in zip(bets.weights, capital, strict=True)), largest


# Values in [-1, 1] with their probabilities: the mean is m exactly.
GAMES = [
    ((-1.0, 0.0, 1.0), (0.25, 0.5, 0.25), 0.0),
    ((-0.1, 0.9), (0.9, 0.1), 0.0),
    ((-1.0, 0.25, 0.5), (0.2, 0.4, 0.4), 0.1),
    ((-1.0, 1.0), (0.6, 0.4), -0.2),
]


@pytest.mark.parametrize(("values", "chances", "m"), GAMES)
def test_over_all_paths_the_capital_is_worth_one_and_reaches_c_with_probability_at_most_one_in_c(
    values: tuple[float, ...], chances: tuple[float, ...], m: float
) -> None:
    # Every path of 7 rounds, so no sampling error: this is Ville's inequality itself.
    paths = np.array(list(product(range(len(values)), repeat=7)))
    x, weight = np.array(values)[paths], np.array(chances)[paths].prod(axis=1)
    for side in (1.0, -1.0):
        capital = Capital(np.array([side * m]), shape=(len(x),))
        for column in x.T:
            capital.feed(side * column)
        assert weight.sum() == pytest.approx(1.0)
        for c in (1.2, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0):
            for peak in (capital.above, capital.below):
                assert weight[np.exp(peak[:, 0]) >= c].sum() <= 1.0 / c + 1e-12


@pytest.mark.parametrize(("values", "chances", "m"), GAMES)
def test_the_slow_capital_is_a_martingale_at_the_mean(
    values: tuple[float, ...], chances: tuple[float, ...], m: float
) -> None:
    paths = np.array(list(product(range(len(values)), repeat=5)))
    weight = np.array(chances)[paths].prod(axis=1)
    min_effect = [slow_capital([values[i] for i in path], m, Bets())[0] for path in paths]
    assert float(weight @ min_effect) == pytest.approx(1.0, abs=1e-12)


@settings(max_examples=40)
@given(
    x=st.lists(st.floats(-1, 1), min_size=1, max_size=25),
    m=st.floats(-0.9, 0.9),
)
def test_the_capital_is_that_of_a_slow_computation(x: list[float], m: float) -> None:
    capital = Capital(np.array([m]))
    for seen in x:
        capital.feed(np.asarray(seen))
    assert float(np.exp(capital.above[0])) == pytest.approx(slow_capital(x, m, Bets())[1], rel=1e-9)
    mirrored = slow_capital([-seen for seen in x], -m, Bets())[1]
    assert float(np.exp(capital.below[0])) == pytest.approx(mirrored, rel=1e-9)


@settings(max_examples=40)
@given(x=st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.3, 1.0]), min_size=1, max_size=60))
def test_means_further_off_are_rejected_sooner_so_the_set_is_an_interval(x: list[float]) -> None:
    capital = Capital(np.linspace(-1.0, 1.0, 41))
    before = (-1.0, 1.0)
    for seen in x:
        capital.feed(np.asarray(seen))
        assert np.all(np.diff(capital.above) <= 1e-9)
        assert np.all(np.diff(capital.below) >= -1e-9)
        ends = tuple(float(end) for end in capital.interval(0.95))
        assert ends[0] >= before[0]  # only ever narrower
        assert ends[1] <= before[1]
        before = ends


def ever(x: np.ndarray) -> float:
    """Share of the sequences ``[race, round]`` in which "the mean is 0" is ever rejected at .05."""
    capital = Capital(np.zeros(1), shape=(len(x),))
    for column in x.T:
        capital.feed(column)
    return float((2 * np.minimum(p_value(capital.above), p_value(capital.below)) <= ALPHA).mean())


def heavy_chunks(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Means of 20 cells of -1 and 1 that mostly go the way of their common, heavy-tailed draw."""
    lean = np.clip(0.25 * rng.standard_t(2, size=shape), -1.0, 1.0)
    return (rng.binomial(20, (1 + lean) / 2) - 10) / 10.0


def swelling(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Mean 0 given the past, but ten times the spread after a run to one side."""
    found, total = np.empty(shape), np.zeros(shape[0])
    for index in range(shape[1]):
        found[:, index] = np.where(np.abs(total) > 2.0, 1.0, 0.1) * rng.choice([-1.0, 1.0], size=shape[0])
        total = 0.9 * total + found[:, index]
    return found


def reshuffled(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """A skewed task of 60 whose differences cancel, gone through in chunks of 4 without replacement, then anew."""
    task = np.where(np.arange(60) < 10, 0.75, -0.15)
    order = np.argsort(rng.random((shape[0], -(-shape[1] * 4 // 60), 60)), axis=-1).reshape(shape[0], -1)
    chunks = task[order[:, : shape[1] * 4]].reshape(*shape, 4).mean(axis=-1)
    return chunks + 0.2 * rng.choice([-1.0, 1.0], size=shape)


def one_dose(rng: Generator, shape: tuple[int, int]) -> np.ndarray:
    """Differences at doses drawn by shares, times weight / share: they cancel over the doses, not at each."""
    shares = dose_shares(WEIGHTS, np.array([0.01, 0.3, 0.2]), most=1.5)
    dose = rng.choice(3, size=shape, p=shares)
    lean = np.array([0.4, -0.1, -0.1])[dose]  # 0.2 x 0.4 - 0.5 x 0.1 - 0.3 x 0.1 = 0
    cells = np.where(rng.random(shape) < 0.5, np.where(rng.random(shape) < (1 + lean) / 2, 1.0, -1.0), 0.0)
    return cells * (WEIGHTS / shares)[dose] / 1.5


NULLS: dict[str, Callable[[Generator, tuple[int, int]], np.ndarray]] = {
    "skewed": lambda rng, shape: np.where(rng.random(shape) < 0.05, 0.95, -0.05),
    "sparse": lambda rng, shape: (rng.random(shape) < 0.02) * rng.choice([-1.0, 1.0], size=shape),
    "coin": lambda rng, shape: rng.choice([-1.0, 1.0], size=shape),
    "heavy chunks": heavy_chunks,
    "swelling": swelling,
    "reshuffled": reshuffled,
    "one dose": one_dose,
}


@pytest.mark.slow
@pytest.mark.parametrize("null", NULLS)
def test_two_thousand_nulls_looked_at_after_every_round_alarm_in_five_per_cent_at_most(null: str) -> None:
    assert ever(NULLS[null](np.random.default_rng(20), (2000, 1000))) <= ALPHA + slack(2000)


@pytest.mark.slow
def test_the_confidence_sequence_holds_the_mean_at_every_round_at_once() -> None:
    rng = np.random.default_rng(25)
    for mean, spread in ((0.0, 0.3), (0.3, 0.5), (-0.7, 0.1)):
        share = (1 + mean) / 2
        size = share * (1 - share) / (spread**2 / 4) - 1
        x = 2 * rng.beta(share * size, (1 - share) * size, size=(1000, 400)) - 1
        capital = Capital(np.array([mean]), shape=(1000,))
        for column in x.T:
            capital.feed(column)
        missed = (2 * p_value(capital.above) <= ALPHA) | (2 * p_value(capital.below) <= ALPHA)
        assert float(missed.mean()) <= ALPHA + slack(1000)
