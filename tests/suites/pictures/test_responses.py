"""Responses of pictures to changes of single weights: the fast path beside a slow one, and the published numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.published import at_fixed_deltas, at_no_effect
from published import cppn
from wheeltap.core import symmetry
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.symmetry import Symmetry
from wheeltap.models.cppn import Cppn, Fold, Layout, grid
from wheeltap.suites.pictures.engine import moves as mv
from wheeltap.suites.pictures.engine.procedures import at_equal_effect
from wheeltap.suites.pictures.engine.responses import STILL, Evaluation

DATA = Path(__file__).parents[3].parent / "shared" / "data" / "picbreeder"
LAYOUT = Layout.parse("4;cache:3,gaussian:2,identity:1,sigmoid:1,sin:2")


def random_net(layout: Layout = LAYOUT, *, seed: int = 0, fold: Fold = "") -> Cppn:
    rng = np.random.default_rng(seed)
    kernels = [(rng.standard_normal(s) / np.sqrt(s[0])).astype(np.float32) for s in layout.shapes]
    return Cppn.of(layout, kernels, fold=fold)


def mirrored(size: int) -> Symmetry:
    return symmetry.mirror(grid(size)[:, :2])


def slow_change(net: Cppn, moves: mv.Moves, at: int, delta: float, inputs: torch.Tensor) -> torch.Tensor:
    """The picture's change, by writing the weights and running the net."""
    layer = net.dense[int(moves.layer[at])]
    before, clean = layer.weight.detach().clone(), net(inputs).detach()
    with torch.no_grad():
        if moves.direction is None:
            layer.weight[int(moves.target[at]), int(moves.source[at])] += delta
        else:
            along = torch.from_numpy(moves.direction[at, : len(before)])
            layer.weight[:, int(moves.source[at])] += delta * along.to(before)
        changed = net(inputs)
        layer.weight.copy_(before)
    return changed - clean


@pytest.mark.parametrize("fold", ["", "abs-x"])
@pytest.mark.parametrize("kind", ["weights", "directions"])
def test_the_fast_path_is_the_slow_one(kind: str, fold: Fold) -> None:
    """Every layer, several copies of one layer in a call, in double precision to rounding."""
    net, inputs = random_net(fold=fold).double(), grid(16).double()
    rng = np.random.default_rng(1)
    moves = mv.random_weights(net, 90, rng=rng) if kind == "weights" else mv.random_directions(net, 40, rng=rng)
    assert set(moves.layer) == set(range(5))
    deltas = rng.uniform(-2, 2, len(moves))
    fast = Evaluation(net, inputs, dtype=torch.float64).changes(moves, deltas)
    for at in range(len(moves)):
        assert torch.allclose(fast[at], slow_change(net, moves, at, deltas[at], inputs), atol=1e-12)


def test_single_precision_is_good_to_rounding() -> None:
    net, inputs = random_net(), grid(16)
    moves = mv.random_weights(net, 60, rng=np.random.default_rng(1))
    deltas = np.full(60, 0.3)
    fast = Evaluation(net, inputs).changes(moves, deltas)
    exact = Evaluation(net, inputs, dtype=torch.float64).changes(moves, deltas)
    assert float((fast - exact).abs().max()) < 2e-5


