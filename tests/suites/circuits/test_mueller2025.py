"""Areas under faithfulness equal sums written out, and say which sizes they weigh."""

import math

import numpy as np
import pytest

from wheeltap.suites.circuits.stats import SHARES, areas, faithfulness


def test_areas_equal_trapezoids_written_out() -> None:
    rng = np.random.default_rng(0)
    shares, faithful = np.array(SHARES), rng.normal(1.0, 0.5, len(SHARES))
    steps = list(zip(range(9), range(1, 10), strict=True))
    linear = sum((shares[b] - shares[a]) * (faithful[a] + faithful[b]) / 2 for a, b in steps)
    logs = sum(math.log(shares[b] / shares[a]) * (faithful[a] + faithful[b]) / 2 for a, b in steps) / math.log(1000)
    assert areas(shares, faithful) == pytest.approx((linear, logs))


def test_the_model_at_every_size_is_best_and_small_circuits_count_on_the_log_scale_alone() -> None:
    shares = np.array(SHARES)
    assert areas(shares, np.ones(len(shares))) == pytest.approx((0.999, 1.0))
    far, log_far = areas(shares, (shares < 0.04).astype(float))  # nothing below 5 % of all edges
    assert far < 0.04 and log_far == pytest.approx(0.5)


def test_faithfulness_is_a_share_of_the_way() -> None:
    assert faithfulness(np.array([1.0, 2.0, 5.0]), empty=1.0, full=3.0).tolist() == [0.0, 0.5, 2.0]
    with pytest.raises(ZeroDivisionError):
        faithfulness(np.array([1.0]), empty=1.0, full=1.0)
    for shares in ([0.0, 1.0], [0.5], [0.5, 0.5]):
        with pytest.raises(ValueError, match="must rise"):
            areas(np.array(shares), np.ones(len(shares)))
