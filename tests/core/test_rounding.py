"""One way of rounding: the same number, from counts and from single precision, is the same text."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wheeltap.core.errors import UnknownName
from wheeltap.core.plain import fixed
from wheeltap.core.records import Estimate
from wheeltap.report import words


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(0.4725, 3, "0.473"), (-0.0725, 3, "-0.073"), (7.25, 1, "7.3"), (-0.0004, 3, "0.000"), (0.0005, 3, "0.001")],
)
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


def test_of_many_names_the_nearest_are_listed_ones_own_first() -> None:
    known = [*(f"mmlu_part_{at}" for at in range(20_000)), "gsm8k", "mine"]
    error = UnknownName("task", "gsm8", known, first=["mine"])
    assert error.expected is not None and error.expected.startswith("mine, gsm8k")
    assert error.expected.endswith(" more") and error.expected.count(",") <= 11 and len(str(error)) < 500
    assert "Did you mean 'gsm8k'" in str(error) and "Did you mean 'mine'" in str(
        UnknownName("task", "mina", known, first=["mine"])
    )
