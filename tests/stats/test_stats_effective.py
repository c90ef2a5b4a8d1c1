"""The effective number: planted answers, and what it must not depend on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.stats.modularity import effective_number


@pytest.mark.parametrize(
    ("effects", "number"),
    [
        (np.eye(4), 1.0),
        (np.ones((3, 4)), 4.0),
        ([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 1.0]], 2.0),
        ([[9.0, 0.0], [0.0, 1e-3]], 1.0),  # columns of other scales count alike
        ([[0.0, 0.0], [1.0, 1.0]], 2.0),  # dead rows do not count
        ([[1.0, 0.0], [2.0, 0.0]], 1.0),  # nor dead columns
        ([[3.0, 3.0], [1.0, 0.0], [0.0, 1.0]], 1.75),  # half of all effect... weighed below
    ],
)
def test_planted(effects: object, number: float) -> None:
    assert effective_number(np.array(effects, dtype=float)) == pytest.approx(number)


def test_nothing_at_all_is_no_number() -> None:
    assert np.isnan(effective_number(np.zeros((2, 3))))


@given(st.integers(0, 1000))
def test_order_and_scale_of_columns_and_splitting_rows_do_not_matter(seed: int) -> None:
    rng = np.random.default_rng(seed)
    effects = rng.exponential(size=(6, 3)) * (rng.random((6, 3)) < 0.7)
    value = effective_number(effects)
    if np.isnan(value):
        return
    assert 1.0 - 1e-9 <= value <= 3.0 + 1e-9
    assert effective_number(effects[rng.permutation(6)] * rng.uniform(0.1, 9.0, 3)) == pytest.approx(value)
    assert effective_number(np.concatenate([effects / 2, effects / 2])) == pytest.approx(value)
