"""Subspaces ablated: what LEACE promises, against slow formulas; probes and control tasks."""

from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import linalg  # type: ignore[import-untyped]
from sklearn.covariance import ledoit_wolf  # type: ignore[import-untyped]
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # type: ignore[import-untyped]
from torch import Tensor

from wheeltap.suites.decodable.engine.subspaces import (
    Eraser,
    Geometry,
    ProbeHalves,
    control_labels,
    haar,
    majority,
    one_hot,
    projection,
    read_off,
    steepest,
    telling,
)
from wheeltap.testing.planted import numbers


def vectors(examples: int = 90, features: int = 12) -> Tensor:
    """With features of very different size that go together."""
    return numbers(examples, features, seed=1) @ numbers(features, features, seed=2) * torch.logspace(-2, 2, features)


def labels(classes: int = 3, examples: int = 90) -> Tensor:
    return torch.arange(examples) % classes


def test_the_factor_is_linearly_gone_and_the_mean_stays() -> None:
    x, y = vectors(), labels()
    x[:, 3] += 5.0 * y
    geometry = Geometry.of(x)
    eraser = geometry.eraser(telling(geometry.whitened(x), y))
    gone = eraser(x, y)
    cross = (gone - gone.mean(0)).T @ (one_hot(y) - one_hot(y).mean(0)) / len(x)
    before = (x - x.mean(0)).T @ (one_hot(y) - one_hot(y).mean(0)) / len(x)
    assert float((cross.abs() / x.std(0)[:, None]).max()) < 1e-12 < float((before.abs() / x.std(0)[:, None]).max())
    assert torch.allclose(gone.mean(0), x.mean(0))
    assert eraser.read.shape[1] == 2


def test_the_change_is_that_of_the_paper() -> None:
    """x - W^+ P W (x - mean), with W the symmetric inverse root of the (shrunk) covariance."""
    x, y = vectors(), labels()
    geometry = Geometry.of(x)
    scale = x.std(0).numpy()
    scaled = ((x - x.mean(0)) / x.std(0)).numpy()
    shrunk = (1 - geometry.shrinkage) * np.cov(scaled.T) + geometry.shrinkage * np.eye(12)
    root = cast("Any", linalg).sqrtm(shrunk)
    white = np.linalg.inv(root)
    indicators = (one_hot(y) - one_hot(y).mean(0)).numpy()
    basis = cast("Any", linalg).orth(white @ scaled.T @ indicators, rcond=1e-9)
    got = scaled - scaled @ white @ basis @ basis.T @ root
    mine = geometry.eraser(telling(geometry.whitened(x), y))(x, y)
    np.testing.assert_allclose(((mine - x.mean(0)) / torch.as_tensor(scale)).numpy(), got, atol=1e-9)


def test_no_other_affine_change_that_removes_as_much_is_smaller() -> None:
    x, y = vectors(200), labels(2, 200)
    x[:, 3] += 5.0 * y
    geometry = Geometry.of(x)
    exact = Geometry(geometry.mean, *_unshrunk(x), 0.0)
    least = exact.eraser(telling(exact.whitened(x), y)).size(x)
    # Other oblique projections along the difference of the class means, which must remove it too.
    gap = x[y == 1].mean(0) - x[y == 0].mean(0)
    for seed in range(20):
        along = numbers(12, seed=seed + 10) / x.std(0)
        other = Eraser(x.mean(0), along[:, None], gap[:, None] / (gap @ along))
        assert float((other(x, y)[y == 1].mean(0) - other(x, y)[y == 0].mean(0)).abs().max()) < 1e-9
        assert other.size(x) > least


def _unshrunk(x: Tensor) -> tuple[Tensor, Tensor]:
    values, basis = np.linalg.eigh(np.cov(x.numpy().T))
    roots = torch.as_tensor(np.sqrt(values))
    return torch.as_tensor(basis) / roots, torch.as_tensor(basis) * roots


def test_the_shrinkage_is_that_of_ledoit_and_wolf() -> None:
    for examples, features in ((90, 12), (30, 50), (400, 8)):
        x = vectors(examples, features)
        scaled = ((x - x.mean(0)) / x.std(0, correction=0)).numpy()
        assert Geometry.of(x).shrinkage == pytest.approx(float(ledoit_wolf(scaled)[1]), rel=0.08)


def test_fewer_examples_than_features_and_features_that_never_move() -> None:
    x = vectors(20, 40)
    x[:, 5] = 3.0
    geometry = Geometry.of(x)
    assert geometry.directions == 19
    inside = geometry.inwards.T @ geometry.outwards
    assert torch.allclose(inside, torch.eye(19, dtype=torch.float64), atol=1e-9)
    assert float(geometry.outwards[5].abs().max()) < 1e-12


def test_a_projection_leaves_nothing_along_its_directions() -> None:
    x, directions = vectors(), numbers(12, 3, seed=5)
    directions[:, 2] = directions[:, 0] - directions[:, 1]
    gone = projection(x.mean(0), directions)(x, labels())
    assert float(((gone - gone.mean(0)) @ directions).abs().max()) < 1e-8 * float(x.abs().max())


def test_random_subspaces_are_uniform() -> None:
    rng = np.random.default_rng(0)
    drawn = torch.stack([haar(6, 2, rng) for _ in range(2000)])
    assert torch.allclose(drawn.mT @ drawn, torch.eye(2, dtype=torch.float64).expand(2000, 2, 2), atol=1e-12)
    onto = (drawn @ drawn.mT).mean(0)
    assert float((onto - torch.eye(6) / 3).abs().max()) < 0.03


def test_the_steepest_subspace_loses_most_of_the_slopes() -> None:
    slopes = numbers(50, 8, seed=3) * torch.logspace(0, 1, 8)
    kept = float((slopes @ steepest(slopes, 2)).square().sum())
    assert all(float((slopes @ haar(8, 2, np.random.default_rng(seed))).square().sum()) < kept for seed in range(20))


def test_the_probe_answers_as_fishers_discriminant_does() -> None:
    x, y = vectors(4000, 6), labels(2, 4000)
    x[:, 2] += 1.5 * y * x.std(0)[2]
    halves = ProbeHalves(
        torch.arange(0, 4000, 2) + torch.arange(2000) % 2, torch.arange(1, 4000, 2) - torch.arange(2000) % 2
    )
    probe, right = read_off(x, y, halves, Geometry.of(x[halves.fitted]))
    peer: Any = LinearDiscriminantAnalysis().fit(x[halves.fitted].numpy(), y[halves.fitted].numpy())
    answers = probe.answers(x[halves.measured]).numpy()
    assert (answers == peer.predict(x[halves.measured].numpy())).mean() > 0.99
    assert float(right.mean()) > 0.7 > float(majority(y, halves).mean())


def test_control_labels_keep_their_shares_and_are_one_for_each_input() -> None:
    y, rng = torch.tensor([0] * 30 + [1] * 60), np.random.default_rng(0)
    drawn = control_labels(y, torch.arange(90), rng)
    assert torch.equal(torch.bincount(drawn), torch.bincount(y)) and not torch.equal(drawn, y)
    inputs = torch.arange(90) % 9
    twice = control_labels(y, inputs, rng)
    assert all(len(twice[inputs == one].unique()) == 1 for one in range(9))
