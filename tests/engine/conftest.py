"""What these tests share: the digits net, trained once."""

import pytest

from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.sources import digits as source


@pytest.fixture(scope="session")
def digits() -> Subject:
    """The demo's original net."""
    return source.subject(name="digits")


@pytest.fixture(scope="session")
def digits_task() -> Task:
    """Its test split."""
    return source.task()
