"""The validity benchmark runs as documented and keeps what it does not measure again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_one_part_in_a_hurry(tmp_path: Path) -> None:
    kept = {"power": {"seconds": 1, "quick": False, "found": {"runs": 2, "observed": {}, "stated": {}}, "versions": {}}}
    (tmp_path / "validity.json").write_text(json.dumps(kept))
    command = [sys.executable, "-m", "benchmarks.validity", "--only", "coverage", "--quick", "--out", str(tmp_path)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    numbers = json.loads((tmp_path / "validity.json").read_text())
    assert numbers["power"] == kept["power"]
    for truth in numbers["coverage"]["found"].values():
        assert 0.88 <= truth["coverage"] <= 0.99
    page = (tmp_path / "validity.md").read_text()
    assert "Coverage" in page and "--quick" in page and "in 2 runs" in page


def test_an_unknown_part_is_an_error() -> None:
    command = [sys.executable, "-m", "benchmarks.validity", "--only", "covrage"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and "coverage" in ran.stderr
