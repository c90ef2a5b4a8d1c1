"""Which cases of a long list run in every run of the tests, and which only before a release."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def cases(names: Iterable[str], *, daily: Collection[str]) -> list[Any]:
    """Parameters of a test: these in every run, all others with the marker ``release``.

    Raises:
        AssertionError: One of the daily ones is not among the names.
    """
    names = list(names)
    assert set(daily) <= set(names), f"unknown cases: {set(daily) - set(names)}"
    return [name if name in daily else pytest.param(name, marks=pytest.mark.release) for name in names]
