"""Distances to votes against their textbook forms, and every interval against simulated people."""

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats
from scipy.spatial import distance

from wheeltap.stats.effect import mean_effect, score_interval
from wheeltap.suites.lens.stats import votes as dis

VOTES = hnp.arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(2, 4)), elements=st.integers(0, 6)).map(
    lambda votes: votes + (votes.sum(1, keepdims=True) < 2)
)
LOW, HIGH = 0.93, 0.97
REPEATS, ITEMS, NOISE = 600, 150, 0.018
"""Of a simulation; the last is twice the standard error of its coverage."""


def pairs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    one, two = rng.dirichlet([0.3] * 4, size=60), rng.dirichlet([0.3] * 4, size=60)
    one[:20] = np.round(one[:20])  # labels that nobody chose
    return one / one.sum(1, keepdims=True).clip(1e-9), two


def test_distances_are_those_of_scipy() -> None:
    one, two = pairs()
    one = one[one.sum(1) > 0.5]
    two = two[: len(one)]
    assert dis.js_distance(one, two) == pytest.approx(distance.jensenshannon(one, two, axis=1), abs=1e-12)
    assert dis.kl_divergence(one, two) == pytest.approx(stats.entropy(one, two, axis=1), abs=1e-9)
    assert dis.entropy(one) == pytest.approx(stats.entropy(one, axis=1), abs=1e-12)
    steps = [stats.wasserstein_distance(range(4), range(4), a, b) for a, b in zip(one, two, strict=True)]
    assert dis.wasserstein(one, two) == pytest.approx(steps, abs=1e-9)
    assert 2 * dis.total_variation(one, two) == pytest.approx(distance.cdist(one, two, "cityblock").diagonal())


@given(VOTES)
def test_shares_and_halves_keep_everybody(votes: np.ndarray) -> None:
    split = dis.halves(votes, splits=3, rng=np.random.default_rng(0))
    assert split.one.shape == (4, *votes.shape)
    assert (split.one + split.two == votes).all() and (split.one >= 0).all() and (split.two >= 0).all()
    assert (split.one.sum(-1) == votes.sum(1) // 2).all()
    assert (split.one[0::2] + split.one[1::2] <= votes).all()  # two of a pair have nobody in common
    assert np.allclose(dis.shares(votes).sum(1), 1.0)


@given(VOTES)
def test_agreement_is_the_share_of_pairs(votes: np.ndarray) -> None:
    people = [np.repeat(np.arange(votes.shape[1]), row) for row in votes]
    expected = [np.mean([a == b for a, b in combinations(row, 2)]) for row in people]
    assert dis.agreement(votes) == pytest.approx(expected)


def test_halves_are_drawn_fairly() -> None:
    """Every half of 4 people, two of whom chose each label, as often as there are ways to choose it."""
    split = dis.halves(np.tile([[2, 2]], (4000, 1)), splits=2, rng=np.random.default_rng(1))
    assert np.bincount(split.one[0, :, 0]) / 4000 == pytest.approx([1 / 6, 4 / 6, 1 / 6], abs=0.03)


def test_squared_distance_to_all_is_without_bias() -> None:
    """Over every panel of 3 people, weighted by how likely it is."""
    truth, model, total = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.5, 0.3]), 0.0
    for chosen in product(range(3), repeat=3):
        votes = np.bincount(chosen, minlength=3)
        total += np.prod(truth[list(chosen)]) * float(dis.squared_to_all(votes[None], model[None])[0])
    assert total == pytest.approx(float(np.square(model - truth).sum()), abs=1e-12)


def test_kappa_of_the_textbook() -> None:
    """Fleiss (1971), the example of ten items that 14 people put in 5 classes: .21."""
    rows = ([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1], [7, 7, 0, 0, 0],
            [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7])  # fmt: skip
    assert dis.kappa(np.array(rows)).value == pytest.approx(0.210, abs=5e-4)
    assert dis.kappa(np.array([[3, 0], [2, 0]])).value is None


# ---- simulated people ---------------------------------------------------------------------------------------------


