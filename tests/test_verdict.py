"""The benchmark of verdicts runs as documented, and keeps its claim in small: a fifth of the forwards."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.full
def test_a_planted_gap_is_told_in_a_fifth_of_the_forwards_of_fixed_unpaired_designs(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers.json"
    command = [sys.executable, "-m", "benchmarks.verdict", "--quick", "--json", str(numbers)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    rows = json.loads(numbers.read_text())
    verdicts = [row for row in rows if row["name"] == "verdict_forwards"]
    assert len(verdicts) == 12
    for row in verdicts:
        assert row["power"] >= 0.9
        assert row["wrong_way"] <= 0.01
        if row["against"] == "whole passes":
            assert row["ratio"] <= 0.02
    alike = {row["against"]: row["ratio"] for row in verdicts if row["world"] == "simulated, draws met alike"}
    assert alike["cells"] <= 0.2
    for row in rows:
        if row["name"] == "false_alarms":  # in 200 races: one rate in a thousand would lie higher
            assert row["value"] <= 0.1, row
