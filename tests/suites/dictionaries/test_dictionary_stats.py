"""Statistics of features equal exhaustive search and plain definitions; closed forms equal an independent solution."""

from itertools import chain, combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from wheeltap.core.errors import DataError
from wheeltap.suites.dictionaries.stats import (
    best_values,
    correlations,
    cover,
    edit,
    f1,
    fit,
)
from wheeltap.suites.dictionaries.supervised import least_squares_codes, mean_codes

Floats = NDArray[np.float64]


def distance(changes: Floats, wanted: Floats, chosen: tuple[int, ...]) -> float:
    return float(np.square(wanted - changes[list(chosen)].sum(0)).sum())


def test_edits_of_one_and_two_features_are_the_best_of_all() -> None:
    for seed in range(200):
        rng = np.random.default_rng(seed)
        changes, wanted = rng.standard_normal((int(rng.integers(1, 8)), 3)), 2.0 * rng.standard_normal(3)
        found = [edit(changes, wanted, budget) for budget in (0, 1, 2, 3, 5)]
        got = [distance(changes, wanted, tuple(int(at) for at in one)) for one in found]
        for budget in (0, 1, 2):
            sets = chain.from_iterable(combinations(range(len(changes)), size) for size in range(budget + 1))
            assert got[budget] == pytest.approx(min(distance(changes, wanted, one) for one in sets)), (seed, budget)
        assert got == sorted(got, reverse=True)
        for one, budget in zip(found, [0, 1, 2, 3, 5], strict=True):
            assert len(one) <= budget and len(set(one.tolist())) == len(one)


def test_the_set_of_values_with_the_largest_f1_is_the_best_of_all() -> None:
    for seed in range(15):
        rng = np.random.default_rng(seed)
        labels = rng.choice(5, size=40, p=[0.5, 0.2, 0.15, 0.1, 0.05])
        active = rng.random((40, 6)) < rng.random((5, 6))[labels]
        active[:, 5] = False
        for most in (1, 2, 4):
            chosen = best_values(active, labels, values=5, most=most)
            scores = fit(active, labels, chosen)
            sets = [list(one) for size in range(1, most + 1) for one in combinations(range(5), size)]
            for feature in range(6):
                best = max(float(f1(active[:, feature], np.isin(labels, one))) for one in sets)
                assert scores[0][0, feature] == pytest.approx(best), (seed, most, feature)
                assert chosen[feature].sum() <= most
            assert not chosen[5].any()


def test_cover_counts_the_features_that_a_value_needs() -> None:
    active = np.array([[1, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=bool)
    assert [cover(active, share=share) for share in (0.6, 0.8, 0.9)] == [1, 2, 3]
    assert cover(active[:, :1], share=0.8) == 0 == cover(np.zeros((4, 0), dtype=bool), share=0.5)


def test_correlations_are_numpys_and_zero_without_variation() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((30, 3)), rng.standard_normal((30, 3)) + 100.0
    other[:, 2] = 0.1  # whose mean is not .1 to the bit
    found = correlations(one, other)
    assert found[:2] == pytest.approx([np.corrcoef(one[:, at], other[:, at])[0, 1] for at in range(2)])
    assert found[2] == 0.0


def planted(count: int, seed: int, *, noise: float = 0.0) -> tuple[Floats, dict[str, NDArray[np.int64]], list[Floats]]:
    """Vectors that are sums of a code for each of two attributes; one value of each is rare, and they go together."""
    rng = np.random.default_rng(seed)
    first = rng.choice(4, size=count, p=[0.4, 0.3, 0.2, 0.1])
    second = np.where(rng.random(count) < 0.5, first % 3, rng.integers(3, size=count))
    codes = [rng.standard_normal((4, 7)), rng.standard_normal((3, 7))]
    vectors = 5.0 + codes[0][first] + codes[1][second] + noise * rng.standard_normal((count, 7))
    return vectors, {"first": 10 * first, "second": second}, codes


def test_least_squares_codes_are_those_of_an_independent_solution() -> None:
    for seed in range(5):
        vectors, labels, _ = planted(200, seed, noise=0.5)
        found = least_squares_codes(vectors, labels)
        # Oracle: the normal equations with the mean of each attribute's codes fixed at 0 by Lagrange multipliers.
        columns = [(labels["first"][:, None] == 10 * np.arange(4)), (labels["second"][:, None] == np.arange(3))]
        design = np.concatenate([np.ones((200, 1)), *columns], 1).astype(float)
        fixed = np.zeros((2, 8))
        fixed[0, 1:5], fixed[1, 5:] = design[:, 1:5].mean(0), design[:, 5:].mean(0)
        system = np.block([[design.T @ design, fixed.T], [fixed, np.zeros((2, 2))]])
        solved = np.linalg.solve(system, np.concatenate([design.T @ vectors, np.zeros((2, 7))]))[:8]
        assert np.abs(found.mean - solved[0]).max() < 1e-6
        assert np.abs(found.codes - solved[1:]).max() < 1e-6
        assert found.attribute.tolist() == [0] * 4 + [1] * 3
        assert found.value.tolist() == [0, 10, 20, 30, 0, 1, 2]
        left = vectors - found.mean - design[:, 1:] @ found.codes
        of_means = mean_codes(vectors, labels)
        worse = vectors - of_means.mean - design[:, 1:] @ of_means.codes
        assert np.square(left).sum() < np.square(worse).sum()


def test_mean_codes_are_differences_of_means_and_the_planted_codes() -> None:
    vectors, labels, _ = planted(100, 1, noise=0.3)
    found = mean_codes(vectors, labels)
    for code, attribute, value in zip(found.codes, found.attribute, found.value, strict=True):
        own = list(labels.values())[attribute] == value
        assert np.abs(code - (vectors[own].mean(0) - vectors.mean(0))).max() < 1e-6
    # Of a full factorial design both kinds are the planted codes, without their mean.
    grid = np.array([(a, b) for a in range(4) for b in range(3)])
    codes = planted(4, 0)[2]
    rows = codes[0][grid[:, 0]] + codes[1][grid[:, 1]]
    for kind in (mean_codes, least_squares_codes):
        found = kind(rows, {"first": grid[:, 0], "second": grid[:, 1]})
        right = np.concatenate([one - one.mean(0) for one in codes])
        assert np.abs(found.codes - right).max() < 1e-9


def test_what_has_no_codes_is_refused() -> None:
    vectors, labels, _ = planted(40, 0)
    with pytest.raises(DataError):
        mean_codes(vectors, {**labels, "same": np.zeros(40, dtype=np.int64)})
    with pytest.raises(DataError):
        mean_codes(vectors[:30], labels)
    with pytest.raises(DataError):
        least_squares_codes(vectors, {**labels, "parity": labels["first"] // 10 % 2})
    with pytest.raises(DataError):
        least_squares_codes(vectors, {**labels, "again": labels["first"] // 10})
    with pytest.raises(DataError):
        least_squares_codes(vectors[:6], {"first": np.arange(6) // 2, "second": np.array([0, 1, 2, 3, 0, 1])})
    with pytest.raises(DataError):
        mean_codes(vectors, {})
    with pytest.raises(DataError):
        mean_codes(np.where(vectors > 6.0, np.nan, vectors), labels)
