"""What these tests share: the digits net, trained once."""

import pytest

from wheeltap.core.probe import Probe
from wheeltap.core.subject import Subject
from wheeltap.sources import digits as source


@pytest.fixture(scope="session")
def digits() -> Subject:
    """The demo's original net."""
    return source.subject(name="digits")


@pytest.fixture(scope="session")
def digits_probe() -> Probe:
    """Its test split."""
    return source.probe()
