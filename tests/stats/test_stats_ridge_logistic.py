"""AUCs against counting pairs, the regression against a general optimizer."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from wheeltap.stats.delong1988 import auc, placements
from wheeltap.stats.ridge_logistic import RIDGE, log_odds


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
