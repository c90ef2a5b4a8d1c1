"""AUCs against counting pairs, the regression against a general optimizer, the error of a gain against repetitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize
from simulation import slack

from wheeltap.core.errors import DataError
from wheeltap.stats.added_value import RIDGE, AddedValue, added, folds, held_out, log_odds
from wheeltap.stats.delong1988 import auc, placements


def counted(scores: np.ndarray, labels: np.ndarray) -> float:
    """The share of pairs in the right order, one by one; ties count half."""
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    return float(np.mean(pairs))


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auc_is_the_share_of_pairs_in_the_right_order(items: list[tuple[int, bool]]) -> None:
    scores, labels = (np.array(column, dtype=float) for column in zip(*items, strict=True))
    if len(set(labels)) == 2:
        one, two = scores[labels == 1], scores[labels == 0]
        assert auc(one, two) == pytest.approx(counted(scores, labels), abs=1e-12)
        assert [part.mean() for part in placements(one, two)] == pytest.approx([auc(one, two)] * 2)
        assert auc(-one, -two) == pytest.approx(1 - auc(one, two), abs=1e-12)


@pytest.mark.parametrize("intercept", [True, False])
def test_the_regression_is_the_maximum_of_the_penalized_likelihood(intercept: bool) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 3))
    labels = (features @ [1.5, -1.0, 0.0] + rng.logistic(size=80) > 0.5).astype(float)
    seen = np.arange(80) < 70
    given = features[seen]
    centre = given.mean(0) if intercept else 0.0
    scaled = (features - centre) / np.sqrt(np.square(given - centre).mean(0))

    def odds(c: np.ndarray) -> np.ndarray:
        return scaled @ c[:3] + c[3] * intercept

    def loss(c: np.ndarray) -> float:
        signed = (2 * labels - 1) * odds(c)
        return float(np.logaddexp(0, -signed[seen]).sum() + RIDGE / 2 * np.square(c[:3]).sum())

    oracle = optimize.minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-9})
    assert np.allclose(log_odds(features, labels, seen=seen, intercept=intercept), odds(oracle.x), atol=1e-5)


def test_labels_that_a_score_separates_wholly_have_a_finite_fit() -> None:
    score = np.concatenate([np.linspace(-4, -3, 30), np.linspace(3, 4, 3)])[:, None]
    found = log_odds(score, (score[:, 0] > 0).astype(float), seen=np.ones(33, bool), ridge=1e-3)
    assert np.isfinite(found).all() and 1 < np.abs(found).max() < 50


def test_no_item_is_scored_by_a_fit_that_saw_its_group() -> None:
    # Labels are random, but within a group they equal the score: only a fit that saw the group could know.
    groups = np.repeat(np.arange(12), 20)
    labels = np.random.default_rng(1).integers(0, 2, size=240).astype(float)
    own = np.zeros((240, 12))
    own[np.arange(240), groups] = 2 * labels - 1
    scores = held_out(own, labels, groups=groups)
    for group in range(12):
        mine = groups == group
        assert counted(scores[mine], labels[mine]) == 0.5


def world(rng: np.random.Generator, *, shift: float, items: int = 300) -> AddedValue:
    labels = (rng.random(items) < 0.3).astype(float)
    scores = rng.normal(size=(items, 3)) + labels[:, None] * [0.8, 0.4, shift]
    return added(scores[:, :2], scores[:, 2:], labels, groups=folds(labels, count=5))


@pytest.mark.parametrize("shift", [0.0, 0.8])
def test_the_error_is_that_of_repetitions(shift: float) -> None:
    rng = np.random.default_rng(4)
    several = [world(rng, shift=shift) for _ in range(120)]
    gains, errors = np.array([(one.gain, one.se) for one in several]).T
    # A standard deviation of 120 runs errs by 7 %; of scores that add nothing the error is a little too wide.
    assert 0.8 <= float(np.sqrt(np.square(errors).mean()) / gains.std(ddof=1)) <= 1.5
    assert np.mean(np.abs(gains - gains.mean()) <= 1.96 * errors) >= 0.95 - slack(0.95, 120)
    # Shifts of .8 and .4 give Phi(.63) = .737; with another .8, Phi(.85) = .802: the gain is .065.
    assert gains.mean() == pytest.approx(0.065 if shift else 0.0, abs=0.01)


def test_the_units_of_scores_do_not_matter_and_constant_ones_add_nothing() -> None:
    rng = np.random.default_rng(2)
    labels = np.tile([0.0, 1.0, 0.0], 40)
    cheap, score = rng.normal(size=(120, 2)) + labels[:, None], rng.normal(size=(120, 1)) + labels[:, None]
    fold = folds(labels, count=4)
    plain = added(cheap, score, labels, groups=fold)
    assert added(cheap, 1e4 * score - 3e5, labels, groups=fold).gain == pytest.approx(plain.gain, abs=1e-9)
    constant = added(cheap, np.ones((120, 1)), labels, groups=fold)
    # Nothing is gained, but one pair of items may be missing for that: 16 x 8 twice and so on, four folds.
    pairs = sum(int((labels[fold == f] == 1).sum() * (labels[fold == f] == 0).sum()) for f in range(4))
    assert (constant.gain, constant.se) == (0.0, pytest.approx(1 / pairs))
    assert constant.without == plain.without


def test_what_cannot_be_compared_is_refused() -> None:
    labels, scores = np.tile([0.0, 1.0], 10), np.arange(20.0)[:, None]
    fold = folds(labels, count=5)
    for cheap, score, marked, groups, message in (
        (scores[1:], scores, labels, fold, "differ in number"),
        (scores, np.full((20, 1), np.nan), labels, fold, "not finite"),
        (scores, scores, labels / 2, fold, "labels cannot be used"),
        (scores, scores, np.zeros(20), fold, "too few items"),
        (scores, scores, labels, fold * 0, "too few items"),
        (scores, scores, labels, folds(labels, count=6), "too few items"),
    ):
        with pytest.raises(DataError, match=message):
            added(cheap, score, marked, groups=groups)
