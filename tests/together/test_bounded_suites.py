"""Files of suites that would mean more memory than a file of their size can."""

import json
from pathlib import Path

import pytest

from benchmarks.fuzz.__main__ import memory
from wheeltap.core.errors import FileFormatError, WheeltapError
from wheeltap.suites.circuits.circuit import load as load_units
from wheeltap.suites.lens.recorded import read

MEGABYTE = 2**20


def test_units_and_votes_that_no_file_of_this_size_can_mean(tmp_path: Path) -> None:
    sites = [{"site": "mlp0.units", "units": 2**30, "kept": [0]}]
    held = {"format": "wheeltap circuit of units, 2", "model": "m", "sites": sites}
    (tmp_path / "u.json").write_text(json.dumps(held))
    with pytest.raises(FileFormatError, match="at most 16,777,216"):
        load_units(tmp_path / "u.json")
    rows = [{"id": str(at), "votes": {f"label {at}": 2, "none": 1}} for at in range(4200)]
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    before = memory(reset=True)
    with pytest.raises(WheeltapError, match="table of votes is too large"):
        read(tmp_path / "v.jsonl")
    assert memory() - before < 100 * MEGABYTE
