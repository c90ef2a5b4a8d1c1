"""Feature maps of layered nets: closed forms, slow oracles, invariances, and the published nets."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import eigh

from published import needs_data, published_net
from wheeltap.core.symmetry import mirror
from wheeltap.models.cppn import grid
from wheeltap.suites.pictures import stats

SIZE = 32
LINE = np.linspace(-1.0, 1.0, SIZE)
Y, X = (a.ravel() for a in np.meshgrid(LINE, LINE, indexing="ij"))
MIRROR = np.stack([np.arange(SIZE**2), np.arange(SIZE**2).reshape(SIZE, SIZE)[:, ::-1].ravel()])
TURNS = np.stack([np.rot90(np.arange(SIZE**2).reshape(SIZE, SIZE), k).ravel() for k in range(4)])
Maps = NDArray[np.float64]


def random_maps(units: int) -> Maps:
    return np.random.default_rng(0).standard_normal((SIZE**2, units))


def purity(shares: Maps) -> float:
    """1 if a span splits exactly into even and odd directions."""
    return float(np.abs(2.0 * shares - 1.0).mean())


def invariant_shares(maps: Maps, group: NDArray[np.integer]) -> Maps:
    """Share of each map's energy that the group leaves as it is, ``[live unit]``."""
    x = stats.z_scored(maps)
    return np.square(stats.projected(x, group)).sum(0) / np.square(x).sum(0)


def test_shares_of_a_larger_group_are_those_of_a_slow_projector() -> None:
    maps = random_maps(5)
    projector = np.mean([np.eye(SIZE**2)[g] for g in TURNS], 0)
    centered = maps - maps.mean(0)
    slow = np.square(projector @ centered).sum(0) / np.square(centered).sum(0)
    assert invariant_shares(maps, TURNS) == pytest.approx(slow)


def test_directions_see_the_span_and_not_the_basis() -> None:
    """Mixing units at random spoils the purity of units; a span that splits stays a span that splits."""
    pure = np.stack([X, X**2, Y, X * Y, np.sin(3 * X), X**2 * Y], 1)
    mixed = pure @ np.random.default_rng(1).standard_normal((6, 6))
    assert purity(invariant_shares(mixed, MIRROR)) < 0.9
    assert purity(stats.directions(mixed, MIRROR)) == pytest.approx(1.0, abs=1e-6)


def test_directions_solve_the_generalized_eigenproblem() -> None:
    scored = stats.z_scored(random_maps(5) + np.stack([X, Y, X**2, X * Y, X + Y], 1))
    even = stats.projected(scored, MIRROR)
    slow = eigh(even.T @ even, scored.T @ scored, eigvals_only=True)
    assert stats.directions(scored, MIRROR) == pytest.approx(slow)
    recoded = scored @ np.random.default_rng(2).standard_normal((5, 5)) + 5.0
    assert stats.directions(scored, MIRROR) == pytest.approx(stats.directions(recoded, MIRROR), abs=1e-8)


def test_constant_units_do_not_count() -> None:
    maps = np.stack([X, np.ones(SIZE**2), np.full(SIZE**2, -1.0) + 1e-6 * X, Y], 1)
    assert stats.live(maps).tolist() == [True, False, False, True]
    assert stats.distinct(maps, threshold=0.99) == 2
    assert stats.directions(maps[:, 1:3], MIRROR).shape == (0,)


def test_distinct_maps_are_those_of_a_slow_greedy_loop() -> None:
    copies = np.stack([X, -2 * X + 1, X + 0.05 * Y, Y], 1)
    assert [stats.distinct(copies, threshold=threshold) for threshold in (0.99, 0.9999)] == [2, 3]
    maps = random_maps(12) @ np.random.default_rng(3).standard_normal((12, 40))
    for threshold in (0.3, 0.6, 0.9):
        accepted: list[int] = []
        for unit in range(40):
            if all(abs(np.corrcoef(maps[:, unit], maps[:, other])[0, 1]) < threshold for other in accepted):
                accepted.append(unit)
        assert stats.distinct(maps, threshold=threshold) == len(accepted)


# Live units, distinct maps at .99 and at .9, basis-free purity; then the same without copies.
PUBLISHED = {
    ("skull", "pb"): ((97, 20, 16, 0.963), (19, 17, 13, 0.964)),
    ("skull", "sgd"): ((264, 260, 242, 0.629), (84, 84, 82, 0.479)),
    ("butterfly", "pb"): ((190, 32, 25, 0.959), (30, 29, 22, 0.936)),
    ("butterfly", "sgd"): ((365, 362, 309, 0.598), (95, 95, 95, 0.482)),
}


@needs_data
@pytest.mark.parametrize(("picture", "kind"), list(PUBLISHED))
def test_published_nets_have_the_published_numbers(picture: str, kind: str) -> None:
    """At 128 x 128, within the rounding of the table."""
    net, inputs = published_net(picture, kind), grid(128)
    with torch.no_grad():
        layers = [maps.numpy() for maps in net.double().maps(inputs.double())]
    group = mirror(inputs[:, :2]).examples.numpy()
    every = np.ones(net.layout.width, dtype=bool)
    for kept, published in zip((every, ~net.layout.carried), PUBLISHED[picture, kind], strict=True):
        maps = [layer[:, kept] for layer in layers]
        pooled = np.concatenate(maps, 1)
        counts = (stats.live(pooled).sum(), *(stats.distinct(pooled, threshold=cut) for cut in (0.99, 0.9)))
        assert counts == published[:3]
        spans = [stats.directions(layer, group) for layer in maps if stats.live(layer).any()]
        assert np.mean([purity(span) for span in spans]) == pytest.approx(published[3], abs=0.00051)
