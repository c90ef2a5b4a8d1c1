"""One way of rounding: the same number, from counts and from single precision, is the same text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core.plain import fixed
from wheeltap.core.records import Estimate
from wheeltap.report import words


@pytest.mark.parametrize(("value", "digits", "text"), [(-0.0725, 3, "-0.073"), (-0.0004, 3, "0.000")])
def test_halves_go_away_from_zero_and_nothing_has_a_sign(value: float, digits: int, text: str) -> None:
    assert fixed(value, digits) == text


@given(st.integers(0, 4000))
def test_a_share_is_the_same_text_from_counts_and_from_single_precision(count: int) -> None:
    share = count / 4000
    single = float(np.float32(share))
    assert fixed(share, 3) == fixed(single, 3) == fixed(share - 1e-12, 3)
    shown = [Estimate.exact("x", one, "share") for one in (share, single)]
    assert str(shown[0]) == str(shown[1])
    if share >= 0.01:
        assert words.number(share, like=(1.0,)) == fixed(share, 3) == str(shown[0]).split()[0]
