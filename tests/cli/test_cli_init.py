"""``wheeltap init ci``: the job that it writes is run here as its shell steps; nothing that is there is replaced."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wheeltap.cli import main

yaml: Any = pytest.importorskip("yaml", reason="needs pyyaml")
PROJECT = Path(__file__).parents[1] / "plugin_package" / "project"
WORKFLOW = Path(".github/workflows/wheeltap.yml")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a model's code and its examples."""
    (tmp_path / "gated.py").write_text((PROJECT / "gated.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    import gated

    inputs, targets = gated.examples()
    np.savez(tmp_path / "test.npz", inputs=inputs.numpy(), targets=targets.numpy())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WHEELTAP_KEY", "0123456789abcdef")
    return tmp_path


def run_steps(here: Path, summary: Path) -> int:
    """Runs the shell steps of the written workflow as a runner does, all but the installation; gives the exit code."""
    (here / "bin").mkdir(exist_ok=True)
    (here / "bin" / "wheeltap").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m wheeltap "$@"\n')
    (here / "bin" / "wheeltap").chmod(0o755)
    own = {"PATH": f"{here / 'bin'}:{os.environ['PATH']}", "GITHUB_STEP_SUMMARY": str(summary)}
    code = 0
    for step in steps():
        if not step["run"].startswith("pip install") and (code == 0 or step.get("if") == "always()"):
            command = ["bash", "-e", "-c", step["run"]]
            code = subprocess.run(command, env={**os.environ, **own}, check=False, timeout=300).returncode or code
    return code


def steps() -> list[Any]:
    """Those of the workflow that are of a shell."""
    return [step for step in yaml.safe_load(WORKFLOW.read_text())["jobs"]["audit"]["steps"] if "run" in step]


def audit_in(steps: list[Any]) -> list[str]:
    """The words of the audit."""
    (script,) = (step["run"] for step in steps if "env" in step)
    return shlex.split(script.replace("\\\n", " "))


KEPT = ["--data", "test.npz", "--for", "int8,int4-tensor", "--margin", ".02"]


@pytest.mark.release
def test_the_steps_of_the_github_job_fail_where_a_scheme_costs(here: Path) -> None:
    assert main(["init", "ci", "gated:broken", *KEPT]) == 0
    assert run_steps(here, here / "summary.md") == 1
    assert "**costs**" in (here / "summary.md").read_text() and (here / "wheeltap-ci" / "report.html").is_file()


def test_the_audit_of_the_job_passes_and_measures_nothing_twice(here: Path) -> None:
    assert main(["init", "ci", "gated:net", *KEPT]) == 0
    assert main(audit_in(steps())[1:]) == 0
    cost = json.loads((here / "wheeltap-ci" / "report.json").read_text())["cost"]
    assert main(audit_in(steps())[1:]) == 0
    again = json.loads((here / "wheeltap-ci" / "report.json").read_text())["cost"]
    assert cost["trials"] > 0 == again["trials"] and again["reused"] == cost["trials"] + cost["reused"]


def test_every_kind_runs_the_same_command_whatever_stands_in_it(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = list[list[str]]()
    odd = 'it\'s "odd" $HOME {a: b} # no comment.npz'
    (here / odd).write_bytes(b"")
    for kind in ("github", "gitlab", "pre-commit"):
        assert main(["init", "ci", "gated:net", "--data", odd, "--kind", kind, "--fail-on", "may-cost"]) == 0
    said = capsys.readouterr().out
    found.append(audit_in(steps()))
    job = yaml.safe_load(Path(".gitlab/wheeltap.yml").read_text())["wheeltap"]
    assert job["rules"][0]["if"] == '$CI_PIPELINE_SOURCE == "merge_request_event"'
    found.append(shlex.split(job["script"][1].replace("\\\n", " ")))
    (hook,) = yaml.safe_load(Path(".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    found.append(shlex.split(hook["entry"]))
    found.append(shlex.split(said.rpartition("Try it here: ")[2]))
    assert found[0] == found[1] == found[2] == found[3]
    assert found[0][:6] == ["wheeltap", "audit", "gated:net", "--data", odd, "--for"]
    assert "may-cost" in found[0]


@pytest.mark.parametrize("kind", ["github", "pre-commit"])
def test_a_file_that_is_there_is_left_as_it_is(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "ci", "gated:net", "--kind", kind]) == 0
    (path,) = (Path(line.split(": ")[1].partition(". ")[0]) for line in capsys.readouterr().out.splitlines()[:1])
    path.write_text("mine\n")
    assert main(["init", "ci", "gated:net", "--kind", kind]) == 2
    assert path.read_text() == "mine\n"


@pytest.mark.parametrize(
    "bad",
    [["--for", "nf5"], ["--data", "a\nb"], ["--data", "${{ secrets.A }}"]],
)
def test_what_cannot_be_run_is_not_written(bad: list[str], here: Path) -> None:
    assert main(["init", "ci", "gated:net", *bad]) == 2
    assert not WORKFLOW.exists()
