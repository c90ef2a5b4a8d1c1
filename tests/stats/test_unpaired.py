"""The comparison of two scores that forgets the pairs, against its textbook form and by simulation."""

import numpy as np
import pytest
from scipy import stats
from simulation import ends

from wheeltap.stats.unpaired import unpaired_effect


def test_it_is_welch_with_a_normal_quantile() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=4000), rng.normal(0.05, size=3000)
    found, expected = unpaired_effect(x, y, unit="1"), stats.ttest_ind(x, y, equal_var=False)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-2)
    assert ends(found) == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=1e-4)
    alike = unpaired_effect(np.ones(9), np.zeros(9), unit="1")  # nothing varies
    assert (alike.value, alike.low, alike.p) == (1.0, None, None)


def test_the_released_solutions_of_gsm8k() -> None:
    """515 and 458 right of 1,319: z 2.30, p .021."""
    x, y = (np.arange(1319) < right for right in (515, 458))
    found = unpaired_effect(x.astype(float), y.astype(float), unit="accuracy")
    assert found.p == pytest.approx(0.0214, abs=2e-4)


def test_it_is_too_wide_where_items_are_shared() -> None:
    """5 % of independent samples are found; fewer where hard items are hard for both."""
    rng = np.random.default_rng(1)
    found = np.zeros(2)
    for _ in range(2000):
        skill = rng.normal(size=200)
        one, alike, other = (
            (about + rng.normal(size=200) > 0).astype(float) for about in (skill, skill, rng.normal(size=200))
        )
        found += [(unpaired_effect(one, two, unit="1").p or 1.0) <= 0.05 for two in (other, alike)]
    apart, paired = found / 2000
    assert 0.037 <= apart <= 0.064
    assert paired < 0.02
