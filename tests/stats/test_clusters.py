"""Means of values in clusters: closed forms, and intervals that cover."""

import numpy as np
import pytest

from wheeltap.core.errors import DataError
from wheeltap.stats.clusters import cluster_means


def test_the_mean_is_over_values_and_the_error_over_clusters() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(60)
    (apart,) = cluster_means(x, np.arange(60))
    (copied,) = cluster_means(np.repeat(x, 12), np.repeat(np.arange(60), 12))
    assert apart.value == pytest.approx(x.mean()) and copied.value == pytest.approx(x.mean())
    assert apart.se == pytest.approx(x.std(ddof=1) / np.sqrt(60), rel=0.06)
    assert copied.se == pytest.approx(apart.se)  # copies of a value are no further values
    assert (copied.values, copied.clusters) == (720, 60)


def test_bins_are_apart_and_empty_ones_say_so_and_one_cluster_has_no_interval() -> None:
    means = cluster_means(np.array([1.0, 2, 3, 9]), np.array([0, 0, 1, 2]), bins=np.array([0, 0, 0, -1]), count=2)
    assert (means[0].value, means[0].values, means[0].clusters) == (2.0, 3, 2)
    assert (means[1].values, means[1].low) == (0, None)
    (one,) = cluster_means(np.array([1.0, 2]), np.array([7, 7]))
    assert (one.value, one.se, one.low, one.high) == (1.5, 0.0, None, None)
    for values, clusters in (([1.0, np.nan], [0, 1]), ([1.0, 2.0], [0])):
        with pytest.raises(DataError):
            cluster_means(np.array(values), np.array(clusters))


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [8, 40])
def test_intervals_cover_clusters_of_unequal_size(clusters: int) -> None:
    """About 95 % of intervals hold the mean, where intervals over values would hold it in about half of the cases."""
    rng, held, naive = np.random.default_rng(1), 0, 0
    runs = 400
    for _ in range(runs):
        sizes = rng.integers(1, 9, clusters)
        member = np.repeat(np.arange(clusters), sizes)
        x = rng.standard_normal(clusters)[member] + 0.3 * rng.standard_normal(len(member))
        (found,) = cluster_means(x, member)
        assert found.low is not None and found.high is not None
        held += found.low <= 0.0 <= found.high
        naive += abs(x.mean()) <= 1.96 * x.std(ddof=1) / np.sqrt(len(x))
    assert 0.91 <= held / runs <= 0.985
    assert naive / runs < 0.75
