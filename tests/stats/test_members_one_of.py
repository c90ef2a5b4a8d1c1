"""Intervals over nets cover, and a net that is one of many is called apart as seldom as promised."""

import numpy as np
import pytest
from scipy import stats

from wheeltap.core.errors import DataError, UsageError
from wheeltap.stats.members import NumberScale, Single, next_net, one_of, over_nets

RUNS = 4000


def draws(nets: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.6, 0.03, (RUNS, nets))


def within(share: float, wanted: float) -> bool:
    return abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / RUNS)


@pytest.mark.parametrize("nets", [2, 5, 12])
def test_intervals_over_nets_cover_the_mean_of_all_nets(nets: int) -> None:
    found = [over_nets(row, name="s", scale=NumberScale("share", bounded=True)) for row in draws(nets, 1)]
    assert within(float(np.mean([f.low <= 0.6 <= f.high for f in found])), 0.95)


@pytest.mark.parametrize("nets", [2, 5, 12])
def test_one_more_net_lies_where_it_is_said_to(nets: int) -> None:
    rows = draws(nets + 1, 2)
    ends = [next_net(row[1:], scale=NumberScale("share", bounded=True)) for row in rows]
    assert within(float(np.mean([low <= row[0] <= high for row, (low, high) in zip(rows, ends, strict=True)])), 0.95)


@pytest.mark.parametrize("nets", [2, 5, 12])
def test_a_net_that_is_one_of_them_is_seldom_called_apart(nets: int) -> None:
    rows = draws(nets + 1, 3)
    p = [
        one_of(Single(row[0]), row[1:], name="gap", scale=NumberScale("share", bounded=True)).estimate.p for row in rows
    ]
    assert within(float(np.mean(np.array(p) <= 0.05)), 0.05)


def test_a_net_that_is_apart_is_found_with_five_others() -> None:
    rows = draws(5, 4)
    p = [
        one_of(Single(0.75, 0.014), row, name="gap", scale=NumberScale("share", bounded=True)).estimate.p
        for row in rows
    ]
    assert np.mean(np.array(p) <= 0.05) > 0.9


def test_the_same_numbers_as_the_textbook() -> None:
    x = [0.56, 0.59, 0.60, 0.55, 0.58]
    found = over_nets(x, name="s", scale=NumberScale("share", bounded=True))
    low, high = stats.t.interval(0.95, 4, loc=np.mean(x), scale=stats.sem(x))
    assert (found.low, found.high) == pytest.approx((low, high))
    gap = one_of(Single(0.7), x, name="gap", scale=NumberScale("share", bounded=True)).estimate
    assert gap.p == pytest.approx(2 * stats.t.sf((0.7 - np.mean(x)) / (np.std(x, ddof=1) * np.sqrt(1.2)), 4))


def test_a_single_net_or_nets_without_spread_give_no_certainty() -> None:
    assert over_nets([0.5], name="s", scale=NumberScale("share", bounded=True)).low is None
    assert next_net([0.5], scale=NumberScale("share", bounded=True)) is None
    assert one_of(Single(0.9), [0.5], name="gap", scale=NumberScale("share", bounded=True)).estimate.p is None
    assert one_of(Single(0.9), [1.0, 1.0, 1.0], name="gap", scale=NumberScale("share", bounded=True)).estimate.p is None


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="no net"):
        over_nets([], name="s", scale=NumberScale("share", bounded=True))
    with pytest.raises(DataError, match="not finite"):
        one_of(Single(0.5), [0.5, float("nan")], name="gap", scale=NumberScale("share", bounded=True))
