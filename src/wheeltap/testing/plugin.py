"""The pytest plugin: a store that tests and runs share, and the report of an audit beside the failure of its test."""

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the option of the fixture below."""
    said = "folder in which audits keep what they measured, from run to run [default: in pytest's cache]"
    parser.getgroup("wheeltap").addoption("--wheeltap-store", metavar="DIR", help=said)


@pytest.fixture(scope="session")
def wheeltap_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that is kept: what was measured of these weights and examples is not measured again."""
    given: str | None = request.config.getoption("--wheeltap-store")
    cache: Any = getattr(request.config, "cache", None)  # not there with -p no:cacheprovider
    kept = tmp_path_factory.mktemp("wheeltap") if cache is None else Path(cache.mkdir("wheeltap"))
    worker = os.environ.get("PYTEST_XDIST_WORKER")  # a store has one writer
    return (kept if given is None else Path(given).absolute()) / f"{worker or 'tests'}.wheeltap"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Puts the Markdown of the audit that failed a test beside its failure, where pages and JUnit files have it too."""
    made = yield
    text: object = getattr(call.excinfo.value, "markdown", "") if call.excinfo else ""
    if isinstance(text, str) and text:
        made.sections.append(("wheeltap report (Markdown)", text))
    return made
