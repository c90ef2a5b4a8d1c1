"""Breadth and modularity against closed forms, slow second implementations and simulated populations."""

from itertools import permutations, product

import numpy as np
import pytest
from numpy.typing import NDArray
from simulation import covers

from wheeltap.stats.effect import mean_effect
from wheeltap.stats.modularity import (
    best_division,
    breadth,
    effective_number,
    modularity,
    rewired,
    shuffled_breadth,
)

Graph = NDArray[np.bool_]


def spread_over(matrix: NDArray[np.float64], each: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Effects in which every example of a group is like the others, and the groups."""
    groups = np.repeat(np.arange(matrix.shape[1]), each)
    return matrix[:, groups], groups


def some(units: int, sizes: tuple[int, ...], seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Effects of many sizes, and groups that are not in order."""
    rng = np.random.default_rng(seed)
    groups = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    each = rng.lognormal(0.0, 1.0, (units, len(groups)))
    return each * rng.lognormal(0.0, 1.0, (units, len(sizes)))[:, groups], groups


def slow_breadth(effects: NDArray[np.float64], groups: NDArray[np.int64]) -> float:
    top = bottom = 0.0
    for unit in effects:
        means = [unit[groups == group].mean() for group in range(groups.max() + 1)]
        shares = [mean / sum(means) for mean in means]
        top += sum(means) * np.exp(-sum(share * np.log(share) for share in shares if share > 0))
        bottom += sum(means)
    return top / bottom


class TestBreadth:
    def test_closed_forms(self) -> None:
        one, all_, two, none = [5.0, 0, 0, 0], [1.0, 1, 1, 1], [3.0, 3, 0, 0], [0.0] * 4
        for rows, expected in (
            ([one], 1), ([all_], 4), ([two], 2), ([one, all_], (5 * 1 + 4 * 4) / 9), ([two, none], 2)
        ):  # fmt: skip
            assert breadth(*spread_over(np.array(rows), 3)).value == pytest.approx(expected)
        nothing = breadth(np.zeros((3, 12)), np.repeat(np.arange(3), 4))
        assert nothing.value == 0 and np.isfinite(nothing.examples).all() and np.isfinite(nothing.units).all()

    def test_the_slow_way_and_shuffled_groups_that_mean_nothing(self) -> None:
        effects, groups = some(7, (5, 9, 30), seed=1)
        assert breadth(effects, groups).value == pytest.approx(slow_breadth(effects, groups))
        effects, groups = spread_over(np.eye(4) + 0.01, 50)
        assert breadth(effects, groups).value < 1.3
        assert 3.8 < shuffled_breadth(effects, groups, shuffles=5, rng=np.random.default_rng(0)) <= 4

    def test_what_an_example_adds_is_the_jackknife_within_its_group(self) -> None:
        effects, groups = some(7, (4, 9, 15), seed=2)
        whole = breadth(effects, groups)
        left = np.array([
            slow_breadth(np.delete(effects, at, 1), np.delete(groups, at)) for at in range(len(groups))
        ])  # fmt: skip
        variance = sum(
            (n - 1) / n * ((left[groups == group] - left[groups == group].mean()) ** 2).sum()
            for group, n in enumerate(np.bincount(groups))
        )
        ours = ((whole.examples - whole.value) ** 2).sum() / len(groups) ** 2
        assert ours == pytest.approx(variance, rel=1e-9)
        assert whole.examples.mean() == pytest.approx(whole.value)
        assert whole.units.mean() == pytest.approx(whole.value)

    def test_intervals_over_examples_cover(self) -> None:
        """Truth: the breadth of a hundred times as many examples."""
        rng = np.random.default_rng(3)
        tilt = rng.lognormal(0.0, 1.0, (20, 4))

        def drawn(each: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
            effects, groups = spread_over(tilt, each)
            common = rng.lognormal(0.0, 0.7, effects.shape[1])
            return effects * common * rng.lognormal(0.0, 0.7, effects.shape), groups

        truth, runs = breadth(*drawn(4000)).value, 300
        found = [mean_effect(breadth(*drawn(40)).examples[None, :], unit="") for _ in range(runs)]
        assert 0.91 <= np.mean([covers(e, truth) for e in found]) <= 0.98


EFFECTIVE: list[tuple[object, float]] = [
    (np.ones((3, 4)), 4.0),
    ([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]], 2.0),
    ([[9.0, 0.0], [0.0, 1e-3]], 1.0),  # columns of other scales count alike
    ([[0.0, 0.0], [1.0, 1.0]], 2.0),  # dead rows do not count
    ([[1.0, 0.0], [2.0, 0.0]], 1.0),  # nor dead columns
    ([[3.0, 3.0], [1.0, 0.0], [0.0, 1.0]], 1.75),  # half of all effect
]


def test_the_effective_number_is_the_planted_one() -> None:
    for effects, number in EFFECTIVE:
        assert effective_number(np.array(effects, dtype=float)) == pytest.approx(number)
    assert np.isnan(effective_number(np.zeros((2, 3))))


class TestRewired:
    def test_all_graphs_are_as_likely(self) -> None:
        """With one edge each there are six graphs of three units and three behaviours."""
        rng = np.random.default_rng(1)
        seen = [tuple(rewired(np.eye(3, dtype=bool), rng).argmax(1)) for _ in range(900)]
        counts = [seen.count(order) for order in permutations(range(3))]
        assert sum(counts) == 900 and min(counts) > 105 and max(counts) < 195


def slow_q(graph: Graph) -> float:
    """Largest Q over every division of the behaviours, each unit with the module that suits it best."""
    edges = graph.astype(float)
    excess = (edges - np.outer(edges.sum(1), edges.sum(0)) / edges.sum()) / edges.sum()
    behaviours = graph.shape[1]
    return max(
        (excess @ np.eye(behaviours)[list(modules)]).max(1).sum()
        for modules in product(range(behaviours), repeat=behaviours)
    )


def test_the_best_division_is_found_or_nearly() -> None:
    """The search climbs from several starts: it may stop short of the best division, never beyond it."""
    rng = np.random.default_rng(4)
    shares: list[float] = []
    for _ in range(20):
        graph = rng.random((12, 4)) < 0.35
        graph[0, 0] = True
        shares.append(float(best_division(graph[None], rng)[0]) / slow_q(graph))
    assert max(shares) <= 1 + 1e-9 and min(shares) >= 0.93
    assert np.mean(np.array(shares) > 1 - 1e-9) >= 0.75


class TestModularity:
    def test_blocks_are_modular(self) -> None:
        rng = np.random.default_rng(5)
        block = np.kron(np.eye(4), np.ones((15, 2))) > 0
        graph = block ^ (rng.random(block.shape) < 0.05)
        found = modularity(graph, rewirings=99, rng=rng)
        assert found.p == 0.01 and found.z > 10
        assert modularity(block, rewirings=19, rng=rng).value == pytest.approx(0.75)  # 1 - 1 / modules

    def test_random_graphs_are_not(self) -> None:
        rng = np.random.default_rng(6)
        p = [modularity(rng.random((40, 6)) < 0.25, rewirings=39, rng=rng).p for _ in range(20)]
        assert np.mean(np.array(p) <= 0.1) <= 0.25
        assert 0.3 < np.mean(p) < 0.7