def test_numbers_are_those_of_their_formulas() -> None:
    size, net = 16, random_net()
    inputs, group = grid(size).double(), mirrored(size)
    regions = torch.stack([inputs[:, 1] < -0.2, (inputs[:, 1] >= -0.2) & (inputs[:, 0] < 0), inputs[:, 1] > 9])
    regions[2] = ~regions[:2].any(0)
    picture = Evaluation(net, inputs, symmetry=group, regions=regions, dtype=torch.float64)
    moves = mv.random_weights(net, 30, rng=np.random.default_rng(2))
    found = picture.respond(moves, np.array([0.4, -0.1]))
    for column, delta in enumerate((0.4, -0.1)):
        for at, change in enumerate(picture.changes(moves, np.full(30, delta)).numpy()):
            image = change.reshape(size, size, 3)
            if found.rmse[at, column] <= STILL:
                continue
            even = (image + image[:, ::-1]) / 2
            pixels = np.square(change).sum(1)
            q = np.array([pixels[region.numpy()].mean() for region in regions])
            q = q[q > 0] / q.sum()
            assert found.rmse[at, column] == pytest.approx(np.sqrt(np.square(change).mean()))
            assert found.symmetry[at, column] == pytest.approx(np.square(even).sum() / np.square(image).sum())
            assert found.regions[at, column] == pytest.approx(np.exp(-(q * np.log(q)).sum()))


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
        moves = mv.random_weights(net, 60, rng=np.random.default_rng(0))
        found = Evaluation(net, grid(size), symmetry=mirrored(size)).respond(moves, np.array([0.2]))
        assert low <= found.symmetry[found.rmse > STILL].mean() <= high


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError):
        Evaluation(random_net(), grid(8), symmetry=mirrored(9))
    with pytest.raises(DataError):
        Evaluation(random_net(), grid(8), regions=torch.zeros(2, 64, dtype=torch.bool))
    with pytest.raises(UsageError):
        mv.random_directions(random_net(), 0, rng=np.random.default_rng(0))


def test_equal_effect_is_equal_and_what_cannot_have_it_is_told() -> None:
    size, net, targets = 16, random_net(), (0.02, 0.1)
    with torch.no_grad():
        net.dense[-1].weight[:, 0] = 0.0  # the last layer's unit 0 is read by nobody
    layout = net.layout
    ids = [layout.flat_id(3, source, 0) for source in range(5)] + [layout.flat_id(2, 1, 4), layout.flat_id(0, 0, 7)]
    found = at_equal_effect(Evaluation(net, grid(size)), mv.single_weights(layout, ids), targets=targets, bound=2.0)
    assert not found.reached[:5].any()
    assert found.reached[5:].any()
    wanted = np.repeat(targets, 2)[None, :] * np.ones_like(found.reached)
    assert found.responses.rmse[found.reached] == pytest.approx(wanted[found.reached], rel=0.011)
    assert (np.abs(found.responses.delta) <= 2.0).all()
    assert (np.sign(found.responses.delta) == [1, -1, 1, -1]).all()
    for at, level in enumerate(found.levels):
        reached = found.reached[:, 2 * at : 2 * at + 2]
        assert level.unreached + level.symmetry.values == 2 * len(ids)
        assert level.symmetry.clusters == reached.any(1).sum()
    # Each that was not reached has too little effect at the bound.
    at_bound = Evaluation(net, grid(size)).respond(found.moves, np.array([2.0, -2.0])).rmse
    assert (at_bound[~found.reached[:, 2:]] < 0.1 * 1.01).all()


def test_slopes_are_the_derivative() -> None:
    """By automatic differentiation of the whole net."""
    size, net = 8, random_net().double()
    inputs, moves = grid(size).double(), mv.random_weights(net, 20, rng=np.random.default_rng(0))
    found = at_no_effect(net, inputs, mirrored(size), moves)
    for at in range(20):
        name = f"layers.{moves.layer[at]}.weight"
        weight = net.get_parameter(name).detach()
        along = torch.zeros_like(weight)
        along[int(moves.target[at]), int(moves.source[at])] = 1.0

        def moved(size: torch.Tensor, name: str = name, weight: torch.Tensor = weight, along: torch.Tensor = along):
            return torch.func.functional_call(net, {name: weight + size * along}, (inputs,))

        nothing = torch.zeros((), dtype=torch.float64)
        _, slope = torch.autograd.functional.jvp(moved, nothing, torch.ones_like(nothing))
        assert found.rmse[at] == pytest.approx(float(slope.square().mean().sqrt()), rel=1e-5, abs=1e-8)
        if found.kept[at]:
            even = mirrored(size).project(slope)
            assert found.symmetry[at] == pytest.approx(float(even.square().sum() / slope.square().sum()), rel=1e-5)


