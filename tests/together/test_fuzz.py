"""The small form of ``python -m benchmarks.fuzz``: no reader fails otherwise than with an error of ours."""

from pathlib import Path

import pytest

from benchmarks.fuzz.__main__ import fuzzed
from benchmarks.fuzz.readers import readers

QUICK = ("npz", "answers", "items", "toml", "genome", "artifact", "circuit")


def test_readers_of_hostile_files(tmp_path: Path) -> None:
    for name in QUICK:
        tally = fuzzed(name, readers(tmp_path)[name], mutations=20, seed="tests")
        assert not tally.failures, (name, tally.failures)
        assert tally.refused > 6, (name, tally)


@pytest.mark.release
@pytest.mark.parametrize("name", readers(Path()))
@pytest.mark.filterwarnings("ignore")
def test_every_reader_of_hostile_files(name: str, tmp_path: Path) -> None:
    tally = fuzzed(name, readers(tmp_path)[name], mutations=100, seed="full")
    assert not tally.failures
