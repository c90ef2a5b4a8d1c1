"""``doctor --plant`` and the table of invariances, as a user runs them."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from wheeltap.cli import main
from wheeltap.cli.listing import measured_invariances
from wheeltap.gauge.base import GAUGES
from wheeltap.perturb import perturbations
from wheeltap.sources import digits

TANH = """
import torch
from torch import nn
from wheeltap.sources import digits
from wheeltap.core.task import Task

def net():
    torch.manual_seed(0)
    task = digits.task()
    model = nn.Sequential(nn.Linear(64, 6), nn.Tanh(), nn.Linear(6, 10)).eval()
    return model, Task(task.inputs, model(task.inputs).argmax(1))

def alone():
    model, task = net()
    return nn.Sequential(model[0]).eval(), Task(task.inputs, torch.arange(len(task.targets)) % 6)
"""


def planted(*words: str, json_to: Path) -> dict[str, dict[str, Any]]:
    assert main(["doctor", "--plant", *words, "--runs", "2", "--draws", "4", "--json", str(json_to)]) == 0
    return {one["defect"]: one for one in json.loads(json_to.read_text())}


@pytest.mark.release
def test_what_is_planted_is_found_and_sound_copies_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    split = digits.split()  # a third of the examples: the worst weight and its copies are measured on each
    np.savez(tmp_path / "few.npz", inputs=split.test_inputs[::3].numpy(), targets=split.test_targets[::3].numpy())
    few = ("--data", str(tmp_path / "few.npz"))
    found = planted("digits", *few, "--defects", "super-weight", json_to=tmp_path / "counts.json")
    said = capsys.readouterr().out
    assert "one weight that holds everything" in said and "dead units" in said and "2 of 2" in said
    heavy, null = found["super-weight"], found["none"]
    assert list(found) == ["super-weight", "none"]
    assert heavy["found"]["WT105"][-1] == 2 and heavy["found"]["WT105"][0] == 0
    assert heavy["smallest"]["WT105"] is not None and heavy["smallest"]["WT001"] is None
    assert heavy["found"]["WT001"] == [0] * 5 == heavy["found"]["WT701"]
    assert all(counts == [0] for counts in null["found"].values()) and not null["smallest"]


@pytest.mark.release
def test_a_defect_that_cannot_be_planted_is_named_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tanh_nets.py").write_text(TANH)
    monkeypatch.chdir(tmp_path)
    found = planted("tanh_nets:net", "--defects", "super-weight", json_to=tmp_path / "counts.json")
    said = capsys.readouterr().out
    assert "super-weight: not planted. A super weight cannot be planted in this model." in said
    assert not found["super-weight"]["found"] and found["none"]["found"]["WT101"] == [0]
    found = planted("tanh_nets:alone", json_to=tmp_path / "counts.json")
    assert all(one["refused"] and not one["found"] for one in found.values()) and len(found) == 5
    assert capsys.readouterr().out.count("not planted") == 5


def test_an_unknown_defect_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--plant", "digits", "--defects", "cancle"]) == 2
    assert "cancel" in capsys.readouterr().err


def test_the_table_of_invariances_is_the_declared_one(capsys: pytest.CaptureFixture[str]) -> None:
    known = measured_invariances()
    for row in known.rows:
        assert row.declared == (row.gauge in perturbations.get(row.perturbation).invariant_to), msgspec.to_builtins(row)
        if row.declared:
            assert row.silent or (row.low < known.margin and row.high > -known.margin), "declared, and shown to shift"
    assert {row.gauge for row in known.rows} == set(GAUGES)
    assert main(["list", "perturbations", "--invariances"]) == 0
    said = capsys.readouterr().out
    assert "silent*" in said and "rotate" in said and "function" in said