def test_sparse_genomes_are_moved_by_their_links_and_dense_nets_by_any_weight() -> None:
    dense, rng = random_net(), np.random.default_rng(0)
    kernels: list[NDArray[np.float32]] = [np.zeros(shape, dtype=np.float32) for shape in LAYOUT.shapes]
    kernels[0][0, 3], kernels[1][3, 4], kernels[2][3, 0] = 1.0, 2.0, 1.0  # two links and a copy
    sparse = Cppn.of(LAYOUT, kernels)
    assert mv.chosen_weights(sparse, 5, links=40, rng=rng).ids.tolist() == sparse.links().tolist()
    assert len(sparse.links()) == 2
    chosen = mv.chosen_weights(dense, 40, links=5, rng=rng)
    assert len(set(chosen.ids.tolist())) == 40
    assert "40 of all" in chosen.name
    places = zip(chosen.layer, chosen.source, chosen.target, chosen.ids, strict=True)
    assert all(LAYOUT.flat_id(*place) == one for *place, one in places)
    assert "1 of 2 true links" in mv.chosen_weights(sparse, 40, links=1, rng=rng).name


def test_directions_are_unit_vectors_within_their_layer() -> None:
    moves = mv.random_directions(random_net(), 50, rng=np.random.default_rng(0))
    assert moves.direction is not None
    assert np.square(moves.direction).sum(1) == pytest.approx(np.ones(50))
    assert not moves.direction[moves.layer == 4][:, 3:].any()
    assert (moves.source < np.array([s[0] for s in LAYOUT.shapes])[moves.layer]).all()


# ---- published numbers: S of the bins .01-.03-.06-.12-.25-.6, of the derivative, and at |dw| = 1 --------------------

PUBLISHED = {
    ("skull", "pb"): (0.701, 0.717, 0.753, 0.786, 0.839),
    ("skull", "sgd"): (0.562, 0.569, 0.583, 0.624, 0.689),
    ("butterfly", "pb"): (0.732, 0.672, 0.643, 0.701, 0.866),
    ("butterfly", "sgd"): (0.544, 0.548, 0.576, 0.651, 0.787),
}
SLOPES = {"skull": (0.721, 20, 57), "butterfly": (0.691, 24, 97)}
SAMPLE = {"skull": 800, "butterfly": 200}


def published(picture: str, kind: str) -> Cppn:
    path = DATA / f"{picture}_layerized_and_sgd_params.npz"
    if not path.is_file():
        pytest.skip(f"the published arrays are not at {path}")
    with np.load(path) as held:
        return cppn(str(held["arch"]), held[kind])


def swept_weights(net: Cppn, picture: str, kind: str) -> mv.Moves:
    """True links of the evolved net; of the trained one, a sample of all published ids."""
    return mv.true_links(net) if kind == "pb" else mv.random_weights(net, SAMPLE[picture], rng=np.random.default_rng(0))


@pytest.mark.slow
@pytest.mark.parametrize(("picture", "kind"), list(PUBLISHED))
def test_symmetry_of_response_is_as_published(picture: str, kind: str) -> None:
    net = published(picture, kind)
    swept = at_fixed_deltas(Evaluation(net, grid(64), symmetry=mirrored(64)), swept_weights(net, picture, kind))
    measured = [level.symmetry.value for level in swept.levels]
    assert measured == pytest.approx(PUBLISHED[picture, kind], abs=0.00051)
    for level in swept.levels:
        assert level.symmetry.clusters < level.symmetry.values
        assert level.symmetry.low is not None and level.symmetry.low < level.symmetry.value


@pytest.mark.slow
@pytest.mark.parametrize("picture", list(SLOPES))
def test_symmetry_of_slopes_is_as_published(picture: str) -> None:
    net = published(picture, "pb")
    found = at_no_effect(net, grid(64), mirrored(64), mv.true_links(net))
    mean, symmetric, live = SLOPES[picture]
    assert found.mean.value == pytest.approx(mean, abs=0.00051)
    assert (int((found.symmetry > 0.8).sum()), int(found.kept.sum())) == (symmetric, live)
    assert found.dropped == len(found.moves) - live
