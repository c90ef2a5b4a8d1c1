"""Sizes with a given effect: closed forms, jumps, and effects that are never reached."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from wheeltap.core.errors import UsageError
from wheeltap.engine.readings.symmetry import match

Floats = NDArray[np.float64]


@given(scale=st.floats(1e-4, 1e3), power=st.floats(0.5, 2.0), cap=st.floats(0.02, 5.0), guess=st.floats(1e-3, 10.0))
def test_a_rising_effect_is_met_if_and_only_if_it_gets_so_far(
    scale: float, power: float, cap: float, guess: float
) -> None:
    """cap tanh(scale s^power): the size is known."""

    def effect(_: NDArray[np.int64], sizes: Floats) -> Floats:
        return cap * np.tanh(scale * sizes**power)

    found = match(effect, np.array([guess]), target=0.1, bound=3.0)
    furthest = float(effect(np.zeros(1, dtype=np.int64), np.array([3.0]))[0])
    if furthest > 0.1 * 1.01:
        assert found.reached[0]
        assert found.effect[0] == pytest.approx(0.1, rel=0.0101)
        assert found.size[0] == pytest.approx((np.arctanh(0.1 / cap) / scale) ** (1 / power), rel=0.25)
    elif furthest < 0.1 * 0.99:
        assert not found.reached[0]
    assert 0.0 < found.size[0] <= 3.0


def test_many_are_met_in_few_evaluations_each() -> None:
    rng = np.random.default_rng(0)
    slope = 10 ** rng.uniform(-1, 2, 500)
    seen: list[int] = []

    def effect(index: NDArray[np.int64], sizes: Floats) -> Floats:
        seen.append(len(index))
        return np.tanh(slope[index] * sizes)

    found = match(effect, np.full(500, 0.05), target=0.1, bound=3.0)
    assert found.reached.all()
    assert found.effect == pytest.approx(0.1, rel=0.01)
    assert sum(seen) < 6 * 500


def test_jumps_and_effects_that_do_nothing_or_come_and_go() -> None:
    seen: list[int] = []

    def jump(index: NDArray[np.int64], sizes: Floats) -> Floats:
        seen.append(len(index))
        return np.where(sizes < 0.7, 0.01 * sizes, 1.0)

    def nothing(index: NDArray[np.int64], sizes: Floats) -> Floats:
        seen.append(len(index))
        return 0.0 * sizes

    assert not match(jump, np.array([0.1]), target=0.1, bound=3.0).reached[0] and len(seen) <= 40
    seen.clear()
    found = match(nothing, np.array([0.1, 3.0]), target=0.1, bound=3.0)
    assert not found.reached.any() and len(seen) <= 5
    assert found.size.tolist() == [3.0, 3.0]
    assert match(lambda _, s: np.abs(np.sin(5 * s)), np.array([0.9]), target=0.3, bound=3.0).reached[0]
    with pytest.raises(UsageError):
        match(lambda _, s: s, np.ones(1), target=0.0, bound=1.0)
    with pytest.raises(UsageError):
        match(lambda _, s: s * np.nan, np.ones(1), target=0.1, bound=3.0)
