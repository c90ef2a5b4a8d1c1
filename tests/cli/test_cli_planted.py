"""``doctor --plant`` and the table of invariances, as a user runs them."""

import json
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from wheeltap.cli import main
from wheeltap.cli.invariances import measured
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.gauge.settings import GAUGES
from wheeltap.perturb import perturbations
from wheeltap.plans.plan import Effort
from wheeltap.runs import planting
from wheeltap.runs.planting import DEFECTS
from wheeltap.testing import planted


def test_what_is_planted_is_found_and_what_is_not_is_not() -> None:
    case = planted.clusters()
    effort = Effort(draws=8, control_draws=8, block_draws=0)
    found = {one.defect: one for one in planting.detect(case.subject, case.task, runs=2, effort=effort)}
    assert list(found) == list(DEFECTS)
    cancel, null = found["cancel"], found["none"]
    assert cancel.found["WT101"][-1] == 2 and cancel.found["WT201"][-1] == 2
    assert cancel.found["WT001"] == (0,) * 5 == cancel.found["WT102"]
    assert cancel.smallest("WT101") is not None and cancel.smallest("WT102") is None
    assert all(counts == (0,) for counts in null.found.values())
    assert found["super-weight"].found["WT105"][-1] == 2
    assert found["super-weight"].found["WT105"][0] == 0


def test_a_model_in_which_nothing_can_be_planted_is_told_why() -> None:
    alone = Subject(nn.Linear(8, 3).eval())
    task = Task(planted.numbers(60, 8, seed=0), torch.arange(60) % 3)
    found = list(planting.detect(alone, task, runs=1, effort=Effort(draws=2, control_draws=2)))
    assert all(one.refused and not one.found for one in found)


def test_the_command_prints_a_table_and_writes_the_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "counts.json"
    words = ["doctor", "--plant", "digits", "--defects", "none", "--runs", "1", "--draws", "4", "--json", str(file)]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert "permuted copy" in told and "0 of 1" in told
    assert json.loads(file.read_text())[0]["found"]["WT101"] == [0]


def test_an_unknown_defect_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--plant", "digits", "--defects", "cancle"]) == 2
    assert "cancel" in capsys.readouterr().err


def test_the_table_of_invariances_is_the_declared_one() -> None:
    known = measured()
    for row in known.rows:
        assert row.declared == (row.gauge in perturbations.get(row.perturbation).invariant_to), msgspec.to_builtins(row)
        if row.declared:
            assert row.silent or (row.low < known.margin and row.high > -known.margin), "declared, and shown to shift"
    assert {row.gauge for row in known.rows} == set(GAUGES)


def test_the_table_of_invariances_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "perturbations", "--invariances"]) == 0
    told = capsys.readouterr().out
    assert "silent*" in told and "rotate" in told and "function" in told
