"""Responses of pictures to changes of weights, the fast path beside a slow one."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.published import STILL, at_fixed_deltas, changes
from published import needs_data, published_net
from wheeltap.core import symmetry
from wheeltap.core.symmetry import Symmetry
from wheeltap.models.cppn import Cppn, Fold, Layout, grid
from wheeltap.suites.pictures import engine as mv
from wheeltap.suites.pictures.engine import Evaluation, at_equal_effect
from wheeltap.suites.pictures.specs import MovedSettings

LAYOUT = Layout.parse("4;cache:3,gaussian:2,identity:1,sigmoid:1,sin:2")


def random_net(layout: Layout = LAYOUT, *, seed: int = 0, fold: Fold = "") -> Cppn:
    rng = np.random.default_rng(seed)
    kernels = [(rng.standard_normal(s) / np.sqrt(s[0])).astype(np.float32) for s in layout.shapes]
    return Cppn.of(layout, kernels, fold=fold)


def some_weights(net: Cppn, count: int, *, seed: int) -> mv.Moves:
    """Any weights of a dense net, each once."""
    ids = np.random.default_rng(seed).choice(net.layout.parameters, count, replace=False)
    return mv.single_weights(net.layout, ids)


def mirrored(size: int) -> Symmetry:
    return symmetry.mirror(grid(size)[:, :2])


def slow_change(net: Cppn, moves: mv.Moves, at: int, delta: float, inputs: torch.Tensor) -> torch.Tensor:
    """The picture's change, by writing the weights and running the net."""
    layer = net.dense[int(moves.layer[at])]
    before, clean = layer.weight.detach().clone(), net(inputs).detach()
    with torch.no_grad():
        layer.weight[int(moves.target[at]), int(moves.source[at])] += delta
        changed = net(inputs)
        layer.weight.copy_(before)
    return changed - clean


@pytest.mark.parametrize("fold", ["", "abs-x"])
def test_the_fast_path_is_the_slow_one(fold: Fold) -> None:
    """Every layer, several copies of one layer in a call, in double precision to rounding."""
    net, inputs = random_net(fold=fold).double(), grid(16).double()
    rng = np.random.default_rng(1)
    moves = some_weights(net, 90, seed=1)
    assert set(moves.layer) == set(range(5))
    deltas = rng.uniform(-2, 2, len(moves))
    fast = changes(Evaluation(net, inputs, dtype=torch.float64), moves, deltas)
    for at in range(len(moves)):
        assert torch.allclose(fast[at], slow_change(net, moves, at, deltas[at], inputs), atol=1e-12)


def test_numbers_are_those_of_their_formulas() -> None:
    size, net = 16, random_net()
    inputs, group = grid(size).double(), mirrored(size)
    picture = Evaluation(net, inputs, symmetry=group, dtype=torch.float64)
    moves = some_weights(net, 30, seed=2)
    found = picture.respond(moves, np.array([0.4, -0.1]))
    for column, delta in enumerate((0.4, -0.1)):
        for at, change in enumerate(changes(picture, moves, np.full(30, delta)).numpy()):
            image = change.reshape(size, size, 3)
            if found.rmse[at, column] <= STILL:
                continue
            even = (image + image[:, ::-1]) / 2
            assert found.rmse[at, column] == pytest.approx(np.sqrt(np.square(change).mean()))
            assert found.symmetry[at, column] == pytest.approx(np.square(even).sum() / np.square(image).sum())


def test_a_change_that_does_nothing_has_no_numbers() -> None:
    """The unit that is reached by the weight is read by nobody."""
    kernels = [np.zeros(shape, dtype=np.float32) for shape in LAYOUT.shapes]
    net, size = Cppn.of(LAYOUT, kernels), 8
    found = Evaluation(net, grid(size), symmetry=mirrored(size)).respond(mv.single_weights(LAYOUT, [0, 1]), np.ones(1))
    assert not (found.rmse > STILL).any()
    assert found.symmetry.tolist() == [[0.0], [0.0]]


def test_a_net_that_reads_the_mirror_image_as_the_same_answers_symmetrically() -> None:
    """The positive control: S is 1 by construction; the same weights without |x| are far from it."""
    size = 24
    for fold, low, high in (("abs-x", 1 - 1e-6, 1 + 1e-6), ("", 0.4, 0.9)):
        net = random_net(fold=fold)
        moves = some_weights(net, 60, seed=0)
        found = Evaluation(net, grid(size), symmetry=mirrored(size)).respond(moves, np.array([0.2]))
        assert low <= found.symmetry[found.rmse > STILL].mean() <= high


@pytest.mark.parametrize("target", [0.02, 0.1])
def test_equal_effect_is_equal_and_what_cannot_have_it_is_counted(target: float) -> None:
    size, net = 16, random_net()
    with torch.no_grad():
        net.dense[-1].weight[:, 0] = 0.0  # the last layer's unit 0 is read by nobody
    layout = net.layout
    ids = [layout.flat_id(3, source, 0) for source in range(5)] + [layout.flat_id(2, 1, 4), layout.flat_id(0, 0, 7)]
    found = at_equal_effect(Evaluation(net, grid(size)), mv.single_weights(layout, ids), effect=target, bound=2.0)
    assert not found.reached[:5].any()
    assert found.reached[5:].any()
    assert found.responses.rmse[found.reached] == pytest.approx(np.full(found.reached.sum(), target), rel=0.011)
    assert (np.abs(found.responses.delta) <= 2.0).all()
    assert (np.sign(found.responses.delta) == [1, -1]).all()
    assert found.unreached + found.symmetry.values == 2 * len(ids)
    assert found.symmetry.clusters == found.reached.any(1).sum()
    # Each that was not reached has too little effect at the bound.
    at_bound = Evaluation(net, grid(size)).respond(found.moves, np.array([2.0, -2.0])).rmse
    assert (at_bound[~found.reached] < target * 1.01).all()


def test_sparse_genomes_are_moved_by_their_links_and_dense_nets_by_any_weight() -> None:
    dense = random_net()
    kernels: list[NDArray[np.float32]] = [np.zeros(shape, dtype=np.float32) for shape in LAYOUT.shapes]
    kernels[0][0, 3], kernels[1][3, 4], kernels[2][3, 0] = 1.0, 2.0, 1.0  # two links and a copy
    sparse = Cppn.of(LAYOUT, kernels)

    def chosen(net: Cppn, weights: int, links: int) -> mv.Moves:
        return mv.chosen_weights(net, MovedSettings(weights=weights, links=links), root=0)

    assert chosen(sparse, 5, 40).ids.tolist() == sparse.links().tolist()
    assert len(sparse.links()) == 2
    some = chosen(dense, 40, 5)
    assert len(set(some.ids.tolist())) == 40
    places = zip(some.layer, some.source, some.target, some.ids, strict=True)
    assert all(LAYOUT.flat_id(*place) == one for *place, one in places)
    assert len(chosen(sparse, 40, 1)) == 1


@needs_data
@pytest.mark.slow
def test_symmetry_of_response_is_as_published() -> None:
    """S of the bins .01-.03-.06-.12-.25-.6 of the effect."""
    net = published_net("skull", "pb")
    picture = Evaluation(net, grid(64), symmetry=mirrored(64))
    means = at_fixed_deltas(picture, mv.single_weights(net.layout, net.links()))
    assert [mean.value for mean in means] == pytest.approx((0.701, 0.717, 0.753, 0.786, 0.839), abs=0.00051)
    for mean in means:
        assert mean.clusters < mean.values