def people(sizes: tuple[int, int], count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """What all people would say of so many items, some of them clear, and votes of a few."""
    rng = np.random.default_rng(seed)
    truth = rng.dirichlet([0.9, 0.6, 0.4], size=count)
    return truth, rng.multinomial(rng.integers(sizes[0], sizes[1] + 1, size=count), truth)


def believed(truth: np.ndarray) -> np.ndarray:
    return 0.6 * truth + 0.4 * np.array([0.5, 0.3, 0.2])


def covered(values: np.ndarray, truth: float) -> float:
    """Share of repeats whose interval of the mean over items holds the truth."""
    made = [score_interval(row, bounded=False, unit="1") for row in values.reshape(-1, ITEMS)]
    return float(np.mean([one.low <= truth <= one.high for one in made]))  # type: ignore[operator]


def test_intervals_over_items_hold_for_fresh_people_on_fresh_items() -> None:
    """The distance to votes, the split-half ceiling, and the difference of the two: resampling items is enough."""
    sizes = (2, 9)
    truth, votes = people(sizes, REPEATS * ITEMS, seed=0)
    split = dis.halves(votes, splits=4, rng=np.random.default_rng(1))
    far = dis.js_distance(believed(truth), dis.shares(votes))
    ceiling = dis.js_distance(split.other, split.target).mean(0)
    against = dis.js_distance(believed(truth), split.target).mean(0) - ceiling
    other, again = people(sizes, 200_000, seed=2)  # what is estimated, from other items and other people
    fresh = dis.halves(again, splits=2, rng=np.random.default_rng(3))
    true_ceiling = dis.js_distance(fresh.other, fresh.target).mean()
    true_far = dis.js_distance(believed(other), dis.shares(again)).mean()
    true_against = dis.js_distance(believed(other), fresh.target).mean() - true_ceiling
    pairs = ((far, true_far), (ceiling, true_ceiling), (against, true_against))
    found = [covered(values, float(true)) for values, true in pairs]
    assert all(LOW - NOISE <= share <= HIGH + NOISE for share in found), found


def test_a_model_like_another_panel_is_seldom_called_further() -> None:
    truth, votes = people((2, 9), 400 * 100, seed=10)
    split = dis.halves(votes, splits=2, rng=np.random.default_rng(11))
    model = dis.shares(np.random.default_rng(12).multinomial(split.two[0].sum(-1), truth))
    gaps = dis.js_distance(model, split.target).mean(0) - dis.js_distance(split.other, split.target).mean(0)
    p = [mean_effect(row[None, :], bounded=True, unit="1").p or 0.0 for row in gaps.reshape(400, 100)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 0.022


def test_a_model_that_knows_all_people_is_calibrated_where_they_disagree() -> None:
    """One half says where that is, the other who is right; were all votes to do both, it would look too sure."""
    truth, votes = people((3, 9), 400 * ITEMS, seed=13)
    split, p = dis.halves(votes, splits=4, rng=np.random.default_rng(14)), truth.max(1)
    chosen = (split.other.max(-1) < 0.66) & (split.two.sum(-1) > 1)
    gap = p - dis.soft_accuracy(split.target, truth)
    made = [
        score_interval(dis.among(gap[:, at], chosen[:, at])[0], bounded=False, unit="1")
        for at in np.arange(400 * ITEMS).reshape(400, ITEMS)
    ]
    share = np.mean([one.low <= 0.0 <= one.high for one in made])  # type: ignore[operator]
    assert LOW - 0.022 <= share <= HIGH + 0.022
    held = dis.shares(votes)
    naive = (p - dis.soft_accuracy(held, truth))[held.max(1) < 0.66].mean()
    assert naive > 0.05


def test_correlation_holds_for_numbers_that_are_not_normal() -> None:
    rng = np.random.default_rng(15)
    x = rng.exponential(size=(1000, 200))
    y = 0.5 * x + rng.exponential(size=x.shape) * 0.8
    true = 0.5 / np.sqrt(0.25 + 0.64)
    made = [dis.correlation(a, b, name="r") for a, b in zip(x, y, strict=True)]
    assert 0.90 <= np.mean([one.low <= true <= one.high for one in made]) <= 0.98  # type: ignore[operator]
    assert made[0].value == pytest.approx(np.corrcoef(x[0], y[0])[0, 1])


pytestmark = pytest.mark.slow  # simulations
