"""The validity benchmark runs as documented and keeps what it does not measure again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.release
def test_one_part_in_a_hurry(tmp_path: Path) -> None:
    kept = {"peers": {"seconds": 1, "quick": False, "found": PEERS, "versions": {"wheeltap": "0"}}}
    (tmp_path / "validity.json").write_text(json.dumps(kept))
    command = [sys.executable, "-m", "benchmarks.validity", "--only", "coverage", "--quick", "--out", str(tmp_path)]
    command += ["--stores", str(tmp_path / "stores")]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    numbers = json.loads((tmp_path / "validity.json").read_text())
    assert numbers["peers"] == kept["peers"]
    for truth in numbers["coverage"]["found"].values():
        assert 0.88 <= truth["coverage"] <= 0.99
    page = (tmp_path / "validity.md").read_text()
    # A summary first, what was measured in a hurry said, long tables folded, and what was known before kept.
    assert page.index("| claim | measured | holds |") < page.index("## Coverage") < page.index("## Peers")
    assert "--quick" in page and "<details>" in page and "WeightWatcher: not measured" in page


PEERS = {
    "largest_difference": 1e-6, "ours": {"WT101": ["excluded", "0.000 [0.000, 0.000]"]},
    "weightwatcher": "not installed", "loss_landscapes": "not installed",
}  # fmt: skip


def test_an_unknown_part_is_an_error() -> None:
    command = [sys.executable, "-m", "benchmarks.validity", "--only", "covrage"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "coverage" in ran.stderr
