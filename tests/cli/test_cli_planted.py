"""``doctor --plant`` and the table of invariances, as a user runs them."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from wheeltap.cli import main
from wheeltap.cli.listing import measured_invariances
from wheeltap.gauge.base import GAUGES
from wheeltap.perturb import perturbations
from wheeltap.sources import digits


@pytest.mark.release
def test_what_is_planted_is_found_and_sound_copies_are_not(tmp_path: Path) -> None:
    split = digits.split()  # a third of the examples: the worst weight and its copies are measured on each
    np.savez(tmp_path / "few.npz", inputs=split.test_inputs[::3].numpy(), targets=split.test_targets[::3].numpy())
    few = ("--data", str(tmp_path / "few.npz"))
    counts = tmp_path / "counts.json"
    plant = ["doctor", "--plant", "digits", *few, "--defects", "super-weight", "--runs", "2", "--draws", "4"]
    assert main([*plant, "--json", str(counts)]) == 0
    found = {one["defect"]: one for one in json.loads(counts.read_text())}
    heavy, null = found["super-weight"], found["none"]
    assert list(found) == ["super-weight", "none"]
    assert heavy["found"]["WT105"][-1] == 2 and heavy["found"]["WT105"][0] == 0
    assert heavy["smallest"]["WT105"] is not None and heavy["smallest"]["WT001"] is None
    assert heavy["found"]["WT001"] == [0] * 5 == heavy["found"]["WT701"]
    assert all(counts == [0] for counts in null["found"].values()) and not null["smallest"]


def test_the_table_of_invariances_is_the_declared_one() -> None:
    known = measured_invariances()
    for row in known.rows:
        assert row.declared == (row.gauge in perturbations.get(row.perturbation).invariant_to), msgspec.to_builtins(row)
        if row.declared:
            assert row.silent or (row.low < known.margin and row.high > -known.margin), "declared, and shown to shift"
    assert {row.gauge for row in known.rows} == set(GAUGES)
