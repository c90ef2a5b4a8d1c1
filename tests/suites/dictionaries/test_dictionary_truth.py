"""Known dictionaries: frequencies, correlations and magnitudes are what was asked for; the planted net is exact."""

from typing import Any, cast

import numpy as np
import pytest
import torch

from benchmarks.dictionaries.known import ATTRIBUTES, NUISANCE, Law, Truth, planted
from wheeltap.core.errors import UsageError
from wheeltap.suites.dictionaries.activations import collect
from wheeltap.suites.dictionaries.dictionary import Dictionary


def drawn(truth: Truth, rows: int = 6000) -> np.ndarray[Any, Any]:
    return np.concatenate(list(truth.codes(rows)))


@pytest.mark.parametrize("skew", [0.0, 1.0])
@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_features_are_active_as_often_as_asked(skew: float, correlation: float) -> None:
    """On average, and each; only those of a group are correlated."""
    truth = Truth(width=8, features=64, active=3.0, skew=skew, correlation=correlation, seed=1)
    active = drawn(truth) > 0
    chances = truth.chances()
    assert chances.sum() == pytest.approx(3.0) and chances.max() <= 0.5
    assert np.ptp(chances) == pytest.approx(0.0) if not skew else chances[0] > 10 * chances[-1]
    np.testing.assert_allclose(active.mean(0), chances, atol=5 * (chances * (1 - chances) / 6000).max() ** 0.5)
    between = np.corrcoef(active.T) - np.eye(64)
    assert (between > 0.15).any() == bool(correlation)
    assert ((between > 0.15).sum(1) <= 15).all()


@pytest.mark.parametrize("law", ["constant", "uniform", "folded normal", "exponential"])
def test_magnitudes(law: Law) -> None:
    """Of mean 1; vectors are sums of directions of norm 1, and noise; other parts are other vectors."""
    truth = Truth(width=12, features=20, active=4.0, law=law, seed=2)
    codes, directions = drawn(truth, 3000), truth.directions()
    sizes = codes[codes > 0]
    spread = {"constant": 0.0, "uniform": 12**-0.5, "folded normal": (np.pi / 2 - 1) ** 0.5, "exponential": 1.0}[law]
    assert (sizes.mean(), sizes.std()) == (pytest.approx(1.0, abs=0.05), pytest.approx(spread, abs=0.05))
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(truth.vectors(3000), codes @ directions, atol=1e-5)
    noisy = Truth(width=12, features=20, active=4.0, law=law, seed=2, noise=0.5)
    left = noisy.vectors(3000) - truth.vectors(3000)
    assert left.std() / truth.vectors(3000).std() == pytest.approx(0.5, rel=0.05)
    assert not np.allclose(truth.vectors(50), truth.vectors(50, part="test"))


def test_what_there_is_not() -> None:
    for how in ({"active": 200.0}, {"width": 0}, {"correlation": 1.0}, {"skew": -1.0}, {"noise": -0.1}):
        with pytest.raises(UsageError):
            Truth(**cast("dict[str, Any]", how))


def test_a_planted_net_is_exact() -> None:
    """It answers every example; the true dictionary gives its inputs back, and its vectors."""
    net, task, entry = planted(4)
    assert bool((task.scores(net).argmax(1) == task.targets).all())
    assert {name: len(set(labels.tolist())) for name, labels in task.annotations.factors.items()} == ATTRIBUTES
    one = cast("Dictionary", entry[0])
    vectors = collect(net, task, "site")
    assert isinstance(task.inputs, torch.Tensor)
    torch.testing.assert_close(one.encode(vectors), task.inputs, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one(vectors), vectors, rtol=1e-4, atol=1e-4)
    assert one.settings.features == sum(ATTRIBUTES.values()) + NUISANCE
