"""Judging from a store alone: in a process where torch cannot be imported."""

import os
import subprocess
import sys
from pathlib import Path

import wheeltap as wt
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.report import jsonfile
from wheeltap.report.report import Report
from wheeltap.sources import digits as source

JUDGE = """
import sys
sys.modules["torch"] = None
sys.modules["transformers"] = None
import wheeltap as wt
wt.judge(sys.argv[1]).json(sys.argv[2])
try:
    import torch
except ImportError:
    print("no torch")
"""


def judged_without_torch(store: Path, out: Path) -> Report:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", JUDGE, str(store), str(out)], env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (ran.returncode, ran.stdout) == (0, "no torch\n"), ran.stderr
    return Report(jsonfile.validate(out.read_bytes()))


def same(one: Report, two: Report) -> bool:
    kept = [
        (
            r.headline,
            r.findings,
            r.controls,
            r.void,
            r.record.curves,
            r.record.blocks,
            r.record.provenance,
            r.record.task,
        )
        for r in (one, two)
    ]
    return kept[0] == kept[1]


def test_an_audit_and_a_comparison_are_judged_without_torch(digits: Subject, digits_task: Task, tmp_path: Path) -> None:
    effort = wt.Effort(draws=6, control_draws=6, block_draws=2)
    audited = wt.audit(digits, digits_task, store=tmp_path / "a.wheeltap", effort=effort)
    again = judged_without_torch(tmp_path / "a.wheeltap", tmp_path / "a.json")
    # Through JSON both, so that tuples and numbers are written alike.
    assert same(again, Report(jsonfile.validate(audited.json(tmp_path / "b.json").read_bytes())))
    assert again.cost.forwards == 0.0 and again.cost.reused == audited.cost.trials
    other = Subject(source.train(1), name="other")
    compared = wt.compare(digits, other, digits_task, store=tmp_path / "c.wheeltap", effort=effort)
    again = judged_without_torch(tmp_path / "c.wheeltap", tmp_path / "c.json")
    assert same(again, Report(jsonfile.validate(compared.json(tmp_path / "d.json").read_bytes())))
    assert jsonfile.to_json(again.record)


def test_the_plan_run_last_is_the_one_judged(digits: Subject, digits_task: Task, tmp_path: Path) -> None:
    effort, store = wt.Effort(draws=2, control_draws=2, block_draws=0), tmp_path / "s.wheeltap"
    wt.audit(digits, digits_task, audits=["pruning"], store=store, effort=effort)
    wt.audit(digits, digits_task, audits=["quantization"], store=store, effort=effort)
    assert {finding.code for finding in wt.judge(store).findings} == {"WT002", "WT103"}
    wt.audit(digits, digits_task, audits=["pruning"], store=store, effort=effort)
    assert {finding.code for finding in wt.judge(store).findings} == {"WT002", "WT104"}
